"""Progress: work done, total and left, as a bar on a terminal, one text in a notebook, or plain lines in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Literal

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Column

from modulab.notebook import CellText, in_notebook
from modulab.text import to_stderr

Style = Literal["auto", "bar", "lines", "off"]

_SECONDS_TO_FIRST_LINE = 3.0
_SECONDS_BETWEEN_LINES = 10.0
_BAR_WIDTHS = ((120, 40), (100, 20), (0, 10))
"""Least width of a terminal, and that of the bar there: what stands beside it must not be cut off."""


class ProgressReport:
    """Shows how many of a sweep's runs have finished, and how fast, while it is open.

    Work is counted in network-steps, each weighed by `step_work` so that those of wide networks count for more.
    Lines are first printed after three seconds, so short runs stay quiet in logs.
    """

    def __init__(self, style: Style, runs: int, work: float) -> None:
        """`work` is that of all steps of all runs."""
        if style == "auto":
            style = "bar" if sys.stderr.isatty() or in_notebook() else "lines"
        self._style = style
        self._cell = CellText() if style == "bar" and in_notebook() else None
        self._runs = runs
        self._finished = 0
        self._total = work
        self._done = 0.0
        self.step_work = 1.0
        """Work of one step of one of the networks that are trained now."""
        self._begun = time.monotonic()
        self._resumed = 0.0
        self._aside = 0.0
        """Seconds in which no step could be done."""
        self._next_line = self._begun + _SECONDS_TO_FIRST_LINE
        self._bar: Progress | None = None
        self._label = "training"

    def __enter__(self) -> ProgressReport:
        if self._style == "bar" and self._runs and self._cell is None:
            console = Console(stderr=True)
            width = next(width for least, width in _BAR_WIDTHS if console.width >= least)
            self._bar = Progress(
                TextColumn("{task.description}", markup=False, table_column=Column(ratio=1)),
                BarColumn(width, table_column=Column(no_wrap=True)),
                TextColumn("{task.percentage:>3.0f}%", table_column=Column(no_wrap=True)),
                TextColumn("{task.fields[pace]}", markup=False, table_column=Column(no_wrap=True)),
                TimeElapsedColumn(table_column=Column(no_wrap=True)),
                TextColumn("{task.fields[left]}", markup=False, table_column=Column(no_wrap=True)),
                console=console,
                expand=True,
            )
            self._bar.add_task(self._count(), total=self._total, pace="", left="")
            with suppress(OSError):  # of a terminal that was closed
                self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            with suppress(OSError):
                self._bar.stop()
        elif self._cell is not None and self._runs:
            ended = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
            seconds = time.monotonic() - self._begun
            self._cell.show(
                f"{self._count()}, {seconds:.0f} s{'' if error is None else f', {ended}'}", at_once=True
            )

    def say(self, label: str, at_once: bool = False) -> None:
        """Name what is being done now; a log gets it with its next line, or `at_once`."""
        self._label = label
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], description=f"{self._count()}: {label}")
        elif self._cell is not None:
            self._cell.show(f"{self._count()}: {label}", at_once)
        elif self._style == "lines" and at_once:
            to_stderr(f"{self._count()}: {label}")

    def tell(self, label: str) -> None:
        """Report the progress of the current activity; a log gets it every few seconds at most."""
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], description=f"{self._count()}: {label}")
        elif self._cell is not None:
            self._cell.show(f"{self._count()}: {self._label}: {label}")
        elif self._style == "lines" and self._is_due():
            to_stderr(f"{self._count()}: {self._label}: {label}")

    @contextmanager
    def aside(self) -> Generator[None]:
        """Leave out of the pace the time that is spent within: nothing trains meanwhile."""
        begun = time.monotonic()
        try:
            yield
        finally:
            self.leave_out(time.monotonic() - begun)

    def leave_out(self, seconds: float) -> None:
        """Leave out of the pace some seconds in which nothing trained."""
        self._aside += seconds

    def advance(self, steps: float, resumed: bool = False) -> None:
        """Count network-steps as done; `resumed` ones were done before this process began."""
        work = steps * self.step_work
        self._done += work
        if resumed:
            self._resumed += work
        if self._bar is not None:
            self._bar.update(
                self._bar.task_ids[0], completed=self._done, pace=self._pace(), left=self._left()
            )
        elif self._cell is not None:
            self._cell.show(self._line())
        elif self._style == "lines" and self._is_due():
            to_stderr(self._line())

    def finish(self, runs: int) -> None:
        """Count runs as finished: trained and measured, or failed."""
        self._finished += runs
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], description=f"{self._count()}: {self._label}")

    def _count(self) -> str:
        return f"{self._finished} of {self._runs} runs" if self._runs != 1 else "1 run"

    def _work_per_second(self) -> float:
        seconds = time.monotonic() - self._begun - self._aside
        return (self._done - self._resumed) / max(seconds, 1e-9)

    def _left(self) -> str:
        if self._done <= self._resumed:
            return ""
        left = max(
            0.0, self._total - self._done
        )  # the work done is a sum, which may be rounded past the total
        return f"about {left / self._work_per_second():.0f} s left"

    def _pace(self) -> str:
        runs_per_second = self._work_per_second() * self._runs / self._total
        return f"{runs_per_second:.3g} runs/s" if self._done > self._resumed else ""

    def _is_due(self) -> bool:
        """Return whether it is time for a line, which sets the time of the next one."""
        now = time.monotonic()
        if now < self._next_line:
            return False
        self._next_line = now + _SECONDS_BETWEEN_LINES
        return True

    def _line(self) -> str:
        line = f"{self._count()}: {self._label}, {100 * self._done / self._total:.0f}% of the work"
        if self._done > self._resumed:
            line += f", {self._pace()}, {self._left()}"
        return line


@contextmanager
def working(label: str) -> Generator[None]:
    """Show on a terminal what is being done, and for how long, until it is done; elsewhere nothing."""
    if not sys.stderr.isatty():
        yield
        return
    shown = Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    shown.add_task(label, total=None)
    with suppress(OSError):  # of a terminal that was closed
        shown.start()
    try:
        yield
    finally:
        with suppress(OSError):
            shown.stop()
