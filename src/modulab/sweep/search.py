"""A search: Optuna asks for trials in batches, each is trained as populations, and Optuna gets the results.

Each batch of trials is drawn with its own seed, made of the search's seed and the number of trials before. The
same command in the same folder therefore draws the same trials again, whose results are there, and continues where it
stopped, without anything stored. A storage of Optuna's is for other uses: other programs that read the study,
and searches that continue in another folder.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast, runtime_checkable

import numpy as np
import optuna
import pandas as pd
from hydra.core.utils import JobReturn
from hydra.errors import HydraException
from hydra.utils import instantiate
from omegaconf import OmegaConf
from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState

from modulab.config.overrides import READING_ERRORS
from modulab.errors import ConfigError
from modulab.measure_names import current_measure
from modulab.results.files import write_whole
from modulab.sweep.archive import ARCHIVE, Cell, write_archive
from modulab.sweep.jobs import MembersFailed
from modulab.sweep.search_space import Dimension
from modulab.text import to_stderr

RESULTS = "optimization_results.yaml"
_BEST_SHOWN = 10
_FOLDER = "modulab:folder"
_INTERRUPTED = "modulab:interrupted"
_REPLACES = "modulab:replaces"
"""Attribute of a trial that is asked again: the number of the one that was cut off."""
_KIND = "modulab:search"
_REFUSALS = (ConfigError, *READING_ERRORS)
"""Errors raised for jobs with invalid settings."""

Launch = Callable[[Sequence[Sequence[str]]], Sequence[JobReturn]]
"""Trains jobs, given by their overrides, and returns the value of each."""


@runtime_checkable
class KeepsArchive(Protocol):
    """A sampler whose search ends with an archive instead of the trials that no other trial beats."""

    def check(self, objectives: Sequence[str]) -> None:
        """Raise ConfigError for settings that do not define an archive of these objectives."""
        ...

    def kept(self, study: Study) -> dict[Cell, FrozenTrial]:
        """Return the trial in each cell that has one."""
        ...

    def table(
        self, kept: dict[Cell, dict[str, object]], objectives: Sequence[str], keys: Sequence[str]
    ) -> pd.DataFrame:
        """Return one row per cell, those of `kept` with their columns."""
        ...


@dataclass(frozen=True)
class SearchSettings:
    """The settings of a search: the keys of `hydra.sweeper`, where they are described."""

    sampler: Mapping[str, Any]
    pruner: Mapping[str, Any]
    directions: Sequence[str]
    storage: str | None
    study_name: str
    n_trials: int
    n_jobs: int
    rungs: Sequence[int]
    steps: int
    """The number of steps of trials that are not stopped early."""


class Search:
    """A study, and the jobs that its trials are."""

    def __init__(
        self,
        settings: SearchSettings,
        dimensions: Sequence[Dimension],
        fixed: Sequence[str],
        objectives: Sequence[str],
        folder: Path,
    ) -> None:
        """Begin a study, or resume the stored one.

        Raises: ConfigError for invalid settings, and for a storage that cannot be read or holds another
        search.
        """
        _check(settings, objectives, [each.key for each in dimensions])
        self._settings = settings
        self._dimensions = dimensions
        self._fixed = fixed
        self._objectives = objectives
        self._folder = folder
        self._accepted = False
        """Whether any job had valid settings."""
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        with _optuna("hydra.sweeper"):
            kind = {"objectives": list(objectives), "keys": [each.key for each in dimensions]}
            self.study = _open_study(settings, kind)
            if isinstance(self.study.sampler, KeepsArchive):
                self.study.sampler.check(objectives)
            _ask_again(self.study, str(folder.resolve()))
        self.jobs_before = len(self.study.get_trials(deepcopy=False)) * (1 + len(settings.rungs))
        """The maximum number of jobs of earlier starts, from which numbers continue."""

    def run(self, launch: Launch) -> None:
        """Train batches of trials until there are as many as asked for.

        A trial whose members fail, whose objective is not finite, or whose settings are invalid, has failed, and
        the others continue.

        Raises: ConfigError if no trial of the first batch is valid; KeyboardInterrupt on Ctrl-C.
        """
        while (begun := _count(self.study)) < self._settings.n_trials:
            size = min(self._settings.n_jobs, self._settings.n_trials - begun)
            to_stderr(f"trials {begun + 1} to {begun + size} of {self._settings.n_trials}")
            trials = self._ask(size, begun)
            try:
                self._train(trials, launch)
            except _REFUSALS:
                for trial in trials:
                    self._cut_off(trial)
                raise
        self.write()

    def show_first_batch(self, launch: Launch) -> None:
        """Print the first batch, for a dry run."""
        trials = self._ask(min(self._settings.n_jobs, self._settings.n_trials), 0)
        rung = next(iter(self._settings.rungs), None)
        print(f"the first {len(trials)} of {self._settings.n_trials} trials, a batch:")
        launch(self.jobs(trials, rung))

    def jobs(self, trials: Sequence[Trial], rung: int | None = None) -> list[list[str]]:
        """Return the overrides that each trial is trained with, up to a rung if one is given."""
        steps = [] if rung is None else [f"training.steps={rung}"]
        return [
            [*self._fixed, *(each.override(trial.params[each.key]) for each in self._dimensions), *steps]
            for trial in trials
        ]

    def best(self) -> tuple[list[str], list[list[str]]]:
        """Return headings and rows of a table: the best trials, the best first.

        With several objectives they are those that no other trial beats in all of them, or those of an archive.
        """
        headings = ["trial", *(dimension.key for dimension in self._dimensions), *self._objectives]
        rows = [
            [
                str(trial.number),
                *(_text(value) for value in self._values(trial).values()),
                *(f"{value:.4g}" for value in trial.values),
            ]
            for trial in self._ranked()[:_BEST_SHOWN]
        ]
        return headings, rows

    def write(self) -> None:
        """Write the best parameters and values to the folder of results, in the form of Hydra's plugin for Optuna."""
        ranked = self._ranked()
        if not ranked:
            return
        found: dict[str, Any] = {"name": "optuna"}
        if len(self._objectives) == 1:
            found |= {"best_params": self._values(ranked[0]), "best_value": ranked[0].values[0]}
        else:
            found["solutions"] = [
                {"params": self._values(trial), "values": list(trial.values)} for trial in ranked
            ]
        write_whole(self._folder / RESULTS, OmegaConf.to_yaml(OmegaConf.create(found)).encode())
        if isinstance(self.study.sampler, KeepsArchive):
            self._write_archive(self.study.sampler)

    def _write_archive(self, sampler: KeepsArchive) -> None:
        rows: dict[Cell, dict[str, object]] = {}
        for cell, trial in sampler.kept(self.study).items():
            values = dict(zip(self._objectives, trial.values, strict=True))
            rows[cell] = {**values, "trial": trial.number, **self._values(trial)}
        table = sampler.table(rows, self._objectives, [each.key for each in self._dimensions])
        write_archive(self._folder, table)
        to_stderr(f"{len(rows)} of {len(table)} cells are filled: {self._folder / ARCHIVE}")

    def _ask(self, size: int, begun: int) -> list[Trial]:
        with _optuna("hydra.sweeper.sampler"):
            self.study.sampler = _made(self._settings.sampler, "sampler", begun)
            trials = [
                self.study.ask({each.key: each.distribution for each in self._dimensions})
                for _ in range(size)
            ]
            for trial in trials:
                trial.set_user_attr(_FOLDER, str(self._folder.resolve()))
        return trials

    def _train(self, trials: Sequence[Trial], launch: Launch) -> None:
        for rung in (*self._settings.rungs, None):
            outcomes = self._outcomes(self.jobs(trials, rung), launch)
            refused = [each for each in outcomes if isinstance(each, _REFUSALS)]
            if not self._accepted and len(refused) == len(outcomes):
                raise refused[0]
            going_on: list[Trial] = []
            for trial, outcome in zip(trials, outcomes, strict=True):
                with _optuna("hydra.sweeper.storage"):
                    if isinstance(outcome, Exception):
                        self._fail(trial, outcome)
                    elif rung is None:
                        self.study.tell(trial, outcome)
                    else:
                        trial.report(outcome[0], rung)
                        going_on.append(trial)
            # Called only once all of the rung have reported, so each is compared with all others.
            with _optuna("hydra.sweeper.pruner"):
                pruned = {trial.number for trial in going_on if trial.should_prune()}
            for trial in going_on:
                if trial.number in pruned:
                    self.study.tell(trial, state=TrialState.PRUNED)
            trials = [trial for trial in going_on if trial.number not in pruned]
            if not trials:
                return

    def _fail(self, trial: Trial, reason: Exception) -> None:
        from modulab.text import printable

        self.study.tell(trial, state=TrialState.FAIL)
        said = " ".join(str(reason).split())
        to_stderr(f"trial {trial.number} has failed: {printable(said)}")

    def _cut_off(self, trial: Trial) -> None:
        """Mark a trial that was not trained, so it does not count."""
        with suppress(Exception):  # its storage may have failed
            trial.set_user_attr(_INTERRUPTED, True)
            self.study.tell(trial, state=TrialState.FAIL, skip_if_finished=True)

    def _outcomes(self, jobs: Sequence[Sequence[str]], launch: Launch) -> list[list[float] | Exception]:
        """Return each job's objectives, or why it has none: jobs with invalid settings do not stop others."""
        try:
            returns = launch(jobs)
        except _REFUSALS as error:
            of_all = isinstance(error, ConfigError) and error.is_of_unknown_key and self._keys_are_shared
            if len(jobs) == 1 or of_all:
                return [error for _ in jobs]
            middle = len(jobs) // 2
            return [*self._outcomes(jobs[:middle], launch), *self._outcomes(jobs[middle:], launch)]
        self._accepted = True
        return [_objectives(job, len(self._objectives)) for job in returns]

    @property
    def _keys_are_shared(self) -> bool:
        """Whether trials differ in values alone, and not in options of groups, which have keys of their own."""
        return all("." in each.key for each in self._dimensions)

    def _values(self, trial: FrozenTrial) -> dict[str, Any]:
        return {each.key: each.exact(trial.params[each.key]) for each in self._dimensions}

    def _ranked(self) -> list[FrozenTrial]:
        if isinstance(self.study.sampler, KeepsArchive):
            complete = list(self.study.sampler.kept(self.study).values())
        elif len(self._objectives) > 1:
            complete = [trial for trial in self.study.best_trials if trial.values]
        else:
            complete = self.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        sign = -1 if self.study.directions[0] == StudyDirection.MAXIMIZE else 1
        return sorted(complete, key=lambda trial: (sign * trial.values[0], trial.number))


