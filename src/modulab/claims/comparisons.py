"""The comparisons that claims consist of, each as a function from evidence to an estimate."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from modulab.claims import thresholds
from modulab.claims.evidence import (
    SMALLEST_ERROR,
    Condition,
    Estimate,
    Evidence,
    at_matched_error,
    difference,
    double_difference,
    estimate,
    rank_correlation,
)

Find = Callable[[Mapping[str, Evidence]], Estimate]

MODULARITY = "modularity/structural"
FRAME_NULL = "modularity/structural_frame_null"
EXCESS = "modularity/structural_excess"
"""Structural modularity minus that of the same weights in rotated module axes: the part not due to alignment."""
ERROR = "error/test"
UNDER_NOISE = "error_under/poisson@0.3"
OF_ARMS = (ERROR, UNDER_NOISE, MODULARITY, FRAME_NULL, EXCESS, "modularity/functional", "activity/mean")
"""The measures in a table of an experiment's arms, unless a claim needs others."""


def contrast(experiment: str, measure: str, first: Condition, second: Condition) -> Find:
    """Compare a measure of two arms: first minus second."""
    return lambda evidence: estimate(evidence[experiment].columns(measure, [first, second]), difference)


def ratio(experiment: str, measure: str, first: Condition, second: Condition) -> Find:
    """Compare an error of two arms: the logarithm of first over second, as geometric means."""
    return lambda evidence: estimate(evidence[experiment].log_columns(measure, [first, second]), difference)


def share(experiment: str, measure: str, first: Condition, second: Condition) -> Find:
    """Compare means of two arms: first as a share of second, which may be 0."""
    return lambda evidence: estimate(
        evidence[experiment].columns(measure, [first, second]), lambda means: means[..., 0] / means[..., 1]
    )


def ratio_of_means(experiment: str, measure: str, first: Condition, second: Condition) -> Find:
    """Compare means of two arms: the logarithm of first over second. Unlike in `ratio`, single values may be negative.

    A mean that is drawn at 0 or below counts as nearly 0, so the interval reaches as far as it must.
    """
    return lambda evidence: estimate(
        evidence[experiment].columns(measure, [first, second]),
        lambda means: difference(np.log(np.maximum(means, SMALLEST_ERROR))),
    )


def power(experiment: str, measure: str, arms: Sequence[Condition], sizes: Sequence[float]) -> Find:
    """Estimate the power of the arms' sizes with which their means grow."""
    return lambda evidence: estimate(
        evidence[experiment].columns(measure, arms),
        lambda means: np.log(means[..., 1] / means[..., 0]) / math.log(sizes[1] / sizes[0]),
    )


def contrast_of_gains(
    experiment: str, measure: str, first: tuple[Condition, Condition], second: tuple[Condition, Condition]
) -> Find:
    """Compare two gains, each of an arm over its base: how much greater the first is."""
    arms = [*first, *second]
    return lambda evidence: estimate(evidence[experiment].columns(measure, arms), double_difference)


def level(experiment: str, measure: str, arm: Condition) -> Find:
    """Take the mean of a measure over the seeds of one arm."""
    return lambda evidence: estimate(
        evidence[experiment].columns(measure, [arm]), lambda means: means[..., 0]
    )


def trend(experiment: str, measure: str, arms: Sequence[Condition]) -> Find:
    """Take Spearman's correlation of the arms' means with their order."""
    return lambda evidence: estimate(evidence[experiment].columns(measure, arms), rank_correlation)


@dataclass(frozen=True)
class Sweep:
    """An arm at each of its strengths, starting with none."""

    name: str
    arms: tuple[Condition, ...]


def matched(
    experiment: str,
    sweep: Sweep,
    base: Condition,
    task: str,
    measure: str = MODULARITY,
    budget_share: float | None = None,
) -> Find:
    """Estimate how much more modular than `base` a sweep is where its clean error reaches the task's budget."""

    def find(evidence: Mapping[str, Evidence]) -> Estimate:
        return estimate(
            np.hstack(
                [
                    evidence[experiment].log_columns(ERROR, sweep.arms),
                    evidence[experiment].columns(measure, [*sweep.arms, base]),
                ]
            ),
            lambda means: _at_budget(means[..., :-1], task, budget_share) - means[..., -1],
        )

    return find


def matched_difference(experiment: str, measure: str, first: Sweep, second: Sweep, task: str) -> Find:
    """Compare a measure of two sweeps where the clean error of each reaches the task's budget: first less second."""

    def find(evidence: Mapping[str, Evidence]) -> Estimate:
        return _matched_pair(evidence[experiment], evidence[experiment].columns, measure, first, second, task)

    return find


def matched_ratio(experiment: str, measure: str, first: Sweep, second: Sweep, task: str) -> Find:
    """Compare an error of two sweeps in the same way: the logarithm of first over second."""

    def find(evidence: Mapping[str, Evidence]) -> Estimate:
        return _matched_pair(
            evidence[experiment], evidence[experiment].log_columns, measure, first, second, task
        )

    return find


def _matched_pair(
    table: Evidence,
    columns: Callable[[str, Sequence[Condition]], NDArray[np.float64]],
    measure: str,
    first: Sweep,
    second: Sweep,
    task: str,
) -> Estimate:
    parts = [
        part
        for each in (first, second)
        for part in (table.log_columns(ERROR, each.arms), columns(measure, each.arms))
    ]
    middle = parts[0].shape[1] + parts[1].shape[1]
    return estimate(
        np.hstack(parts),
        lambda means: _at_budget(means[..., :middle], task) - _at_budget(means[..., middle:], task),
    )


def _at_budget(
    means: NDArray[np.float64], task: str, budget_share: float | None = None
) -> NDArray[np.float64]:
    """Return the second half of the columns where the first half, logarithms of error, reaches the budget."""
    half = means.shape[-1] // 2
    log_budget = math.log(thresholds.budget(task, budget_share))
    return at_matched_error(means[..., :half], means[..., half:], log_budget)


def shortfall(experiment: str, sweep: Sweep, reference: Sweep, task: str) -> Find:
    """Estimate the shortfall of a sweep from a reference at matched clean error, relative to the least that matters.

    The greater of two: structural modularity that it lacks, over the difference that matters, and the
    logarithm of its error under Poisson noise over the reference's, over that of the factor that matters.
    Above 1, it does not do the same; below, it matches the reference in both.
    """

    def find(evidence: Mapping[str, Evidence]) -> Estimate:
        table = evidence[experiment]
        parts = [
            part
            for each in (sweep, reference)
            for part in (
                table.log_columns(ERROR, each.arms),
                table.columns(MODULARITY, each.arms),
                table.log_columns(ERROR, each.arms),
                table.log_columns(UNDER_NOISE, each.arms),
            )
        ]
        ends = np.cumsum([part.shape[1] for part in parts])

        def statistic(means: NDArray[np.float64]) -> NDArray[np.float64]:
            modularity = _at_budget(means[..., ends[3] : ends[5]], task) - _at_budget(
                means[..., : ends[1]], task
            )
            robustness = _at_budget(means[..., ends[1] : ends[3]], task) - _at_budget(
                means[..., ends[5] :], task
            )
            return np.maximum(
                modularity / thresholds.MODULARITY, robustness / math.log(thresholds.ROBUSTNESS)
            )

        return estimate(np.hstack(parts), statistic)

    return find
