"""In addition to the claims: the probability that training finds a modular solution, by modules, units and noise.

A network is a modular solution if both hold, levels that were fixed before any network was trained:

- Its scaled excess of structural modularity is above 1/2: it is nearer to separate modules than to aligned units of
  isotropic directions (metrics.frame_null). Unlike structural modularity itself, the level means the same for any
  number of modules.
- Its test error is below 20% of that of the best constant answer: it has learned the task (claims.thresholds), since
  a network that has not can look modular.

Every module has the same function, the parabola 2 x^2 - 1, so modules are exchangeable and the number of modules
is all that changes. Without noise, were it not for the task, nothing in training would distinguish the module axes
from others; how rare modular networks then are follows from the volume that they take up (claims.volume). The exact
interval of a probability is that of C. Clopper and E. Pearson (Biometrika 26, 1934, 404-413).
"""

from __future__ import annotations

import functools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Self

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from scipy.stats import beta

from modulab.claims import thresholds
from modulab.claims.claim import Claim, Setting
from modulab.claims.comparisons import ERROR, Find
from modulab.claims.evidence import Estimate, Evidence
from modulab.claims.rules import Criterion, Region
from modulab.report.chart import Chart, Panel, drawn_panel
from modulab.report.figure import ReportFigure
from modulab.report.panels import legend_below, panel_grid
from modulab.report.style import ArmStyle, arm_styles, drawing, label, set_log_axis
from modulab.results.intervals import LEVEL

SCALED_EXCESS = "modularity/structural_excess_scaled"
MODULAR = 0.5
"""Least scaled excess of a modular solution: half of the way from aligned units to separate modules."""
CONSTANT_ERROR = 16 / 45
"""Variance of 2 x^2 - 1 for x uniform on [-1, 1]: 4 (1/5 - 1/9)."""
LEARNED = thresholds.LEARNED_SHARE * CONSTANT_ERROR

MODULES = (2, 3, 4, 6)
UNITS = (2, 4, 8)
"""Numbers of units per module."""
NOISES = (0.0, 0.4)
HALVING = 0.5 ** (MODULES[-1] - MODULES[0])
"""A probability vanishes if every module that is added at least halves it."""
PREDICTED = {
    (2, 2): 7.5e-3, (2, 3): 6.7e-7, (2, 4): 7.1e-14, (2, 6): 3.5e-38,
    (4, 2): 2.1e-4, (4, 3): 2.9e-12, (4, 4): 4.5e-26, (4, 6): 1.7e-74,
    (8, 2): 2.3e-7, (8, 3): 7.8e-23, (8, 4): 2.6e-50, (8, 6): 5.6e-147,
}  # fmt: skip
"""Probability without noise by units for each module and modules: that of isotropic directions (claims.volume)."""

_PROBABILITY = "Probability of a modular solution"
_BESIDE = 0.09
"""Between marks of different units, in modules: those of equal probability lie side by side."""


@dataclass(frozen=True)
class Point:
    """A number of modules, units for each, and noise in training."""

    modules: int
    units: int
    noise: float

    @property
    def words(self) -> str:
        """Return the point in words."""
        noise = f"noise {self.noise:g}" if self.noise else "no noise"
        return f"{self.modules} modules, {self.units} units for each, {noise}"

    def counts(self, evidence: Mapping[str, Evidence]) -> tuple[int, int, int]:
        """Return how many networks have been trained, have learned the task, and are modular solutions.

        A network that diverged has been trained, and found no solution.
        """
        arm = {
            "task.modules": self.modules,
            "architecture.width": self.modules * self.units,
            "noise.scale": self.noise,
        }
        found = evidence["solutions"]
        status = found.of_members("status", arm)
        trained = (status == "completed") | (status == "diverged")
        error, excess = (
            found.of_members(name, arm)[trained].astype(np.float64) for name in (ERROR, SCALED_EXCESS)
        )
        learned = error < LEARNED
        return int(trained.sum()), int(learned.sum()), int((learned & (excess > MODULAR)).sum())


@dataclass(frozen=True)
class Proportion(Estimate):
    """A share of networks, with its exact interval at any level."""

    found: int = 0

    def interval(self, level: float) -> tuple[float, float]:
        """Return the interval of Clopper and Pearson at a level."""
        return clopper_pearson(self.found, self.seeds, level)


