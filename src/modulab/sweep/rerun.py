"""Train one row of a table again, alone, and compare: results should not depend on packing."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import pandas as pd
import torch

from modulab.config.identity import run_id
from modulab.config.settings import Trainer, read_run
from modulab.config.trust import check_named_code
from modulab.errors import ConfigError
from modulab.results.manifest import POPULATIONS, read_manifests
from modulab.results.named_rows import row_number
from modulab.results.store import load_curves, load_results
from modulab.results.summary import metric_names
from modulab.results.versions import versions
from modulab.schema import read_settings
from modulab.sweep.run import plan_work
from modulab.sweep.this_machine import run_work
from modulab.training.execution import Engine
from modulab.training.fit import device_name

_RESULTS_OF = ("completed", "diverged")


@dataclass(frozen=True)
class Comparison:
    """A recorded member and the same member trained again: all numbers of both, and whether they must agree."""

    run_id: str
    status: tuple[str, str]
    measures: dict[str, tuple[float, float]]
    """Each measure, as recorded and as measured again."""
    curves: dict[str, tuple[float, float]]
    """Each point of the curves, as measure and step, likewise."""
    differences: list[str]
    """The differences between then and now because of which equal bits are not expected; empty if they are."""

    @property
    def deviating(self) -> dict[str, tuple[float, float]]:
        """Return the measures and points that are not the same number, or both none."""
        return {name: pair for name, pair in (self.measures | self.curves).items() if not _same(*pair)}

    @property
    def agrees(self) -> bool:
        """Return whether status and all numbers are the same, bit for bit."""
        return self.status[0] == self.status[1] and not self.deviating


def rerun(path: Path, member: str, trainer: Mapping[str, Any], modules: Collection[str] = ()) -> Comparison:
    """Train the member of one row again, in its own population, and compare it with the row.

    `member` is a row's number, from 0, in the order of the results file, or the beginning of its run_id.
    `trainer` holds plain trainer settings; the engine is the one that the row was trained with. `modules` are the
    user's own that the member's config may name.

    Raises: ConfigError if there is no such row, if it has no result, if its config is not stored, or if
    it names other code.
    """
    results = load_results(path)
    row = _row(results, row_number(results, member))
    if row["status"] not in _RESULTS_OF:
        raise ConfigError(
            f"--member {member}: that member is {row['status']}; there is nothing to compare with. "
            "Run the sweep's command again to train it."
        )
    name = str(row["run_id"])
    run = read_run(_config_of(path, name, modules))
    changes = {"engine": row["engine"]} if row["engine"] in get_args(Engine) else {}
    if row["device"] == device_name(torch.device("cpu")):
        changes["accelerator"] = "cpu"
    settings = read_settings({**trainer, **changes}, "trainer", Trainer)
    with tempfile.TemporaryDirectory() as folder:
        run_work(plan_work([run], settings, Path(folder)), Path(folder))
        fresh = _row(load_results(folder), 0)
        if fresh["status"] not in _RESULTS_OF:
            raise ConfigError(
                f"--member {member}: training it again failed: {fresh['error']}. The code that its config names has "
                "changed, or fails intermittently."
            )
        curves_again = load_curves(folder)
    return Comparison(
        run_id=name,
        status=(str(row["status"]), str(fresh["status"])),
        measures=_pairs(_measures(row), _measures(fresh)),
        curves=_pairs(_points(load_curves(path), name), _points(curves_again, name)),
        differences=_differences(row, fresh),
    )


def _config_of(path: Path, name: str, modules: Collection[str]) -> dict[str, Any]:
    """Return the config of a member as it is kept beside its population's checkpoint."""
    folder = path if path.is_dir() else path.parent
    for populations in sorted(folder.rglob(POPULATIONS)):
        for file, configs in read_manifests(populations.parent):
            if name in configs:
                if run_id(configs[name]) != name:
                    raise ConfigError(
                        f"{file}: the config of {name} has been changed; its hash no longer fits."
                    )
                check_named_code(configs[name], file, modules)
                return configs[name]
    raise ConfigError(
        f"{folder}: holds no {POPULATIONS}/*.members.json.gz with member {name}, which is its config. "
        "Give the folder that modulab train wrote, with everything in it."
    )


def _row(results: pd.DataFrame, number: int) -> dict[str, Any]:
    """Return a row as a dict, with None for an empty cell."""
    (row,) = results.iloc[[number]].to_dict("records")
    return {str(name): None if pd.isna(value) else value for name, value in row.items()}


def _measures(row: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(row[name]) for name in metric_names(row) if row[name] is not None}


def _points(curves: pd.DataFrame, name: str) -> dict[str, float]:
    own = curves[curves["run_id"] == name]
    points = zip(own["measure"], own["step"], own["value"], strict=True)
    return {f"{measure} at step {step}": float(value) for measure, step, value in points}


def _pairs(then: Mapping[str, float], now: Mapping[str, float]) -> dict[str, tuple[float, float]]:
    names = [*then, *(name for name in now if name not in then)]
    return {name: (then.get(name, math.nan), now.get(name, math.nan)) for name in names}


def _same(one: float, other: float) -> bool:
    return one == other or (math.isnan(one) and math.isnan(other))


def _differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    names = ["engine", "device", *(f"version.{name}" for name in versions())]
    return [
        f"{name.removeprefix('version.')} was {then.get(name)} and is {now.get(name)}"
        for name in names
        if then.get(name) != now.get(name)
    ]


def report(comparison: Comparison, shown: int = 12) -> tuple[list[str], list[list[str]], list[str]]:
    """Return headings and rows of the numbers that deviate, and sentences that say what the comparison found."""
    then, now = comparison.status
    sentences: list[str] = []
    rows: list[list[str]] = []
    if comparison.agrees:
        sentences.append(
            f"{comparison.run_id}: trained alone, it agrees bit for bit: {len(comparison.measures)} measures and "
            f"{len(comparison.curves)} points of its curves."
        )
    else:
        deviating = comparison.deviating
        for name, (one, other) in list(deviating.items())[:shown]:
            rows.append([name, f"{one:.9g}", f"{other:.9g}", f"{_relative(one, other):.1e}"])
        if len(deviating) > shown:
            sentences.append(f"... and {len(deviating) - shown} more.")
        total = len(comparison.measures) + len(comparison.curves)
        sentences.append(
            f"{comparison.run_id}: {len(deviating)} of {total} numbers differ"
            + (f", and it was {then} and is {now}." if then != now else ".")
        )
    if comparison.differences and not comparison.agrees:
        sentences.append(f"Equal bits are not promised here: {'; '.join(comparison.differences)}.")
    elif not comparison.agrees:
        sentences.append("They should be the same bits. This is a fault: please report it with this row.")
    return ["number", "recorded", "again", "relative"], rows, sentences


def _relative(one: float, other: float) -> float:
    scale = max(abs(one), abs(other))
    return abs(one - other) / scale if scale else math.nan
