"""Claim 6, robustness: whether premodular networks are more robust depends on what is held equal."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace

from modulab.claims import thresholds
from modulab.claims.claim import Claim, FirstRule, Setting
from modulab.claims.comparisons import ERROR, MODULARITY, UNDER_NOISE, ratio
from modulab.claims.evidence import Condition, Evidence
from modulab.claims.rules import Criterion, Region
from modulab.report.figure import ReportFigure
from modulab.report.lines import lines_figure

MATCHES = {"width": "equal width", "parameters": "equal parameters"}
MODULES = (2, 4)
SAMPLES = (64, 256, 4096)
SCALES = {0.0: "trained without noise", 0.2: "trained under noise 0.2"}
LAWS = {
    "Poisson noise": UNDER_NOISE,
    "Poisson noise of equal energy": "error_under/poisson_energy@0.3",
    "Gaussian noise": "error_under/gaussian@0.3",
}
DECIDING_LAWS = ("Poisson noise", "Gaussian noise")
DECIDING_SAMPLES = (64, 4096)
PREDICTED = {
    (2, "width", 0.0): {64: 0.82, 256: 0.91, 4096: 0.95},
    (2, "parameters", 0.0): {64: 0.70, 256: 0.75, 4096: 0.77},
    (2, "width", 0.2): {64: 0.88, 256: 0.98, 4096: 0.99},
    (2, "parameters", 0.2): {64: 0.66, 256: 0.73, 4096: 0.74},
    (4, "width", 0.0): {64: 0.52, 256: 0.73, 4096: 0.80},
    (4, "parameters", 0.0): {64: 0.34, 256: 0.49, 4096: 0.53},
    (4, "width", 0.2): {64: 0.51, 256: 0.81, 4096: 0.91},
    (4, "parameters", 0.2): {64: 0.28, 256: 0.46, 4096: 0.53},
}
"""Error under Poisson noise 0.3, premodular over dense, with one hidden layer, from another program."""


def _arm(architecture: str, match: str, modules: int, samples: int, scale: float) -> Condition:
    return {
        "architecture.name": architecture,
        "architecture.match": match,
        "task.modules": modules,
        "data.num_samples": samples,
        "noise.scale": scale,
    }


def _criterion(law: str, match: str, modules: int, samples: int, scale: float) -> Criterion:
    premodular = _arm("premodular", match, modules, samples, scale)
    dense = _arm("dense", "width", modules, samples, scale)
    predicted = PREDICTED.get((modules, match, scale), {}).get(samples)
    return Criterion(
        f"{modules} modules, {samples} training points, {MATCHES[match]}",
        f"error under {law} 0.3, premodular / dense",
        ratio("robustness", LAWS[law], premodular, dense),
        Region(high=1 / thresholds.ROBUSTNESS),
        scale="factor",
        better="lower",
        predicted=f"{predicted:g} times" if predicted is not None and law == "Poisson noise" else "",
    )


_Place = tuple[str, str, int, int, float]
"""A law, what is matched, the number of modules, the sample size and the noise in training."""


def _at(place: _Place) -> dict[str, str]:
    law, match, modules, samples, scale = place
    return {
        "at test": law,
        "compared at": MATCHES[match],
        "modules": f"{modules}",
        "training points": f"{samples}",
        "training": SCALES[scale],
    }


_PLACES: list[_Place] = list(itertools.product(LAWS, MATCHES, MODULES, SAMPLES, SCALES))


def _decides(place: _Place) -> bool:
    """Return whether a place is one of the settings that decide: the ends of each axis."""
    law, _, _, samples, scale = place
    return law in DECIDING_LAWS and samples in DECIDING_SAMPLES and scale == 0


def _reported() -> list[Criterion]:
    return [
        replace(_criterion(*place), statement=", ".join(_at(place).values()), region=None)
        for place in _PLACES
        if not _decides(place)
    ]


def _draw(evidence: Mapping[str, Evidence]) -> Sequence[ReportFigure]:
    results = evidence["robustness"].completed.copy()
    matched = ", " + results["config.architecture.match"].replace(MATCHES)
    premodular = results["config.architecture.name"] == "premodular"
    results["arm"] = results["config.architecture.name"] + matched.where(premodular, "")
    finite = results.loc[results["config.data.num_samples"].notna() & (results["config.noise.scale"] == 0)]
    return [
        lines_figure(
            finite,
            "config.data.num_samples",
            list(LAWS.values()),
            arm="arm",
            row="config.task.modules",
            x_scale="log",
            name="C6a_robustness",
            title="Error under noise against sample size, by number of modules; trained without noise",
        )
    ]


CLAIM = Claim(
    name="C6a",
    title="Premodular networks are more robust",
    hypothesis="Networks whose connections are modular from the start are more robust to noise.",
    measure="Error under noise on activity at level 0.3: Poisson-like, Poisson-like of equal energy, and Gaussian.",
    comparison=(
        "Premodular over dense networks of equal seed, at equal width (24 units per module) and at equal numbers of "
        "weights and biases, by number of modules, sample size and noise in training."
    ),
    experiments=("robustness",),
    criteria=tuple(_reported()),
    settings=tuple(Setting(_at(place), (_criterion(*place),)) for place in _PLACES if _decides(place)),
    draw=_draw,
    caveats=(
        "At equal width the premodular networks are a subset of the dense ones, so no advantage can survive "
        "unlimited data and training.",
    ),
    prediction=(
        "Copying each unit n times divides the added variance by n, so equal parameters give up to d times less; "
        "equal width gives an advantage where samples are few (below about 64 per module); Gaussian noise favours "
        "dense networks."
    ),
    first_rule=FirstRule(
        rule="Error under each of four noise laws at 0.3, premodular over dense networks of equal width, is below 0.8.",
        verdict="not supported",
        effect="error under Poisson noise 0.3, premodular / dense: 1.05 [1, 1.1] times",
        reason="It asked at two modules, equal width and unlimited data: the one case where theory predicts no effect.",
    ),
    tables=(("robustness", {}, (ERROR, MODULARITY, *LAWS.values())),),
)
