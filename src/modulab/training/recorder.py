"""The callback of a fit: curves after every chunk, checkpoints at intervals, and a clean stop on Ctrl-C."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

from jaxtyping import Float, Int64
from torch import Tensor

from modulab.config.settings import Member, Probes
from modulab.errors import ConfigError, ForeignError, describe
from modulab.lightning import Callback, LightningModule
from modulab.lightning import Trainer as LightningTrainer
from modulab.measure_names import current_measure, stands_for
from modulab.metrics.measure import curve_measures
from modulab.metrics.probe import Asked
from modulab.networks.base import Network, NetworkPopulation
from modulab.progress import ProgressReport
from modulab.results.tables import LACK_POINTS
from modulab.schema import suggest_measure
from modulab.signals import ending_signals
from modulab.training.checkpoints import CHECKPOINT_FORMAT, member_engines, save_checkpoint
from modulab.training.learner import PopulationLearner
from modulab.training.measuring import measure_each
from modulab.training.stopping import plateau_factor, stopping_step

Curves = dict[str, list[list[float]]]
"""Each curve's values, by measure: one list per point in time, with one value per member."""

OnPoint = Callable[[int, Mapping[str, list[float]]], None]
"""Takes a point of the curves: its step, and one value per member for each measure."""

_SAMPLES = 512


class Interrupted(KeyboardInterrupt):
    """SIGINT, SIGTERM or SIGHUP arrived; the checkpoint holds everything up to the last whole chunk."""


@contextmanager
def interruptions() -> Generator[None]:
    """Raise Interrupted for Lightning's answer to Ctrl-C, which is to exit."""
    try:
        yield
    except SystemExit as error:
        if isinstance(error.__context__, KeyboardInterrupt):
            raise Interrupted from error
        raise


@contextmanager
def handlers_kept() -> Generator[None]:
    """Restore the handlers of the signals that end training.

    The recorder, which takes them over after Lightning, is called at the end after Lightning has put them back, and
    by itself would leave Lightning's.
    """
    if threading.current_thread() is not threading.main_thread():  # which alone may handle signals
        yield
        return
    handlers = {number: signal.getsignal(number) for number in ending_signals()}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            if handler is not None:
                signal.signal(number, handler)


