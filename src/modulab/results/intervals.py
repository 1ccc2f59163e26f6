"""Intervals over seeds: of means, and of any statistic of several means that are paired by seed.

A mean has Student's t interval, made wider by the factor `1 + 1.25 / n`. Student's is exact for normal data, but it
covers .92 of right-skewed data (lognormal, sigma 0.5) from 3 to 10 seeds, where .95 is promised; with the factor it
covers at least .94 of both. A percentile bootstrap, for comparison, covers .85 of normal data at 5 seeds.

A statistic of several means has the interval between quantiles of its values at means drawn around those that were
found. A draw adds to the means a combination of the seeds' deviations with normal weights (the Gaussian multiplier
bootstrap, van der Vaart and Wellner, Weak Convergence and Empirical Processes, 1996, section 2.9), divided by the root
of a chi-square variable over its degrees of freedom. Given the data, every linear combination of the drawn means
then has Student's t distribution around its value, so both intervals are the same for a linear statistic. One
that is not, such as the greater of two, may be biased at the means found, and is about as much more so at draws around
them: quantiles mirrored at the value found allow for that (the basic bootstrap, Davison and Hinkley, Bootstrap
Methods and their Application, 1997, section 5.2). The interval is the union of both, within the range of the draws.
"""

from __future__ import annotations

import warnings
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.95
DRAWS = 16000
"""Enough that a dozen lie beyond each end of an interval that shares 5% among three looks and eleven settings."""
_WIDENING = 1.25
"""Over the number of seeds, how much wider than Student's an interval is; found by simulation of skewed data."""


def mean_interval(
    values: NDArray[np.float64], level: float = LEVEL
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the ends of the interval of each column's mean over rows, NaN left out; NaN for fewer than two."""
    present = ~np.isnan(values)
    count = present.sum(axis=0)
    several = count >= 2
    if not several.any():
        return np.full(count.shape, np.nan), np.full(count.shape, np.nan)
    number = np.where(several, count, 2)
    # Of numbers near the largest, the mean is infinite, and there is no interval.
    with np.errstate(over="ignore", invalid="ignore"):
        mean = np.where(present, values, 0.0).sum(axis=0) / number
        squares = np.where(present, values - mean, 0.0) ** 2
        error = np.sqrt(squares.sum(axis=0) / (number - 1) / number)
        half = _special().stdtrit(number - 1, (1 + level) / 2) * (1 + _WIDENING / number) * error
        return np.where(several, mean - half, np.nan), np.where(several, mean + half, np.nan)


def pooled_interval(
    values: NDArray[np.float64], cells: NDArray[np.int64], seeds: NDArray[np.int64], level: float = LEVEL
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the ends of the interval of each column's mean over rows of several cells, NaN left out.

    Rows of a cell differ in their seed alone, and what a cell's mean is counts as known: the interval is about other
    seeds, not of other cells. Seeds are resampled as a whole, as the rows of a seed share its random numbers in all
    cells. To first order the mean then errs by the sum over seeds of the seed's deviations from its cells' means, over
    the number of rows (Liang and Zeger, Biometrika 73, 1986, 13-22, clustered by seed); `mean_interval` is given
    one value per seed with that mean and error. NaN where a cell has fewer than two seeds.
    """
    present = ~np.isnan(values)
    number = np.maximum(present.sum(axis=0), 1)
    with np.errstate(over="ignore", invalid="ignore"):
        kept = np.where(present, values, 0.0)
        of_cells = _sums(present.astype(np.float64), cells)
        deviations = np.where(present, values - (_sums(kept, cells) / np.maximum(of_cells, 1))[cells], 0.0)
        of_seeds = _sums(present.astype(np.float64), seeds)
        each = (of_seeds > 0).sum(axis=0) * _sums(deviations, seeds) / number + kept.sum(axis=0) / number
    low, high = mean_interval(np.where(of_seeds > 0, each, np.nan), level)
    known = (of_cells != 1).all(axis=0)
    return np.where(known, low, np.nan), np.where(known, high, np.nan)


def _special() -> Any:
    """Import SciPy's special functions, which is slow: a table of single networks has no intervals.

    The import adds a filter of warnings, which is removed again: a notebook's process keeps its settings.
    """
    with warnings.catch_warnings():
        from scipy import special
    return special


def _sums(values: NDArray[np.float64], groups: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the sums of rows by group, which are numbered from 0."""
    sums = np.zeros((int(groups.max(initial=-1)) + 1, values.shape[1]))
    np.add.at(sums, groups, values)
    return sums


@cache
def multiplier_weights(seeds: int, freedom: int) -> NDArray[np.float64]:
    """Return the seeds' weights in each draw, the same for every statistic, every draw with its opposite."""
    generator = np.random.default_rng(0)
    half = DRAWS // 2
    normal = generator.standard_normal((half, seeds))
    # Chi-square by evenly spaced quantiles in random order, which makes the tails of the draws less noisy.
    evenly = generator.permutation((np.arange(half) + 0.5) / half)
    scale = np.sqrt(_special().chdtri(freedom, evenly) / freedom)
    weights = normal / scale[:, None]
    return np.concatenate([weights, -weights])


def draw_means(columns: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return each column's mean over seeds (rows), and draws of all means around them: one row per draw.

    Seeds that a column lacks (NaN) are left out of that column alone. Degrees of freedom are those of the
    column with the fewest seeds.

    Raises: ValueError if a column has fewer than two seeds.
    """
    present = ~np.isnan(columns)
    count = present.sum(axis=0)
    fewest = int(count.min())
    if fewest < 2:
        raise ValueError(f"Draws of a mean need at least two seeds, and a column has {fewest}.")
    mean = np.where(present, columns, 0.0).sum(axis=0) / count
    errors = np.where(present, columns - mean, 0.0) / np.sqrt(count * (count - 1.0))
    drawn = multiplier_weights(len(columns), fewest - 1) @ (errors * (1 + _WIDENING / count))
    return mean, mean + drawn


def drawn_interval(value: float, ordered: NDArray[np.float64], level: float = LEVEL) -> tuple[float, float]:
    """Return the interval of a statistic with a value, given its values at draws of the means in rising order."""
    places = np.array([(1 - level) / 2, (1 + level) / 2]) * (len(ordered) - 1)
    before = np.floor(places).astype(np.intp)
    after = np.minimum(before + 1, len(ordered) - 1)
    low, high = (ordered[before] + (places - before) * (ordered[after] - ordered[before])).tolist()
    least, most = float(ordered[0]), float(ordered[-1])
    return min(low, max(2 * value - high, least)), max(high, min(2 * value - low, most))
