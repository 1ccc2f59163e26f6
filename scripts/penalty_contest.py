"""Penalties of many powers, each at the strength that other seeds chose, compared with (2, 1) by seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from modulab.claims.maps.optimum import Optimum, optimum
from modulab.claims.maps.surface import Surface, fit_surface, simultaneous_half_width
from modulab.results.intervals import draw_means, mean_interval

Array = NDArray[np.float64]

P, Q, STRENGTH = (
    "config.regulariser.weight_power",
    "config.regulariser.activity_power",
    "config.regulariser.strength",
)
SEED, EXCESS = "config.seed", "modularity/structural_excess"
REFERENCE = (2.0, 1.0)
TICKS = np.linspace(1, 3, 21)
SHOWN = np.array([(p, q) for p in TICKS for q in (0.0, *TICKS)])
"""Powers at which surfaces are evaluated; powers between 0 and 1 have infinite slopes at 0."""


@dataclass(frozen=True)
class Criterion:
    """What a strength is chosen for."""

    words: str
    measure: str
    support: str
    matched: float | None = None
    """The power of activity at which the penalty is the expectation of the noise."""
    tolerance: str | None = None


CRITERIA = {
    "gaussian": Criterion(
        "Gaussian noise .3", "error_under/gaussian@0.3", "full", 0.0, "robustness/gaussian/tolerance"
    ),
    "poisson": Criterion(
        "Poisson noise .3", "error_under/poisson@0.3", "full", 1.0, "robustness/poisson/tolerance"
    ),
    "multiplicative": Criterion(
        "multiplicative noise .3", "error_under/multiplicative@0.3", "full", 2.0,
        "robustness/multiplicative/tolerance",
    ),
    "extrapolation": Criterion("withheld combinations", "error_beyond/combination", "band"),
}  # fmt: skip


@dataclass(frozen=True)
class Contest:
    """Networks of evaluation seeds at chosen strengths, and their errors over those of (2, 1), by seed."""

    rows: pd.DataFrame
    powers: list[tuple[float, float]]
    differences: Array
    """Of logarithms: one row per seed, one column per pair of powers."""
    surface: Surface
    best: Optimum

    def ratio(self, powers: tuple[float, float]) -> tuple[float, float, float]:
        """Return the geometric mean of the ratio to (2, 1), and its 95% interval."""
        return ratio_interval(self.differences[:, self.powers.index(powers)])

    def better(self) -> list[tuple[float, float]]:
        """Return the powers whose error is below that of (2, 1), by intervals that hold for all powers at once."""
        others = [place for place, own in enumerate(self.powers) if own != REFERENCE]
        mean, drawn = draw_means(self.differences[:, others])
        high = mean + simultaneous_half_width(drawn, mean)
        return [self.powers[place] for place, end in zip(others, high, strict=True) if end < 0]


def chosen_strength(strengths: Array, errors: Array) -> float:
    """Return the strength at the vertex of the parabola through the least mean of errors and its neighbours.

    All in logarithms; errors have one row per seed and one column per strength, of which missing ones are left out.
    The first or the last strength where the least mean is there.
    """
    means = np.nanmean(errors, axis=0)
    least = int(np.nanargmin(means))
    if least in (0, len(means) - 1) or not np.isfinite(means[least - 1 : least + 2]).all():
        return float(strengths[least])
    around = slice(least - 1, least + 2)
    curvature, slope, _ = np.polyfit(strengths[around] - strengths[least], means[around], 2)
    return float(strengths[least] - (slope / (2 * curvature) if curvature > 0 else 0.0))


def ratio_interval(differences: Array) -> tuple[float, float, float]:
    """Return the factor that differences of logarithms are on average, and its interval over seeds."""
    low, high = mean_interval(differences[:, None])
    return float(np.exp(np.nanmean(differences))), float(np.exp(low[0])), float(np.exp(high[0]))


def choose_strengths(rows: pd.DataFrame, measure: str) -> dict[tuple[float, float], float]:
    """Return the strength for each pair of powers, as rows of the tuning seeds have it."""
    chosen: dict[tuple[float, float], float] = {}
    for (p, q), own in rows.groupby([P, Q]):
        errors = own.pivot_table(index=SEED, columns=STRENGTH, values=measure, dropna=False)
        strengths = np.log(errors.columns.to_numpy(dtype=float))
        found = np.exp(chosen_strength(strengths, np.log(errors.to_numpy(dtype=float))))
        chosen[float(p), float(q)] = float(f"{found:.3g}")
    return chosen


def contest_of(rows: pd.DataFrame, measure: str, replicates: int = 200) -> Contest:
    """Return errors over those of (2, 1) by seed, and the surface of the logarithm of error over powers.

    Each seed's mean over all powers is left out of the surface, as it says nothing of powers.
    """
    table = np.log(rows.pivot_table(index=SEED, columns=[P, Q], values=measure, dropna=False))
    table = table.dropna(axis=1, how="all")
    powers = [(float(p), float(q)) for p, q in table.columns]
    values = table.to_numpy(dtype=float)
    differences = values - values[:, [powers.index(REFERENCE)]]
    surface = surface_of(powers, values - np.nanmean(values, axis=1, keepdims=True), replicates)
    return Contest(rows, powers, differences, surface, optimum(surface, SHOWN))


def surface_of(powers: Sequence[tuple[float, float]], values: Array, replicates: int = 200) -> Surface:
    """Return a surface over powers, fitted to values with one row per seed and one column per pair of powers."""
    places = np.repeat([powers], len(values), axis=0).reshape(-1, 2)
    present = np.isfinite(values.ravel())
    return fit_surface(scaled(places[present]), values.ravel()[present], [scaled(SHOWN)], replicates)


def scaled(powers: Array) -> Array:
    """Return powers as places of a map whose axes are 1 long."""
    return (powers - [1.0, 0.0]) / [2.0, 3.0]