@functools.lru_cache(maxsize=10_000)
def clopper_pearson(found: int, trained: int, level: float) -> tuple[float, float]:
    """Return the interval of a probability: no coverage below the level at any probability."""
    tail = (1 - level) / 2
    low = float(beta.ppf(tail, found, trained - found + 1)) if found else 0.0
    high = float(beta.ppf(1 - tail, found + 1, trained - found)) if found < trained else 1.0
    return low, high


def proportion(found: int, trained: int) -> Proportion:
    """Return a share with its 95% interval; NaN of no networks."""
    if not trained:
        return Proportion(math.nan, math.nan, math.nan, 0)
    return Proportion(found / trained, *clopper_pearson(found, trained, LEVEL), trained, found=found)


@dataclass(frozen=True)
class OfTwo(Estimate, ABC):
    """A function of two probabilities, whose interval holds at least the level's share at any level.

    Each of the two intervals errs with half the probability, so the function's covers by Bonferroni. Half a
    network is added to each count in the estimate itself, so none found, or all, gives a number.
    """

    first: Proportion = field(kw_only=True)
    second: Proportion = field(kw_only=True)

    @classmethod
    def of(cls, first: Proportion, second: Proportion) -> Self:
        """Return the estimate with its 95% interval; NaN where either has no networks."""
        seeds = min(first.seeds, second.seeds)
        value = cls._value(_smoothed_log(first), _smoothed_log(second)) if seeds else math.nan
        found = cls(value, value, value, seeds, first=first, second=second)
        low, high = found.interval(LEVEL)
        return replace(found, low=low, high=high)

    def interval(self, level: float) -> tuple[float, float]:
        """Return the smallest and largest value within both intervals."""
        if not self.seeds:
            return math.nan, math.nan
        return self._ends(*(each.interval((1 + level) / 2) for each in (self.first, self.second)))

    @staticmethod
    @abstractmethod
    def _value(first: float, second: float) -> float:
        """Return the function of two probabilities, given their logarithms."""

    @staticmethod
    @abstractmethod
    def _ends(first: tuple[float, float], second: tuple[float, float]) -> tuple[float, float]:
        """Return the ends of its values, given those of two probabilities."""


@dataclass(frozen=True)
class LogRatio(OfTwo):
    """ln(first / second)."""

    @staticmethod
    def _value(first: float, second: float) -> float:
        return first - second

    @staticmethod
    def _ends(first: tuple[float, float], second: tuple[float, float]) -> tuple[float, float]:
        return _log(first[0]) - _log(second[1]), _log(first[1]) - _log(second[0])


@dataclass(frozen=True)
class Exponent(OfTwo):
    """The exponent k of the first probability as a power of the second, p = q^k."""

    @staticmethod
    def _value(first: float, second: float) -> float:
        return first / second

    @staticmethod
    def _ends(first: tuple[float, float], second: tuple[float, float]) -> tuple[float, float]:
        least = abs(_log(first[1]) / _log(second[0])) if second[0] > 0 else 0.0
        return least, _log(first[0]) / _log(second[1]) if second[1] < 1 else math.inf


def _smoothed_log(share: Proportion) -> float:
    return math.log((share.found + 0.5) / (share.seeds + 1))


def _log(value: float) -> float:
    return math.log(value) if value > 0 else -math.inf


def _probability(point: Point) -> Find:
    def find(evidence: Mapping[str, Evidence]) -> Estimate:
        trained, _, modular = point.counts(evidence)
        return proportion(modular, trained)

    return find


def _learning(point: Point) -> Find:
    def find(evidence: Mapping[str, Evidence]) -> Estimate:
        trained, learned, _ = point.counts(evidence)
        return proportion(learned, trained)

    return find


def _compared(compare: Callable[[Proportion, Proportion], Estimate], first: Point, second: Point) -> Find:
    def find(evidence: Mapping[str, Evidence]) -> Estimate:
        counts = [point.counts(evidence) for point in (first, second)]
        one, other = (proportion(modular, trained) for trained, _, modular in counts)
        return compare(one, other)

    return find


