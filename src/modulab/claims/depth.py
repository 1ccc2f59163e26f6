"""In addition to the claims: whether depth removes the effect of noise, and what determines this."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from modulab.claims import thresholds
from modulab.claims.claim import Claim
from modulab.claims.comparisons import ERROR, MODULARITY, UNDER_NOISE, contrast, contrast_of_gains, level
from modulab.claims.evidence import Condition, Evidence
from modulab.claims.rules import Criterion, Region
from modulab.report.categories import strip_figure
from modulab.report.figure import ReportFigure
from modulab.report.lines import lines_figure

TESTED_SCALE = 0.2
MATCHED_STRENGTH = 0.02
SCALES = (0.0, TESTED_SCALE)
DEPTHS = (1, 2, 3)
_USUAL: Condition = {
    "architecture.initial_scale": 1.0,
    "noise.sites": "all",
    "regulariser.strength": 0.0,
}

CHANGES: dict[str, Condition] = {
    "as it is": {},
    "noise on the first layer": {"noise.sites": "first"},
    "noise on the last layer": {"noise.sites": "last"},
    "with L2 0.0001": {"regulariser.name": "l2", "regulariser.strength": 0.0001},
    "with L2 0.001": {"regulariser.name": "l2", "regulariser.strength": 0.001},
    "half the initial weights": {"architecture.initial_scale": 0.5},
}
"""What may determine the effect of noise with two layers: where it acts, what prevents rescaling, initial weights."""
LONG = "4 times the steps"
"""Training time may matter as well; those networks are a separate experiment."""
_ONLY_NOISE = ("noise.sites",)


def _arm(depth: int, scale: float, changes: Condition | None = None) -> Condition:
    changed = dict(changes or {})
    if scale == 0:
        changed = {key: value for key, value in changed.items() if key not in _ONLY_NOISE}
    return {"architecture.depth": depth, "noise.scale": scale, **_USUAL, **changed}


def _regularised(depth: int, name: str) -> Condition:
    return {**_arm(depth, 0.0), "regulariser.name": name, "regulariser.strength": MATCHED_STRENGTH}


def _layers(depth: int) -> str:
    return f"{depth} hidden layer{'s' if depth > 1 else ''}"


def _gain(depth: int, changes: Condition | None = None) -> tuple[Condition, Condition]:
    return _arm(depth, TESTED_SCALE, changes), _arm(depth, 0.0, changes)


def _criteria() -> list[Criterion]:
    what = f"structural modularity at noise {TESTED_SCALE} minus that without noise"
    weaker = [
        Criterion(
            f"Noise makes networks with {depth} hidden layers less modular than those with one",
            "gain with one hidden layer minus gain with these",
            contrast_of_gains("depth", MODULARITY, _gain(1), _gain(depth)),
            Region(low=thresholds.MODULARITY),
        )
        for depth in DEPTHS[1:]
    ]
    learned = [
        Criterion(
            f"Networks with {_layers(depth)} learn the task",
            f"clean error at noise {TESTED_SCALE}",
            level("depth", ERROR, _arm(depth, TESTED_SCALE)),
            Region(high=thresholds.learned("regression")),
            better="lower",
        )
        for depth in DEPTHS
    ]
    penalised = [
        Criterion(
            f"The {name} regulariser with {_layers(depth)}",
            f"structural modularity at strength {MATCHED_STRENGTH} minus that without",
            contrast("depth", MODULARITY, _regularised(depth, name), _arm(depth, 0.0)),
        )
        for depth, name in (*((depth, "activity_weight") for depth in DEPTHS), (2, "jacobian"))
    ]
    governing = [
        Criterion(f"Two hidden layers, {name}", what, contrast("depth", MODULARITY, *_gain(2, changes)))
        for name, changes in CHANGES.items()
    ]
    longer: tuple[Condition, Condition] = ({"noise.scale": TESTED_SCALE}, {"noise.scale": 0.0})
    governing.append(
        Criterion(f"Two hidden layers, {LONG}", what, contrast("depth_long", MODULARITY, *longer))
    )
    return [*weaker, *learned, *penalised, *governing]


def _changed_arms(evidence: Mapping[str, Evidence]) -> pd.DataFrame:
    """Return the networks of two hidden layers, under noise and without, by what was changed."""
    arms = [
        ("depth", name, scale, _arm(2, scale, changes))
        for name, changes in CHANGES.items()
        for scale in SCALES
    ]
    arms += [("depth_long", LONG, scale, {"noise.scale": scale}) for scale in SCALES]
    parts = [
        evidence[experiment]
        .rows(condition)
        .assign(change=name, arm=f"noise {scale:g}" if scale else "no noise")
        for experiment, name, scale, condition in arms
    ]
    return pd.concat(parts, ignore_index=True)


def _draw(evidence: Mapping[str, Evidence]) -> Sequence[ReportFigure]:
    table = evidence["depth"]
    return [
        lines_figure(
            table.rows(_USUAL),
            "config.noise.scale",
            [MODULARITY, ERROR, UNDER_NOISE],
            arm="config.architecture.depth",
            name="depth_noise",
            title="Noise at one, two and three hidden layers",
        ),
        strip_figure(
            _changed_arms(evidence),
            "change",
            [MODULARITY, "activity/mean", ERROR],
            arm="arm",
            name="depth_governing",
            title="Two hidden layers: what changes the effect of noise",
        ),
    ]


CLAIM = Claim(
    name="depth",
    title="Noise alone modularises deeper networks less",
    hypothesis="Noise that makes networks with one hidden layer modular does less to networks with two and three.",
    measure="The gain of structural modularity under noise.",
    comparison=(
        "Networks of equal seed at one, two and three hidden layers; at two, with changes that may govern it, each "
        "against the same change without noise."
    ),
    experiments=("depth", "depth_long"),
    criteria=tuple(_criteria()),
    draw=_draw,
    caveats=(
        "Not one of the paper's claims: a question that its first claim leaves open.",
        "Path strength passes through every layer, so mixing by chance multiplies with depth.",
    ),
    tables=(("depth", {}, (ERROR, UNDER_NOISE, MODULARITY, "modularity/functional", "activity/mean")),),
)
