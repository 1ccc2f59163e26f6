"""Fit a population: set up, train under Lightning from wherever a checkpoint left off, and measure."""

from __future__ import annotations

import logging
import os
import platform
import signal
import threading
import warnings
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch import Trainer as LightningTrainer

from modulab.config.settings import Member, Trainer
from modulab.errors import ConfigError, foreign_code
from modulab.progress import ProgressReport
from modulab.training.cache import VARIABLES, say_once
from modulab.training.checkpoints import read_checkpoint
from modulab.training.compiled_step import CannotCompile, is_built
from modulab.training.data import PopulationData
from modulab.training.engine import NoCompiler, choose_engine, keep_freed_memory, step_function
from modulab.training.learner import PopulationLearner
from modulab.training.measuring import measure_each
from modulab.training.processor import processor_fact
from modulab.training.program import Program
from modulab.training.recorder import Curves, Interrupted, OnPoint, Recorder


@dataclass(frozen=True)
class PopulationResult:
    """What a fit gave: a value a member for each measure, and curves as [step][member]."""

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


def cpu_count() -> int:
    """Return the number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0))


def thread_count(trainer: Trainer, engine: str, device: torch.device) -> int:
    """Return how many threads train and measure a population with this engine."""
    if device.type != "cpu":
        return 1
    return trainer.threads or (1 if engine == "eager" else cpu_count())


def device_name(device: torch.device) -> str:
    """Return the model of a device."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return processor_fact("model name") or platform.machine()


def choose_device(accelerator: str) -> torch.device:
    """Return the device to train on. Raises: ConfigError where CUDA is asked for and there is none."""
    available = torch.cuda.is_available()
    if accelerator == "cuda" and not available:
        raise ConfigError(
            "trainer.accelerator=cuda, but torch finds no CUDA device here. "
            "Use trainer.accelerator=cpu, or install a CUDA build of torch."
        )
    return torch.device("cuda" if accelerator != "cpu" and available else "cpu")


def fit_population(
    members: Sequence[Member],
    trainer: Trainer,
    checkpoint: Path | None,
    progress: ProgressReport,
    on_point: OnPoint | None = None,
) -> PopulationResult:
    """Train members that share every structural setting, and measure them.

    With a checkpoint at hand the fit goes on from it; the end is the same as without the break. `on_point` hears
    of each point of the curves as it comes, those of the checkpoint first.

    Raises: ConfigError for an engine or device that is not here or a checkpoint that cannot be read;
    ForeignError for whatever else failed, whose cause may lie in a single member or in too little memory for
    all; Interrupted when Ctrl-C stopped it.
    """
    with foreign_code():
        return _fit_population(members, trainer, checkpoint, progress, on_point)


def _fit_population(
    members: Sequence[Member],
    trainer: Trainer,
    checkpoint: Path | None,
    progress: ProgressReport,
    on_point: OnPoint | None,
) -> PopulationResult:
    device = choose_device(trainer.accelerator)
    may_change = trainer.engine_may_change
    engine = choose_engine(
        trainer.engine, members, device, trainer.threads or cpu_count(), strict=not may_change
    )
    keep_freed_memory()
    threads = thread_count(trainer, engine, device)
    torch.set_num_threads(1)
    recorder = Recorder(members, checkpoint, trainer.checkpoint_seconds, progress, on_point)
    learner, data = _set_up(members, engine, device, threads, checkpoint, recorder)
    if data.num_chunks > 0:
        if engine == "compiled":
            if may_change:
                engine = _compile_if_possible(learner, device, progress)
            else:
                engine = _compile_as_asked(learner, device, progress)
        if engine == "eager" and trainer.threads is None:
            threads = 1
        if engine == "eager":
            learner.train_eagerly(threads)
        _lightning_fit(learner, data, recorder, device)
        if int(learner.next_step) < members[0].training.steps:
            raise Interrupted
    progress.say(f"measuring {len(members)}")
    measured = measure_each(members, learner, members[0].probes, threads)
    return PopulationResult(
        measures=measured.measures,
        failures=measured.failures,
        skipped=measured.skipped,
        diverged_at=learner.member_divergence().tolist(),
        curve_steps=recorder.steps,
        curves=recorder.curves,
        seconds=recorder.seconds,
        engine=engine,
        device=device_name(device),
    )


