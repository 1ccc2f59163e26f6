"""The sentences and tables of a map: shares of regions, boundaries with intervals, and what was predicted."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from modulab.claims import thresholds
from modulab.claims.maps.analysis import DrawnMap
from modulab.claims.maps.boundary import NOT_SUPPORTED, SUPPORTED, WORDS, Crossing, prediction_shares, shares
from modulab.claims.maps.front import front_words
from modulab.claims.maps.places import Panel, value_at
from modulab.report.style import label

_BUDGETS = 0.1, 0.2, 0.3
"""Errors allowed, as shares of that of the best constant answer."""

HEADINGS = (
    "panel",
    "supported",
    "undecided",
    "not supported",
    "holds, on average over the panel",
    "predicted",
    "prediction correct",
)


def axis_label(drawn: DrawnMap, key: str) -> str:
    """Return the words for an axis; of one that others multiply, what it is for each unit of theirs."""
    axis = drawn.plan.axes[key]
    parts = [
        f" {'over' if power > 0 else 'times'} {_lower(label(other))}" for other, power in axis.times.items()
    ]
    return label(key) + "".join(parts)


def level_words(panel: Panel) -> list[str]:
    """Return a panel's levels in words, one for each axis."""
    return [f"{_lower(label(key))}: {_level(value)}" for key, value in panel.levels.items()]


def panel_names(drawn: DrawnMap) -> list[str]:
    """Return a name for each panel: its levels in words."""
    return [", ".join(level_words(panel)) for panel in drawn.plan.panels]


def opening(drawn: DrawnMap) -> str:
    """Return the sentence that a map's part of the page begins with: where the claim holds, and where it should."""
    if drawn.left_open:
        return f"{drawn.of.claim}. {drawn.of.title}: {drawn.left_open}."
    if drawn.surface is None:
        few = len(drawn.effects)
        return f"{drawn.of.claim}. {drawn.of.title}: undecided, because only {few} settings have an effect."
    parts = ", ".join(f"{name} in {_percent(share)}" for name, share in shares(drawn.regions).items())
    return (
        f"{drawn.of.claim}. {drawn.of.title}: {parts} of the map. On average over the map it holds "
        f"{boundary_words(drawn, None)}; predicted: {predicted_words(drawn, None)}."
    )


def boundary_words(drawn: DrawnMap, panel: Panel | None) -> str:
    """Return where the mean effect matters, with an interval: along x if it passes its threshold there, else y."""
    if drawn.left_open:
        return drawn.left_open
    for key in (drawn.plan.x, drawn.plan.y):
        found = drawn.crossings(key, panel)
        if found:
            return " and ".join(_crossing_words(drawn, key, each) for each in found)
    region = drawn.mean_region(panel)
    return {SUPPORTED: "everywhere", NOT_SUPPORTED: "nowhere"}.get(region, "nowhere or everywhere, undecided")


def predicted_words(drawn: DrawnMap, panel: Panel | None) -> str:
    """Return where the claim is predicted to hold, along the axis on which its boundary was found."""
    if panel is None:
        of_panels = list(dict.fromkeys(predicted_words(drawn, each) for each in drawn.plan.panels))
        return "by panel, " * (len(of_panels) > 1) + ", or ".join(of_panels)
    margins = drawn.margins[panel.places]
    if not np.isfinite(margins).all():
        return "nothing"
    for key in (drawn.plan.x, drawn.plan.y):
        if drawn.crossings(key, panel) or key == drawn.plan.y:
            places = drawn.predicted_crossings(key, panel)
            if places:
                values = " and ".join(number(_value(drawn, key, place)) for place in places)
                return f"a boundary at {_lower(axis_label(drawn, key))} {values}"
            break
    share = float((margins > 0).mean())
    return {0.0: "nowhere", 1.0: "everywhere"}.get(share, f"in {_percent(share)}")


def panel_rows(drawn: DrawnMap) -> list[list[str]]:
    """Return a row for each panel: shares of its regions, its boundary, the predicted one, and how often that holds."""
    rows: list[list[str]] = []
    for panel in drawn.plan.panels:
        found = drawn.regions[panel.places]
        covered, right = prediction_shares(found, drawn.margins[panel.places])
        rows.append(
            [
                ", ".join(level_words(panel)) or "all",
                *(_percent(share) for share in shares(found).values()),
                boundary_words(drawn, panel),
                predicted_words(drawn, panel),
                "-" if math.isnan(right) else f"{_percent(right)} of the decided {_percent(covered)}",
            ]
        )
    return rows


