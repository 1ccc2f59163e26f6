"""modulab's own engine."""

from __future__ import annotations

from benchmark_contenders.workload import Repeat, SkippedContender, Timing, Workload


def modulab_engine(population: int, steps: int, noise: bool, threads: int) -> Timing:
    raise SkippedContender("modulab has no training engine yet.")


def prepare(workload: Workload) -> Repeat:
    raise SkippedContender("modulab has no training engine yet.")
