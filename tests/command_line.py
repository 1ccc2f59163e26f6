"""What tests of the command line share."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path

SMALL = [
    "training.steps=4",
    "training.batch_size=8",
    "training.curve_every=2",
    "data.num_samples=16",
    "architecture.width=6",
    "probes.num_samples=32",
    "probes.repeats=1",
    "probes.levels=[0.3]",
    "trainer.accelerator=cpu",
    "trainer.engine=eager",
    "trainer.threads=1",
]
"""A run that is over in a moment."""


def last_given(*words: str) -> list[str]:
    """Return the words of a command without keys that a later word gives again: each key may be given once."""
    last = {word.partition("=")[0]: place for place, word in enumerate(words)}
    return [word for place, word in enumerate(words) if last[word.partition("=")[0]] == place]


MODULAB = [sys.executable, "-m", "modulab.cli"]

Command = Callable[..., tuple[int, str, str]]
"""Runs a command in an empty folder and returns its exit code, output and errors."""

WholeCommand = Callable[..., "subprocess.CompletedProcess[str]"]
"""Runs a command in a folder, with an environment or this one's, in a process of its own.

A command is the words after `modulab`, or `python` with a file and what it is given, or `python -c` and a program.
"""


def killed_when_it_says(words: str, arguments: list[str], cwd: Path) -> None:
    """Run a command, and kill it at the first line of its progress that begins with these words."""
    process = subprocess.Popen(
        [*MODULAB, *arguments], cwd=cwd, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    with process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith(words):
                break
        process.send_signal(signal.SIGKILL)


def terminal_closed_after_a_checkpoint(arguments: list[str], cwd: Path, folder: str) -> int:
    """Run a command in a terminal of its own, close that at the first checkpoint, and return the exit code."""
    terminal, end = pty.openpty()
    process = subprocess.Popen(
        [*MODULAB, *arguments], cwd=cwd, stdin=end, stdout=end, stderr=end, start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509  (its terminal sends it SIGHUP)
    )  # fmt: skip
    os.close(end)
    while not list(cwd.glob(f"{folder}/populations/*.ckpt")) and process.poll() is None:
        if select.select([terminal], [], [], 0.01)[0]:
            os.read(terminal, 1 << 16)
    os.close(terminal)
    return process.wait()


def interrupted_after_a_checkpoint(arguments: list[str], cwd: Path, folder: str) -> str:
    """Run a command that writes to `folder`, press Ctrl-C at its first checkpoint, and return what it says."""
    pipe = subprocess.PIPE
    process = subprocess.Popen([*MODULAB, *arguments], cwd=cwd, stdout=pipe, stderr=pipe, text=True)
    while not list(cwd.glob(f"{folder}/populations/*.ckpt")) and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate()
    assert process.returncode == 130, err
    assert "Traceback" not in err
    return err
