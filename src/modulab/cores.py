"""How many cores of the CPU this process may use."""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Iterator
from pathlib import Path

from modulab.control_groups import group_folders, lines_of, number_in


def cpu_count(root: Path = Path("/")) -> int:
    """Return the number of cores that this process may use: those given to it, or the CPU time of its container.

    A container may be given the time of a few cores (Docker's `--cpus`, Kubernetes' `limits.cpu`) and see all of the
    machine's. With a thread for each of those, all would be halted together for most of the time. A share of a core
    counts as one. `root` is the folder that holds proc and sys.
    """
    given = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min(given, _container_cores(root))))


@functools.cache  # for it is asked for each population of a sweep
def _container_cores(root: Path) -> float:
    return min(_limits(root), default=math.inf)


def _limits(root: Path) -> Iterator[float]:
    """Yield how many cores the CPU time of each limit is worth."""
    for version, folder in group_folders("cpu", root):
        if version == 2:
            words = " ".join(lines_of(folder / "cpu.max")).split()
            numbers = [int(word) for word in words if word.isdigit()]  # without a limit, the first is a word
        else:
            numbers = [number_in(folder / name) for name in ("cpu.cfs_quota_us", "cpu.cfs_period_us")]
        match numbers:
            case [int(time), int(period)] if period > 0:
                yield time / period
            case _:
                continue
