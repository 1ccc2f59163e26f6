"""Regions of a map by its fitted effect, and where along an axis the effect passes its threshold."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from modulab.claims.maps.surface import Surface

Array = NDArray[np.float64]

SUPPORTED, UNDECIDED, NOT_SUPPORTED = 1, 0, -1
WORDS = {SUPPORTED: "supported", UNDECIDED: "undecided", NOT_SUPPORTED: "not supported"}


def regions(surface: Surface, threshold: float) -> NDArray[np.int_]:
    """Return what holds at each place: the whole band above the threshold, the whole band below it, or neither."""
    return np.where(
        surface.low > threshold, SUPPORTED, np.where(surface.high < threshold, NOT_SUPPORTED, UNDECIDED)
    )


@dataclass(frozen=True)
class Crossing:
    """Where an effect passes its threshold along an axis, as places from 0 to 1."""

    place: float
    low: float
    high: float
    """The ends of the undecided stretch around it; 0 or 1 where that reaches the end of the axis."""
    rises: bool
    """Whether the effect is above the threshold after it."""


def crossings(ticks: Array, profile: Surface, threshold: float) -> list[Crossing]:
    """Return where a profile along an axis passes its threshold, each with the stretch that its band leaves undecided.

    The true effect passes the threshold within these stretches alone, with the confidence of the band: outside of
    them the whole band lies on one side.
    """
    lower, upper = profile.low - threshold, profile.high - threshold
    decided = (lower > 0) | (upper < 0)
    found: list[Crossing] = []
    for place, rises in zeros(ticks, profile.effect - threshold):
        before = decided & (ticks < place)
        after = decided & (ticks > place)
        low, high = 0.0, 1.0
        if before.any():
            last = int(np.flatnonzero(before)[-1])
            low = _edge(ticks, lower if lower[last] > 0 else upper, last, last + 1)
        if after.any():
            first = int(np.flatnonzero(after)[0])
            high = _edge(ticks, lower if lower[first] > 0 else upper, first - 1, first)
        found.append(Crossing(place, min(low, place), max(high, place), rises))
    return found


def zeros(ticks: Array, values: Array) -> list[tuple[float, bool]]:
    """Return where values, as straight lines between ticks, pass 0, and whether they rise there."""
    above = values > 0
    return [
        (_edge(ticks, values, place, place + 1), bool(above[place + 1]))
        for place in np.flatnonzero(above[:-1] != above[1:]).tolist()
    ]


def _edge(ticks: Array, values: Array, first: int, second: int) -> float:
    """Return where values, as a straight line between two ticks, pass 0."""
    share = values[first] / (values[first] - values[second])
    return float(ticks[first] + np.clip(share, 0, 1) * (ticks[second] - ticks[first]))


def shares(found: NDArray[np.int_]) -> dict[str, float]:
    """Return the share of a map that each region has, by its name."""
    return {name: float((found == region).mean()) for region, name in WORDS.items()}


def prediction_shares(found: NDArray[np.int_], margins: Array) -> tuple[float, float]:
    """Return the share of a map that is decided and predicted, and in how much of that the prediction is right."""
    both = (found != UNDECIDED) & np.isfinite(margins)
    if not both.any():
        return 0.0, float("nan")
    right = (found[both] == SUPPORTED) == (margins[both] > 0)
    return float(both.mean()), float(right.mean())