def _compile_as_asked(learner: PopulationLearner, device: torch.device, progress: ProgressReport) -> str:
    """Compile what a population needs; train eagerly only where torch has changed, which the user cannot mend."""
    try:
        _compile(learner.programs, device, progress)
    except NoCompiler as error:
        return _train_eagerly(str(error), progress)
    return "compiled"


def _train_eagerly(reason: str, progress: ProgressReport) -> str:
    say_once(f"training with the eager engine: {reason}")
    progress.say("training")
    return "eager"


_cannot_compile: dict[str, str] = {}
"""Why compiling is not possible in this process, by the environment's cache folders: found out once."""


def _compile_if_possible(learner: PopulationLearner, device: torch.device, progress: ProgressReport) -> str:
    """Compile what a population needs, and return the engine that it can be trained with."""
    place = repr([os.environ.get(name) for name in (*VARIABLES, "XDG_CACHE_HOME", "HOME")])
    if place not in _cannot_compile:
        try:
            _compile(learner.programs, device, progress)
        except (CannotCompile, NoCompiler) as error:
            _cannot_compile[place] = str(error)
        except Exception as error:  # whatever torch makes of a step of the user's own
            return _train_eagerly(f"{type(error).__name__}: {error}", progress)
        else:
            return "compiled"
    return _train_eagerly(_cannot_compile[place], progress)


def _compile(programs: Sequence[Program], device: torch.device, progress: ProgressReport) -> None:
    for number, program in enumerate(programs, start=1):
        if device.type != "cpu" or not is_built(program):
            progress.say(
                f"compiling training step {number} of {len(programs)}, 15 to 30 s, kept for later runs",
                at_once=True,
            )
        step_function("compiled", program, device)
    progress.say("training")


def _set_up(
    members: Sequence[Member],
    engine: str,
    device: torch.device,
    threads: int,
    checkpoint: Path | None,
    recorder: Recorder,
) -> tuple[PopulationLearner, PopulationData]:
    learner = PopulationLearner(members, engine, device, threads)
    if checkpoint is not None and checkpoint.exists():
        content = read_checkpoint(checkpoint)
        learner.load_state_dict(content["state_dict"])
        recorder.resume(content["modulab"])
    data = PopulationData(learner.row_members, int(learner.next_step), device)
    learner.read_data(data.offsets, data.counts)
    return learner, data


@contextmanager
def _signal_handlers_kept() -> Generator[None]:
    """Put back the handlers of Ctrl-C and of the signal to end.

    The recorder, which takes them over after Lightning, is told of the end after Lightning has put them back, and
    by itself would leave Lightning's.
    """
    if threading.current_thread() is not threading.main_thread():  # which alone may handle signals
        yield
        return
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            if handler is not None:
                signal.signal(number, handler)


def _lightning_fit(
    learner: PopulationLearner, data: PopulationData, recorder: Recorder, device: torch.device
) -> None:
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    with warnings.catch_warnings(), _signal_handlers_kept():
        # Lightning advises worker processes for a loader whose one item is made on the spot, and an
        # optimiser for a module that updates by itself.
        warnings.filterwarnings("ignore", module="lightning")
        trainer = LightningTrainer(
            accelerator="cuda" if device.type == "cuda" else "cpu",
            devices=1,
            plugins=[
                LightningEnvironment()
            ],  # on a cluster's node, the launcher and not Lightning sees to requeueing
            max_epochs=data.num_chunks,
            callbacks=[recorder],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
        )
        try:
            trainer.fit(learner, datamodule=data)
        except SystemExit as error:
            # Lightning's answer to Ctrl-C in the middle of a chunk.
            if isinstance(error.__context__, KeyboardInterrupt):
                raise Interrupted from error
            raise
