"""Compare modulab's speed with what was recorded: scripts/benchmark check, in about 20 seconds.

Native steps and the limit kernel, a fixed loop in C++, take turns in one process on one thread. Their ratio depends
little on the machine and on what else it is doing. It fails where training has lost a third of the speed, relative to
the kernel, of the latest record in docs/benchmarks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from benchmark_contenders.history import read_records, speed_of_limit
from benchmark_contenders.limit import compare
from modulab.arguments import ArgumentParser
from modulab.training.engine import keep_freed_memory

MOST_LOST = 1 / 3
_ATTEMPTS = 3
"""Other work on the machine may disturb one measurement."""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = ArgumentParser(prog="scripts/benchmark check", description=__doc__)
    parser.add_argument("--steps", type=int, default=100, help="optimiser steps of each network in a repeat")
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args(arguments)
    recorded = speed_of_limit(read_records()[-1])
    torch.set_num_threads(1)
    keep_freed_memory()
    for attempt in range(_ATTEMPTS):
        found = speed_of_limit(_measure(options.steps, options.repeats))
        for workload, share in found.items():
            print(f"{workload:14}{share:6.2f} of the limit's speed; recorded {recorded[workload]:.2f}")
        slow = slower(found, recorded)
        if not slow:
            return 0
        if attempt + 1 < _ATTEMPTS:
            print(f"measuring again: {', '.join(slow)} lost more than a third")
    print("Training has become slower. `scripts/benchmark limit` times it by engine.")
    return 1


def slower(found: Mapping[str, float], recorded: Mapping[str, float]) -> list[str]:
    """Return the workloads whose speed has fallen by more than a third."""
    return [workload for workload, share in found.items() if share < (1 - MOST_LOST) * recorded[workload]]


def _measure(steps: int, repeats: int) -> dict[str, Any]:
    rows = [compare(noise, ["native"], steps, repeats) for noise in (False, True)]
    return {"limit": {row["workload"]: {name: row[name] for name in ("limit", "native")} for row in rows}}
