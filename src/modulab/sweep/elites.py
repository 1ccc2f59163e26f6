"""MAP-Elites as a sampler of Optuna: trials are mutants of elites, and a search ends with an archive of them.

J.-B. Mouret and J. Clune, arXiv 1504.04909, 2015. It shares everything else with other searches: batches that
train as populations, failures, storages, and continuing after a kill by drawing the same trials again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from modulab.errors import ConfigError
from modulab.sweep.archive import Axis, Candidate, Cell, archive_table, elites


class MapElites(BaseSampler):
    """Draws the first trials at random, and then mutates the parameters of elites, each cell's as often as another's.

    A mutation adds a normal draw of standard deviation `mutation` to each number, in units of its range (of its
    logarithm's range where that is drawn from), reflected at the ends; a choice is drawn again with that probability.
    A trial depends on the seed, its number and the trials that were finished when its batch was drawn.
    """

    def __init__(
        self,
        ranges: Sequence[Sequence[float]] | None,
        cells: Sequence[int],
        initial: int,
        mutation: float,
        seed: int | None,
    ) -> None:
        """Take the keys of `hydra.sweeper.sampler`."""
        self._ranges, self._cells = ranges, cells
        self._initial, self._mutation, self._seed = initial, mutation, seed
        self._parents: list[FrozenTrial] | None = None
        self._drawing: dict[int, tuple[np.random.Generator, dict[str, Any]]] = {}

    def check(self, objectives: Sequence[str]) -> None:
        """Raise ConfigError for settings that do not define an archive of these objectives."""
        where = "hydra.sweeper.sampler"
        if len(set(objectives)) != 3 or len(objectives) != 3:
            raise ConfigError(
                f"sweep.objective={list(objectives)}: an archive needs three measures, as in sweep.objective="
                "[error/test,modularity/structural_excess,activity/active_units]: the measure to optimise, "
                "and the two measures that span the cells."
            )
        ranges = None if self._ranges is None else [list(each) for each in self._ranges]
        if ranges is None or [len(each) for each in ranges] != [2, 2] or not all(map(_rises, ranges)):
            raise ConfigError(
                f"{where}.ranges={ranges}: give the ranges of {objectives[1]} and {objectives[2]} that are "
                f"divided into cells, as in {where}.ranges=[[0,1],[0,48]]."
            )
        if len(self._cells) != 2 or min(self._cells) < 1:
            raise ConfigError(f"{where}.cells={list(self._cells)}: give two numbers of 1 or more.")
        if self._initial < 1:
            raise ConfigError(f"{where}.initial={self._initial}: give a number of 1 or more.")
        if not 0 < self._mutation <= 1:
            raise ConfigError(f"{where}.mutation={self._mutation}: give a number above 0 and at most 1.")

    def kept(self, study: Study) -> dict[Cell, FrozenTrial]:
        """Return the elite of each cell that has one."""
        trials = {
            trial.number: trial for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        }
        sign = -1 if study.directions[0] == StudyDirection.MAXIMIZE else 1
        candidates = [
            Candidate(
                trial.number, sign * trial.values[0], tuple(trial.values[1:]),
                tuple(_as_gene(value) for _, value in sorted(trial.params.items())),
            )
            for trial in trials.values()
        ]  # fmt: skip
        found = elites(self._axes([""] * 3), candidates)
        return {cell: trials[candidate.number] for cell, candidate in found.items()}

    def table(
        self, kept: dict[Cell, dict[str, object]], objectives: Sequence[str], keys: Sequence[str]
    ) -> pd.DataFrame:
        """Return the archive as a table of all cells, of rows with a trial's number, values and settings."""
        return archive_table(self._axes(objectives), kept, [*objectives, "trial", *keys])

    def _axes(self, objectives: Sequence[str]) -> list[Axis]:
        assert self._ranges is not None
        return [
            Axis(name, float(low), float(high), count)
            for name, (low, high), count in zip(objectives[1:], self._ranges, self._cells, strict=True)
        ]

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return nothing: parameters are drawn one by one."""
        del study, trial
        return {}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return nothing."""
        del study, trial, search_space
        return {}

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Choose a trial's parent, or none."""
        if self._parents is None:
            self._parents = list(self.kept(study).values())
        generator = np.random.default_rng(None if self._seed is None else [self._seed, trial.number])
        parent: dict[str, Any] = {}
        if self._parents and trial.number >= self._initial:
            parent = self._parents[int(generator.integers(len(self._parents)))].params
        self._drawing[trial.number] = generator, parent

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Return a value: that of the parent, mutated, or any."""
        del study
        generator, parent = self._drawing[trial.number]
        if isinstance(param_distribution, CategoricalDistribution):
            again = param_name not in parent or generator.random() < self._mutation
            choice = param_distribution.choices[int(generator.integers(len(param_distribution.choices)))]
            return choice if again else parent[param_name]
        assert isinstance(param_distribution, FloatDistribution | IntDistribution)
        if param_name in parent:
            before = _to_unit(parent[param_name], param_distribution)
            return _from_unit(
                _reflected(before + self._mutation * generator.standard_normal()), param_distribution
            )
        return _from_unit(generator.random(), param_distribution)


def _rises(ends: Sequence[float]) -> bool:
    return all(map(math.isfinite, ends)) and ends[0] < ends[1]


def _as_gene(value: object) -> float | str:
    return float(value) if isinstance(value, int | float) else str(value)


def _ends(distribution: FloatDistribution | IntDistribution) -> tuple[float, float]:
    """Return the ends of what is drawn from; a whole number, or a step, stands for the interval around it."""
    half = 0.0 if distribution.step is None else distribution.step / 2
    if distribution.log:
        return math.log(distribution.low - half), math.log(distribution.high + half)
    return distribution.low - half, distribution.high + half


def _to_unit(value: float, distribution: FloatDistribution | IntDistribution) -> float:
    low, high = _ends(distribution)
    if high == low:
        return 0.5
    return ((math.log(value) if distribution.log else value) - low) / (high - low)


def _from_unit(share: float, distribution: FloatDistribution | IntDistribution) -> float | int:
    low, high = _ends(distribution)
    value = low + share * (high - low)
    value = math.exp(value) if distribution.log else value
    if distribution.step is not None:
        value = distribution.low + round((value - distribution.low) / distribution.step) * distribution.step
    value = min(max(value, distribution.low), distribution.high)
    return int(value) if isinstance(distribution, IntDistribution) else float(value)


def _reflected(share: float) -> float:
    """Return a number in [0, 1], as if it had been reflected at the ends however often."""
    folded = share % 2.0
    return 2.0 - folded if folded > 1.0 else folded