def facts(drawn: DrawnMap) -> list[str]:
    """Return the sentences below a map's figure: what was measured, over what, and what was left out."""
    effect, plan = drawn.of.effect, drawn.plan
    factor = " times" if effect.scale == "factor" else ""
    averaged = (
        f", averaged over {', '.join(_lower(label(key)) for key in plan.averaged)}" if plan.averaged else ""
    )
    return [
        f"Effect: {effect.words}; at least {number(effect.least)}{factor} matters{averaged}.",
        f"Predicted before the run: {drawn.of.prediction.words} Source: {drawn.of.prediction.source}",
        f"{len(drawn.effects)} settings with {drawn.members} networks; each setting has its own seed."
        + (
            f" Settings whose networks lack the measure are left out ({drawn.lost} networks)."
            if drawn.lost
            else ""
        ),
        *([] if drawn.settling is None or drawn.left_open else [drawn.settling.words]),
        *_prices(drawn),
        f"Caveat: {drawn.of.caveat}",
    ]


def _prices(drawn: DrawnMap) -> list[str]:
    if drawn.front is None:
        return []
    constant = thresholds.CONSTANT_ERROR[drawn.of.task]
    budgets = {f"{share:.0%} of a constant answer's": share * constant for share in _BUDGETS}
    return front_words(drawn.of.effect, drawn.front, panel_names(drawn), budgets)


def as_record(drawn: DrawnMap) -> dict[str, Any]:
    """Return a map as it stands in map.json."""
    return {
        "claim": drawn.of.claim,
        "title": drawn.of.title,
        "opening": opening(drawn),
        "facts": facts(drawn),
        "axes": {key: axis.model_dump(exclude_defaults=True) for key, axis in drawn.plan.axes.items()},
        "threshold": drawn.of.effect.least,
        "settings": len(drawn.effects),
        "networks": drawn.members,
        "left_out": drawn.lost,
        "settling": None
        if drawn.settling is None
        else {
            "from": drawn.settling.first,
            "to": drawn.settling.last,
            "rise": drawn.settling.by_arm,
            "learning_rate": drawn.settling.learning_rate,
        },
        "shares": shares(drawn.regions),
        "boundaries": [
            {
                "panel": {
                    key: _level(value) for key, value in ({} if panel is None else panel.levels).items()
                },
                "axis": key,
                "value": _value(drawn, key, each.place),
                "low": None if each.low <= 0 else _value(drawn, key, each.low),
                "high": None if each.high >= 1 else _value(drawn, key, each.high),
                "holds": "above" if each.rises else "below",
                "predicted": [_value(drawn, key, place) for place in drawn.predicted_crossings(key, panel)],
            }
            for panel in (None, *drawn.plan.panels)
            for key in (drawn.plan.x, drawn.plan.y)
            for each in drawn.crossings(key, panel)
        ],
        "headings": list(HEADINGS),
        "rows": panel_rows(drawn),
        "regions": list(WORDS.values()),
    }


def _crossing_words(drawn: DrawnMap, key: str, found: Crossing) -> str:
    side = "above" if found.rises else "below"
    low = "the least" if found.low <= 0 else number(_value(drawn, key, found.low))
    high = "the most" if found.high >= 1 else number(_value(drawn, key, found.high))
    value = number(_value(drawn, key, found.place))
    return f"{side} {value} [{low}, {high}] of {_lower(axis_label(drawn, key))}"


def _value(drawn: DrawnMap, key: str, place: float) -> float:
    return float(value_at(drawn.plan.axes[key], np.array([place]))[0])


def number(value: float) -> str:
    """Return a number as the page shows it: three digits that count, without exponents up to a million."""
    return f"{float(f'{value:.3g}'):.0f}" if 1000 <= abs(value) < 1e6 else f"{value:.3g}"


def _percent(share: float) -> str:
    return f"{100 * share:.0f}%"


def _level(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _lower(words: str) -> str:
    return words[:1].lower() + words[1:]
