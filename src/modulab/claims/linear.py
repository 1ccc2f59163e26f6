"""Claim 3: linear networks do not become modular under the noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from modulab.claims import thresholds
from modulab.claims.claim import Claim
from modulab.claims.comparisons import (
    ERROR,
    MODULARITY,
    UNDER_NOISE,
    contrast,
    contrast_of_gains,
    level,
)
from modulab.claims.evidence import Condition, Evidence
from modulab.claims.rules import Criterion, Region
from modulab.report.figure import ReportFigure
from modulab.report.lines import lines_figure

TESTED_SCALE = 0.2
LEARNABLE = '["identity"]'
"""The functions of the task that linear networks can learn, as results write them."""


def _arm(activation: str, scale: float) -> Condition:
    return {"task.functions": LEARNABLE, "architecture.activation": activation, "noise.scale": scale}


def _with_task(evidence: Evidence) -> Evidence:
    """Name arms by activation and task."""
    results = evidence.results.copy()
    task = results["config.task.functions"].astype(str)
    results["arm"] = (
        results["config.architecture.activation"]
        + ", "
        + task.where(task != LEARNABLE, "identity").where(task == LEARNABLE, "nonlinear task")
    )
    return Evidence(results)


def _draw(evidence: Mapping[str, Evidence]) -> Sequence[ReportFigure]:
    return [
        lines_figure(
            _with_task(evidence["linear"]).completed,
            "config.noise.scale",
            [MODULARITY, ERROR, UNDER_NOISE],
            arm="arm",
            name="C3_linear",
            title="Noise in linear networks, on a task that they can learn and on one that they cannot",
        )
    ]


CLAIM = Claim(
    name="C3",
    title="Linear networks do not become modular",
    hypothesis="Noise that makes nonlinear networks modular does not make linear networks modular.",
    measure="Structural modularity.",
    comparison=(
        "Linear and relu networks of equal seed, with and without noise, on a task that both can learn: each "
        "module's output is its input. On the usual task, which linear networks cannot learn, shown only."
    ),
    experiments=("linear",),
    criteria=(
        Criterion(
            "Noise does not make linear networks modular",
            f"structural modularity at {TESTED_SCALE} less that without noise",
            contrast("linear", MODULARITY, _arm("linear", TESTED_SCALE), _arm("linear", 0.0)),
            Region(high=thresholds.MODULARITY),
        ),
        Criterion(
            "It makes relu networks more modular than linear ones, on the same task",
            "gain of relu networks less gain of linear networks",
            contrast_of_gains(
                "linear",
                MODULARITY,
                (_arm("relu", TESTED_SCALE), _arm("relu", 0.0)),
                (_arm("linear", TESTED_SCALE), _arm("linear", 0.0)),
            ),
            Region(low=thresholds.MODULARITY),
        ),
        Criterion(
            "Linear networks learn the task",
            f"clean error at {TESTED_SCALE}",
            level("linear", ERROR, _arm("linear", TESTED_SCALE)),
            Region(high=thresholds.LEARNED_SHARE * thresholds.CONSTANT_ERROR["identity"]),
        ),
    ),
    draw=_draw,
    caveats=(
        "A network that has not learned its task can look modular: scores on the usual task decide nothing.",
    ),
    tables=(("linear", {}, (ERROR, UNDER_NOISE, MODULARITY, "modularity/functional", "activity/mean")),),
)
