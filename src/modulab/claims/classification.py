"""Claim 8: the same in classification, of synthetic patterns and of real digits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

import pandas as pd

from modulab.claims import thresholds
from modulab.claims.claim import ARM_WORDS, Claim, FirstRule, Setting, front_figures
from modulab.claims.comparisons import (
    ERROR,
    EXCESS,
    FRAME_NULL,
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
    "digits": (0.5, 1.0, 1.5, 2.0, 3.0, 4.0),
}
BUDGETS = (0.1, 0.2, 0.3)
"""Clean errors of digits at which the claim is tested, as shares of the best constant answer's error."""
ACTIVITY_COST = "Poisson noise with a cost on activity"
STRENGTHS: dict[str, dict[str, tuple[float, ...]]] = {
    "classification": {
        "activity_weight": (0.0003, 0.001, 0.003, 0.01, 0.03),
        "l1": (0.00003, 0.0001, 0.0003, 0.001, 0.003),
        "l2": (0.00003, 0.0001, 0.0003, 0.001, 0.003),
    },
    "digits": {
        "activity_weight": (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1),
        "l1": (0.00003, 0.0001, 0.0003, 0.001, 0.003),
        "l2": (0.0001, 0.0003, 0.001, 0.003, 0.01),
    },
}
STANDARD = ("l1", "l2")
_FULL: Condition = {"architecture.name": "dense", "task.support": "full"}
_DENSE: Condition = {**_FULL, "noise.scale": 0.0, "regulariser.strength": 0.0}


def _noisy(scale: float, activity_cost: float = 0.0) -> Condition:
    return {**_FULL, "noise.scale": scale, "regulariser.strength": activity_cost}


def _sweep(task: str, name: str) -> Sweep:
    if name in ("poisson", ACTIVITY_COST):
        cost = 0.01 if name == ACTIVITY_COST else 0.0
        return Sweep(name, (_DENSE, *(_noisy(scale, cost) for scale in SCALES[task])))
    strengths = STRENGTHS[task][name]
    return Sweep(
        name,
        (
            _DENSE,
            *(
                {**_FULL, "noise.scale": 0.0, "regulariser.name": name, "regulariser.strength": strength}
                for strength in strengths
            ),
        ),
    )


def _labels(architecture: str) -> Condition:
    return {**_DENSE, "architecture.name": architecture, "task.support": "labels"}


def _of_patterns() -> list[Criterion]:
    task, noisy = "classification", _noisy(TESTED_SCALE)
    return [
        Criterion(
            f"Noise {TESTED_SCALE} makes networks more modular (C1)",
            "excess of structural modularity minus that without noise",
            contrast(task, EXCESS, noisy, _DENSE),
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
            "excess of structural modularity at matched clean error minus that of dense networks",
            matched(task, _sweep(task, "activity_weight"), _DENSE, task, EXCESS),
            Region(low=thresholds.MODULARITY),
        ),
        *_beyond_noise(task),
    ]


def _on_digits(name: str, words: str, share: float) -> Criterion:
    return Criterion(
        f"{words}, at {share:.0%} of a constant answer's error",
        "excess of structural modularity at that clean error, minus that of dense networks",
        matched("digits", _sweep("digits", name), _DENSE, "digits", EXCESS, share),
        Region(low=thresholds.MODULARITY),
        predicted="below 0.1" if share == BUDGETS[0] else "",
    )


def _front_of_digits() -> list[Setting]:
    penalised = "The regulariser of weights times activity makes networks more modular (C2)"
    return [
        Setting(
            {"error allowed": f"{share:.0%} of a constant answer's"},
            (
                _on_digits("poisson", "Noise makes networks more modular (C1)", share),
                _on_digits("activity_weight", penalised, share),
            ),
        )
        for share in BUDGETS
    ]


def _of_digits() -> list[Criterion]:
    cost = [_on_digits(ACTIVITY_COST, "Noise and a cost on activity", share) for share in BUDGETS]
    return [replace(each, region=None) for each in (*cost, *_beyond_noise("digits"))]