def _check(settings: SearchSettings, objectives: Sequence[str], keys: Sequence[str]) -> None:
    if not objectives:
        raise ConfigError(
            "sweep.objective: a value is missing. Name the measure to optimise, as in sweep.objective=error/test, "
            "or a list of several."
        )
    for direction in settings.directions:
        if direction not in ("minimize", "maximize"):
            raise ConfigError(f"hydra.sweeper.direction={direction}: give minimize or maximize.")
    if len(settings.directions) != len(objectives):
        raise ConfigError(
            f"hydra.sweeper.direction has {len(settings.directions)} values, and sweep.objective "
            f"{len(objectives)}. Give a direction for each, such as [minimize,maximize]."
        )
    for name, number in (("n_trials", settings.n_trials), ("n_jobs", settings.n_jobs)):
        if number < 1:
            raise ConfigError(f"hydra.sweeper.{name}={number}: give a number of 1 or more.")
    if settings.rungs and (min(settings.rungs) < 1 or list(settings.rungs) != sorted(set(settings.rungs))):
        raise ConfigError(f"hydra.sweeper.rungs={list(settings.rungs)}: give numbers of steps that grow.")
    if settings.rungs and ("training.steps" in keys or max(settings.rungs) >= settings.steps):
        raise ConfigError(
            f"hydra.sweeper.rungs={list(settings.rungs)}: rungs are fewer steps than training.steps, which must have "
            "one value."
        )
    if settings.rungs and len(objectives) > 1:
        raise ConfigError("hydra.sweeper.rungs: trials of several objectives cannot be pruned.")


