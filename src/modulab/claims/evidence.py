"""The results of an experiment, seed by seed, and statistics of them with their uncertainty.

All arms of an experiment are trained at the same seeds, and members of equal seed share data, initial weights and
draws. A statistic is therefore a function of the arms' means over seeds, and its interval comes from drawing all
means together (modulab.results.intervals): a seed's weight is the same in every arm, so what seeds have in common
cancels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from modulab.results.intervals import DRAWS, LEVEL, draw_means, drawn_interval

Condition = Mapping[str, Any]
"""Settings by dotted key, such as {"noise.scale": 0.2}, that select an arm of an experiment."""

Statistic = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""Turns means over seeds, the last axis a column of a `Columns`, into one number, over any leading axes."""

_LEAST_SHARE_OF_SEEDS = 0.5
SMALLEST_ERROR = 1e-9
"""The smallest error of which a logarithm is taken."""


@dataclass(frozen=True)
class Estimate:
    """A statistic with its 95% interval over seeds; NaN where seeds are too few."""

    value: float
    low: float
    high: float
    seeds: int
    """The least number of seeds behind any of the arms compared."""
    draws: NDArray[np.float64] | None = field(default=None, repr=False, compare=False)
    """The statistic at each draw of the means, in rising order, from which intervals at other levels are read."""

    def interval(self, level: float) -> tuple[float, float]:
        """Return the interval at a level; NaN where the estimate has no draws and the level is not 95%."""
        if level == LEVEL:
            return self.low, self.high
        return (math.nan, math.nan) if self.draws is None else drawn_interval(self.value, self.draws, level)


@dataclass(frozen=True)
class Evidence:
    """The results of an experiment, and the folder that its networks are in."""

    results: pd.DataFrame
    folder: Path | None = None
    _arrays: dict[str, NDArray[np.generic]] = field(
        default_factory=dict[str, NDArray[np.generic]], repr=False, compare=False
    )
    _matches: dict[tuple[str, object], NDArray[np.bool_]] = field(
        default_factory=dict[tuple[str, object], NDArray[np.bool_]], repr=False, compare=False
    )
    """Which rows have a setting, by key and value: comparisons of a column of objects are slow."""

    @cached_property
    def seeds(self) -> list[int]:
        """Return the seeds of the completed members, in order."""
        completed = self._values_of("status") == "completed"
        return sorted(set(self.results["config.seed"][completed].tolist()))

    @cached_property
    def completed(self) -> pd.DataFrame:
        """Return the rows of members that completed."""
        return self.results.loc[self.results["status"] == "completed", :]

    def rows(self, condition: Condition) -> pd.DataFrame:
        """Return the completed members of an arm. Raises: ValueError for an arm that the experiment does not have."""
        return self.results.loc[self._places(condition), :]

    def of_members(self, column: str, condition: Condition) -> NDArray[np.generic]:
        """Return a column of an arm's members, whether they completed or not; NaN where there is no such column.

        Raises: ValueError as `rows` does.
        """
        places = self._of_arm(condition)
        return self._values_of(column)[places] if column in self.results else np.full(places.sum(), np.nan)

    def whole_numbers(self, key: str, condition: Condition) -> list[int]:
        """Return the values that a setting takes in an arm, in rising order, whether its members completed or not."""
        found = self._values_of(f"config.{key}")[self._of_arm(condition)]
        return np.unique(found.astype(np.int64)).tolist()

    def _places(self, condition: Condition) -> NDArray[np.bool_]:
        return self._of_arm(condition) & (self._values_of("status") == "completed")

    def _of_arm(self, condition: Condition) -> NDArray[np.bool_]:
        keep = np.ones(len(self.results), dtype=bool)
        for key, wanted in condition.items():
            if (key, wanted) not in self._matches:
                self._matches[key, wanted] = self._equal(key, wanted)
            keep &= self._matches[key, wanted]
        if not keep.any():
            raise ValueError(f"{dict(condition)} is not an arm of this experiment.")
        return keep

    def _equal(self, key: str, wanted: Any) -> NDArray[np.bool_]:
        column = self._values_of(f"config.{key}")
        if isinstance(wanted, float | int) and not isinstance(wanted, bool):
            return np.abs(column.astype(np.float64) - wanted) <= 1e-6 * abs(wanted)
        return column == wanted

    def _values_of(self, column: str) -> NDArray[np.generic]:
        """Return a column as an array, which is a hundred times faster to look things up in than a table."""
        if column not in self._arrays:
            values = self.results[column]
            numeric = pd.api.types.is_numeric_dtype(values)
            self._arrays[column] = (
                values.to_numpy(dtype=np.float64, na_value=np.nan)
                if numeric
                else values.to_numpy(dtype=object)
            )
        return self._arrays[column]

    def values(self, measure: str, condition: Condition) -> NDArray[np.float64]:
        """Return a measure of an arm at each of `seeds`, NaN where the arm has no result.

        Raises: ValueError if a condition leaves two members of one seed, so they are not one arm, and
        for a measure that the experiment does not take.
        """
        if measure not in self.results and not self.completed.empty:
            raise ValueError(f"{measure} was not measured.")
        places = self._places(condition)
        own = self._values_of("config.seed")[places].astype(np.int64)
        if len(np.unique(own)) < len(own):
            raise ValueError(
                f"{dict(condition)} leaves several members of one seed: it does not pick out an arm."
            )
        found = np.full(len(self.seeds), np.nan)
        if len(own):
            found[np.searchsorted(self.seeds, own)] = self._values_of(measure)[places]
        return found

    def columns(self, measure: str, conditions: Sequence[Condition]) -> NDArray[np.float64]:
        """Return a measure of several arms: one row per seed, one column per arm."""
        return np.stack([self.values(measure, condition) for condition in conditions], axis=1)

    def log_columns(self, measure: str, conditions: Sequence[Condition]) -> NDArray[np.float64]:
        """Return logarithms of an error, so differences of means are ratios of geometric means."""
        return np.log(np.maximum(self.columns(measure, conditions), SMALLEST_ERROR))


