"""Run the experiments of claims side by side, each in a process and a folder of its own, as `modulab train` would."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass
from functools import partial
from io import TextIOBase
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from modulab.errors import ConfigError


@dataclass(frozen=True)
class Experiment:
    """An experiment of a claim: what `modulab train` is given, and the folder that it writes to."""

    name: str
    overrides: tuple[str, ...]
    folder: Path

    @property
    def command(self) -> list[str]:
        """Return the words of the command that runs this experiment alone."""
        return ["modulab", "train", *self.overrides, f"hydra.run.dir={self.folder}"]


@dataclass(frozen=True)
class _Message:
    """What a process tells of its experiment: a line of progress, the run_ids that it ended with, or an error."""

    experiment: str
    kind: str
    content: Any


def run_experiments(
    experiments: Sequence[Experiment], processes: int, threads: int | None, style: str
) -> dict[str, list[str]]:
    """Train what is missing of each experiment, so many at once, and return the run_ids of each.

    Raises: ConfigError for what a user can set right, after the other experiments have ended; KeyboardInterrupt
    on Ctrl-C, when all have stopped: the same call goes on where this one ended.
    """
    context = multiprocessing.get_context("forkserver")
    # Torch and Lightning take seconds to import: once, in the process that the others are forked from.
    context.set_forkserver_preload(["modulab.experiment", "modulab.composing", "hydra"])
    messages: Any = context.Queue()
    waiting = list(experiments)
    working: dict[str, ForkServerProcess] = {}
    found: dict[str, list[str]] = {}
    errors: dict[str, str] = {}

    def end(experiment: str) -> None:
        working.pop(experiment).join()
        display.ended(experiment)

    with _Display(style, len(experiments)) as display:
        try:
            while waiting or working:
                while waiting and len(working) < processes:
                    experiment = waiting.pop(0)
                    process = context.Process(target=_work, args=(experiment, threads, messages))
                    process.start()
                    working[experiment.name] = process
                message = _next(messages, working)
                if message.kind == "line":
                    display.say(message.experiment, str(message.content))
                    continue
                if message.kind == "done":
                    found[message.experiment] = message.content
                else:
                    errors[message.experiment] = str(message.content)
                end(message.experiment)
        except KeyboardInterrupt:
            _stop(list(working.values()))
            raise
    if errors:
        raise ConfigError("\n".join(f"{name}: {error}" for name, error in errors.items()))
    return found


def _next(messages: Any, working: dict[str, ForkServerProcess]) -> _Message:
    """Return the next message; a process that ended without its last one has died, which is an error of its own."""
    from queue import Empty

    while True:
        try:
            return messages.get(timeout=0.5)
        except Empty:
            for name, process in working.items():
                if process.exitcode is not None and messages.empty():
                    return _Message(name, "error", f"its process ended with exit code {process.exitcode}.")


def _stop(processes: Sequence[ForkServerProcess]) -> None:
    """Have processes save and stop. Ctrl-C on a terminal has reached them already; a signal to one process has not."""
    for process in processes:
        if process.pid is not None and process.exitcode is None:
            os.kill(process.pid, signal.SIGINT)
    for process in processes:
        process.join()


def _work(experiment: Experiment, threads: int | None, messages: Any) -> None:
    from modulab.api import train_planned

    def send(kind: str, content: Any) -> None:
        messages.put(_Message(experiment.name, kind, content))

    own = [] if threads is None else [f"trainer.threads={threads}"]
    with redirect_stderr(_LineSender(partial(send, "line"))):
        try:
            send(
                "done",
                train_planned([*experiment.overrides, *own, "trainer.progress=lines"], experiment.folder),
            )
        except ConfigError as error:
            send("error", error)
        except KeyboardInterrupt:
            send("error", "interrupted")


class _LineSender(TextIOBase):
    """Stands in for standard error, and hands on each line that is written to it."""

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
    """Shows which experiments are at work and what each last said: bars on a terminal, lines elsewhere."""

    def __init__(self, style: str, experiments: int) -> None:
        terminal = sys.stderr.isatty() if style == "auto" else style == "bar"
        self._quiet = style == "off"
        self._bars: Progress | None = None
        if terminal and not self._quiet:
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
            self._bars.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._bars is not None:
            self._bars.stop()

    def say(self, experiment: str, line: str) -> None:
        """Show what an experiment says."""
        self._said[experiment] = line
        if self._bars is not None:
            self._describe()
        elif not self._quiet:
            print(f"{experiment}: {line}", file=sys.stderr, flush=True)

    def ended(self, experiment: str) -> None:
        """Count an experiment as ended."""
        self._said.pop(experiment, None)
        if self._bars is not None:
            self._bars.advance(self._bars.task_ids[0])
            self._describe()
        elif not self._quiet:
            print(f"{experiment}: ended", file=sys.stderr, flush=True)

    def _describe(self) -> None:
        assert self._bars is not None
        lines = [f"{name}: {line}" for name, line in self._said.items()]
        self._bars.update(self._bars.task_ids[0], description="\n".join([*lines, "experiments"]))