def _open_study(settings: SearchSettings, kind: Mapping[str, Sequence[str]]) -> Study:
    study = optuna.create_study(
        storage=_storage(settings.storage),
        sampler=_made(settings.sampler, "sampler", 0),
        pruner=_made(settings.pruner, "pruner", None),
        study_name=settings.study_name,
        directions=cast("Any", list(settings.directions)),
        load_if_exists=True,
    )
    stored = [direction.name.lower() for direction in study.directions]
    if stored != list(settings.directions):
        raise ConfigError(
            f"hydra.sweeper.storage holds a study {settings.study_name} to {' and '.join(stored)}. "
            "Give another hydra.sweeper.study_name."
        )
    before = dict(study.user_attrs.get(_KIND, kind))
    before["objectives"] = [current_measure(name) for name in before["objectives"]]
    if before != kind:
        raise ConfigError(
            f"hydra.sweeper.storage holds a study {settings.study_name} of {', '.join(before['objectives'])} over "
            f"{', '.join(before['keys'])}. Give another hydra.sweeper.study_name."
        )
    study.set_user_attr(_KIND, kind)
    return study


def _storage(place: str | None) -> BaseStorage | str | None:
    return place if place is None or "://" in place else JournalStorage(JournalFileBackend(place))


def _made(chosen: Mapping[str, Any], key: str, begun: int | None) -> Any:
    """Return a sampler or pruner. A sampler's seed is mixed with the number of trials that were begun before."""
    config = dict(chosen)
    if begun is not None and config.get("seed") is not None:
        config["seed"] = int(np.random.SeedSequence([int(config["seed"]), begun]).generate_state(1)[0])
    try:
        return instantiate(config)
    except HydraException as error:
        raise ConfigError(f"hydra.sweeper.{key}: {error}") from error


