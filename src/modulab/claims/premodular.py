"""Claim 6: premodular networks are more robust, and generalise and extrapolate beyond their training data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from modulab.claims import thresholds
from modulab.claims.claim import Claim
from modulab.claims.comparisons import ERROR, MODULARITY, UNDER_NOISE, ratio
from modulab.claims.evidence import Condition, Evidence
from modulab.claims.rules import Criterion, Region
from modulab.report.figure import ReportFigure
from modulab.report.lines import levels_figure, lines_figure

TESTED_BAND = 0.3
TESTED_RANGE = 4
ARMS = ("dense", "dense, noise", "dense, regulariser", "partial", "premodular")

DECIDING = (
    "robustness/gaussian@0.3",
    UNDER_NOISE,
    "robustness/multiplicative@0.3",
    "robustness/poisson_counts@0.3",
)
"""Errors under noise on activity, which the claim speaks of."""
PERTURBATIONS = (
    "gaussian", "poisson", "multiplicative", "poisson_counts", "weight_noise", "input_noise", "ablation",
)  # fmt: skip
REPORTED = ("robustness/weight_noise@0.3", "robustness/input_noise@0.3", "robustness/ablation@0.1")


def name_arms(results: pd.DataFrame) -> pd.DataFrame:
    """Return results with their `arm`: the architecture, and what training added to it."""
    named = results.copy()
    noisy, penalised = named["config.noise.scale"] > 0, named["config.regulariser.strength"] > 0
    named["arm"] = named["config.architecture.name"].astype(str)
    named.loc[noisy, "arm"] += ", noise"
    named.loc[penalised, "arm"] += ", regulariser"
    return named


def _arm(architecture: str, support: Condition) -> Condition:
    return {"architecture.name": architecture, "noise.scale": 0.0, "regulariser.strength": 0.0, **support}


FULL: Condition = {"task.support": "full"}
BAND: Condition = {"task.support": "band", "task.band_width": TESTED_BAND}


def _better(statement: str, measure: str, support: Condition, factor: float | None) -> Criterion:
    return Criterion(
        statement,
        f"{measure} of premodular over that of dense networks",
        ratio("premodular", measure, _arm("premodular", support), _arm("dense", support)),
        None if factor is None else Region(high=1 / factor),
        scale="factor",
    )


def _robustness() -> tuple[Criterion, ...]:
    return (
        *(_better("They are more robust to noise", each, FULL, thresholds.ROBUSTNESS) for each in DECIDING),
        *(_better("Other perturbations", each, FULL, None) for each in REPORTED),
    )


def _generalisation() -> tuple[Criterion, ...]:
    return (
        _better(
            f"They generalise to combinations that a band of width {TESTED_BAND} withheld",
            "extrapolation/combination",
            BAND,
            thresholds.GENERALISATION,
        ),
        _better(
            f"They are right where the other modules range {TESTED_RANGE} times as far",
            f"extrapolation/other_range@{TESTED_RANGE}",
            FULL,
            thresholds.GENERALISATION,
        ),
    )


def _draw_robustness(evidence: Mapping[str, Evidence]) -> Sequence[ReportFigure]:
    full = name_arms(evidence["premodular"].rows(FULL))
    return [
        levels_figure(
            full,
            [f"robustness/{name}" for name in PERTURBATIONS],
            arm="arm",
            name="C6a_robustness",
            title="Error under perturbations of growing level",
        )
    ]


def _draw_generalisation(evidence: Mapping[str, Evidence]) -> Sequence[ReportFigure]:
    table = evidence["premodular"]
    return [
        lines_figure(
            name_arms(table.rows({"task.support": "band"})),
            "config.task.band_width",
            ["extrapolation/combination", "extrapolation/combination_ratio", MODULARITY],
            arm="arm",
            name="C6b_combinations",
            title="Error on withheld combinations, as the band that training sees narrows",
        ),
        levels_figure(
            name_arms(table.rows(FULL)),
            ["extrapolation/other_range", "extrapolation/own_range"],
            arm="arm",
            name="C6b_ranges",
            title="Error as inputs leave the training range",
            x_label="times the training range",
        ),
    ]


_COMPARISON = (
    "Premodular against dense networks of equal seed; beside them dense networks trained under noise 0.2 or its "
    "matched regulariser, and networks with a tenth of the cross-module connections."
)

ROBUSTNESS = Claim(
    name="C6a",
    title="Premodular networks are more robust",
    hypothesis="Networks whose connections are modular from the start are more robust to noise.",
    measure="Error under noise on activity of four laws, each of level 0.3.",
    comparison=_COMPARISON,
    experiments=("premodular",),
    criteria=_robustness(),
    draw=_draw_robustness,
    caveats=("A premodular network has half of the weights of a dense one of equal width.",),
    tables=(("premodular", FULL, (ERROR, MODULARITY, *DECIDING)),),
)

GENERALISATION = Claim(
    name="C6b",
    title="Premodular networks generalise and extrapolate further",
    hypothesis=(
        "Networks whose connections are modular from the start generalise and extrapolate far beyond their "
        "training data."
    ),
    measure="Error on combinations that training withheld, and as the other modules' inputs leave their range.",
    comparison=_COMPARISON,
    experiments=("premodular",),
    criteria=_generalisation(),
    draw=_draw_generalisation,
    caveats=(
        "A premodular network cannot err when only other modules' inputs change: extrapolation to their ranges is "
        "a matter of construction, and its ratio says how far dense networks are from that.",
    ),
    tables=(
        ("premodular", FULL, (ERROR, MODULARITY, f"extrapolation/other_range@{TESTED_RANGE}")),
        ("premodular", BAND, (ERROR, MODULARITY, "extrapolation/combination")),
    ),
)
