"""Claim 4: standard regularisers do not give the same as the noise, at equal clean error."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from modulab.claims import thresholds
from modulab.claims.claim import ARM_WORDS, Claim, FirstRule, front_figures
from modulab.claims.comparisons import (
    ERROR,
    MODULARITY,
    OF_ARMS,
    UNDER_NOISE,
    Sweep,
    matched,
    matched_difference,
    matched_ratio,
    shortfall,
)
from modulab.claims.evidence import Condition, Evidence, at_matched_error
from modulab.claims.rules import Criterion, Region
from modulab.measure_names import better
from modulab.report.figure import ReportFigure
from modulab.report.planes import map_figure

DENSE: Condition = {"noise.scale": 0.0, "regulariser.strength": 0.0}
REFERENCE = "poisson"
SEPARATE = ("l1", "l2", "activity_l1", "activity_l2")
"""Penalties on weights alone or on activity alone, which fall short according to the first claim."""
SAME_CLASS = ("poisson", "multiplicative")
"""Noise whose expected cost is a product of weights and activity, which dropout is said to equal."""
STRENGTHS: dict[str, tuple[float, ...]] = {
    "poisson": (0.05, 0.1, 0.2, 0.4, 0.8),
    "activity_weight": (0.00125, 0.005, 0.02, 0.08, 0.32),
    "l1": (0.00003, 0.0001, 0.0003, 0.001, 0.003),
    "l2": (0.00003, 0.0001, 0.0003, 0.001, 0.003),
    "activity_l1": (0.00003, 0.0001, 0.0003, 0.001, 0.003),
    "activity_l2": (0.00003, 0.0001, 0.0003, 0.001, 0.003),
    "dropout": (0.2, 0.35, 0.5, 0.7, 1.0),
    "gaussian": (0.02, 0.05, 0.1, 0.2, 0.4),
    "multiplicative": (0.1, 0.2, 0.4, 0.8, 1.2),
    "scale_free": (0.0003, 0.001, 0.003, 0.01, 0.03),
}
NOISES = ("poisson", "gaussian", "multiplicative", "dropout")


def _sweep(name: str) -> Sweep:
    kind, strength = ("noise", "scale") if name in NOISES else ("regulariser", "strength")
    other = {"regulariser.strength": 0.0} if kind == "noise" else {"noise.scale": 0.0}
    arms = [{f"{kind}.name": name, f"{kind}.{strength}": value, **other} for value in STRENGTHS[name]]
    return Sweep(name, (DENSE, *arms))


def _sentence(name: str) -> str:
    """Return the words for an arm as the beginning of a sentence."""
    return ARM_WORDS[name][:1].upper() + ARM_WORDS[name][1:]


def _shortfalls() -> list[Criterion]:
    reference = _sweep(REFERENCE)
    deciding = [
        Criterion(
            f"{_sentence(name)} {'does not do what Poisson noise does' if name in SEPARATE else 'and Poisson noise'}",
            "shortfall in modularity or robustness at matched clean error, relative to the smallest that matters",
            shortfall("contest", _sweep(name), reference, "regression"),
            Region(low=1.0) if name in SEPARATE else None,
            predicted="above 1" if name in SEPARATE else "",
        )
        for name in STRENGTHS
        if name != REFERENCE
    ]
    gains = [
        Criterion(
            f"What {ARM_WORDS[name]} gives",
            "structural modularity at matched clean error, minus that of dense networks",
            matched("contest", _sweep(name), DENSE, "regression"),
            Region(low=thresholds.MODULARITY) if name == REFERENCE else None,
        )
        for name in STRENGTHS
    ]
    return [*deciding, *gains]


def _equalities() -> list[Criterion]:
    dropout, margin, factor = _sweep("dropout"), thresholds.MODULARITY, thresholds.ROBUSTNESS
    gain = Criterion(
        "Dropout makes networks more modular",
        "structural modularity at matched clean error, minus that of dense networks",
        matched("contest", dropout, DENSE, "regression"),
        Region(low=margin),
    )
    same = [
        criterion
        for name in SAME_CLASS
        for criterion in (
            Criterion(
                f"Dropout makes networks as modular as {ARM_WORDS[name]} does",
                "structural modularity at matched clean error, dropout minus the noise",
                matched_difference("contest", MODULARITY, dropout, _sweep(name), "regression"),
                Region(-margin, margin),
                predicted="0",
            ),
            Criterion(
                f"Dropout makes networks as robust as {ARM_WORDS[name]} does",
                "error under Poisson noise 0.3 at matched clean error, dropout / the noise",
                matched_ratio("contest", UNDER_NOISE, dropout, _sweep(name), "regression"),
                Region(1 / factor, factor),
                scale="factor",
                better="lower",
                predicted="1 times",
            ),
        )
    ]
    return [gain, *same]


def _name_arms(results: pd.DataFrame) -> pd.DataFrame:
    """Name arms by their noise or regulariser, and give each its strength; dense networks begin every arm."""
    quiet = (results["config.noise.scale"] == 0) & (results["config.regulariser.strength"] == 0)
    parts: list[pd.DataFrame] = []
    for name in STRENGTHS:
        kind, strength = ("noise", "scale") if name in NOISES else ("regulariser", "strength")
        own = results.loc[
            quiet | ((results[f"config.{kind}.name"] == name) & (results[f"config.{kind}.{strength}"] > 0))
        ]
        parts.append(own.assign(arm=ARM_WORDS[name], strength=own[f"config.{kind}.{strength}"]))
    return pd.concat(parts, ignore_index=True)


def power_map(results: pd.DataFrame, measures: Sequence[str], log_budget: float) -> pd.DataFrame:
    """Return each measure at the budget of clean error, for every pair of powers (p, q) and seed.

    One row per pair and seed; errors are interpolated as logarithms.
    """
    strength = "config.regulariser.strength"
    ordered = results.sort_values(strength)
    keys = ["config.regulariser.weight_power", "config.regulariser.activity_power", "config.seed"]
    cells = ordered.loc[ordered[strength] > 0, keys].drop_duplicates()
    rows: list[dict[str, Any]] = []
    for cell in cells.to_dict("records"):
        own = (ordered[keys] == pd.Series(cell)).all(axis=1)
        quiet = (ordered[strength] == 0) & (ordered["config.seed"] == cell["config.seed"])
        path = ordered.loc[own & (ordered[strength] > 0) | quiet, :]
        log_errors = np.log(path[ERROR].to_numpy(dtype=np.float64))[None]
        row = {"run_id": " ".join(str(value) for value in cell.values()), "status": "completed", **cell}
        for measure in measures:
            values = path[measure].to_numpy(dtype=np.float64)[None]
            if better(measure) == "lower":
                row[measure] = math.exp(at_matched_error(log_errors, np.log(values), log_budget)[0])
            else:
                row[measure] = float(at_matched_error(log_errors, values, log_budget)[0])
        rows.append(row)
    return pd.DataFrame(rows)


def _draw(evidence: Mapping[str, Evidence]) -> Sequence[ReportFigure]:
    figures = front_figures(
        _name_arms(evidence["contest"].completed),
        "C4a_contest",
        " of each noise and regulariser, over its strength",
    )
    budget = thresholds.budget("regression")
    grid = power_map(evidence["powers"].completed, [MODULARITY, UNDER_NOISE], math.log(budget))
    if np.isfinite(grid[MODULARITY].to_numpy(dtype=np.float64)).any():
        figures.append(
            map_figure(
                grid,
                "config.regulariser.weight_power",
                "config.regulariser.activity_power",
                [MODULARITY, UNDER_NOISE],
                name="C4a_powers",
                title=f"Penalties on |W| to the power p times |a| to the power q, at a test error of {budget:.3g}",
            )
        )
    return figures


_COMPARISON = (
    f"Every arm over five strengths, interpolated to a clean error of {thresholds.budget('regression'):.3g}, "
    f"{thresholds.BUDGET_SHARE['regression']:.0%} of the best constant answer's."
)
_MEASURE = "Structural modularity, and error under Poisson noise 0.3, both at one clean error."
_TABLES = (
    (
        "contest",
        {},
        OF_ARMS,
    ),
)
_CAVEAT = "An arm that never reaches this clean error is compared at its largest strength."

SEPARATE_PENALTIES = Claim(
    name="C4a",
    title="Penalties on weights alone or activity alone do not give the same",
    hypothesis="Neither L1 nor L2 penalties, on weights or on activity, give what Poisson noise gives.",
    measure=_MEASURE,
    comparison=(
        f"{_COMPARISON} An arm falls short if it lacks {thresholds.MODULARITY} of modularity or makes "
        f"{thresholds.ROBUSTNESS} times the error under noise."
    ),
    experiments=("contest", "powers"),
    criteria=tuple(_shortfalls()),
    draw=_draw,
    caveats=(
        _CAVEAT,
        "Error under noise is measured with the noise that the reference arm was trained with.",
        "The map over powers has few seeds and decides nothing.",
    ),
    prediction=(
        "Noise adds the penalty R_21 to the loss, a product of squared weights and activity; penalties on one factor "
        "alone are other functions of the weights."
    ),
    first_rule=FirstRule(
        rule="The same, with dropout among the arms that must fall short.",
        verdict="not supported",
        effect="4.95 [4.45, 5.38]",
        reason=(
            "Dropout is multiplicative noise, whose expected cost is the product R_22: that it does not fall short "
            "agrees with C2. It has become a separate claim, C4b."
        ),
    ),
    tables=_TABLES,
)

DROPOUT = Claim(
    name="C4b",
    title="Dropout belongs to the class of weights times activity",
    hypothesis="Dropout gives what Poisson and multiplicative noise give.",
    measure=_MEASURE,
    comparison=(
        f"{_COMPARISON} Dropout counts as the same if its interval lies entirely within effects that are too small to "
        "matter."
    ),
    experiments=("contest",),
    criteria=tuple(_equalities()),
    draw=lambda _: (),
    caveats=(_CAVEAT,),
    prediction=(
        "Dropout that keeps a share k adds (1 - k) / (k K) R_22 to the loss in expectation, exactly as multiplicative "
        "noise of that variance does."
    ),
    tables=_TABLES,
)

CLAIMS = (SEPARATE_PENALTIES, DROPOUT)
