"""Claim 7: modular circuits forget less when one module has to learn something new."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from modulab.claims import thresholds
from modulab.claims.claim import Claim
from modulab.claims.comparisons import ERROR, MODULARITY, contrast
from modulab.claims.evidence import Condition, Evidence
from modulab.claims.premodular import name_arms
from modulab.claims.rules import Criterion, Region
from modulab.report.categories import strip_figure
from modulab.report.figure import ReportFigure

RISE = "forgetting/others_rise"
STEPS = "forgetting/adaptation_steps"

_PLAIN: Condition = {"noise.scale": 0.0, "regulariser.strength": 0.0}
DENSE: Condition = {"architecture.name": "dense", **_PLAIN}
MODULAR: dict[str, Condition] = {
    "premodular networks": {"architecture.name": "premodular", **_PLAIN},
    "networks trained under noise": {"noise.scale": 0.2},
    "networks trained under the regulariser": {"regulariser.strength": 0.02},
    "partially modular networks": {"architecture.name": "partial", **_PLAIN},
}
DECIDING = ("premodular networks", "networks trained under noise")
"""Modular by construction, and modular by training."""


def _criteria() -> list[Criterion]:
    least = thresholds.FORGETTING * thresholds.CONSTANT_ERROR["regression"]
    rise = [
        Criterion(
            f"Less is forgotten by {name}",
            "rise of the other modules' error in dense networks, less that in these",
            contrast("forgetting", RISE, DENSE, arm),
            Region(low=least) if name in DECIDING else None,
        )
        for name, arm in MODULAR.items()
    ]
    steps = [
        Criterion(
            f"How fast {name} learn the new function",
            "steps until it is learned, less those of dense networks",
            contrast("forgetting", STEPS, arm, DENSE),
        )
        for name, arm in MODULAR.items()
    ]
    return [*rise, *steps]


def _draw(evidence: Mapping[str, Evidence]) -> Sequence[ReportFigure]:
    return [
        strip_figure(
            name_arms(evidence["forgetting"].completed),
            "arm",
            [RISE, STEPS, MODULARITY],
            name="C7_forgetting",
            title="What the other modules forget, and how fast the first learns",
        )
    ]


CLAIM = Claim(
    name="C7",
    title="Modular circuits forget less",
    hypothesis="When one module's function changes, modular networks keep the other modules' functions better.",
    measure="The rise of the other modules' error while only the first module's output is trained on its new function.",
    comparison="Dense networks against premodular and noise-trained ones of equal seed; adaptation is plain for all.",
    experiments=("forgetting",),
    criteria=tuple(_criteria()),
    draw=_draw,
    caveats=(
        "Premodular networks share no weight between modules, so they forget nothing by construction.",
        "Adaptation runs without noise and penalty in every arm: it asks what the trained circuit does, not what "
        "keeps it so.",
    ),
    tables=(("forgetting", {}, (RISE, "forgetting/others_rise_at_learned", STEPS, MODULARITY, ERROR)),),
)
