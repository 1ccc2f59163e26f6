"""Run members: group them into populations, train and measure each, and keep every result as it comes."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from modulab.composing import run_id
from modulab.errors import ConfigError
from modulab.networks import NetworkShape, PopulationWeights, population_weights
from modulab.progress import ProgressReport
from modulab.settings import Member, Trainer, read_member, structural_key
from modulab.sweep.pack import population_size
from modulab.sweep.results import Status, completed, curve_table, result_table, save
from modulab.training.checkpoints import read_checkpoint
from modulab.training.fit import PopulationResult, SetUpError, choose_device, fit_population

POPULATIONS = "populations"


@dataclass(frozen=True)
class Run:
    """A member with the plain config that it was read from, and the hash of that config."""

    run_id: str
    config: Mapping[str, Any]
    member: Member


@dataclass(frozen=True)
class TrainedMembers:
    """Members read back from disk: their configs, and their weights in the same order."""

    configs: list[dict[str, Any]]
    weights: PopulationWeights


def plan_populations(runs: Sequence[Run], trainer: Trainer) -> list[list[Run]]:
    """Return runs grouped by their structural settings and cut to what fits in memory, in order."""
    groups: defaultdict[tuple[tuple[str, object], ...], list[Run]] = defaultdict(list)
    for run in runs:
        groups[structural_key(run.member)].append(run)
    populations: list[list[Run]] = []
    for group in groups.values():
        size = population_size([run.member for run in group], trainer)
        populations.extend(group[first : first + size] for first in range(0, len(group), size))
    return populations


def run_members(configs: Sequence[Mapping[str, Any]], trainer: Trainer, folder: Path) -> None:
    """Train and measure every config that `folder` does not hold the result of yet.

    Results are written after each population; a population that fails leaves rows that say why, and the
    others train on.

    Raises: ConfigError for a config, device or file that cannot be used; KeyboardInterrupt on Ctrl-C, after
    which the same call goes on where this one stopped.
    """
    runs = [Run(run_id(config), config, read_member(config)) for config in configs]
    choose_device(trainer.accelerator)
    done = completed(folder)
    pending = [run for run in runs if run.run_id not in done]
    populations = plan_populations(pending, trainer)
    steps = sum(run.member.training.steps for run in pending)
    with ProgressReport(trainer.progress, len(pending), steps) as progress:
        for number, population in enumerate(populations, start=1):
            if len(populations) > 1:
                progress.say(f"population {number} of {len(populations)}, {len(population)} networks")
            _run_population(population, trainer, folder, progress)


def checkpoint_path(folder: Path, population: Sequence[Run]) -> Path:
    """Return where a population's checkpoint lies: under a hash of its members, which a later run finds again."""
    digest = hashlib.sha256("\n".join(run.run_id for run in population).encode()).hexdigest()
    return folder / POPULATIONS / f"{digest[:16]}.ckpt"


def _run_population(
    population: Sequence[Run], trainer: Trainer, folder: Path, progress: ProgressReport
) -> None:
    members = [run.member for run in population]
    try:
        result = fit_population(members, trainer, checkpoint_path(folder, population), progress)
    except SetUpError as error:
        if len(population) > 1:
            middle = len(population) // 2
            for half in (population[:middle], population[middle:]):
                _run_population(half, trainer, folder, progress)
        else:
            _save_failed(population, folder, error)
    except (RuntimeError, ValueError, ArithmeticError, MemoryError) as error:
        if isinstance(error, ConfigError):
            raise
        _save_failed(population, folder, error)
    else:
        _save_finished(population, folder, result)


def _save_failed(population: Sequence[Run], folder: Path, error: Exception) -> None:
    reason = next(iter(str(error).strip().splitlines()), "")
    message = reason if isinstance(error, SetUpError) else f"{type(error).__name__}: {reason}"
    count = len(population)
    save(folder, _rows(population, ["failed" for _ in population], [message] * count, 0.0, {}))


def _save_finished(population: Sequence[Run], folder: Path, result: PopulationResult) -> None:
    statuses: list[Status] = ["completed" if step < 0 else "diverged" for step in result.diverged_at]
    errors = [
        None if step < 0 else f"the loss or a weight ceased to be finite at step {step}"
        for step in result.diverged_at
    ]
    by_member = {name: list(zip(*points, strict=True)) for name, points in result.curves.items()}
    curves = curve_table([run.run_id for run in population], result.curve_steps, by_member)
    rows = _rows(population, statuses, errors, result.seconds / len(population), result.measures)
    save(folder, rows, curves)


def _rows(
    population: Sequence[Run],
    statuses: Sequence[Status],
    errors: Sequence[str | None],
    seconds: float,
    measures: Mapping[str, Sequence[float]],
) -> pa.Table:
    configs = [run.config for run in population]
    run_ids = [run.run_id for run in population]
    return result_table(configs, run_ids, statuses, errors, [seconds] * len(population), measures)


def load_members(path: str | Path) -> list[TrainedMembers]:
    """Return the trained members of a run's or sweep's folder, one group a population.

    Raises: ConfigError where there are none, or where a checkpoint is damaged or of another version.
    """
    files = sorted(Path(path).rglob(f"{POPULATIONS}/*.ckpt"))
    if not files:
        raise ConfigError(
            f"{path}: holds no {POPULATIONS}/*.ckpt. Give the folder that modulab train printed."
        )
    return [_read_members(file) for file in files]


def _read_members(file: Path) -> TrainedMembers:
    content = read_checkpoint(file)
    saved = content["modulab"]
    in_features, hidden, out_features, activation = saved["shape"]
    shape = NetworkShape(in_features, tuple(hidden), out_features, activation)
    parameters = content["state_dict"]["parameters_by_row"][saved["row_of_member"]]
    return TrainedMembers(saved["members"], population_weights(parameters, shape))
