"""Run the experiments of claims side by side, each in its own process and folder, as `modulab train` would."""

from __future__ import annotations

import math
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import redirect_stderr, suppress
from dataclasses import dataclass, replace
from functools import partial
from io import TextIOBase
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from modulab.cores import cpu_count
from modulab.errors import ConfigError, describe
from modulab.memory import free_bytes
from modulab.notebook import CellText, in_notebook
from modulab.results.manifest import checkpoint_path, read_manifests
from modulab.results.store import completed, load_columns, load_results
from modulab.text import printable, to_stderr
from modulab.workers import KILLED, Send, Workers


@dataclass(frozen=True)
class Experiment:
    """An experiment of a claim: what `modulab train` is given, and the folder that it writes to."""

    name: str
    overrides: tuple[str, ...]
    folder: Path
    arms: tuple[str, ...] = ()
    """The run_ids of networks to train with all others of their settings, at whatever seed; none for all arms."""

    def at_seeds(self, number: int, arms: Iterable[str]) -> Experiment:
        """Return this experiment at `number` seeds of some of its arms."""
        key = "population.seeds="
        others = [override for override in self.overrides if not override.startswith(key)]
        return replace(self, overrides=(*others, f"{key}{number}"), arms=tuple(sorted(arms)))

    @property
    def command(self) -> list[str]:
        """Return the words of the command that runs this experiment alone."""
        return ["modulab", "train", *self.overrides, f"hydra.run.dir={self.folder}"]


