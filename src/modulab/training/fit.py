"""Fit a population: set up, train under Lightning from wherever a checkpoint left off, and measure."""

from __future__ import annotations

import logging
import os
import platform
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast, get_args

import torch

from modulab.config.settings import Member
from modulab.errors import foreign_code
from modulab.lightning import LightningEnvironment
from modulab.lightning import Trainer as LightningTrainer
from modulab.progress import ProgressReport
from modulab.text import say_once
from modulab.training.cache import VARIABLES
from modulab.training.checkpoints import check_layout, read_checkpoint
from modulab.training.compiled_step import is_built as step_is_built
from modulab.training.data import PopulationData
from modulab.training.engine import NoCompiler, keep_freed_memory, step_function
from modulab.training.execution import Engine, Execution
from modulab.training.learner import PopulationLearner
from modulab.training.libraries import CannotCompile
from modulab.training.measuring import measure_each
from modulab.training.native.step import is_built as native_is_built
from modulab.training.processor import processor_fact
from modulab.training.program import Program
from modulab.training.recorder import Curves, Interrupted, OnPoint, Recorder, handlers_kept, interruptions


@dataclass(frozen=True)
class PopulationResult:
    """What a fit gave: one value per member for each measure, and curves as [step][member]."""

    measures: dict[str, list[float]]
    failures: dict[int, str]
    """Why members could not be measured, by their index."""
    skipped: list[dict[str, str]]
    """Why each member lacks measures, by their keys under `probes.measures`."""
    diverged_at: list[int]
    """The step at which each member's loss or weights ceased to be finite, or -1."""
    curve_steps: list[int]
    curves: Curves
    seconds: float
    engine: str
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

    With a checkpoint at hand the fit goes on from it; the end is the same as without the break. `on_point` hears
    of each point of the curves as it comes, those of the checkpoint first.

    Raises: ConfigError where compiling is asked for and fails, or a checkpoint cannot be read; ForeignError for
    whatever else failed, whose cause may lie in a single member or in too little memory for all; Interrupted when
    Ctrl-C stopped it.
    """
    with foreign_code():
        keep_freed_memory()
        torch.set_num_threads(1)
        recorder = Recorder(members, checkpoint, execution.checkpoint_seconds, progress, on_point)
        learner, data = _set_up(members, execution, checkpoint, recorder)
        if data.num_chunks > 0:
            if execution.engine != "eager":
                execution = execution.with_engine(_usable_engine(learner, execution, progress))
                learner.train_with(execution.engine, execution.threads)
            _lightning_fit(learner, data, recorder, execution.device)
            if int(learner.next_step) < members[0].training.steps:
                raise Interrupted
        elif recorder.trained_by in get_args(Engine):
            # The checkpoint is that of the end of training, by whatever engine was possible then.
            execution = execution.with_engine(cast(Engine, recorder.trained_by))
        progress.say(f"measuring {len(members)}")
        measured = measure_each(
            members, learner.member_networks(), learner.member_masks(), members[0].probes, execution.threads
        )
        return PopulationResult(
            measures=measured.measures,
            failures=measured.failures,
            skipped=measured.skipped,
            diverged_at=learner.member_divergence().tolist(),
            curve_steps=recorder.steps,
            curves=recorder.curves,
            seconds=recorder.seconds,
            engine=execution.engine,
            device=device_name(execution.device),
        )


def _usable_engine(learner: PopulationLearner, execution: Execution, progress: ProgressReport) -> Engine:
    """Compile what a population needs, and return the engine that it can be trained with."""
    compile_steps = _compile_if_possible if execution.engine_may_change else _compile_as_asked
    return compile_steps(learner, execution, progress)


def _compile_as_asked(learner: PopulationLearner, execution: Execution, progress: ProgressReport) -> Engine:
    """Compile what a population needs; train eagerly only where torch has changed, which the user cannot mend."""
    try:
        _compile(learner.programs, execution, progress)
    except NoCompiler as error:
        return _train_eagerly(str(error), progress)
    return execution.engine


def _train_eagerly(reason: str, progress: ProgressReport) -> Engine:
    say_once(f"training with the eager engine: {reason}")
    progress.say("training")
    return "eager"


_cannot_compile: dict[str, str] = {}
"""Why compiling is not possible in this process, by the environment's cache folders: found out once."""


def _compile_if_possible(
    learner: PopulationLearner, execution: Execution, progress: ProgressReport
) -> Engine:
    """Compile what a population needs; train eagerly where that fails, whatever the reason."""
    place = repr([os.environ.get(name) for name in (*VARIABLES, "XDG_CACHE_HOME", "HOME")])
    if place not in _cannot_compile:
        try:
            _compile(learner.programs, execution, progress)
        except (CannotCompile, NoCompiler) as error:
            _cannot_compile[place] = str(error)
        except Exception as error:  # whatever torch makes of a step of the user's own
            return _train_eagerly(f"{type(error).__name__}: {error}", progress)
        else:
            return execution.engine
    return _train_eagerly(_cannot_compile[place], progress)


def _compile(programs: Sequence[Program], execution: Execution, progress: ProgressReport) -> None:
    engine, device = execution.engine, execution.device
    is_built, seconds = (
        (native_is_built, "about 2 s") if engine == "native" else (step_is_built, "20 to 60 s")
    )
    for number, program in enumerate(programs, start=1):
        if device.type != "cpu" or not is_built(program):
            progress.say(
                f"compiling training step {number} of {len(programs)}, {seconds}, kept for later runs",
                at_once=True,
            )
        with progress.aside():
            step_function(engine, program, device)
    progress.say("training")


def _set_up(
    members: Sequence[Member], execution: Execution, checkpoint: Path | None, recorder: Recorder
) -> tuple[PopulationLearner, PopulationData]:
    learner = PopulationLearner(members, execution.engine, execution.device, execution.threads)
    if checkpoint is not None and checkpoint.exists():
        content = read_checkpoint(checkpoint)
        check_layout(checkpoint, content, learner.network)
        learner.load_state_dict(content["state_dict"])
        recorder.resume(content["modulab"])
    data = PopulationData(learner.row_members, int(learner.next_step), execution.device)
    learner.read_data(data.offsets, data.counts)
    return learner, data


def silent_trainer(*, on_cuda: bool, plugins: Sequence[Any] = (), **settings: Any) -> LightningTrainer:
    """Return a Lightning trainer that logs, draws and saves nothing by itself: callbacks and plugins do."""
    return LightningTrainer(
        accelerator="cuda" if on_cuda else "cpu",
        # On a cluster's node, the launcher and not Lightning sees to requeueing.
        plugins=[LightningEnvironment(), *plugins],
        logger=False,
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
        trainer.fit(learner, datamodule=data)