def _deciding(units: int) -> tuple[Criterion, ...]:
    fewest, most = MODULES[0], MODULES[-1]
    quiet = [Point(modules, units, NOISES[0]) for modules in (most, fewest)]
    return (
        Criterion(
            f"Without noise modular solutions vanish as modules are added, {units} units for each",
            f"probability of a modular solution, {most} modules / {fewest}",
            _compared(LogRatio.of, quiet[0], quiet[1]),
            Region(high=HALVING),
            scale="factor",
            predicted=f"below {HALVING:g} times",
        ),
        Criterion(
            f"Under noise {NOISES[1]} most networks find one at {most} modules, {units} units for each",
            "probability of a modular solution",
            _probability(Point(most, units, NOISES[1])),
            Region(low=0.5),
            predicted="above 0.5",
        ),
    )


def _reported() -> tuple[Criterion, ...]:
    points = [Point(modules, units, noise) for noise in NOISES for units in UNITS for modules in MODULES]
    return (
        *(
            Criterion(
                f"A modular solution: {point.words}",
                "probability",
                _probability(point),
                predicted="above 0.5"
                if point.noise
                else f"{PREDICTED[point.units, point.modules]:.2g} or more",
            )
            for point in points
        ),
        *(
            Criterion(f"The task is learned: {point.words}", "probability", _learning(point))
            for point in points
        ),
        *(
            Criterion(
                f"Twice as many units square the probability: {modules} modules, {fewer} to {more} units for each",
                f"exponent k of P({more} units) = P({fewer} units)^k, without noise",
                _compared(Exponent.of, Point(modules, more, NOISES[0]), Point(modules, fewer, NOISES[0])),
                predicted="2",
            )
            for modules in MODULES
            for fewer, more in pairwise(UNITS)
        ),
    )


def _table(evidence: Mapping[str, Evidence]) -> pd.DataFrame:
    """Return a row per point: how many were trained, learned and modular, the probability and its interval."""
    rows: list[dict[str, float]] = []
    for noise in NOISES:
        for units in UNITS:
            for modules in MODULES:
                trained, learned, modular = Point(modules, units, noise).counts(evidence)
                share = proportion(modular, trained)
                rows.append(
                    {
                        "noise": noise,
                        "units_per_module": units,
                        "modules": modules,
                        "trained": trained,
                        "learned": learned,
                        "modular": modular,
                        "probability": share.value,
                        "low": share.low,
                        "high": share.high,
                        "isotropic": PREDICTED[units, modules] if noise == 0 else math.nan,
                    }
                )
    return pd.DataFrame(rows)


def _draw(evidence: Mapping[str, Evidence]) -> Sequence[ReportFigure]:
    table = _table(evidence)
    table = table.loc[table["trained"] > 0]
    styles = arm_styles(list(UNITS))
    floor = 0.3 / max(1, int(table["trained"].max()))
    title = "Units for each module (dotted: predicted)"
    charted: list[Panel] = []
    with drawing():
        figure, panels = panel_grid(len(NOISES), height=3.0)
        for axes, noise in zip(panels, NOISES, strict=True):
            parts: list[pd.DataFrame] = []
            for place, units in enumerate(UNITS):
                own = table.loc[(table["noise"] == noise) & (table["units_per_module"] == units)]
                aside = _BESIDE * (place - (len(UNITS) - 1) / 2)
                _draw_line(axes, own, styles[str(units)], floor, aside)
                parts += [*_charted(own, floor, aside)]
            axes.set_title(f"Noise {noise:g}")
            set_log_axis(axes, "y", -math.log10(floor))
            axes.set_ylim(floor, 1.5)
            axes.set_xticks(MODULES)
            axes.set_xlabel(label("task.modules"))
            rows = pd.concat(parts, ignore_index=True).assign(run_id=None)
            each = drawn_panel(axes, rows, "front", 0.9)
            charted.append(
                replace(
                    each, y=replace(each.y, title=_PROBABILITY), values=_PROBABILITY,
                    means="Share of networks and its exact 95% interval",
                )
            )  # fmt: skip
        panels[0].set_ylabel(_PROBABILITY)
        legend_below(figure, [str(units) for units in UNITS], styles, title)
    return [
        ReportFigure(
            "solutions",
            "With what probability training finds a modular solution",
            "Bars are exact 95% intervals; an arrow is the upper end where no network was modular. Dotted: predicted "
            "for isotropic directions, which cannot be distinguished from 0 beyond two modules.",
            figure,
            table,
            Chart(charted, styles, title),
        )
    ]


