"""One contender in a process of its own, so that threads, allocators and compilers of others stay away.

Reads a line from standard input for each repeat and answers with a line of JSON; the end of input ends it.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

from benchmark_contenders.workload import SkippedContender, Workload


def main() -> None:
    order = json.loads(sys.argv[1])
    # Libraries may print; what they print must not get between the answers.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    module, _, function = order["entry"].partition(":")
    try:
        # Imports may use all cores; no contender's library starts its threads before it computes.
        called = getattr(importlib.import_module(f"benchmark_contenders.{module}"), function)
        confine(order["workload"]["threads"])
        if order.get("once"):
            answer(answers, {"result": called(**order["once"])})
            return
        repeat = called(Workload(**order["workload"]))
    except SkippedContender as reason:
        answer(answers, {"skipped": str(reason)})
        return
    answer(answers, {"ready": True})
    for number, _ in enumerate(sys.stdin):
        reset_peak_memory()
        start, cpu_start = time.perf_counter(), time.process_time()
        timing = repeat(number)
        wall, cpu = time.perf_counter() - start, time.process_time() - cpu_start
        memory = peak_memory()
        answer(answers, {**asdict(timing), "wall": wall, "cores": cpu / wall, "peak_bytes": memory})


def answer(stream: TextIO, message: dict[str, Any]) -> None:
    stream.write(json.dumps(message) + "\n")


def confine(threads: int) -> None:
    """Keep this process to this number of cores: not every library can be limited by other means."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-threads:])


def reset_peak_memory() -> None:
    """Let the kernel forget the peak so far, which importing and compiling may have set."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def peak_memory() -> int | None:
    """Return the largest resident size since the last reset, where the kernel reports it."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), None)


if __name__ == "__main__":
    main()
