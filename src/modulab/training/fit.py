"""Fit a population: set up, train under Lightning from wherever a checkpoint left off, and measure."""

from __future__ import annotations

import logging
import math
import platform
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from modulab.config.settings import Member
from modulab.errors import foreign_code
from modulab.lightning import LightningEnvironment, Logger
from modulab.lightning import Trainer as LightningTrainer
from modulab.progress import ProgressReport
from modulab.training.checkpoints import check_layout, read_checkpoint
from modulab.training.data import PopulationData
from modulab.training.engine import Engine, keep_freed_memory
from modulab.training.execution import Execution, fastest, in_own_precision
from modulab.training.learner import PopulationLearner
from modulab.training.measuring import measure_each
from modulab.training.processor import processor_fact
from modulab.training.program import Program, program_of
from modulab.training.recorder import Curves, Interrupted, OnPoint, Recorder, handlers_kept, interruptions
from modulab.training.trial import try_program
from modulab.training.usable import usable_engines


@dataclass(frozen=True)
class PopulationResult:
    """The results of a fit: one value per member for each measure, and curves as [step][member]."""

    measures: dict[str, list[float]]
    failures: dict[int, str]
    """Why members could not be measured, by their index."""
    skipped: list[dict[str, str]]
    """Why each member lacks measures, or points of curves, by their keys under `probes.measures`."""
    diverged_at: list[int]
    """The step at which each member's loss or weights ceased to be finite, or -1."""
    stopped_at: list[int | None]
    """The step at which each member stopped before its last one, or None."""
    curve_steps: list[int]
    curves: Curves
    seconds: float
    engines: list[str]
    """The engine that trained each member."""
    device: str
    """The model of the processor or accelerator: results are the same bits on one kind of it."""


def device_name(device: torch.device) -> str:
    """Return the model of a device."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return processor_fact("model name") or platform.machine()


def fit_population(
    members: Sequence[Member],
    execution: Execution,
    checkpoint: Path | None,
    progress: ProgressReport,
    on_point: OnPoint | None = None,
) -> PopulationResult:
    """Train members that share every structural setting, and measure them.

    With a checkpoint at hand the fit continues from it; the end is the same as without the break. `on_point` gets
    each point of the curves as it comes, those of the checkpoint first.

    Raises: ConfigError if compiling is asked for and fails, or a checkpoint cannot be read; ForeignError for
    whatever else failed, whose cause may lie in a single member or in too little memory for all; Interrupted when
    Ctrl-C stopped it.
    """
    with foreign_code():
        execution = in_own_precision(execution, members)
        keep_freed_memory()
        torch.set_num_threads(1)
        recorder = Recorder(members, checkpoint, execution.checkpoint_seconds, progress, on_point)
        learner, data = _set_up(members, execution, checkpoint, recorder)
        begun = _begun(learner, recorder)
        if data.num_chunks > 0:
            engines = usable_engines(learner.programs, begun, execution, progress)
        else:  # The checkpoint is that of the end of training, by whatever engines were possible then.
            engines = _engines_then(begun, execution)
        execution = execution.with_engine(fastest(engines.values()) or execution.engine)
        learner.train_with(engines, execution.threads)
        if data.num_chunks > 0:
            _lightning_fit(learner, data, recorder, execution.device)
            if int(learner.next_step) < members[0].training.steps:
                raise Interrupted
        progress.say(f"measuring {len(members)}")
        measured = measure_each(
            members, learner.member_networks(), learner.member_masks(), members[0].probes, execution.threads,
            tell=progress.tell, engines=learner.member_engines,
        )  # fmt: skip
        diverged_at: list[int] = learner.member_divergence().tolist()
        return PopulationResult(
            measures=of_converging(measured.measures, diverged_at)
            | steps_taken(members, recorder.stopped_at),
            stopped_at=recorder.stopped_at,
            failures=measured.failures,
            skipped=measured.lacking(recorder.missing),
            diverged_at=diverged_at,
            curve_steps=recorder.steps,
            curves=recorder.curves,
            seconds=recorder.seconds,
            engines=list(learner.member_engines),
            device=device_name(execution.device),
        )


def of_converging(measures: Mapping[str, list[float]], diverged_at: Sequence[int]) -> dict[str, list[float]]:
    """Return measures of which members that diverged have none, even if they were finite again in the end."""
    return {
        name: [value if step < 0 else math.nan for value, step in zip(values, diverged_at, strict=True)]
        for name, values in measures.items()
    }


def steps_taken(members: Sequence[Member], stopped_at: Sequence[int | None]) -> dict[str, list[float]]:
    """Return the measure `training/steps` of members that may stop early; nothing if none may."""
    if not any(member.training.may_stop for member in members):
        return {}
    taken = [
        float(member.training.steps if at is None else at) if member.training.may_stop else math.nan
        for member, at in zip(members, stopped_at, strict=True)
    ]
    return {"training/steps": taken}


def _begun(learner: PopulationLearner, recorder: Recorder) -> dict[Program, Engine | None]:
    """Return the engine of each program of a population that is resumed, None if its checkpoint names none."""
    if recorder.trained_by is None:
        return {}
    return {
        program: fastest([name])
        for program, name in zip(learner.member_programs, recorder.trained_by, strict=True)
    }


def _engines_then(begun: Mapping[Program, Engine | None], execution: Execution) -> dict[Program, Engine]:
    """Return the engines that a checkpoint names, and the one of this execution where it names none."""
    return {program: engine or execution.engine for program, engine in begun.items()}


def _set_up(
    members: Sequence[Member], execution: Execution, checkpoint: Path | None, recorder: Recorder
) -> tuple[PopulationLearner, PopulationData]:
    for member in {program_of(member): member for member in members}.values():
        try_program(member)
    learner = PopulationLearner(members, execution.engine, execution.device, execution.threads)
    if checkpoint is not None and checkpoint.exists():
        content = read_checkpoint(checkpoint)
        check_layout(checkpoint, content, learner.network)
        learner.load_state_dict(content["state_dict"])
        recorder.resume(content["modulab"])
        learner.go_on_with(recorder.going_on())
    data = PopulationData(learner.row_members, int(learner.next_step), execution.device, execution.threads)
    learner.read_data(data.offsets, data.counts)
    return learner, data


def silent_trainer(
    *, on_cuda: bool, plugins: Sequence[Any] = (), logger: Logger | bool = False, **settings: Any
) -> LightningTrainer:
    """Return a Lightning trainer that draws and saves nothing by itself: callbacks and plugins do."""
    return LightningTrainer(
        accelerator="cuda" if on_cuda else "cpu",
        # On a cluster's node, the launcher and not Lightning sees to requeueing.
        plugins=[LightningEnvironment(), *plugins],
        logger=logger,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        **settings,
    )


def _lightning_fit(
    learner: PopulationLearner, data: PopulationData, recorder: Recorder, device: torch.device
) -> None:
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    with warnings.catch_warnings(), handlers_kept(), interruptions():
        # Lightning advises worker processes for a loader whose one item is made on the spot, and an
        # optimiser for a module that updates by itself.
        warnings.filterwarnings("ignore", module="lightning")
        trainer = silent_trainer(
            on_cuda=device.type == "cuda", devices=1, max_epochs=data.num_chunks, callbacks=[recorder]
        )
        try:
            trainer.fit(learner, datamodule=data)
        finally:
            # Trainer and learner refer to each other, and would stay, with all points, until garbage is collected.
            vars(trainer).clear()
