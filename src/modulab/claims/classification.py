"""Claim 8: the same in classification, of synthetic patterns and of real digits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import pandas as pd

from modulab.claims import thresholds
from modulab.claims.claim import Claim, front_figures
from modulab.claims.comparisons import (
    ERROR,
    MODULARITY,
    UNDER_NOISE,
    Sweep,
    contrast,
    level,
    matched,
    ratio,
    shortfall,
)
from modulab.claims.evidence import Condition, Evidence
from modulab.claims.premodular import name_arms
from modulab.claims.rules import Criterion, Region
from modulab.report.categories import strip_figure
from modulab.report.figure import ReportFigure

NAMES = {"classification": "C8a", "digits": "C8b"}
TESTED_SCALE = 0.5
SCALES: dict[str, tuple[float, ...]] = {
    "classification": (0.1, 0.2, 0.5, 1.0),
    "digits": (0.2, 0.5, 1.0),
}
STRENGTHS: dict[str, dict[str, tuple[float, ...]]] = {
    "classification": {
        "activity_weight": (0.0003, 0.001, 0.003, 0.01, 0.03),
        "l1": (0.00003, 0.0001, 0.0003, 0.001, 0.003),
        "l2": (0.00003, 0.0001, 0.0003, 0.001, 0.003),
    },
    "digits": {
        "activity_weight": (0.0003, 0.001, 0.003, 0.01),
        "l1": (0.00003, 0.0001, 0.0003, 0.001),
        "l2": (0.0001, 0.0003, 0.001, 0.003),
    },
}
STANDARD = ("l1", "l2")
_FULL: Condition = {"architecture.name": "dense", "task.support": "full"}
_DENSE: Condition = {**_FULL, "noise.scale": 0.0, "regulariser.strength": 0.0}


def _noisy(scale: float) -> Condition:
    return {**_FULL, "noise.scale": scale}


def _sweep(task: str, name: str) -> Sweep:
    if name == "poisson":
        return Sweep(name, (_DENSE, *(_noisy(scale) for scale in SCALES[task])))
    strengths = STRENGTHS[task][name]
    return Sweep(
        name,
        (
            _DENSE,
            *(
                {**_FULL, "regulariser.name": name, "regulariser.strength": strength}
                for strength in strengths
            ),
        ),
    )


def _labels(architecture: str) -> Condition:
    return {**_DENSE, "architecture.name": architecture, "task.support": "labels"}


def _criteria(task: str) -> list[Criterion]:
    noisy = _noisy(TESTED_SCALE)
    return [
        Criterion(
            f"Noise {TESTED_SCALE} makes networks more modular (C1)",
            "structural modularity less that without noise",
            contrast(task, MODULARITY, noisy, _DENSE),
            Region(low=thresholds.MODULARITY),
        ),
        Criterion(
            "Noisy networks learn the task (C1)",
            "clean error",
            level(task, ERROR, noisy),
            Region(high=thresholds.learned(task)),
        ),
        Criterion(
            "The regulariser of weights times activity makes networks more modular (C2)",
            "structural modularity at matched clean error less that of dense networks",
            matched(task, _sweep(task, "activity_weight"), _DENSE, task),
            Region(low=thresholds.MODULARITY),
        ),
        *(
            Criterion(
                f"{name} does not do what Poisson noise does (C4)",
                "shortfall in modularity or robustness at matched clean error, in effect sizes that matter",
                shortfall(task, _sweep(task, name), _sweep(task, "poisson"), task),
                Region(low=1.0),
            )
            for name in STANDARD
        ),
        Criterion(
            "Premodular networks are more robust to noise (C6)",
            f"{UNDER_NOISE} of premodular over that of dense networks",
            ratio(task, UNDER_NOISE, _labels("premodular"), _labels("dense")),
            Region(high=1 / thresholds.ROBUSTNESS),
            scale="factor",
        ),
        Criterion(
            "Premodular networks generalise to withheld combinations of labels (C6)",
            "error on withheld combinations, premodular over dense",
            ratio(task, "extrapolation/combination", _labels("premodular"), _labels("dense")),
            Region(high=1 / thresholds.GENERALISATION),
            scale="factor",
        ),
    ]


def _strength_arms(table: Evidence, task: str) -> pd.DataFrame:
    """Return dense networks on full support by arm, each arm begun by those without noise and penalty."""
    parts: list[pd.DataFrame] = []
    for name in ("poisson", *STRENGTHS[task]):
        for strength, condition in enumerate(_sweep(task, name).arms):
            parts.append(table.rows(condition).assign(arm=name, strength=strength))
    return pd.concat(parts, ignore_index=True)


def _draw(task: str, evidence: Mapping[str, Evidence]) -> Sequence[ReportFigure]:
    table = evidence[task]
    fronts = front_figures(_strength_arms(table, task), NAMES[task], ", over strength")
    withheld = strip_figure(
        name_arms(table.rows({"task.support": "labels"})),
        "arm",
        ["extrapolation/combination", UNDER_NOISE, MODULARITY],
        name=f"{NAMES[task]}_withheld",
        title="Training with withheld combinations of labels",
    )
    return [*fronts, withheld]


def _claim(task: str, of_what: str) -> Claim:
    measures = (ERROR, UNDER_NOISE, MODULARITY)
    return Claim(
        name=NAMES[task],
        title=f"The same in classification: {of_what}",
        hypothesis=f"What claims 1, 2, 4 and 6 say of regression holds in classification of {of_what}.",
        measure="Structural modularity, error under Poisson noise 0.3, error on withheld combinations of labels.",
        comparison=(
            "As in those claims, at equal seeds. Strengths of regularisers are matched by clean error, at "
            f"{thresholds.budget(task):g}."
        ),
        experiments=(task,),
        criteria=tuple(_criteria(task)),
        draw=partial(_draw, task),
        caveats=(
            "Every part must hold for the claim to be supported.",
            "Under cross-entropy the regulariser is not the expectation of the noise; it is matched by error instead.",
        ),
        tables=(
            (task, {"task.support": "full"}, measures),
            (task, {"task.support": "labels"}, (*measures, "extrapolation/combination")),
        ),
    )


CLAIMS = (_claim("classification", "patterns, xor and ring"), _claim("digits", "real handwritten digits"))
