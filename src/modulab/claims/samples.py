"""Claim 5: whether the samples needed grow exponentially with the number of modules depends on the input code."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from modulab.claims import thresholds
from modulab.claims.claim import Claim, FirstRule, Setting
from modulab.claims.comparisons import ERROR, MODULARITY, Find
from modulab.claims.evidence import Condition, Estimate, Evidence, estimate, pick
from modulab.claims.rules import Criterion, Region
from modulab.report.figure import ReportFigure
from modulab.report.lines import lines_figure

SLOWEST_GROWTH = 1.25
"""The least factor per module that counts as exponential growth."""
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


def _needed(table: Evidence, arm: Condition, measure: str, crossed: _Fit, fit: _Fit) -> Estimate:
    """Estimate a fit to ln N over numbers of modules, N being where a curve of a measure over ln N is `crossed`."""
    modules, samples = (table.whole_numbers(key, arm) for key in ("task.modules", "data.num_samples"))
    arms = [{**arm, "task.modules": d, "data.num_samples": n} for d in modules for n in samples]
    columns = (table.log_columns if measure == ERROR else table.columns)(measure, arms)
    log_samples = np.log(np.array(samples, dtype=np.float64))

    def statistic(means: NDArray[np.float64]) -> NDArray[np.float64]:
        curves = means.reshape(*means.shape[:-1], len(modules), len(samples))
        return fit(np.array(modules, dtype=np.float64), crossed(log_samples, curves))

    return estimate(columns, statistic)


def learned(
    log_samples: NDArray[np.float64], log_errors: NDArray[np.float64], learned_error: float
) -> NDArray[np.float64]:
    """Return ln N at which error falls below what counts as learned; the largest if it never does."""
    # As a rising curve that ends at 1 and reaches one half where the task is learned.
    excess = log_errors - math.log(learned_error)
    below = 1 / (1 + np.exp(np.clip(excess, -30, 30)))
    reached = np.concatenate([below, np.ones_like(below[..., :1])], axis=-1)
    return crossing(np.append(log_samples, log_samples[-1]), reached)


def learned_error(degree: int) -> float:
    """Return the error below which functions of a Legendre degree k are learned; their variance is 1 / (2k + 1)."""
    return thresholds.LEARNED_SHARE / (2 * degree + 1)


@dataclass(frozen=True)
class _Asked:
    """Networks by sample size and number of modules: of which experiment, which of them, and their words."""

    experiment: str
    code: str
    degree: int
    architecture: str = "dense"

    @property
    def arm(self) -> Condition:
        """Return what picks these networks out of the experiment."""
        return {"task.degree": self.degree, "architecture.name": self.architecture}

    def to_learn(self, fit: _Fit) -> Find:
        """Estimate a fit of ln N, N being the sample size at which test error counts as learned."""
        wanted = learned_error(self.degree)
        return lambda evidence: _needed(
            evidence[self.experiment], self.arm, ERROR, lambda n, errors: learned(n, errors, wanted), fit
        )

    def for_modularity(self, fit: _Fit) -> Find:
        """Estimate a fit of ln N50, the sample size at which modularity reaches half of its value at the largest."""
        return lambda evidence: _needed(evidence[self.experiment], self.arm, MODULARITY, crossing, fit)


DEGREES = (1, 2, 3)
COORDINATES = tuple(_Asked("samples", "coordinates", degree) for degree in DEGREES)
JOINT = _Asked("codes", "joint tuning curves", 2)
PREMODULAR = _Asked("samples", "coordinates", 2, "premodular")
GRID_SIZE = 5
"""Tuning curves for each coordinate of the joint code."""


def _exponential(asked: _Asked, what: str, needed: Callable[[_Fit], Find]) -> Setting:
    joint, words = asked is JOINT, f"{asked.code}, degree {asked.degree}, {what}"
    criteria = (
        Criterion(
            f"The samples needed grow with each further module: {words}",
            "factor by which N grows per module, from an exponential fit",
            needed(growth),
            Region(low=SLOWEST_GROWTH),
            scale="factor",
            predicted=f"{GRID_SIZE} times" if joint else "",
        ),
        Criterion(
            f"An exponential fits better than a power law: {words}",
            "residual sum of squares, power law / exponential",
            needed(exponential_fits_better),
            Region(low=BETTER_FIT),
            scale="factor",
            predicted="above 2 times" if joint else "below 1 times",
        ),
    )
    return Setting({"inputs": asked.code, "degree": f"{asked.degree}", "samples": what}, criteria)


def _settings() -> list[Setting]:
    learn = [_exponential(asked, "to learn the task", asked.to_learn) for asked in (*COORDINATES, JOINT)]
    modular = [
        _exponential(asked, "for half of the modularity", asked.for_modularity) for asked in COORDINATES
    ]
    return [*learn, *modular]


def _reported() -> list[Criterion]:
    criteria: list[Criterion] = []
    for asked in (*COORDINATES, PREMODULAR):
        premodular = asked is PREMODULAR
        of_what = "premodular networks, " if premodular else ""
        criteria += [
            Criterion(
                f"The power law: {of_what}degree {asked.degree}, to learn the task",
                "exponent b of N = a dᵇ",
                asked.to_learn(exponent),
                predicted="0" if premodular else f"1 to {asked.degree}",
            )
        ]
        if not premodular:
            criteria.append(
                Criterion(
                    f"The power law: degree {asked.degree}, for half of the modularity",
                    "exponent b of N50 = a dᵇ",
                    asked.for_modularity(exponent),
                    predicted=f"1 to {asked.degree}",
                )
            )
    return criteria


def _draw(evidence: Mapping[str, Evidence]) -> Sequence[ReportFigure]:
    samples, codes = evidence["samples"].completed, evidence["codes"].completed
    return [
        lines_figure(
            samples.loc[samples["config.architecture.name"] == "dense", :],
            "config.data.num_samples",
            [MODULARITY, ERROR],
            arm="config.task.modules",
            row="config.task.degree",
            name="C5_samples",
            title="Modularity and test error against sample size, by number of modules and degree of the functions",
        ),
        lines_figure(
            codes,
            "config.data.num_samples",
            [ERROR],
            arm="config.task.modules",
            name="C5_codes",
            title="Test error against sample size by number of modules, for joint tuning curves",
        ),
    ]


CLAIM = Claim(
    name="C5",
    title="The samples needed grow exponentially with the number of modules",
    hypothesis="The sample size at which a modular task is learned grows exponentially with the number of modules d.",
    measure=(
        "The sample size N at which test error falls below a fifth of that of the best constant answer; and N50, at "
        "which structural modularity reaches half of its value at the largest sample."
    ),
    comparison=(
        "ln N against d (exponential) and against ln d (power law), for functions of one Legendre degree; inputs are "
        "the coordinates themselves, or tuning curves on a grid over all of them. 24 units per module, regulariser "
        "(2,1) at strength 0.06/d, each sample size with the same number of steps."
    ),
    experiments=("samples", "codes"),
    criteria=tuple(_reported()),
    settings=tuple(_settings()),
    draw=_draw,
    caveats=(
        "Few numbers of modules cannot separate an exponential from a power law with certainty; preset full has more.",
        "A curve that has crossed at the smallest sample counts as crossing there, so growth is understated.",
    ),
    prediction=(
        "There are of the order of d^k monomials of degree k in d coordinates, and features can be learned, so N "
        "grows as d^b with 1 ≤ b ≤ k. A grid of g tuning curves per coordinate has g^d inputs, each a number to be "
        "learned: there N grows by a factor of about g per module."
    ),
    first_rule=FirstRule(
        rule=(
            "N50 grows by more than 1.25 times per module, and an exponential fits twice as well as a power law, for "
            "coordinates and a cycle of four functions."
        ),
        verdict="inconclusive",
        effect="N50, with one module more / without: 1.81 [1.72, 1.91] times",
        reason="For scalar coordinates theory gives a power law; exponential growth is expected of joint codes.",
    ),
)
