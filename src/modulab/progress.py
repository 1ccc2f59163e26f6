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
    """Shows how many of a run's members have trained, in network-steps, while it is open.

    Lines are first printed after ten seconds, so that short runs stay quiet in logs.
    """

    def __init__(self, style: Style, members: int, steps: int) -> None:
        """`steps` are optimiser steps summed over members."""
        if style == "auto":
            style = "bar" if sys.stderr.isatty() else "lines"
        self._style = style
        self._members = members
        self._total = steps
        self._done = 0
        self._begun = time.monotonic()
        self._resumed = 0
        self._last_line = self._begun
        self._bar: Progress | None = None
        self._label = ""

    def __enter__(self) -> ProgressReport:
        if self._style == "bar":
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.percentage:>3.0f}%"),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                console=Console(stderr=True),
            )
            self._bar.add_task(f"{self._members} networks", total=self._total)
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def say(self, label: str) -> None:
        """Name what is being done now, whether or not any of it is done yet."""
        self._label = label
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], description=f"{self._members} networks: {label}")
        elif self._style == "lines":
            print(f"{self._members} networks: {label}", file=sys.stderr, flush=True)

    def advance(self, steps: int, resumed: bool = False) -> None:
        """Count network-steps as done; `resumed` ones were done before this process began."""
        self._done += steps
        if resumed:
            self._resumed += steps
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=self._done)
        elif self._style == "lines":
            self._print_line()

    def _print_line(self) -> None:
        now = time.monotonic()
        if now - self._last_line < _SECONDS_BETWEEN_LINES:
            return
        self._last_line = now
        rate = max(self._done - self._resumed, 1) / (now - self._begun)
        left = (self._total - self._done) / rate
        share = 100 * self._done / self._total
        pace = f"{rate:,.0f} network-steps/s, about {left:.0f} s left"
        print(f"{self._members} networks: {self._label}, {share:.0f}%, {pace}", file=sys.stderr, flush=True)
