"""Claim 4: standard regularisers do not give the same as the noise, at equal clean error."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from modulab.claims import thresholds
from modulab.claims.claim import Claim, front_figures
from modulab.claims.comparisons import ERROR, MODULARITY, UNDER_NOISE, Sweep, matched, shortfall
from modulab.claims.evidence import Condition, Evidence, at_matched_error
from modulab.claims.rules import Criterion, Region
from modulab.report.figure import ReportFigure
from modulab.report.planes import map_figure

DENSE: Condition = {"noise.scale": 0.0, "regulariser.strength": 0.0}
REFERENCE = "poisson"
STANDARD = ("l1", "l2", "activity_l1", "activity_l2", "dropout")
"""What people use anyway, which the claim says falls short."""
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


def _criteria() -> list[Criterion]:
    reference = _sweep(REFERENCE)
    others = [name for name in STRENGTHS if name != REFERENCE]
    deciding = [
        Criterion(
            f"{name} does not do what Poisson noise does"
            if name in STANDARD
            else f"{name} beside Poisson noise",
            "shortfall in modularity or robustness at matched clean error, in effect sizes that matter",
            shortfall("contest", _sweep(name), reference, "regression"),
            Region(low=1.0) if name in STANDARD else None,
        )
        for name in others
    ]
    gains = [
        Criterion(
            f"What {name} gives",
            "structural modularity at matched clean error less that of dense networks",
            matched("contest", _sweep(name), DENSE, "regression"),
            Region(low=thresholds.MODULARITY) if name == REFERENCE else None,
        )
        for name in STRENGTHS
    ]
    return [*deciding, *gains]


def _name_arms(results: pd.DataFrame) -> pd.DataFrame:
    """Name arms by their noise or regulariser, and give each its strength; dense networks begin every arm."""
    quiet = (results["config.noise.scale"] == 0) & (results["config.regulariser.strength"] == 0)
    parts: list[pd.DataFrame] = []
    for name in STRENGTHS:
        kind, strength = ("noise", "scale") if name in NOISES else ("regulariser", "strength")
        own = results.loc[
            quiet | ((results[f"config.{kind}.name"] == name) & (results[f"config.{kind}.{strength}"] > 0))
        ]
        parts.append(own.assign(arm=name, strength=own[f"config.{kind}.{strength}"]))
    return pd.concat(parts, ignore_index=True)


def power_map(results: pd.DataFrame, measures: Sequence[str], log_budget: float) -> pd.DataFrame:
    """Return each measure at the budget of clean error, for every pair of powers (p, q) and seed.

    A row a pair and seed; errors are interpolated as logarithms.
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
            if measure.startswith("robustness"):
                row[measure] = math.exp(at_matched_error(log_errors, np.log(values), log_budget)[0])
            else:
                row[measure] = float(at_matched_error(log_errors, values, log_budget)[0])
        rows.append(row)
    return pd.DataFrame(rows)


def _draw(evidence: Mapping[str, Evidence]) -> Sequence[ReportFigure]:
    figures = front_figures(
        _name_arms(evidence["contest"].completed),
        "C4_contest",
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
                name="C4_powers",
                title=f"Penalties on |W| to the power p times |a| to the power q, at a clean error of {budget:.3g}",
            )
        )
    return figures


CLAIM = Claim(
    name="C4",
    title="Standard regularisers do not give the same",
    hypothesis="Neither l1 and l2 penalties on weights or activity nor dropout give what Poisson noise gives.",
    measure="Structural modularity, and error under Poisson noise 0.3, both at one clean error.",
    comparison=(
        f"Every arm over five strengths, interpolated to a clean error of {thresholds.budget('regression'):.3g}, "
        f"{thresholds.BUDGET_SHARE['regression']:.0%} of the best constant answer's. An arm falls short if it lacks "
        f"{thresholds.MODULARITY} of modularity or makes {thresholds.ROBUSTNESS} times the error under noise."
    ),
    experiments=("contest", "powers"),
    criteria=tuple(_criteria()),
    draw=_draw,
    caveats=(
        "An arm that never spends the budget is taken at its greatest strength.",
        "Error under noise is measured with the noise that the reference arm was trained with.",
        "The map over powers has few seeds and decides nothing.",
    ),
    tables=(("contest", {}, (ERROR, UNDER_NOISE, MODULARITY, "modularity/functional", "activity/mean")),),
)