class Recorder(Callback):
    """Stores the results of a fit while it runs, so an interruption loses at most the time since a checkpoint."""

    def __init__(
        self,
        members: Sequence[Member],
        checkpoint: Path | None,
        seconds: float,
        progress: ProgressReport,
        on_point: OnPoint | None = None,
    ) -> None:
        """Save to `checkpoint`, if there is one, at least `seconds` apart and at the end."""
        self._on_point = on_point
        self._members = members
        self._checkpoint = checkpoint
        self._checkpoint_seconds = seconds
        self._progress = progress
        self._begun = self._saved = time.monotonic()
        self._seconds_before = 0.0
        self.trained_by: list[str | None] | None = None
        """The engine that each member of a resumed checkpoint was trained by, None if it does not say."""
        self._interrupted = False
        self._previous_handlers: dict[int, Any] = {}
        self.steps: list[int] = []
        self.curves: Curves = {"training/loss": []}
        self._settings = curve_settings(members[0].probes)
        self._sparse_settings = curve_settings(members[0].probes, sparse=True)
        self._asked = Asked(tuple(self._settings.curves))
        self.stopped_at: list[int | None] = [None] * len(members)
        """The step at which each member stopped before its last one, or None."""
        self.missing: list[dict[str, str]] = [{} for _ in members]
        """Why points are missing in curves of each member, by the measure's key under `probes.measures`."""

    @property
    def seconds(self) -> float:
        """Return the time spent on this population, in this process and those before it."""
        return self._seconds_before + time.monotonic() - self._begun

    def resume(self, saved: Mapping[str, Any]) -> None:
        """Restore the curves and the time of a checkpoint."""
        self.steps = list(saved["curve_steps"])
        self.curves = {current_measure(name): list(values) for name, values in saved["curves"].items()}
        self.missing = [dict(each) for each in saved.get("missing", self.missing)]
        self._seconds_before = float(saved["seconds"])
        self.trained_by = member_engines(saved)
        self._progress.advance((self.steps or [0])[-1] * len(self._members), resumed=True)
        for place in range(len(self.steps)):
            self._tell_point(place)
        self._find_stops()

    def on_train_start(self, trainer: LightningTrainer, pl_module: LightningModule) -> None:
        """Defer the signals that end training to the end of a chunk."""
        del trainer, pl_module
        if threading.current_thread() is threading.main_thread():  # which alone may handle signals
            for number in ending_signals():
                self._previous_handlers[number] = signal.signal(number, self._interrupt)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        if self._interrupted:
            raise Interrupted
        self._interrupted = True

    def _give_signals_back(self) -> None:
        while self._previous_handlers:
            signal.signal(*self._previous_handlers.popitem())

    def on_fit_end(self, trainer: LightningTrainer, pl_module: LightningModule) -> None:
        """Restore the signal handlers."""
        del trainer, pl_module
        self._give_signals_back()

    def on_exception(
        self, trainer: LightningTrainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Restore the signal handlers."""
        del trainer, pl_module, exception
        self._give_signals_back()

    def on_train_epoch_end(self, trainer: LightningTrainer, pl_module: LightningModule) -> None:
        """Add a point to every curve, and save where it is time."""
        assert isinstance(pl_module, PopulationLearner)
        last, step = self._members[0].training.steps, int(pl_module.next_step)
        before = self.steps[-1] if self.steps else 0
        self.steps.append(step)
        self._note_point(pl_module)
        self._tell_point(-1)
        if self._find_stops():
            pl_module.go_on_with(self.going_on())
            if all(at is not None for at in self.stopped_at):
                pl_module.next_step.fill_(last)
                trainer.should_stop = True
        self._save_if_due(trainer, last=int(pl_module.next_step) >= last)
        self._progress.advance((int(pl_module.next_step) - before) * len(self._members))
        if self._interrupted:
            trainer.should_stop = True

    def _note_point(self, learner: PopulationLearner) -> None:
        """Add a point to every curve: that of members that stopped before has no value."""
        places = [place for place, at in enumerate(self.stopped_at) if at is None]
        networks, engines = learner.member_networks(), learner.member_engines
        measured = self._measure(
            places,
            NetworkPopulation(networks.network, networks.parameters[places]),
            learner.member_masks()[places],
            learner.threads,
            [engines[place] for place in places],
        )
        measured["training/loss"] = learner.chunk_losses[places].tolist()
        for name in {**self.curves, **measured}:
            point = self._no_value()
            for place, value in zip(places, measured.get(name, ()), strict=False):
                point[place] = value
            self._add_to_curve(name, point)

    def _no_value(self) -> list[float]:
        return [math.nan] * len(self._members)

    def _add_to_curve(self, name: str, point: list[float]) -> None:
        """Add the last point to a curve, which has no value at those before its first."""
        curve = self.curves.setdefault(name, [self._no_value() for _ in self.steps[:-1]])
        curve.append(point)

    def _find_stops(self) -> bool:
        """Note which members stop at the last point, and return whether anything of how members continue may change."""
        monitored = [member.training.is_monitored for member in self._members]
        for place, member in enumerate(self._members):
            if monitored[place] and self.stopped_at[place] is None:
                self.stopped_at[place] = stopping_step(self.steps, self._monitored(place), member.training)
        return any(monitored)

    def _monitored(self, place: int) -> list[float]:
        """Return the monitored curve of a member. Raises: ForeignError if it has none, or lacks the last value."""
        name = self._members[place].training.monitor
        reasons = "; ".join(f"probes.measures.{key}: {reason}" for key, reason in self.missing[place].items())
        if reasons and (name not in self.curves or math.isnan(self.curves[name][-1][place])):
            raise ForeignError(
                f"training.monitor={name}: the value at step {self.steps[-1]} is missing. {reasons}"
            )
        if name not in self.curves:
            raise ForeignError(
                f"training.monitor={name}: no measure gives a curve of this name. {suggest_measure(name, self.curves)}"
            )
        return [values[place] for values in self.curves[name]]

    def going_on(self) -> list[Member | None]:
        """Return the members with the learning rates that they continue with, None for those that have stopped."""
        members: list[Member | None] = []
        for place, (member, at) in enumerate(zip(self._members, self.stopped_at, strict=True)):
            training = member.training
            if at is not None:
                members.append(None)
            elif training.schedule == "plateau" and self.steps:
                factor = plateau_factor(self.steps, self._monitored(place), training)
                lowered = training.model_copy(update={"learning_rate": training.learning_rate * factor})
                members.append(member.model_copy(update={"training": lowered}))
            else:
                members.append(member)
        return members

    def _measure(
        self,
        places: Sequence[int],
        networks: NetworkPopulation,
        masks: Float[Tensor, "member parameter"],
        threads: int = 1,
        engines: Sequence[str] | None = None,
    ) -> dict[str, list[float]]:
        """Return those measures that are recorded along training, of the members at some places, at the last point.

        A member for which a measure fails has no value of it here; `missing` says why.

        Raises: ForeignError where a member cannot be measured at all.
        """
        members = [self._members[place] for place in places]
        probes = self._members[0].probes
        is_last = self.steps[-1] >= self._members[0].training.steps
        takes_sparse = is_last or len(self.steps) % probes.sparse_every == 0
        settings = self._sparse_settings if takes_sparse else self._settings
        asked = replace(self._asked, values=tuple(settings.curves))  # which keeps the same evaluation points
        found = measure_each(members, networks, masks, settings, threads, asked=asked, engines=engines)
        for failure in found.failures.values():
            raise ForeignError(failure)
        for place, failed in zip(places, found.failed, strict=True):
            for key, reason in failed.items():
                self.missing[place].setdefault(key, f"{LACK_POINTS} from step {self.steps[-1]} on: {reason}")
        return {
            name: values
            for name, values in found.measures.items()
            if any(stands_for(pattern, name) for pattern in settings.curves)
        }

    def _save_if_due(self, trainer: LightningTrainer, last: bool) -> None:
        due = time.monotonic() - self._saved >= self._checkpoint_seconds
        if self._checkpoint is not None and (last or due or self._interrupted):
            self._save(trainer, self._checkpoint)
            self._saved = time.monotonic()

    def _save(self, trainer: LightningTrainer, checkpoint: Path) -> None:
        try:
            save_checkpoint(trainer, checkpoint)
        except (OSError, RuntimeError) as error:  # torch raises the latter where a disk is full
            raise not_written(checkpoint, error) from error

    def _tell_point(self, place: int) -> None:
        if self._on_point is not None:
            self._on_point(self.steps[place], {name: values[place] for name, values in self.curves.items()})

    def on_save_checkpoint(
        self, trainer: LightningTrainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add the data, besides the tensors, that a resumed fit and `modulab.load_members` need."""
        assert isinstance(pl_module, PopulationLearner)
        del trainer
        checkpoint["modulab"] = self._record(
            pl_module.network, pl_module.row_of_member, pl_module.member_engines
        )

    def _record(
        self, network: Network, row_of_member: Int64[Tensor, " member"], engines: Sequence[str]
    ) -> dict[str, Any]:
        """Return the data of a checkpoint other than its tensors."""
        architecture = type(self._members[0].architecture)
        return {
            "format": CHECKPOINT_FORMAT,
            "members": [member.model_dump(mode="json", serialize_as_any=True) for member in self._members],
            "row_of_member": row_of_member,
            "architecture": f"{architecture.__module__}.{architecture.__qualname__}",
            "layout": [
                [parameter.name, list(parameter.shape), parameter.is_weight] for parameter in network.layout
            ],
            "curve_steps": list(self.steps),
            "curves": {name: list(values) for name, values in self.curves.items()},
            "missing": [dict(each) for each in self.missing],
            "seconds": self.seconds,
            "engines": list(engines),
        }


def not_written(checkpoint: Path, error: Exception) -> ConfigError:
    """Return the exception to raise if a checkpoint cannot be written."""
    return ConfigError(
        f"{checkpoint}: cannot be written ({describe(error)}). Make room in that folder or choose another, "
        "and run the same command again."
    )


def curve_settings(probes: Probes, sparse: bool = False) -> Probes:
    """Return what is measured at a point of the curves, on how much; with `probes.sparse_curves` if `sparse`."""
    curves = [*probes.curves, *(probes.sparse_curves if sparse else [])]
    asked = probes.model_copy(update={"curves": curves, "sparse_curves": []})
    return asked.model_copy(
        update={"num_samples": min(_SAMPLES, probes.num_samples), "measures": curve_measures(asked)}
    )
