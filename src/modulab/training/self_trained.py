"""Fit a member that trains itself: its LightningModule, its optimisers and data, under Lightning's own loops.

The fit is a function of the member alone, as its process is seeded by the member. It continues from the beginning of an
epoch: the checkpoint holds Lightning's state, the state of the random generators, and the network's parameters in the
form in which those of packed members are kept.

torch's compiler is imported first, as the user's own module may use it: Lightning then finds it as it is.
"""

from __future__ import annotations

import logging
import math
import multiprocessing
import warnings
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, cast

import torch
import torch._dynamo  # pyright: ignore[reportUnusedImport]
from jaxtyping import Float
from torch import Tensor, nn

from modulab.config.settings import Member
from modulab.errors import ConfigError, foreign_code
from modulab.lightning import LightningModule, seed_everything
from modulab.lightning import Trainer as LightningTrainer
from modulab.networks.base import Network, NetworkPopulation
from modulab.networks.self_trained import SelfTrained
from modulab.progress import ProgressReport
from modulab.random_state import kept_random_state, random_state, set_random_state
from modulab.training.checkpoints import check_layout, read_checkpoint, save_checkpoint
from modulab.training.execution import Execution
from modulab.training.fit import PopulationResult, device_name, of_converging, silent_trainer
from modulab.training.fit_plugins import CannotSave, FitCheckpoints, FitLogger
from modulab.training.measuring import measure_each
from modulab.training.recorder import Interrupted, OnPoint, Recorder, handlers_kept, interruptions
from modulab.training.task_batches import TaskBatches

_LOGGED = "logged/"


def fit_alone(
    member: Member,
    execution: Execution,
    checkpoint: Path,
    progress: ProgressReport,
    on_point: OnPoint | None = None,
    device_number: int = 0,
) -> PopulationResult:
    """Train and measure a member whose architecture trains itself, in this process, whose random state it sets.

    Raises: ConfigError for a checkpoint that cannot be used; ForeignError for whatever fails in the user's code;
    Interrupted when Ctrl-C stopped it.
    """
    architecture = member.architecture
    assert isinstance(architecture, SelfTrained)
    logging.getLogger("lightning").setLevel(logging.ERROR)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    with foreign_code():
        torch.set_num_threads(execution.threads)
        network = architecture.network(member.task)
        seed_everything(member.seed % 2**32, workers=True, verbose=False)
        module = architecture.build(member.task)
        trained = _TrainedAlone(network, architecture, module)
        recorder = _OwnRecorder(member, trained, checkpoint, execution, progress, on_point)
        if checkpoint.exists():
            recorder.read(checkpoint)
        if not recorder.is_done:
            _fit(member, architecture, module, recorder, execution, device_number)
            if not recorder.is_done:
                raise Interrupted
        progress.say("measuring")
        measured = measure_each([member], trained.member_networks(), trained.member_masks(), member.probes)
        return PopulationResult(
            measures=of_converging(measured.measures, [recorder.diverged_at])
            | {name: [value] for name, value in recorder.logged.items()},
            failures=measured.failures,
            skipped=measured.lacking(recorder.missing),
            diverged_at=[recorder.diverged_at],
            stopped_at=[None],
            curve_steps=recorder.steps,
            curves=recorder.curves,
            seconds=recorder.seconds,
            engines=[architecture.engine],
            device=device_name(execution.device),
        )


class _TrainedAlone:
    """A module under training as a population of one."""

    def __init__(self, network: Network, architecture: SelfTrained, module: LightningModule) -> None:
        self.network = network
        self._architecture = architecture
        self._module = module
        self._row: Tensor | None = None

    def member_parameters(self) -> Float[Tensor, "member parameter"]:
        """Return the network's parameters and buffers as one row."""
        if self._row is not None:
            return self._row
        part: nn.Module = self._architecture.described(self._module)
        values = dict(part.named_parameters()) | dict(part.named_buffers())
        row: list[Tensor] = []
        for each in self.network.layout:
            value = values.get(each.name)
            if value is None or tuple(value.shape) != each.shape:
                raise ConfigError(
                    f"architecture.module: its parameter '{each.name}' is not what the constructor made of it. Make "
                    "the network in the constructor, and not in setup or configure_model."
                )
            row.append(value.detach().cpu().float().flatten())
        return torch.cat(row)[None] if row else torch.empty(1, 0)

    def member_networks(self) -> NetworkPopulation:
        """Return the network with its row of parameters."""
        return NetworkPopulation(self.network, self.member_parameters())

    def member_masks(self) -> Float[Tensor, "member parameter"]:
        """Return a mask of ones where parameters are trained, as a torch module's is."""
        parts = [torch.full((part.size,), float(part.trained)) for part in self.network.layout]
        return torch.cat(parts)[None] if parts else torch.empty(1, 0)

    def keep(self, row: Float[Tensor, "member parameter"]) -> None:
        """Take the parameters of a fit that had ended before this process began."""
        self._row = row


