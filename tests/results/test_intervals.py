from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from modulab.claims.evidence import (
    Statistic,
    at_matched_error,
    difference,
    double_difference,
    estimate,
    rank_correlation,
)
from modulab.claims.samples import crossing
from modulab.results.intervals import draw_means, mean_interval, pooled_interval

LEAST_COVERAGE = 0.94


def normal(random: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float64]:
    return random.normal(size=shape)


def lognormal(random: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Draw lognormal numbers of sigma 0.5, brought to mean 0 and variance 1."""
    spread = np.sqrt((np.exp(0.25) - 1) * np.exp(0.25))
    return (np.exp(0.5 * random.normal(size=shape)) - np.exp(0.125)) / spread


@pytest.mark.parametrize("noise", [normal, lognormal])
@pytest.mark.parametrize("seeds", [2, 3, 5, 10, 20])
def test_interval_of_a_mean_covers_it_as_often_as_it_promises(
    seeds: int, noise: Callable[..., NDArray[np.float64]]
) -> None:
    low, high = mean_interval(noise(np.random.default_rng(seeds), (seeds, 40_000)))
    error = np.sqrt(LEAST_COVERAGE * (1 - LEAST_COVERAGE) / 40_000)
    assert ((low <= 0) & (high >= 0)).mean() >= LEAST_COVERAGE - 2 * error


COMPOSITE: dict[str, tuple[list[float], float, Statistic]] = {
    "difference": ([1, 0], 1.0, difference),
    "double difference": ([3, 1, 1, 0], 1.0, double_difference),
    "log ratio": ([5, 7], 0.5, lambda means: np.log(means[..., 0] / means[..., 1])),
    "trend": ([0, 0.2, 0.3, 0.5, 0.9], 0.2, rank_correlation),
    "trend of arms that differ little": ([0, 0.1, 0.05, 0.12, 0.2], 0.2, rank_correlation),
    "matched error": (
        [-6, -5.5, -4.6, -3.4, -2, 0, 1, 2, 3.5, 4],
        0.2,
        lambda means: at_matched_error(means[..., :5], means[..., 5:], -4.2),
    ),
    "crossing": ([0, 0.3, 1.2, 2.2, 3], 0.2, lambda means: crossing(np.arange(5.0), means)),
    "greater of two": (
        [1, 0, 1, 0],
        0.2,
        lambda means: difference(np.maximum(means[..., :2], means[..., 2:])),
    ),
}


@pytest.mark.parametrize("noise", [normal, lognormal])
@pytest.mark.parametrize("seeds", [5, *(pytest.param(seeds, marks=pytest.mark.slow) for seeds in (10, 20))])
@pytest.mark.parametrize("name", COMPOSITE)
def test_interval_of_a_statistic_of_paired_means_covers_it_as_often_as_it_promises(
    name: str, seeds: int, noise: Callable[..., NDArray[np.float64]]
) -> None:
    means, spread, statistic = COMPOSITE[name]
    random, repeats = np.random.default_rng(seeds), 200
    truth = float(statistic(np.array(means, dtype=np.float64)[None])[0])
    covered = 0
    for _ in range(repeats):
        both = noise(random, (seeds, 1)) + noise(random, (seeds, len(means)))
        found = estimate(np.array(means) + spread * both / np.sqrt(2), statistic)
        covered += found.low <= truth <= found.high
    error = np.sqrt(LEAST_COVERAGE * (1 - LEAST_COVERAGE) / repeats)
    assert covered / repeats >= LEAST_COVERAGE - 2 * error


def test_interval_of_a_mean_approaches_students_for_many_values() -> None:
    values = np.random.default_rng(1).normal(size=(2000, 3))
    low, high = mean_interval(values)
    expected = stats.t.interval(0.95, 1999, values.mean(axis=0), stats.sem(values, axis=0))
    np.testing.assert_allclose([low, high], expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("level", [0.9, 0.95])
def test_drawn_means_have_the_interval_of_the_mean(level: float) -> None:
    values = np.random.default_rng(2).normal(size=(6, 4))
    values[1, 2] = values[0, 3] = np.nan
    _, drawn = draw_means(values[:, :2])
    found = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2], axis=0)
    width = found[1] - found[0]
    np.testing.assert_allclose(found, mean_interval(values[:, :2], level), atol=0.05 * width.max())


def test_missing_values_are_left_out_of_their_column_alone() -> None:
    values = np.random.default_rng(1).normal(size=(10, 1))
    padded = np.concatenate([values, np.full((10, 1), np.nan)])
    beside = np.concatenate([padded, np.arange(20.0)[:, None]], axis=1)
    np.testing.assert_allclose(
        [ends[0] for ends in mean_interval(beside)], [ends[0] for ends in mean_interval(values)]
    )
    mean, drawn = draw_means(beside)
    assert mean[0] == pytest.approx(values.mean())
    assert np.isfinite(drawn).all()


def test_fewer_than_two_seeds_have_no_interval() -> None:
    low, high = mean_interval(np.array([[1.0, 5.0], [np.nan, 3.0]]))
    assert np.isnan([low[0], high[0]]).all()
    assert low[1] < 4.0 < high[1]
    with pytest.raises(ValueError, match="at least two seeds"):
        draw_means(np.array([[1.0], [np.nan]]))


def test_interval_over_cells_is_that_of_each_seeds_mean_whatever_the_cells() -> None:
    random = np.random.default_rng(4)
    by_seed = random.normal(size=(6, 1)) + random.normal(size=(6, 3))
    expected = mean_interval(by_seed.mean(axis=1, keepdims=True))
    cells, seeds = np.tile(np.arange(3), 6), np.repeat(np.arange(6), 3)
    for offsets in (np.zeros(3), np.array([0.0, 50.0, -7.0])):
        values = (by_seed + offsets).reshape(-1, 1)
        found = pooled_interval(values, cells, seeds)
        np.testing.assert_allclose(found, np.array(expected) + offsets.mean(), rtol=1e-12)


def test_interval_over_cells_of_unequal_seeds_covers_the_mean_of_their_means() -> None:
    random, repeats, covered = np.random.default_rng(5), 400, 0
    # Three cells far apart: the first has 8 seeds, and the others 6 of them, with noise that a seed's rows share.
    cells = np.repeat([0, 1, 2], [8, 6, 6])
    seeds = np.concatenate([np.arange(8), np.arange(6), np.arange(2, 8)])
    truth = np.array([0.0, 20.0, -9.0])[cells].mean()
    for _ in range(repeats):
        values = np.array([0.0, 20.0, -9.0])[cells] + random.normal(size=8)[seeds] + random.normal(size=20)
        low, high = pooled_interval(values[:, None], cells, seeds)
        covered += bool(low[0] <= truth <= high[0])
    assert 0.92 <= covered / repeats <= 0.99


def test_cells_of_a_single_seed_have_no_interval() -> None:
    values = np.array([[1.0, 1.0], [2.0, 2.0], [4.0, np.nan], [5.0, 5.0]])
    low, _ = pooled_interval(values, np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1]))
    assert np.isnan(low).tolist() == [False, True]