def _beyond_noise(task: str) -> list[Criterion]:
    """Return the criteria of claims 4 and 6 for a task."""
    return [
        *(
            Criterion(
                f"{name} does not do what Poisson noise does (C4)",
                "shortfall in modularity or robustness at matched clean error, relative to the smallest that matters",
                shortfall(task, _sweep(task, name), _sweep(task, "poisson"), task),
                Region(low=1.0),
            )
            for name in STANDARD
        ),
        Criterion(
            "Premodular networks are more robust to noise (C6)",
            "error under Poisson noise 0.3, premodular / dense",
            ratio(task, UNDER_NOISE, _labels("premodular"), _labels("dense")),
            Region(high=1 / thresholds.ROBUSTNESS),
            scale="factor",
            better="lower",
        ),
        Criterion(
            "Premodular networks generalise to withheld combinations of labels (C6)",
            "error on withheld combinations, premodular / dense",
            ratio(task, "error_beyond/combination", _labels("premodular"), _labels("dense")),
            Region(high=1 / thresholds.GENERALISATION),
            scale="factor",
            better="lower",
        ),
    ]


def _strength_arms(table: Evidence, task: str) -> pd.DataFrame:
    """Return dense networks on full support by arm; each arm begins with those without noise and penalty."""
    parts: list[pd.DataFrame] = []
    noises = ("poisson", ACTIVITY_COST) if task == "digits" else ("poisson",)
    for name in (*noises, *STRENGTHS[task]):
        for strength, condition in enumerate(_sweep(task, name).arms):
            parts.append(table.rows(condition).assign(arm=ARM_WORDS.get(name, name), strength=strength))
    return pd.concat(parts, ignore_index=True)


def _draw(task: str, evidence: Mapping[str, Evidence]) -> Sequence[ReportFigure]:
    table = evidence[task]
    fronts = front_figures(_strength_arms(table, task), NAMES[task], ", over strength")
    withheld = strip_figure(
        name_arms(table.rows({"task.support": "labels"})),
        "arm",
        ["error_beyond/combination", UNDER_NOISE, MODULARITY],
        name=f"{NAMES[task]}_withheld",
        title="Training with withheld combinations of labels",
    )
    return [*fronts, withheld]


def _claim(
    task: str,
    of_what: str,
    criteria: Sequence[Criterion],
    prediction: str,
    first_rule: FirstRule,
    settings: Sequence[Setting] = (),
) -> Claim:
    measures = (ERROR, UNDER_NOISE, MODULARITY, FRAME_NULL, EXCESS)
    return Claim(
        name=NAMES[task],
        title=f"The same in classification: {of_what}",
        hypothesis=f"What C1, C2, C4 and C6 say about regression holds in classification of {of_what}.",
        measure=(
            "Excess of structural modularity, error under Poisson noise 0.3, error on withheld combinations of labels."
        ),
        comparison=(
            "As in those claims, at equal seeds. Strengths of regularisers are matched by clean error, at "
            f"{thresholds.budget(task):g} unless another is named."
        ),
        experiments=(task,),
        criteria=tuple(criteria),
        settings=tuple(settings),
        draw=partial(_draw, task),
        caveats=(
            "Every part with a region must hold for the claim to be supported.",
            "Under cross-entropy the regulariser is not the expectation of the noise; it is matched by error instead.",
        ),
        prediction=prediction,
        first_rule=first_rule,
        tables=(
            (task, {"task.support": "full"}, measures),
            (task, {"task.support": "labels"}, (*measures, "error_beyond/combination")),
        ),
    )


CLAIMS = (
    _claim(
        "classification",
        "patterns, xor and ring",
        _of_patterns(),
        "The targets are nonlinear, so noise makes networks modular beyond alignment, as in regression.",
        FirstRule(
            rule="The same with structural modularity in place of its excess.",
            verdict="supported",
            effect="0.194 [0.173, 0.216]",
            reason="Units that are merely aligned score above 0.",
        ),
    ),
    _claim(
        "digits",
        "real handwritten digits",
        _of_digits(),
        (
            "Hidden activity is about 2, so noise below 1 is a small perturbation and cross-entropy has slack: "
            "modules come at noise 1.5 and more, at a price in accuracy (structural modularity 0.16 at noise 2 and "
            "error 0.155)."
        ),
        FirstRule(
            rule="Noise 0.5 gains 0.1 of structural modularity; the rest as here, at one clean error.",
            verdict="not supported",
            effect="0.00905 [0.0068, 0.0118]",
            reason="The one scale that was tested is too small to be seen; what is asked now is a front over error.",
        ),
        _front_of_digits(),
    ),
)
