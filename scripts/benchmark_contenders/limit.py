"""How near the engines come to what one core can do: scripts/benchmark limit.

The limit is the reference workload written by hand: training in `limit_kernel.cpp`, and the default measures in
`limit_measuring.cpp`. All contenders take turns in one process, on one thread, and are timed by the processor's time,
so that others at work on the machine count for little.
"""

from __future__ import annotations

import ctypes
import json
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from benchmark_contenders.machine import describe_machine
from benchmark_contenders.modulab_population import reference_members, watched_learner
from benchmark_contenders.workload import BATCH_SIZE, LEARNING_RATE, SIGMA
from modulab.arguments import ArgumentParser
from modulab.config.settings import Member
from modulab.metrics.poisson import count_table
from modulab.metrics.probe import make_probe, widened_samples
from modulab.networks.base import NetworkPopulation
from modulab.streams import member_keys
from modulab.tasks.base import Samples
from modulab.training.engine import keep_freed_memory, run_chunk, step_function
from modulab.training.measuring import measure_each
from modulab.training.native.building import VECTORS
from modulab.training.native.emitting import PRELUDE
from modulab.training.program import program_of

_CPU = torch.device("cpu")
_IN_ONE_BLOCK = 7
_FOLDER = Path(__file__).parent
_FLAGS = ("-std=c++17", "-O3", "-march=native", "-fopenmp-simd", "-shared", "-fPIC", *VECTORS)
_FAST = {
    "limit_kernel": ("-ffast-math",),
    "limit_measuring": ("-fno-math-errno", "-fno-trapping-math"),  # more would change Poisson counts
}


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
    measuring = compare_measuring(max(1, options.repeats // 3))
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
    print(
        f"measuring, milliseconds a network: limit {measuring['limit']:.2f}, native {measuring['native']:.2f}, "
        f"ratio {measuring['native'] / measuring['limit']:.2f}"
    )
    if options.output is not None:
        found = {"machine": machine, "results": rows, "measuring": measuring}
        options.output.write_text(json.dumps(found, indent=2) + "\n")
    return 0


def compare(noise: bool, engines: Sequence[str], steps: int, repeats: int) -> dict[str, Any]:
    """Return microseconds of CPU time per network-step of the limit and of each engine, medians of turns."""
    turns: dict[str, Callable[[], None]] = {}
    ready: dict[str, float] = {}
    members, _ = reference_members(64, steps, noise, 1, "eager")
    program = program_of(members[0])
    members = members[:_IN_ONE_BLOCK]
    for engine in engines:
        learner, data = watched_learner(members, "eager")
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
    seconds = in_turns(turns, repeats)
    scale = 1e6 / (len(members) * steps)
    return {
        "workload": "Poisson noise" if noise else "no noise",
        **{name: each * scale for name, each in seconds.items()},
        "ready": ready,
    }


def compare_measuring(repeats: int) -> dict[str, float]:
    """Return milliseconds of CPU time per network of the limit and of modulab, for all default measures."""
    members, networks, mask = _networks_to_measure()
    limit = LimitOfMeasuring(members, networks)

    def native() -> None:
        engines = ["native_measures"] * len(members)
        found = measure_each(members, networks, mask, members[0].probes, engines=engines)
        assert not found.failures

    seconds = in_turns({"limit": limit, "native": native}, repeats)
    return {name: each * 1e3 / len(members) for name, each in seconds.items()}


def in_turns(turns: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Return the median processor time of each turn, after one that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in turns}
    for repeat in range(repeats + 1):
        for name, turn in turns.items():
            start = time.process_time()
            turn()
            if repeat > 0:
                seconds[name].append(time.process_time() - start)
    return {name: median(each) for name, each in seconds.items()}


def _networks_to_measure() -> tuple[list[Member], NetworkPopulation, Tensor]:
    """Return 64 members of the reference workload, their networks after some steps, and their masks."""
    members, _ = reference_members(64, 200, False, 1, "eager")
    learner, data = watched_learner(members, "native")
    learner.on_fit_start()
    learner.training_step(data.chunk(0))
    return members, learner.member_networks(), learner.member_masks()


class LimitOfMeasuring:
    """The default measures by `limit_measuring.cpp`, of networks of the reference workload."""

    def __init__(self, members: Sequence[Member], networks: NetworkPopulation) -> None:
        task, probes = members[0].task, members[0].probes
        self._count = len(members)
        self._parameters = networks.parameters.contiguous()
        probe = make_probe(task, networks, member_keys([member.seed for member in members]), probes)
        self._points = _side_by_side(probe.samples)
        scales = [pair for factor in probes.ranges for pair in ((factor, 1.0), (1.0, factor))]
        stretched = [_side_by_side(widened_samples(probe, torch.tensor(pair))) for pair in scales]
        self._beyond = torch.stack(stretched, dim=1).contiguous()
        self._ranges, self._levels, self._fractions = probes.ranges, probes.levels, probes.ablated_fractions
        self._table = count_table(_CPU)
        self._measure = _built("limit_measuring").measure

    @property
    def names(self) -> list[str]:
        """Return what each result is; errors beyond the range are those of the first and of the second module."""
        beyond = [
            f"range@{factor:g} {side} {module}"
            for factor in self._ranges
            for side in (0, 1)
            for module in (0, 1)
        ]
        modularity = [f"modularity/{each}" for each in (
            "structural", "structural_frame_null", "functional", "unit_specialisation", "ablation"
        )]  # fmt: skip
        noise = [
            f"error_under/{each}@{level:g}"
            for kinds in (["gaussian"], ["poisson", "poisson_energy"], ["multiplicative"], ["poisson_counts"])
            for level in self._levels
            for each in kinds
        ]
        changes = [
            f"error_under/{each}@{level:g}"
            for level in self._levels
            for each in ("weight_noise", "input_noise")
        ]
        lost = [f"error_under/ablation@{fraction:g}" for fraction in self._fractions]
        return [
            "error/test",
            *beyond,
            *modularity,
            "activity/mean",
            "activity/active_units",
            *noise,
            *changes,
            *lost,
        ]

    def __call__(self) -> Float[Tensor, "member value"]:
        """Return the results of all networks."""
        results = torch.full((self._count, len(self.names)), torch.nan)
        pointers = (
            ctypes.c_void_p(each.data_ptr()) for each in (self._parameters, self._points, self._beyond)
        )
        parameters, points, beyond = pointers
        self._measure(
            parameters, self._count, points, beyond, self._beyond.shape[1], ctypes.c_void_p(self._table.data_ptr()),
            *self._table.shape, ctypes.c_void_p(results.data_ptr()), results.shape[1],
        )  # fmt: skip
        return results


def _side_by_side(samples: Samples) -> Float[Tensor, "member feature batch"]:
    return torch.cat([samples.inputs, samples.targets], dim=2).transpose(1, 2).contiguous()


def _use(losses: Tensor) -> None:
    assert torch.isfinite(losses).all()


def _kernel(parameters: Tensor, tables: Tensor, steps: int, sigma: float) -> Callable[[], None]:
    """Return a function that trains networks, which begin with these parameters, by the limit kernel."""
    count, size = parameters.shape
    networks = torch.zeros(count, 3 * size)
    networks[:, :size] = parameters
    tables = tables.contiguous()
    train = _built("limit_kernel").train
    train.restype = ctypes.c_float

    def turn() -> None:
        loss = train(
            ctypes.c_void_p(networks.data_ptr()), count, ctypes.c_void_p(tables.data_ptr()), steps,
            ctypes.c_float(sigma), ctypes.c_float(LEARNING_RATE),
        )  # fmt: skip
        assert 0 <= loss < 10 * BATCH_SIZE

    return turn


def _built(name: str) -> ctypes.CDLL:
    """Return the library of a kernel, compiled now."""
    include = [f"-I{folder}" for folder in (PRELUDE.parent, _FOLDER)]
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "limit.so"
        subprocess.run(
            ["g++", *_FLAGS, *_FAST[name], *include, "-o", str(library), str(_FOLDER / f"{name}.cpp")],
            check=True,
        )
        return ctypes.CDLL(str(library))
