"""modulab's own engines, run as `modulab train` runs them: a PopulationLearner under lightning.Trainer.

`prepare` compiles by TorchInductor, `prepare_native` by the C++ compiler, and
`prepare_eager` does not. As with stock Lightning, steps are timed from the first to the
last, and what fit needs around them is reported apart; curves and measures are left out, as they are for
every contender. `prepare_whole` has them in, as configs/ sets them. `time_parts` says where the time goes.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import Any

import lightning
import torch
from lightning.pytorch import Callback
from torch import Tensor

from benchmark_contenders.plain_torch import stopped_clock
from benchmark_contenders.workload import (
    BATCH_SIZE,
    HIDDEN_FEATURES,
    LEARNING_RATE,
    LOSS_WINDOW,
    NUM_SAMPLES,
    SIGMA,
    Repeat,
    SkippedContender,
    Timing,
    Workload,
)
from modulab.config.composing import compose_checked, hydra_composer, plan_run
from modulab.config.settings import Member
from modulab.progress import ProgressReport
from modulab.streams import normals
from modulab.training import fit
from modulab.training.data import PopulationData
from modulab.training.engine import block_size, keep_freed_memory, run_chunk, step_function
from modulab.training.execution import Execution, choose_execution
from modulab.training.learner import PopulationLearner
from modulab.training.program import program_of
from modulab.training.step import Block, draw_minibatch

_CPU = torch.device("cpu")


def reference_members(
    population: int,
    steps: int,
    noise: bool,
    threads: int,
    engine: str,
    first_seed: int = 0,
    device: str = "cpu",
) -> tuple[list[Member], Execution]:
    """Return the members that these overrides of `modulab train` give, and how to train them."""
    overrides = [
        "task=regression",
        f"architecture.width={HIDDEN_FEATURES}",
        f"noise={'poisson' if noise else 'none'}",
        f"noise.scale={SIGMA if noise else 0.0}",
        f"data.num_samples={NUM_SAMPLES}",
        f"training.steps={steps}",
        f"training.batch_size={BATCH_SIZE}",
        f"training.learning_rate={LEARNING_RATE}",
        "training.schedule=constant",
        f"population.seeds={population}",
        f"seed={first_seed}",
        f"trainer.threads={threads}",
        f"trainer.engine={engine}",
        f"trainer.accelerator={device}",
        "trainer.progress=off",
    ]
    with hydra_composer() as compose:
        plan = plan_run(compose_checked(compose, overrides), overrides, compose)
    members = [run.member for run in plan.runs]
    return members, choose_execution(plan.trainer, members)


class _WatchedLearner(PopulationLearner):
    """Keeps the losses of all steps, which a learner otherwise averages over chunks."""

    def __init__(self, members: list[Member], engine: str, threads: int, device: torch.device) -> None:
        super().__init__(members, engine, device, threads)
        self.losses: list[Tensor] = []

    def _note_divergence(self, losses: Tensor, first_step: int) -> None:
        self.losses.append(losses)
        super()._note_divergence(losses, first_step)


class _Stopwatch(Callback):
    def __init__(self, device: str) -> None:
        self._device = device
        self.started: float | None = None
        self.ended = 0.0

    def on_train_epoch_start(self, *_: Any) -> None:
        if self.started is None:
            self.started = stopped_clock(self._device)

    def on_train_epoch_end(self, *_: Any) -> None:
        self.ended = stopped_clock(self._device)


def modulab_engine(
    population: int,
    steps: int,
    noise: bool,
    threads: int,
    engine: str = "compiled",
    first_seed: int = 0,
    device: str = "cpu",
) -> Timing:
    """Train a population under Lightning in this process, and time its steps."""
    members, _ = reference_members(population, steps, noise, threads, engine, first_seed, device)
    torch.set_num_threads(1)
    keep_freed_memory()
    learner, data = watched_learner(members, engine, threads, torch.device(device))
    stopwatch = _Stopwatch(device)
    start = time.perf_counter()
    trainer = lightning.Trainer(
        accelerator=device,
        devices=1,
        max_epochs=data.num_chunks,
        callbacks=[stopwatch],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(learner, datamodule=data)
    whole = time.perf_counter() - start
    assert stopwatch.started is not None
    seconds = stopwatch.ended - stopwatch.started
    losses = torch.cat(learner.losses)
    assert losses.shape[0] == steps
    return Timing(
        seconds,
        population * steps,
        losses[:LOSS_WINDOW].mean().item(),
        losses[-LOSS_WINDOW:].mean().item(),
        (whole - seconds) / population,
    )


def watched_learner(
    members: list[Member], engine: str, threads: int = 1, device: torch.device = _CPU
) -> tuple[_WatchedLearner, PopulationData]:
    """Return a learner of members, and their points, which it has read."""
    learner = _WatchedLearner(members, engine, threads, device)
    data = PopulationData(learner.row_members, 0, device)
    learner.read_data(data.offsets, data.counts)
    return learner, data


def _prepare(workload: Workload, engine: str) -> Repeat:
    def repeat(number: int) -> Timing:
        first_seed = number * workload.population
        return modulab_engine(
            workload.population,
            workload.steps,
            workload.noise,
            workload.threads,
            engine,
            first_seed,
            workload.device,
        )

    return repeat


def prepare(workload: Workload) -> Repeat:
    return _prepare(workload, "compiled")


def prepare_native(workload: Workload) -> Repeat:
    if workload.device != "cpu":
        raise SkippedContender("native steps train on the CPU alone.")
    return _prepare(workload, "native")


def prepare_eager(workload: Workload) -> Repeat:
    return _prepare(workload, "eager")


def prepare_whole(workload: Workload) -> Repeat:
    """Return a function that trains and measures in the eager engine, for its memory."""

    def repeat(number: int) -> Timing:
        members, execution = reference_members(
            workload.population, workload.steps, workload.noise, workload.threads, "eager", number
        )
        start = time.perf_counter()
        with ProgressReport("off", len(members), workload.steps) as progress:
            result = fit.fit_population(members, execution, None, progress)
        losses = [sum(values) / len(values) for values in result.curves["training/loss"]]
        seconds = time.perf_counter() - start
        return Timing(seconds, workload.population * workload.steps, losses[0], losses[-1])

    return repeat


def _block_run(
    noise: bool, threads: int, steps: int, full: bool
) -> tuple[Callable[[], Tensor], Block, Tensor]:
    """Return a function that takes a block through `steps` compiled steps, the block, and its data table."""
    members, _ = reference_members(64, steps, noise, threads, "compiled")
    program = program_of(members[0])
    members = members[: 2 * block_size(program, _CPU) if full else 2]
    learner, data = watched_learner(members, "compiled")
    learner.on_fit_start()
    block, chunk = learner.blocks[0], data.chunk(0)
    members = list(learner.row_members[: len(block.parameters)])
    step = step_function("compiled", program, _CPU)
    return lambda: run_chunk(step, program, block, members, chunk), block, chunk.table


def time_parts(threads: int, steps: int = 200, repeats: int = 5) -> dict[str, float]:
    """Return where a compiled step's time goes, in microseconds a network-step, at a full block of members.

    Each part that can be run alone is compiled and timed alone; `launch` is what a step costs however few
    its members, found from two block sizes; the rest is by difference.
    """
    torch.set_num_threads(threads)
    keep_freed_memory()
    noisy_run, block, table = _block_run(True, threads, steps, full=True)
    noiseless_run, _, _ = _block_run(False, threads, steps, full=True)
    two_run, _, _ = _block_run(True, threads, steps, full=False)
    size = block.parameters.shape[0]
    draw = torch.compile(lambda keys: normals(keys, HIDDEN_FEATURES, BATCH_SIZE), fullgraph=True)
    pick = torch.compile(lambda at: draw_minibatch(block, table, BATCH_SIZE, at, at), fullgraph=True)
    numbers = torch.arange(steps, dtype=torch.int32)
    keys = [block.noise_keys + number for number in numbers]
    runs: dict[str, Callable[[], object]] = {
        "noisy": noisy_run,
        "noiseless": noiseless_run,
        "two": two_run,
        "normals": lambda: [draw(key) for key in keys],
        "minibatch": lambda: [pick(number) for number in numbers],
    }
    for run in runs.values():
        run()
    per_step: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            per_step[name].append((time.perf_counter() - start) / steps * 1e6)
    found = {name: median(values) for name, values in per_step.items()}
    launch = max(0.0, (found["two"] * size - found["noisy"] * 2) / (size - 2)) / size
    normal, minibatch = found["normals"] / size, found["minibatch"] / size
    noisy, noiseless = found["noisy"] / size, found["noiseless"] / size
    return {
        "noise: normal draws": normal,
        "noise: applying it, and its gradient": noisy - noiseless - normal,
        "minibatch: draws and gathering": minibatch,
        "launching a compiled step": launch,
        "forward, backward and Adam": noiseless - minibatch - launch,
        "a noisy step in all": noisy,
        "a noiseless step in all": noiseless,
    }
