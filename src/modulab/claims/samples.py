"""Claim 5: the samples needed for modularity grow exponentially with the number of modules."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from modulab.claims import thresholds
from modulab.claims.claim import Claim
from modulab.claims.comparisons import ERROR, MODULARITY
from modulab.claims.evidence import Estimate, Evidence, estimate, pick
from modulab.claims.rules import Criterion, Region
from modulab.report.figure import ReportFigure
from modulab.report.lines import lines_figure

SLOWEST_GROWTH = 1.25
"""The least factor a module that is worth the name exponential."""
BETTER_FIT = 2.0
"""The factor between residual sums of squares from which one fit counts as better."""

_Fit = Callable[[NDArray[np.float64], NDArray[np.float64]], NDArray[np.float64]]
"""A number for each curve or row (the second argument, its last axis) over one grid (the first)."""


def crossing(
    log_samples: NDArray[np.float64], curve: NDArray[np.float64], share: float = 0.5
) -> NDArray[np.float64]:
    """Return ln N at which a rising curve (last axis: sample sizes) first reaches a share of its last value.

    Interpolated as a straight line in ln N. A curve that starts above has the smallest N: read "at most".
    """
    wanted = share * curve[..., -1:]
    reached = curve >= wanted
    first = reached.argmax(axis=-1)
    before = np.maximum(first - 1, 0)

    grid = np.broadcast_to(log_samples, curve.shape)
    low, high = pick(curve, before), pick(curve, first)
    step = np.where(high > low, high - low, 1.0)
    part = np.where(first > 0, (wanted[..., 0] - low) / step, 0.0)
    return pick(grid, before) + part * (pick(grid, first) - pick(grid, before))


def _residuals(
    x: NDArray[np.float64], y: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return slope and residual sum of squares of a straight line through (x, y), over the last axis of y."""
    centred = x - x.mean()
    offsets = y - y.mean(axis=-1, keepdims=True)
    slope = (offsets * centred).sum(axis=-1) / (centred**2).sum()
    return slope, ((offsets - slope[..., None] * centred) ** 2).sum(axis=-1)


def growth(modules: NDArray[np.float64], log_needed: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return b of N = a exp(b d), fitted to ln N."""
    return _residuals(modules, log_needed)[0]


def exponent(modules: NDArray[np.float64], log_needed: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return b of N = a d^b, fitted to ln N."""
    return _residuals(np.log(modules), log_needed)[0]


def exponential_fits_better(
    modules: NDArray[np.float64], log_needed: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the logarithm of the power law's residual sum of squares over the exponential's."""
    of_power, of_exponential = (_residuals(x, log_needed)[1] for x in (np.log(modules), modules))
    return np.log((of_power + 1e-12) / (of_exponential + 1e-12))


def _needed(table: Evidence, least_modules: int, measure: str, crossed: _Fit, fit: _Fit) -> Estimate:
    """Estimate a fit to ln N over numbers of modules, N being where a curve of a measure over ln N is `crossed`."""
    modules = sorted(set(table.results["config.task.modules"].astype(int).tolist()))
    modules = [each for each in modules if each >= least_modules]
    samples = sorted(set(table.results["config.data.num_samples"].astype(int).tolist()))
    arms = [{"task.modules": d, "data.num_samples": n} for d in modules for n in samples]
    columns = (table.log_columns if measure == ERROR else table.columns)(measure, arms)
    log_samples = np.log(np.array(samples, dtype=np.float64))

    def statistic(means: NDArray[np.float64]) -> NDArray[np.float64]:
        curves = means.reshape(*means.shape[:-1], len(modules), len(samples))
        return fit(np.array(modules, dtype=np.float64), crossed(log_samples, curves))

    return estimate(columns, statistic)


def _learned(log_samples: NDArray[np.float64], log_errors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return ln N at which error falls below the share that counts as learned; the largest if it never does."""
    # As a rising curve that ends at 1 and reaches one half where the task is learned.
    excess = log_errors - math.log(thresholds.learned("regression"))
    below = 1 / (1 + np.exp(np.clip(excess, -30, 30)))
    reached = np.concatenate([below, np.ones_like(below[..., :1])], axis=-1)
    return crossing(np.append(log_samples, log_samples[-1]), reached)


def needed_for_modularity(table: Evidence, fit: _Fit) -> Estimate:
    """Estimate a fit of ln N50, where N50 is the sample size at which modularity reaches half its plateau."""
    return _needed(table, 2, MODULARITY, crossing, fit)


def needed_to_generalise(table: Evidence, fit: _Fit) -> Estimate:
    """Estimate a fit of ln N at which test error falls below the share that counts as learned."""
    return _needed(table, 1, ERROR, _learned, fit)


def _draw(evidence: Mapping[str, Evidence]) -> Sequence[ReportFigure]:
    table = evidence["samples"].completed
    return [
        lines_figure(
            table.loc[table["config.task.modules"] > 1, :],
            "config.data.num_samples",
            [MODULARITY, ERROR],
            arm="config.task.modules",
            name="C5_samples",
            title="Modularity and test error against sample size, by number of modules",
        )
    ]


def _criteria() -> list[Criterion]:
    return [
        Criterion(
            "The samples needed grow with each further module",
            "factor by which N50 grows a module, from an exponential fit",
            lambda evidence: needed_for_modularity(evidence["samples"], growth),
            Region(low=SLOWEST_GROWTH),
            scale="factor",
        ),
        Criterion(
            "They grow exponentially rather than as a power of the number of modules",
            "residual sum of squares of the power law over that of the exponential, in ln N50",
            lambda evidence: needed_for_modularity(evidence["samples"], exponential_fits_better),
            Region(low=BETTER_FIT),
            scale="factor",
        ),
        Criterion(
            "The power law",
            "exponent b of N50 = a dᵇ",
            lambda evidence: needed_for_modularity(evidence["samples"], exponent),
        ),
        Criterion(
            "Samples needed to generalise: growth",
            "factor a module in the N at which test error counts as learned",
            lambda evidence: needed_to_generalise(evidence["samples"], growth),
            scale="factor",
        ),
        Criterion(
            "Samples needed to generalise: which fit",
            "residual sum of squares of the power law over that of the exponential",
            lambda evidence: needed_to_generalise(evidence["samples"], exponential_fits_better),
            scale="factor",
        ),
    ]


CLAIM = Claim(
    name="C5",
    title="The samples needed grow exponentially with the number of modules",
    hypothesis="The sample size at which modularity emerges grows exponentially with the number of modules d.",
    measure="N50: the sample size at which structural modularity reaches half of its value at the largest sample.",
    comparison=(
        "ln N50 against d (exponential) and against ln d (power law), for networks with 24 units a module under the "
        "regulariser (2,1) at strength 0.06/d, each sample size with the same number of steps."
    ),
    experiments=("samples",),
    criteria=tuple(_criteria()),
    draw=_draw,
    caveats=(
        "Few numbers of modules cannot tell an exponential from a power law with certainty; the preset full has more.",
        "With one module there is no modularity; it counts for generalisation only.",
    ),
)
