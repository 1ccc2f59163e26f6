"""Claim 6, generalisation: networks that became modular generalise and extrapolate beyond their training data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from modulab.claims import thresholds
from modulab.claims.claim import Claim, FirstRule
from modulab.claims.comparisons import ERROR, EXCESS, MODULARITY, ratio
from modulab.claims.evidence import Condition, Evidence
from modulab.claims.rules import Criterion, Region
from modulab.report.figure import ReportFigure
from modulab.report.lines import levels_figure, lines_figure

TESTED_BAND = 0.3
TESTED_RANGE = 4
COMBINATION = "error_beyond/combination"
OTHER_RANGE = f"error_beyond/other_range@{TESTED_RANGE}"
WORDS = {
    COMBINATION: "error on withheld combinations",
    OTHER_RANGE: f"error at {TESTED_RANGE} times the other modules' range",
}
FULL: Condition = {"task.support": "full"}
BAND: Condition = {"task.support": "band", "task.band_width": TESTED_BAND}


def _built(architecture: str) -> Condition:
    return {"architecture.name": architecture, "noise.scale": 0.0, "regulariser.strength": 0.0}


DENSE = _built("dense")
TRAINED: dict[str, Condition] = {
    "trained under noise": {"noise.scale": 0.2},
    "trained under the regulariser": {"regulariser.strength": 0.02},
}
"""Networks that became modular in training, by which the claim is decided."""
BUILT = {"premodular": _built("premodular"), "partially modular": _built("partial")}
"""Networks that were modular from the start: premodular ones cannot err where only other modules' inputs change."""


def name_arms(results: pd.DataFrame) -> pd.DataFrame:
    """Return results with their `arm`: the architecture, and what training added to it."""
    named = results.copy()
    noisy, penalised = named["config.noise.scale"] > 0, named["config.regulariser.strength"] > 0
    named["arm"] = named["config.architecture.name"].astype(str)
    named.loc[noisy, "arm"] += ", noise"
    named.loc[penalised, "arm"] += ", regulariser"
    return named


def _better(statement: str, measure: str, name: str, arm: Condition, support: Condition) -> Criterion:
    decides = name in TRAINED
    return Criterion(
        f"{statement}: networks {name}",
        f"{WORDS[measure]}, these networks / dense ones",
        ratio("premodular", measure, {**arm, **support}, {**DENSE, **support}),
        Region(high=1 / thresholds.GENERALISATION) if decides else None,
        scale="factor",
        better="lower",
        predicted="0.5 to 0.9 times" if decides else "",
    )


def _criteria() -> list[Criterion]:
    asked = (
        (f"Combinations that a band of width {TESTED_BAND} withheld", COMBINATION, BAND),
        (f"Other modules' inputs at {TESTED_RANGE} times their range", OTHER_RANGE, FULL),
    )
    return [
        _better(statement, measure, name, arm, support)
        for name, arm in (*TRAINED.items(), *BUILT.items())
        for statement, measure, support in asked
    ]


def _draw(evidence: Mapping[str, Evidence]) -> Sequence[ReportFigure]:
    table = evidence["premodular"]
    return [
        lines_figure(
            name_arms(table.rows({"task.support": "band"})),
            "config.task.band_width",
            ["error_beyond/combination", "error_beyond/combination_ratio", MODULARITY],
            arm="arm",
            name="C6b_combinations",
            title="Error on withheld combinations, as the band that training sees narrows",
        ),
        levels_figure(
            name_arms(table.rows(FULL)),
            ["error_beyond/other_range", "error_beyond/own_range"],
            arm="arm",
            name="C6b_ranges",
            title="Error as inputs leave the training range",
            x_label="range",
        ),
    ]


CLAIM = Claim(
    name="C6b",
    title="Modular networks generalise and extrapolate further",
    hypothesis=(
        "Networks that became modular in training generalise and extrapolate beyond their training data further than "
        "dense ones do."
    ),
    measure="Error on combinations that training withheld, and as the other modules' inputs leave their range.",
    comparison=(
        "Dense networks trained under noise 0.2 or its matched regulariser against dense networks of equal seed "
        "trained without; beside them premodular networks, and networks with a tenth of the cross-module connections."
    ),
    experiments=("premodular",),
    criteria=tuple(_criteria()),
    draw=_draw,
    caveats=(
        "The output of a module of a premodular network does not depend on the other modules' inputs. Its ratio "
        "therefore decides nothing; it shows how far dense networks are from this.",
    ),
    prediction=(
        "Paths between modules shrink under noise but do not vanish, so errors beyond the training data shrink, "
        "but by less than the factor 2 that counts."
    ),
    first_rule=FirstRule(
        rule="The same two quantities, premodular over dense networks.",
        verdict="supported",
        effect="error on withheld combinations, premodular / dense: 0.00133 [0.000934, 0.002] times",
        reason="Premodular networks are correct by construction, so the rule could not have failed.",
    ),
    tables=(
        ("premodular", FULL, (ERROR, MODULARITY, EXCESS, OTHER_RANGE)),
        ("premodular", BAND, (ERROR, MODULARITY, EXCESS, COMBINATION)),
    ),
)
