"""One account of work done, total and left: a bar on a terminal, plain lines in a log."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Literal

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

Style = Literal["auto", "bar", "lines", "off"]

_SECONDS_BETWEEN_LINES = 10.0


class ProgressReport:
    """Shows how many of a sweep's runs have finished and how fast, measured by network-steps, while it is open.

    Lines are first printed after ten seconds, so that short runs stay quiet in logs.
    """

    def __init__(self, style: Style, runs: int, steps: int) -> None:
        """`steps` are optimiser steps summed over runs."""
        if style == "auto":
            style = "bar" if sys.stderr.isatty() else "lines"
        self._style = style
        self._runs = runs
        self._finished = 0
        self._total = steps
        self._done = 0
        self._begun = time.monotonic()
        self._resumed = 0
        self._last_line = self._begun
        self._bar: Progress | None = None
        self._label = "training"

    def __enter__(self) -> ProgressReport:
        if self._style == "bar" and self._runs:
            self._bar = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                TextColumn("{task.percentage:>3.0f}%"),
                TextColumn("{task.fields[pace]}"),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                console=Console(stderr=True),
            )
            self._bar.add_task(self._count(), total=self._total, pace="")
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def say(self, label: str, at_once: bool = False) -> None:
        """Name what is being done now; a log gets it with its next line, or `at_once`."""
        self._label = label
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], description=f"{self._count()}: {label}")
        elif self._style == "lines" and at_once:
            print(f"{self._count()}: {label}", file=sys.stderr, flush=True)

    def advance(self, steps: int, resumed: bool = False) -> None:
        """Count network-steps as done; `resumed` ones were done before this process began."""
        self._done += steps
        if resumed:
            self._resumed += steps
        if self._bar is not None:
            pace = self._pace()
            self._bar.update(self._bar.task_ids[0], completed=self._done, pace=pace)
        elif self._style == "lines":
            self._print_line()

    def finish(self, runs: int) -> None:
        """Count runs as finished: trained and measured, or failed."""
        self._finished += runs
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], description=f"{self._count()}: {self._label}")

    def _count(self) -> str:
        return f"{self._finished} of {self._runs} runs" if self._runs != 1 else "1 run"

    def _steps_per_second(self) -> float:
        return max(self._done - self._resumed, 1) / max(time.monotonic() - self._begun, 1e-9)

    def _pace(self) -> str:
        runs_per_second = self._steps_per_second() * self._runs / self._total
        return f"{runs_per_second:.3g} runs/s" if self._done > self._resumed else ""

    def _print_line(self) -> None:
        now = time.monotonic()
        if now - self._last_line < _SECONDS_BETWEEN_LINES:
            return
        self._last_line = now
        line = f"{self._count()}: {self._label}, {100 * self._done / self._total:.0f}% of all steps"
        if self._done > self._resumed:
            left = (self._total - self._done) / self._steps_per_second()
            line += f", {self._pace()}, about {left:.0f} s left"
        print(line, file=sys.stderr, flush=True)
