"""Claim 2: a deterministic regulariser that multiplies weights and activations does the same as the noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from modulab.claims import thresholds
from modulab.claims.claim import Claim, FirstRule
from modulab.claims.comparisons import (
    ERROR,
    EXCESS,
    MODULARITY,
    OF_ARMS,
    UNDER_NOISE,
    contrast,
    ratio,
)
from modulab.claims.evidence import Condition, Evidence
from modulab.claims.rules import Criterion, Region
from modulab.report.figure import ReportFigure
from modulab.report.lines import lines_figure
from modulab.report.noise_figure import noise_arms

TESTED_SCALE = 0.2
MATCHED_SCALES = (0.1, 0.2, 0.4)
OUTPUTS = 2


def _noisy(scale: float) -> Condition:
    return {"noise.scale": scale, "regulariser.strength": 0.0}


def _regularised(scale: float) -> Condition:
    """Return the arm whose penalty is the expectation of that noise: strength sigma^2 / K (see regularisers)."""
    return {"noise.scale": 0.0, "regulariser.strength": scale**2 / OUTPUTS}


def _criteria() -> list[Criterion]:
    gain = Criterion(
        "The regulariser makes networks more modular",
        f"excess of structural modularity at the strength that matches noise {TESTED_SCALE} minus that without",
        contrast("regulariser", EXCESS, _regularised(TESTED_SCALE), _noisy(0.0)),
        Region(low=thresholds.MODULARITY),
        predicted="that of noise",
    )
    margin, factor = thresholds.MODULARITY, thresholds.ROBUSTNESS
    agreement = [
        criterion
        for scale in MATCHED_SCALES
        for criterion in (
            Criterion(
                f"It makes them as modular as noise {scale} does",
                "excess of structural modularity minus that of noise-trained networks",
                contrast("regulariser", EXCESS, _regularised(scale), _noisy(scale)),
                Region(-margin, margin),
                predicted="0",
            ),
            Criterion(
                f"It makes them as robust as noise {scale} does",
                "error under Poisson noise 0.3, these networks / noise-trained ones",
                ratio("regulariser", UNDER_NOISE, _regularised(scale), _noisy(scale)),
                Region(1 / factor, factor),
                scale="factor",
                better="lower",
                predicted="1 times",
            ),
        )
    ]
    return [gain, *agreement]


def _draw(evidence: Mapping[str, Evidence]) -> Sequence[ReportFigure]:
    return [
        lines_figure(
            noise_arms(evidence["regulariser"].results),
            "sigma",
            [EXCESS, MODULARITY, ERROR, UNDER_NOISE],
            arm="arm",
            name="C2_regulariser",
            title="The matched regulariser beside the noise",
        )
    ]


CLAIM = Claim(
    name="C2",
    title="A regulariser of weights times activity does the same",
    hypothesis="A deterministic regulariser that multiplies squared weights and activity does what the noise does.",
    measure="Excess of structural modularity, and error under Poisson noise 0.3.",
    comparison=(
        "Networks of equal seed under noise of scale σ, and under the penalty (2,1) at strength σ²/2, which is "
        "that noise's expected cost for one hidden layer and two outputs."
    ),
    experiments=("regulariser",),
    criteria=tuple(_criteria()),
    draw=_draw,
    caveats=(
        "Strengths are matched by an identity that is exact for one hidden layer and squared error only.",
    ),
    prediction="The penalty is the noise's exact expectation here, so both give the same networks.",
    first_rule=FirstRule(
        rule="The same with structural modularity in place of its excess, after 2,000 steps.",
        verdict="supported",
        effect="0.264 [0.231, 0.299]",
        reason="Units that are merely aligned score above 0.",
    ),
    tables=(
        (
            "regulariser",
            {},
            OF_ARMS,
        ),
    ),
)