def _charted(own: pd.DataFrame, floor: float, aside: float) -> list[pd.DataFrame]:
    """Return a line as rows of its interactive form: probabilities, or upper ends of none found, and predictions."""
    none = own["modular"] == 0
    rows = pd.DataFrame(
        {
            "arm": [f"{units:g}" for units in own["units_per_module"].tolist()],
            "shown": np.where(none, "limit", "mean"),
            "x": own["modules"] + aside, "y": own["probability"].where(~none, own["high"]),
            "y_low": own["low"], "y_high": own["high"], "value": own["probability"],
            "words": [_counts_in_words(row) for row in own.to_dict("records")],
        }
    )  # fmt: skip
    predicted = rows[["arm", "x"]].assign(
        shown="guide", y=np.maximum(own["isotropic"], floor / 10), part=own["units_per_module"]
    )
    return [rows, predicted.dropna(subset=["y"])]


def _counts_in_words(row: Mapping[Hashable, float]) -> str:
    """Return what a point of the figure is of: its modules, and how many networks were what."""
    lines = [
        f"{label('task.modules')}: {row['modules']:g}",
        f"{row['trained']:g} trained, {row['learned']:g} learned the task, {row['modular']:g} modular",
    ]
    if math.isfinite(row["isotropic"]):
        lines.append(f"predicted for isotropic directions: {row['isotropic']:.2g}")
    return "\n".join(lines)


def _draw_line(axes: Axes, own: pd.DataFrame, style: ArmStyle, floor: float, aside: float) -> None:
    """Draw a probability against modules, with intervals, and the predicted line, moved sideways by an offset."""
    own = own.assign(modules=own["modules"] + aside)
    seen = own.loc[own["modular"] > 0]
    bars = [seen["probability"] - seen["low"], seen["high"] - seen["probability"]]
    axes.errorbar(
        seen["modules"],
        seen["probability"],
        yerr=bars,
        color=style.colour,
        marker=style.marker,
        ms=5,
        capsize=2,
    )
    none = own.loc[own["modular"] == 0]
    axes.errorbar(
        none["modules"], none["high"], yerr=0.5 * none["high"], uplims=True, color=style.colour, ls="",
        marker=style.marker, mfc="none", ms=5,
    )  # fmt: skip
    axes.plot(own["modules"], np.maximum(own["isotropic"], floor / 10), color=style.colour, ls=":")


CLAIM = Claim(
    name="solutions",
    title="Training finds modular solutions by noise, not by chance",
    hypothesis=(
        "Modular solutions take up a share of the space of networks that vanishes as modules are added, so "
        "training does not find them by chance. Under noise it finds them."
    ),
    measure=(
        f"The share of networks with a scaled excess of structural modularity above {MODULAR} and a test error below "
        f"{thresholds.LEARNED_SHARE:.0%} of the best constant answer's."
    ),
    comparison=(
        f"Dense networks of {MODULES[-1]} modules against {MODULES[0]} at equal numbers of units per module, trained "
        f"without noise and under Poisson noise {NOISES[1]}."
    ),
    experiments=("solutions",),
    criteria=_reported(),
    settings=tuple(Setting({"units per module": str(units)}, _deciding(units)) for units in UNITS),
    draw=_draw,
    caveats=(
        "Not one of the paper's claims: a measurement of what its abstract calls vanishing subspaces.",
        "One hidden layer, one function for all modules, 600 steps; a probability depends on both levels.",
        "The predicted line is that of networks whose task prefers no axes, a lower bound where the task does.",
    ),
    prediction=(
        "Without noise the probability is at least that of isotropic aligned units, exp(-H I) with a rate I that grows "
        "with the number of modules d; since the targets are functions of single inputs it is expected to lie above. "
        "In any case it is exponential in the number of units H, so twice as many units square it, and "
        "each further module at least halves it. Under noise more than half of all networks are modular, however many "
        "modules there are."
    ),
)
