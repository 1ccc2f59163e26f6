"""How near the engines come to what one core can do: scripts/benchmark limit.

The limit is `limit_kernel.cpp`, the reference workload written by hand. All contenders take turns in one process, on
one thread, and are timed by the processor's time, so that others at work on the machine count for little.
"""

from __future__ import annotations

import ctypes
import json
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from benchmark_contenders.machine import describe_machine
from benchmark_contenders.modulab_population import reference_members
from benchmark_contenders.workload import BATCH_SIZE, LEARNING_RATE, SIGMA
from modulab.arguments import ArgumentParser
from modulab.training.data import PopulationData
from modulab.training.engine import keep_freed_memory, run_chunk, step_function
from modulab.training.learner import PopulationLearner
from modulab.training.native.building import VECTORS
from modulab.training.native.emitting import PRELUDE
from modulab.training.program import program_of

_CPU = torch.device("cpu")
_IN_ONE_BLOCK = 7
_KERNEL = Path(__file__).with_name("limit_kernel.cpp")
_FLAGS = ("-std=c++17", "-O3", "-march=native", "-ffast-math", "-fopenmp-simd", "-shared", "-fPIC", *VECTORS)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = ArgumentParser(prog="scripts/benchmark limit", description=__doc__)
    parser.add_argument("--steps", type=int, default=100, help="optimiser steps of each network in a repeat")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument(
        "--engines", default="native,compiled", help="comma-separated, of native, compiled and eager"
    )
    parser.add_argument("--output", type=Path, help="file for the figures, as JSON")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    keep_freed_memory()
    engines = options.engines.split(",")
    rows = [compare(noise, engines, options.steps, options.repeats) for noise in (False, True)]
    machine = describe_machine()
    print(
        f"{machine['processor']}, commit {machine['commit']}; microseconds of CPU time a network-step, medians"
    )
    print(f"{'':14}{'limit':>8}" + "".join(f"{name:>12}{'ratio':>7}{'ready in s':>12}" for name in engines))
    for row in rows:
        cells = "".join(
            f"{row[name]:12.1f}{row[name] / row['limit']:7.2f}{row['ready'][name]:12.1f}" for name in engines
        )
        print(f"{row['workload']:14}{row['limit']:8.1f}{cells}")
    if options.output is not None:
        options.output.write_text(json.dumps({"machine": machine, "results": rows}, indent=2) + "\n")
    return 0


def compare(noise: bool, engines: Sequence[str], steps: int, repeats: int) -> dict[str, Any]:
    """Return microseconds of CPU time per network-step of the limit and of each engine, medians of turns."""
    turns: dict[str, Callable[[], None]] = {}
    ready: dict[str, float] = {}
    members, _ = reference_members(64, steps, noise, 1, "eager")
    program = program_of(members[0])
    members = members[:_IN_ONE_BLOCK]
    for engine in engines:
        learner = PopulationLearner(members, "eager", _CPU)
        data = PopulationData(learner.row_members, 0, _CPU)
        learner.read_data(data.offsets, data.counts)
        learner.on_fit_start()
        start = time.perf_counter()
        step = step_function(engine, program, _CPU)
        ready[engine] = time.perf_counter() - start
        [block] = learner.blocks
        chunk = data.chunk(0)
        turns[engine] = lambda step=step, block=block, chunk=chunk: _use(
            run_chunk(step, program, block, members, chunk)
        )
    networks, tables = learner.parameters_by_row.data, data.chunk(0).table
    turns["limit"] = _kernel(networks, tables, steps, SIGMA if noise else 0.0)
    seconds: dict[str, list[float]] = {name: [] for name in turns}
    for repeat in range(repeats + 1):
        for name, turn in turns.items():
            start = time.process_time()
            turn()
            if repeat > 0:
                seconds[name].append(time.process_time() - start)
    scale = 1e6 / (len(members) * steps)
    return {
        "workload": "Poisson noise" if noise else "no noise",
        **{name: median(each) * scale for name, each in seconds.items()},
        "ready": ready,
    }


def _use(losses: Tensor) -> None:
    assert torch.isfinite(losses).all()


def _kernel(parameters: Tensor, tables: Tensor, steps: int, sigma: float) -> Callable[[], None]:
    """Return a function that trains networks, which begin with these parameters, by the limit kernel."""
    count, size = parameters.shape
    networks = torch.zeros(count, 3 * size)
    networks[:, :size] = parameters
    tables = tables.contiguous()
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "limit.so"
        subprocess.run(["g++", *_FLAGS, f"-I{PRELUDE.parent}", "-o", str(library), str(_KERNEL)], check=True)
        train = ctypes.CDLL(str(library)).train
    train.restype = ctypes.c_float

    def turn() -> None:
        loss = train(
            ctypes.c_void_p(networks.data_ptr()), count, ctypes.c_void_p(tables.data_ptr()), steps,
            ctypes.c_float(sigma), ctypes.c_float(LEARNING_RATE),
        )  # fmt: skip
        assert 0 <= loss < 10 * BATCH_SIZE

    return turn
