"""What a long run says of itself: how long it still takes, whole on a narrow terminal, and never nothing for long."""

from __future__ import annotations

import errno
import io
import re
import sys
import time

import pytest

from modulab.progress import ProgressReport, Style, working
from modulab.text import say_once


class Clock:
    """Stands in for the time."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "monotonic", clock)
    return clock


def test_time_left_is_that_of_training_without_compiling(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with ProgressReport("lines", 1, 1000) as progress:
        with progress.aside():
            clock.now += 60
        clock.now += 4
        progress.advance(250)
    line = capsys.readouterr().err
    assert line == "1 run: training, 25% of the work, 0.0625 runs/s, about 12 s left\n"


def test_steps_of_wide_networks_count_for_more_of_the_time_that_is_left(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with ProgressReport("lines", 2, 100 * 1 + 100 * 9) as progress:
        clock.now += 4
        progress.advance(100)
        assert (
            capsys.readouterr().err
            == "0 of 2 runs: training, 10% of the work, 0.05 runs/s, about 36 s left\n"
        )
        progress.step_work = 9.0
        clock.now += 18
        progress.advance(50)
    assert "55% of the work, 0.05 runs/s, about 18 s left" in capsys.readouterr().err


def test_lines_begin_after_a_few_seconds_and_then_come_at_intervals(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with ProgressReport("lines", 1, 100) as progress:
        times: list[int] = []
        for second in range(1, 31):
            clock.now = float(second)
            progress.advance(1)
            times += [second] if capsys.readouterr().err else []
    assert times == [3, 13, 23]


def test_what_a_long_measure_says_comes_at_the_same_intervals(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with ProgressReport("lines", 4, 100) as progress:
        progress.say("measuring 4")
        lines: list[str] = []
        for second in range(1, 15):
            clock.now = float(second)
            progress.tell(f"searching network {second} of 14")
            lines += [capsys.readouterr().err]
    assert [line for line in lines if line] == [
        f"0 of 4 runs: measuring 4: searching network {number} of 14\n" for number in (3, 13)
    ]


@pytest.mark.parametrize("width", [80, 100, 140])
def test_nothing_is_cut_off_on_a_terminal(
    width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    with ProgressReport("bar", 10_000, 10_000_000) as progress:
        progress.say("compiling training step 1 of 12, 20 to 60 s, cached for later runs")
        progress.advance(5000)
    shown = capsys.readouterr().err
    lines = shown.rstrip().splitlines()
    assert max(map(len, lines)) <= width
    first = lines[0]
    assert re.search(r"\d:\d\d:\d\d", first)
    assert re.search(r"runs/s", first)
    assert re.search(r"about \d+ s left", first)
    words = " ".join(re.sub(r"  .*", "", line) for line in lines)
    assert words == "0 of 10000 runs: compiling training step 1 of 12, 20 to 60 s, cached for later runs"


def test_work_is_shown_on_a_terminal_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with working("drawing [red]figures"):
        pass
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    with working("drawing [red]figures"):
        pass
    assert "drawing [red]figures" in capsys.readouterr().err


class GoneTerminal(io.StringIO):
    """A terminal that was closed: it answers that it is one, and nothing can be written to it."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        """Return what it was."""
        return True

    def write(self, text: str) -> int:
        """Fail as writing to it does."""
        raise OSError(errno.EIO, "Input/output error")


@pytest.mark.parametrize("style", ["lines", "bar"])
def test_a_terminal_that_was_closed_ends_no_training(style: Style, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", GoneTerminal())
    with ProgressReport(style, 1, 1000) as progress:
        monkeypatch.setattr(progress, "_next_line", 0.0)
        progress.say("compiling", at_once=True)
        progress.advance(250)
        progress.finish(1)
    say_once("nobody reads this")
    with working("planning"):
        pass