def run_on_this_machine(
    experiments: Sequence[Experiment], processes: int | None, style: str
) -> tuple[dict[str, list[str]], dict[str, str]]:
    """Run experiments as `run_experiments` does, `processes` at once, or as many as suit this machine's cores."""
    from modulab.training.execution import choose_device  # takes seconds to import

    # An accelerator takes populations one at a time; a processor's cores are shared out.
    cores = cpu_count() if choose_device("auto").type == "cpu" else 1
    # Experiments that took longest before start first, so that no core is idle at the end.
    spent = {experiment.name: seconds_spent(experiment.folder) for experiment in experiments}
    ordered = sorted(experiments, key=lambda experiment: spent[experiment.name], reverse=True)
    found: dict[str, list[str]] = {}
    errors: dict[str, str] = {}
    for part in _parts(ordered, spent):
        at_once = min(processes or cores, len(part))
        run_ids, failed = run_experiments(part, at_once, max(1, cores // at_once), style)
        found |= run_ids
        errors |= failed
    return found, errors


def _parts(ordered: Sequence[Experiment], spent: Mapping[str, float]) -> list[Sequence[Experiment]]:
    """Return experiments in parts that run one after another: first one that takes longer than all others together.

    Alone it has all cores, of which all but one would be idle for most of its time otherwise.
    """
    if len(ordered) > 1 and spent[ordered[0].name] > sum(spent[each.name] for each in ordered[1:]) > 0:
        return [ordered[:1], ordered[1:]]
    return [ordered]


def seconds_spent(folder: Path) -> float:
    """Return how long the networks of a folder took to train and measure, as far as they have results."""
    if not completed(folder):
        return 0.0
    return sum(load_columns(folder, ["seconds"])["seconds"].tolist())


def asked_rows(experiment: Experiment, run_ids: Sequence[str]) -> pd.DataFrame:
    """Return the rows that an experiment asked for; its folder may hold others, of an earlier version."""
    results = load_results(experiment.folder)
    return results.loc[results["run_id"].isin(list(run_ids)), :].reset_index(drop=True)


def claims_command(preset: str, names: Sequence[str] | None, folder: Path, *options: str) -> str:
    """Return the command that gives the same again."""
    only = [] if names is None else ["--only", ",".join(names)]
    return shlex.join(["modulab", "claims", *options, "--preset", preset, *only, "--folder", str(folder)])


def run_experiments(
    experiments: Sequence[Experiment], processes: int, threads: int | None, style: str
) -> tuple[dict[str, list[str]], dict[str, str]]:
    """Train what is missing of each experiment, `processes` at once; return the run_ids of each, and why others failed.

    The processes share the memory that a population may take. An experiment whose process is killed, as the
    kernel does where memory runs out, is tried again with populations of half the size.

    Raises: KeyboardInterrupt on Ctrl-C, when all have stopped: the same call continues where this one ended.
    """
    # Torch and Lightning take seconds to import: once, in the process that the others are forked from.
    workers = Workers(["modulab.sweep.this_machine", "modulab.config.composing", "hydra"])
    waiting = list(experiments)
    by_name = {experiment.name: experiment for experiment in experiments}
    found: dict[str, list[str]] = {}
    errors: dict[str, str] = {}
    largest: dict[str, int] = {}
    memory = free_bytes() / 2**30 / 2 / max(1, processes)

    def end(experiment: str) -> None:
        workers.end(experiment)
        display.ended(experiment)

    with _Display(style, len(experiments)) as display:
        try:
            while waiting or len(workers):
                while waiting and len(workers) < processes:
                    experiment = waiting.pop(0)
                    own = _own_settings(experiment, threads, memory, largest.get(experiment.name))
                    workers.start(experiment.name, _work, experiment, own)
                message = workers.next()
                if message.kind == "line":
                    display.say(message.worker, str(message.content))
                    continue
                if message.kind == "done":
                    found[message.worker] = message.content
                elif message.kind == "killed" and (size := halve_populations(by_name[message.worker].folder)):
                    display.say(message.worker, f"{KILLED}; trying again, {size} networks at once")
                    largest[message.worker] = size
                    workers.end(message.worker)
                    waiting.insert(0, by_name[message.worker])
                    continue
                else:
                    errors[message.worker] = str(message.content)
                end(message.worker)
        except KeyboardInterrupt:
            workers.stop()
            raise
    return found, errors


def _own_settings(
    experiment: Experiment, threads: int | None, memory_gib: float, largest: int | None
) -> list[str]:
    """Return what an experiment's process is given beside the experiment, unless that says otherwise."""
    settings = {
        "trainer.threads": threads,
        "trainer.largest_population": largest,
        "trainer.memory_gib": round(memory_gib, 3) if memory_gib < math.inf else None,
    }
    given = {override.partition("=")[0] for override in experiment.overrides}
    return [f"{key}={value}" for key, value in settings.items() if value is not None and key not in given]


def halve_populations(folder: Path) -> int | None:
    """Return half the size of the largest population that a killed process left unfinished, to try again with.

    Checkpoints of larger ones are removed, so their members are put into new populations. None where a
    single network was too much, or where nothing had begun.
    """
    done = completed(folder)
    left = {path: configs for path, configs in read_manifests(folder) if not done.issuperset(configs)}
    size = max(map(len, left.values()), default=0) // 2
    if not size:
        return None
    for path, configs in left.items():
        if len(configs) > size:
            checkpoint_path(folder, list(configs)).unlink(missing_ok=True)
            path.unlink()
    return size


def _work(send: Send, experiment: Experiment, own: Sequence[str]) -> None:
    from modulab.sweep.planned import train_planned

    with redirect_stderr(_LineSender(partial(send, "line"))):
        try:
            send(
                "done",
                train_planned(
                    [*experiment.overrides, *own, "trainer.progress=lines"],
                    experiment.folder,
                    experiment.command,
                    experiment.arms,
                ),
            )
        except ConfigError as error:
            send("error", str(error))
        except KeyboardInterrupt:
            send("error", "interrupted")
        except BaseException as error:
            send("error", describe(error))


class _LineSender(TextIOBase):
    """Replaces standard error, and passes on each line that is written to it."""

    def __init__(self, send: Any) -> None:
        self._send = send
        self._begun = ""

    def write(self, text: str) -> int:
        """Keep text until its line is complete."""
        *lines, self._begun = (self._begun + text).split("\n")
        for line in lines:
            if line:
                self._send(line)
        return len(text)


class _Display:
    """Shows the running experiments and their last messages: a bar, one text in a notebook, or lines."""

    def __init__(self, style: str, experiments: int) -> None:
        notebook = in_notebook()
        terminal = sys.stderr.isatty() or notebook if style == "auto" else style == "bar"
        self._quiet = style == "off"
        self._bars: Progress | None = None
        self._cell = CellText() if terminal and notebook else None
        self._experiments, self._ended = experiments, 0
        if terminal and not notebook:
            self._bars = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                console=Console(stderr=True),
            )
            self._bars.add_task("experiments", total=experiments)
        self._said: dict[str, str] = {}

    def __enter__(self) -> _Display:
        if self._bars is not None:
            with suppress(OSError):  # of a terminal that was closed
                self._bars.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._bars is not None:
            with suppress(OSError):
                self._bars.stop()

    def say(self, experiment: str, line: str) -> None:
        """Show the message of an experiment."""
        self._said[experiment] = line
        if not self._describe() and not self._quiet:
            to_stderr(printable(f"{experiment}: {line}"))

    def ended(self, experiment: str) -> None:
        """Count an experiment as ended."""
        self._said.pop(experiment, None)
        self._ended += 1
        if self._bars is not None:
            self._bars.advance(self._bars.task_ids[0])
        if not self._describe() and not self._quiet:
            to_stderr(f"{experiment}: ended")

    def _describe(self) -> bool:
        """Show all messages where text can be replaced, and return whether it can."""
        lines = [f"{name}: {line}" for name, line in self._said.items()]
        if self._bars is not None:
            self._bars.update(self._bars.task_ids[0], description="\n".join([*lines, "experiments"]))
        elif self._cell is not None:
            words = f"{self._ended} of {self._experiments} experiments"
            self._cell.show("\n".join([*map(printable, lines), words]), at_once=not lines)
        return self._bars is not None or self._cell is not None
