"""The function that a task of a SLURM array runs on its node: train a shard, and stop in time when SLURM warns."""

from __future__ import annotations

import shlex
import signal
import subprocess
import sys
from dataclasses import dataclass
from types import FrameType
from typing import Any

from modulab.sweep.node_shard import NodeShard

_WARNINGS = (signal.SIGUSR2, signal.SIGTERM)
"""modulab requests USR2 from SLURM; clusters that preempt by its defaults send TERM."""

_HOLD_WARNINGS = (
    "import os, signal, sys; "
    f"signal.pthread_sigmask(signal.SIG_BLOCK, {[int(number) for number in _WARNINGS]}); "
    "os.execv(sys.executable, [sys.executable, '-P', *sys.argv[1:]])"
)


def node_python() -> str:
    """Return the shell's words for a Python in which a warning waits until `ShardTask` can handle it.

    Otherwise one that comes while Python still imports, which on a network file system takes a minute, would kill
    the task, and SLURM does not requeue a task that ended by itself.
    """
    return shlex.join([sys.executable, "-I", "-S", "-c", _HOLD_WARNINGS])


@dataclass
class ShardTask(NodeShard):
    """The members of a shard, as a job of submitit."""

    stop_seconds: int = 30

    def __call__(self) -> int:
        """Train what has no result yet, and return how many members that was.

        Where SLURM warns of a time-out or preemption, training stops at the end of its chunk, with a
        checkpoint, and the task goes back into the queue.
        """
        requeue: Any = signal.getsignal(signal.SIGUSR2)
        warned = False

        def interrupt(number: int, frame: FrameType | None) -> None:
            del number, frame
            signal.raise_signal(signal.SIGINT)

        def stop(number: int, frame: FrameType | None) -> None:
            nonlocal warned
            warned = True
            # Ctrl-C once stops at the end of the chunk; should that take too long, twice stops at once.
            signal.signal(signal.SIGALRM, interrupt)
            signal.alarm(self.stop_seconds)
            interrupt(number, frame)

        try:
            signal.signal(signal.SIGUSR2, stop)
            signal.signal(signal.SIGTERM, interrupt)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _WARNINGS)
            return self.train()
        except KeyboardInterrupt:
            signal.alarm(0)
            for number in _WARNINGS:
                signal.signal(number, signal.SIG_IGN)
            if callable(requeue) and (warned or _is_preempted()):
                requeue(signal.SIGUSR2, None)
            raise SystemExit("This shard was asked to stop. Its state is saved.") from None

    def checkpoint(self) -> Any:
        """Return the job that runs when the task leaves the queue again: the same, which skips finished members."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def _is_preempted() -> bool:
    """Return whether this task was told to stop by SLURM, and was not cancelled by a user."""
    from submitit import JobEnvironment

    command = ["squeue", "--noheader", f"--jobs={JobEnvironment().job_id}", "--format=%T"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return False
    return answer.stdout.split() == ["RUNNING"]
