"""Claim 3: linear networks do not become modular under the noise; nonlinear functions are necessary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from modulab.claims import thresholds
from modulab.claims.claim import Claim, FirstRule
from modulab.claims.comparisons import ERROR, EXCESS, FRAME_NULL, MODULARITY, UNDER_NOISE, level, trend
from modulab.claims.evidence import Condition, Evidence
from modulab.claims.rules import Criterion, Region
from modulab.report.figure import ReportFigure
from modulab.report.lines import lines_figure

SCALES = (0.2, 0.4, 0.8)
TESTED_SCALE = 0.4
SHARES = (0.0, 0.1, 0.25, 0.5, 1.0)
"""b of the targets (1 - b) x + b f(x)."""
PREDICTED = {0.0: 0.01, 0.1: 0.05, 0.25: 0.18, 0.5: 0.35, 1.0: 0.40}
"""Excess at noise 0.4 by share of nonlinearity, from 4 seeds and 1,200 steps of another program."""
NONE_LEFT = thresholds.MODULARITY / 2
"""Excess below which there is no modularity beyond alignment."""


def _arm(activation: str, share: float, scale: float, optimiser: str = "adam") -> Condition:
    return {
        "architecture.activation": activation,
        "task.nonlinearity": share,
        "noise.scale": scale,
        "training.optimiser": optimiser,
    }


def _no_excess(
    networks: str, activation: str, optimiser: str = "adam", decides: bool = True
) -> list[Criterion]:
    return [
        Criterion(
            f"{networks} under noise {scale} are aligned, not modular",
            f"excess of structural modularity at {scale}, where every target is its input",
            level("linear", EXCESS, _arm(activation, 0.0, scale, optimiser)),
            Region(-NONE_LEFT, NONE_LEFT) if decides else None,
            predicted="0",
        )
        for scale in SCALES
    ]


def _criteria() -> list[Criterion]:
    return [
        *_no_excess("Linear networks", "linear"),
        *_no_excess("Relu networks on linear targets", "relu"),
        Criterion(
            "Relu networks on nonlinear targets become modular",
            f"excess of structural modularity at {TESTED_SCALE}",
            level("linear", EXCESS, _arm("relu", 1.0, TESTED_SCALE)),
            Region(low=thresholds.MODULARITY),
            predicted=f"{PREDICTED[1.0]:g}",
        ),
        Criterion(
            "Linear networks learn the task",
            f"clean error at {TESTED_SCALE}",
            level("linear", ERROR, _arm("linear", 0.0, TESTED_SCALE)),
            Region(high=thresholds.LEARNED_SHARE * thresholds.CONSTANT_ERROR["identity"]),
            better="lower",
        ),
        *(
            Criterion(
                f"Dose and response: b = {share:g}",
                f"excess of structural modularity of relu networks at {TESTED_SCALE}",
                level("linear", EXCESS, _arm("relu", share, TESTED_SCALE)),
                predicted=f"{PREDICTED[share]:g}",
            )
            for share in SHARES
        ),
        Criterion(
            "The more nonlinear the targets, the more modular the networks",
            f"rank correlation of excess at {TESTED_SCALE} with b",
            trend("linear", EXCESS, [_arm("relu", share, TESTED_SCALE) for share in SHARES]),
            predicted="1",
        ),
        *_no_excess("Linear networks trained by gradient descent", "linear", "sgd", decides=False),
    ]


def _with_arms(evidence: Evidence) -> Evidence:
    """Name arms by activation, optimiser and share of nonlinearity."""
    results = evidence.results.copy()
    share = ", b = " + results["config.task.nonlinearity"].astype(float).map("{:g}".format)
    linear = results["config.architecture.activation"] == "linear"
    results["arm"] = results["config.architecture.activation"] + share.where(
        ~linear,
        ", " + results["config.training.optimiser"].replace({"adam": "Adam", "sgd": "SGD"}).astype(str),
    )
    return Evidence(results)


def _draw(evidence: Mapping[str, Evidence]) -> Sequence[ReportFigure]:
    return [
        lines_figure(
            _with_arms(evidence["linear"]).completed,
            "config.noise.scale",
            [EXCESS, MODULARITY, ERROR],
            arm="arm",
            name="C3_linear",
            title="Noise in linear networks, and in relu networks by the share b of nonlinear targets",
        )
    ]


CLAIM = Claim(
    name="C3",
    title="Linear networks do not become modular",
    hypothesis="Noise makes networks modular only where nonlinear units compute nonlinear functions.",
    measure=(
        "Excess of structural modularity: structural modularity minus the mean modularity of the same weights in "
        "rotated module axes."
    ),
    comparison=(
        "Linear networks, and relu networks whose targets are (1 - b) x + b f(x), by noise scale and b. Linear "
        "networks also under gradient descent, because Adam scales each weight by itself and so depends on the axes."
    ),
    experiments=("linear",),
    criteria=tuple(_criteria()),
    draw=_draw,
    caveats=(
        "Units that are merely aligned, in directions unrelated to the modules, have a structural modularity of "
        "0.222 with two modules; linear networks reach exactly that.",
    ),
    prediction=(
        "In a linear network the expected noise at fixed readout norms does not change when the module axes are "
        "rotated, so the excess stays 0; it grows with b."
    ),
    first_rule=FirstRule(
        rule=(
            "Structural modularity of linear networks gains less than 0.1 under noise 0.2, and relu networks gain "
            "0.1 more than linear ones on the identity task."
        ),
        verdict="not supported",
        effect="0.168 [0.136, 0.203]",
        reason=(
            "The gain of linear networks is alignment, which the frame null subtracts; and on the identity task relu "
            "networks have no reason to be modular either: what matters is a nonlinear function."
        ),
    ),
    tables=(("linear", {}, (ERROR, UNDER_NOISE, MODULARITY, FRAME_NULL, EXCESS)),),
)