def estimate(columns: NDArray[np.float64], statistic: Statistic) -> Estimate:
    """Return a statistic of the means over seeds (rows) and its interval, from draws of all means together.

    The result is NaN if fewer than half of the seeds, or fewer than two, have an arm.
    """
    seeds = len(columns)
    fewest = int((~np.isnan(columns)).sum(axis=0).min()) if columns.size else 0
    if fewest < max(2, math.ceil(_LEAST_SHARE_OF_SEEDS * seeds)):
        return Estimate(math.nan, math.nan, math.nan, fewest)
    means, drawn = draw_means(columns)
    with np.errstate(divide="ignore", invalid="ignore"):
        value = float(statistic(means[None])[0])
        draws = statistic(drawn)
    draws = np.sort(draws[np.isfinite(draws)])
    if not math.isfinite(value) or len(draws) < LEVEL * DRAWS:
        return Estimate(value, math.nan, math.nan, fewest)
    return Estimate(value, *drawn_interval(value, draws), fewest, draws)


def difference(means: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the first column minus the second."""
    return means[..., 0] - means[..., 1]


def double_difference(means: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (first - second) - (third - fourth): the difference of two contrasts."""
    return (means[..., 0] - means[..., 1]) - (means[..., 2] - means[..., 3])


def rank_correlation(means: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return Spearman's correlation of the columns' means with the columns' order."""
    ranks = means.argsort(axis=-1).argsort(axis=-1).astype(np.float64)
    places = np.arange(means.shape[-1], dtype=np.float64)
    centred, steps = ranks - places.mean(), places - places.mean()
    return (centred * steps).sum(axis=-1) / (steps**2).sum()


def pick(array: NDArray[np.float64], place: NDArray[np.intp]) -> NDArray[np.float64]:
    """Return the one value of the last axis that stands at a place, its own place for each leading index."""
    return np.take_along_axis(array, place[..., None], axis=-1)[..., 0]


def at_matched_error(
    log_errors: NDArray[np.float64], values: NDArray[np.float64], log_budget: float
) -> NDArray[np.float64]:
    """Return a value where an arm's clean error reaches a budget, as its strength (the last axis) grows.

    Strengths are walked up from none. The value is interpolated, as a straight line in the logarithm of error,
    over the last step on which error rises through the budget, so an arm has the most strength that
    its budget pays for. An arm that stays below the budget has the value at its greatest strength, which
    understates what it could reach; one that starts above it, NaN.
    """
    log_errors, values = np.broadcast_arrays(log_errors, values)
    below = log_errors <= log_budget
    last = log_errors.shape[-1] - 1 - below[..., ::-1].argmax(axis=-1)
    after = np.minimum(last + 1, log_errors.shape[-1] - 1)

    start, end = pick(log_errors, last), pick(log_errors, after)
    rise = np.where(end > start, end - start, 1.0)
    share = np.where(end > start, (log_budget - start) / rise, 0.0)
    found = pick(values, last) + share * (pick(values, after) - pick(values, last))
    return np.where(below.any(axis=-1), found, np.nan)