def _count(study: Study) -> int:
    """Return how many trials count: all but those that an interruption cut off, which are asked again."""
    trials = study.get_trials(deepcopy=False)
    replaced = {trial.user_attrs.get(_REPLACES) for trial in trials}
    return sum(
        trial.state != TrialState.WAITING
        and not trial.user_attrs.get(_INTERRUPTED)
        and trial.number not in replaced
        for trial in trials
    )


def _ask_again(study: Study, folder: str) -> None:
    """Repeat the trials of a stored study that were running in this folder, which no other process uses."""
    replaced = {trial.user_attrs.get(_REPLACES) for trial in study.get_trials(deepcopy=False)}
    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        if trial.user_attrs.get(_FOLDER) == folder:
            if (
                trial.number not in replaced
            ):  # else an earlier start was itself killed between these two calls
                study.enqueue_trial(trial.params, user_attrs={_REPLACES: trial.number})
            study.tell(trial.number, state=TrialState.FAIL)


def _objectives(job: JobReturn, count: int) -> list[float] | Exception:
    try:
        value = job.return_value
    except (MembersFailed, *_REFUSALS) as error:
        return error
    values = [float(each) for each in (value if isinstance(value, list) else [value])]
    assert len(values) == count
    return (
        values if all(map(math.isfinite, values)) else MembersFailed("the objective is not a finite number")
    )


def _text(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


@contextmanager
def _optuna(key: str) -> Generator[None]:
    """Turn whatever Optuna, a sampler or a storage raises into an error of the key that chose it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of options that Optuna calls experimental
            yield
    except ConfigError:
        raise
    except Exception as error:
        reason = next(iter(str(error).strip().splitlines()), "")
        raise ConfigError(f"{key}: Optuna raised {type(error).__name__}: {reason}") from error
