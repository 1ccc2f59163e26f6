"""How much of a default training goes into measuring, for every kind of network: scripts/benchmark measuring.

Populations of one kind are trained as `modulab train` does, with default settings but for the task and the network, on
one thread, and timed by the processor's time. A few chunks of steps and a few points of the curves stand for all of
them; the final measures are taken once, in turns one by one. All are in milliseconds per network over a whole training.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmark_contenders.machine import describe_machine
from modulab.arguments import ArgumentParser
from modulab.config.composing import compose_checked, hydra_composer, plan_run
from modulab.config.settings import Member, Trainer
from modulab.metrics.measure import find_measures
from modulab.metrics.probe import Asked, make_probe, members_at_once
from modulab.metrics.taking import take_measures
from modulab.progress import ProgressReport
from modulab.streams import member_keys
from modulab.training.data import PopulationData
from modulab.training.engine import keep_freed_memory
from modulab.training.execution import choose_execution
from modulab.training.learner import PopulationLearner
from modulab.training.measuring import measure_each
from modulab.training.native.kernels import kernels_of
from modulab.training.recorder import curve_settings
from modulab.training.usable import usable_engines

KINDS: dict[str, list[str]] = {
    "dense": [],
    "dense, Poisson noise": ["noise.scale=0.2"],
    "premodular": ["architecture=premodular"],
    "3 hidden layers": ["architecture.depth=3"],
    "dense, classification": ["task=classification"],
    "dense, digits": ["task=digits"],
    "placed": ["architecture=placed"],
    "experts": ["architecture=experts"],
    "experts_top_k": ["architecture=experts_top_k"],
    "recurrent": ["architecture=recurrent", "task=parity"],
    "recurrent_blocks": ["architecture=recurrent_blocks", "task=parity"],
    "convolution": ["architecture=convolution", "task=digits"],
    "attention": ["architecture=attention", "task=modular_arithmetic"],
    "projected_modules": ["architecture=projected_modules", "task=projected"],
    "gated_mixture": ["architecture=gated_mixture", "task=domains", "training.batch_size=1"],
    "conditionals": [
        "architecture=conditionals",
        "task=causal",
        "training.batch_size=1",
        "data.num_samples=64",
    ],
    "torch": [
        "architecture=torch",
        "architecture.module={_target_: benchmark_contenders.plain_kinds.PlainPerceptron, width: 48}",
        "architecture.sites=[hidden]",
    ],
}
"""What of `modulab train` makes each kind."""


def main(arguments: Sequence[str]) -> int:
    """Time each kind, and print a table."""
    parser = ArgumentParser(prog="scripts/benchmark measuring", description=__doc__)
    parser.add_argument("--population", type=int, default=64, help="networks trained at once; default 64")
    parser.add_argument(
        "--turns", type=int, default=3, help="timings of each part, besides the first; default 3"
    )
    parser.add_argument("--kinds", help=f"with semicolons between; default {';'.join(KINDS)}")
    parser.add_argument("--engine", default="auto", help="default auto")
    parser.add_argument("--by-measure", action="store_true", help="also print the time of each final measure")
    parser.add_argument("--output", type=Path, help="also write what was measured to a JSON file")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    keep_freed_memory()
    print(f"{describe_machine()['processor']}; milliseconds of CPU time per network and training, medians")
    print(f"{'':22}{'engine':>9}{'steps':>10}{'curves':>9}{'final':>9}{'measuring':>11}")
    found: dict[str, dict[str, Any]] = {}
    for kind in options.kinds.split(";") if options.kinds else KINDS:
        found[kind] = row = _time_kind(KINDS[kind], options)
        print(
            f"{kind:22}{row['engine']:>9}{row['steps']:10.2f}{row['curves']:9.2f}{row['final']:9.2f}"
            f"{row['share']:11.1%}",
            flush=True,
        )
        if options.by_measure:
            for name, each in sorted(row["measures"].items(), key=lambda item: -item[1]):
                print(f"    {name:30}{each:9.3f}")
        if options.output is not None:
            options.output.write_text(json.dumps(found, indent=1) + "\n")
    return 0


def _time_kind(own: Sequence[str], options: argparse.Namespace) -> dict[str, Any]:
    overrides = [
        *own, f"population.seeds={options.population}", "trainer.accelerator=cpu", "trainer.threads=1",
        f"trainer.engine={options.engine}",
    ]  # fmt: skip
    with hydra_composer() as compose:
        plan = plan_run(compose_checked(compose, overrides), overrides, compose)
    members = [run.member for run in plan.runs]
    learner, data = _ready(members, plan.trainer)
    training, chunk_number = members[0].training, 0

    def train() -> None:
        nonlocal chunk_number
        learner.training_step(data.chunk(chunk_number))
        chunk_number += 1

    steps = _seconds(train, options.turns)
    masks, probes = learner.member_masks(), curve_settings(members[0].probes)
    asked = Asked(tuple(probes.curves))
    point = _seconds(
        lambda: measure_each(
            members, learner.member_networks(), masks, probes, asked=asked, engines=learner.member_engines
        ),
        options.turns,
    )
    final = _seconds(
        lambda: measure_each(
            members, learner.member_networks(), masks, members[0].probes, engines=learner.member_engines
        ),
        options.turns,
    )
    points = -(-training.steps // training.curve_every)
    scale = 1e3 / len(members)
    seconds = {
        "steps": steps * training.steps / training.curve_every,
        "curves": point * points,
        "final": final,
    }
    row: dict[str, Any] = {name: each * scale for name, each in seconds.items()}
    row["share"] = (row["curves"] + row["final"]) / (row["steps"] + row["curves"] + row["final"])
    row["engine"] = ", ".join(dict.fromkeys(learner.member_engines))
    if options.by_measure:
        row["measures"] = {name: each * scale for name, each in _by_measure(members, learner, masks).items()}
    return row


def _ready(members: Sequence[Member], trainer: Trainer) -> tuple[PopulationLearner, PopulationData]:
    """Return members as they begin to train, by the engine that they would have, and their points."""
    execution = choose_execution(trainer, members)
    learner = PopulationLearner(members, execution.engine, execution.device)
    engines = usable_engines(learner.programs, {}, execution, ProgressReport("off", 0, 0.0))
    learner.train_with(engines, 1)
    data = PopulationData(learner.row_members, 0, execution.device)
    learner.read_data(data.offsets, data.counts)
    learner.on_fit_start()
    return learner, data


def _seconds(turn: Callable[[], object], turns: int) -> float:
    """Return the median processor time of a turn, after one that does not count."""
    turn()
    seconds: list[float] = []
    for _ in range(turns):
        began = time.process_time()
        turn()
        seconds.append(time.process_time() - began)
    return median(seconds)


def _by_measure(
    members: Sequence[Member], learner: PopulationLearner, masks: torch.Tensor
) -> dict[str, float]:
    """Return the processor time of each final measure, and of the points that all of them share."""
    task, settings, networks = members[0].task, members[0].probes, learner.member_networks()
    kernels = kernels_of(learner.member_engines[0])
    keys = member_keys([member.seed for member in members])
    size = members_at_once(networks.network, settings, kernels=kernels)
    found: defaultdict[str, float] = defaultdict(float)
    for start in range(0, len(members), size):
        rows = slice(start, start + size)
        with torch.no_grad():
            began = time.process_time()
            probe = make_probe(
                task, networks.select(rows), keys[rows], settings, masks[rows], kernels=kernels
            )
            found["points"] += time.process_time() - began
            for name, measure in find_measures(settings).items():
                began = time.process_time()
                take_measures(probe, {name: measure})
                found[name] += time.process_time() - began
    return dict(found)