class _OwnRecorder(Recorder):
    """Adds a point to the curves, and saves, at the beginning of each epoch and at the end."""

    def __init__(
        self,
        member: Member,
        trained: _TrainedAlone,
        checkpoint: Path,
        execution: Execution,
        progress: ProgressReport,
        on_point: OnPoint | None,
    ) -> None:
        super().__init__([member], checkpoint, execution.checkpoint_seconds, progress, on_point)
        self.is_done = False
        self.diverged_at = -1
        self.logged: dict[str, float] = {}
        self.path = checkpoint
        self.logger = FitLogger(self.say)
        self.batches: TaskBatches | None = None
        self.random: Mapping[str, Any] | None = None
        """The state of the generators at the beginning of the epoch with which a resumed fit begins."""
        self.resume_from: Path | None = None
        self._trained = trained
        self._losses: list[float] = []

    def read(self, checkpoint: Path) -> None:
        """Restore the data of a checkpoint; a fit that could not be saved while it ran is trained again."""
        content = read_checkpoint(checkpoint)
        saved = content["modulab"]
        check_layout(checkpoint, content, self._trained.network)
        if "alone" not in saved:
            raise ConfigError(
                f"{checkpoint}: was not written by a member that trains itself: the code of its architecture has "
                "changed. Undo the change, or train in another folder."
            )
        alone = saved["alone"]
        self.resume(saved)
        self.is_done, self.diverged_at = bool(alone["done"]), int(alone["diverged_at"])
        self.logged = dict(alone["logged"])
        if self.is_done:
            self._trained.keep(content["state_dict"]["parameters_by_row"])
        else:
            self.random, self.resume_from = alone["random"], checkpoint

    def on_train_start(self, trainer: LightningTrainer, pl_module: LightningModule) -> None:
        """Reject a module without an optimiser, whose steps Lightning would nevertheless count."""
        super().on_train_start(trainer, pl_module)
        own = {id(parameter) for parameter in pl_module.parameters()}
        groups = [group for optimiser in trainer.optimizers for group in optimiser.param_groups]
        # Lightning replaces a missing optimiser by one that trains nothing.
        has_none = not any(id(parameter) in own for group in groups for parameter in group["params"])
        if pl_module.automatic_optimization and has_none:
            raise ConfigError(
                "architecture.module: its configure_optimizers returns no optimiser of its parameters, so "
                "nothing would be trained. Return one, or set self.automatic_optimization = False and step "
                "in training_step."
            )

    def on_train_epoch_start(self, trainer: LightningTrainer, pl_module: LightningModule) -> None:
        """Begin an epoch: the first after resuming as it would have begun without the break."""
        del pl_module
        if self.batches is not None:
            self.batches.epoch = trainer.current_epoch
        if self.random is not None:
            # Lightning has made the loader's iterator already, and would not make it here, as it does otherwise.
            trainer.fit_loop.on_iteration_done()
            trainer.fit_loop.epoch_loop.restarting = False
            set_random_state(self.random)
            self.random = None
            return
        if trainer.current_epoch > 0:
            self._end_of_epoch(trainer, done=False)
            if self._interrupted:
                raise Interrupted

    def on_train_batch_end(
        self, trainer: LightningTrainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Note the loss, and the first step at which it is not finite."""
        del pl_module, batch, batch_idx
        loss = cast("Any", outputs).get("loss") if isinstance(outputs, Mapping) else outputs
        if isinstance(loss, Tensor) and loss.numel() == 1:
            self._losses.append(float(loss.detach()))
            if not math.isfinite(self._losses[-1]) and self.diverged_at < 0:
                self.diverged_at = max(0, trainer.global_step - 1)
        parent = multiprocessing.parent_process()
        if parent is not None and not parent.is_alive():
            self._interrupted = True
        if self._interrupted and self.batches is None:
            raise Interrupted  # epochs of the user's data may be long: the last one's checkpoint has to do

    def on_train_epoch_end(self, trainer: LightningTrainer, pl_module: LightningModule) -> None:
        """Do nothing yet: the user's own hook may still log."""

    def on_train_end(self, trainer: LightningTrainer, pl_module: LightningModule) -> None:
        """Add the last point, and save."""
        del pl_module
        values = self._trained.member_parameters()
        if self.diverged_at < 0 and not bool(values.isfinite().all()):
            self.diverged_at = max(0, trainer.global_step - 1)
        self._end_of_epoch(trainer, done=True)

    def _end_of_epoch(self, trainer: LightningTrainer, done: bool) -> None:
        self.is_done = done
        step = trainer.global_step
        if not done and step == (self.steps or [0])[-1]:
            raise ConfigError(
                "architecture.module: a whole epoch took no optimiser step, so training.steps would never be "
                "reached. "
                "Return an optimiser from configure_optimizers, and a loss from training_step or call the "
                "optimiser's "
                "step."
            )
        if not self.steps or step > self.steps[-1]:
            self._add_point(trainer, step)
        with suppress(CannotSave):
            self._save_if_due(trainer, last=done)

    def _add_point(self, trainer: LightningTrainer, step: int) -> None:
        advanced = step - (self.steps[-1] if self.steps else 0)
        self.steps.append(step)
        values = {"training/loss": sum(self._losses) / len(self._losses) if self._losses else math.nan}
        self._losses = []
        found = self.logger.take()  # what self.log was given is among it now and then, of some step
        found |= {
            name: float(value) for name, value in trainer.callback_metrics.items() if value.numel() == 1
        }
        self.logged |= {f"{_LOGGED}{name}": value for name, value in found.items()}
        values |= {f"{_LOGGED}{name}": value for name, value in found.items()}
        with kept_random_state():  # a measure that draws fails, and must not change what training draws
            measured = self._measure([0], self._trained.member_networks(), self._trained.member_masks())
        values |= {name: points[0] for name, points in measured.items()}
        for name in self.curves.keys() | values.keys():
            self._add_to_curve(name, [values.get(name, math.nan)])
        self._tell_point(-1)
        self._progress.advance(advanced)

    def on_save_checkpoint(
        self, trainer: LightningTrainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add nothing: `FitCheckpoints` writes what `content` returns beside Lightning's state."""

    def _save(self, trainer: LightningTrainer, checkpoint: Path) -> None:
        save_checkpoint(trainer, checkpoint)  # errors of the user's own hooks are raised unchanged

    def content(self, lightning: Mapping[str, Any] | None) -> dict[str, Any]:
        """Return a population's checkpoint of one member; without Lightning's state it is the end of a fit."""
        (member,) = self._members
        row = self._trained.member_parameters()
        network = self._trained.network
        engine = cast("SelfTrained", member.architecture).engine
        record = self._record(network, torch.zeros(1, dtype=torch.int64), engine)
        alone = {
            "done": self.is_done,
            "diverged_at": self.diverged_at,
            "logged": dict(self.logged),
            "random": None if self.is_done else random_state(),
            "lightning": lightning,
        }
        return {
            "state_dict": {
                "parameters_by_row": row,
                "first_moments": torch.empty(1, 0),
                "second_moments": torch.empty(1, 0),
                "next_step": torch.tensor((self.steps or [0])[-1]),
                "diverged_at": torch.tensor([self.diverged_at]),
            },
            "modulab": record | {"alone": alone},
        }

    def say(self, sentence: str) -> None:
        """Report a message to the user."""
        self._progress.say(sentence, at_once=True)


def _fit(
    member: Member,
    architecture: SelfTrained,
    module: LightningModule,
    recorder: _OwnRecorder,
    execution: Execution,
    device_number: int,
) -> None:
    on_cuda = execution.device.type == "cuda"
    trainer = silent_trainer(
        on_cuda=on_cuda,
        devices=[device_number % torch.cuda.device_count()] if on_cuda else 1,
        plugins=[FitCheckpoints(recorder, recorder.path)],
        logger=recorder.logger,
        default_root_dir=recorder.path.with_suffix(""),  # where the user's callbacks write
        max_steps=member.training.steps,
        max_epochs=-1,
        callbacks=[recorder],
    )
    data: dict[str, Any] = {"datamodule": architecture.build_data()}
    if not architecture.brings_data:
        recorder.batches = TaskBatches(member)
        data = {"train_dataloaders": recorder.batches.loader()}
    with handlers_kept(), interruptions():
        trainer.fit(module, ckpt_path=recorder.resume_from, weights_only=True, **data)


@contextmanager
def warnings_told(tell: Callable[[str], None]) -> Generator[None]:
    """Report what the user's code warns of, each sentence once, and keep Lightning's and torch's advice to itself.

    That advice is about settings of a Trainer that is not the user's.
    """
    told: set[str] = set()

    def show(
        message: Warning | str, category: type[Warning], filename: str, *others: Any, **more: Any
    ) -> None:
        del others, more
        libraries = {"lightning", "pytorch_lightning", "torch", "torchmetrics"}
        foreign = libraries.intersection(Path(filename).parts) or category.__module__.startswith("lightning")
        text = f"{category.__name__}: {message}"
        if not foreign and text not in told:
            told.add(text)
            tell(text)

    with warnings.catch_warnings():
        warnings.simplefilter("default")
        warnings.showwarning = show
        yield
