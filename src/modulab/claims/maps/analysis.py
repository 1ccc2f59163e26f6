"""A map of the results of its experiment: the fitted effect, its regions and boundary, and those predicted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from modulab.claims.maps.boundary import Crossing, crossings, regions, zeros
from modulab.claims.maps.definitions import ClaimMap
from modulab.claims.maps.front import Front, find_front
from modulab.claims.maps.places import RESOLUTION, Panel, Plan
from modulab.claims.maps.settling import Settling, settling
from modulab.claims.maps.surface import Surface, fit_surface
from modulab.config.sobol import Axis

Array = NDArray[np.float64]

LEAST_SETTINGS = 8
"""With fewer no length scale can be fitted."""
_FARTHEST = 10.0
"""Margins of a prediction are cut off there, as contours of infinite ones cannot be drawn."""


@dataclass(frozen=True)
class DrawnMap:
    """A claim's map, with everything that its figure and its sentences show."""

    of: ClaimMap
    plan: Plan
    effects: pd.DataFrame
    """One row per setting and seed that has an effect."""
    members: int
    lost: int
    """The number of networks without the measure, such as those that diverged."""
    surface: Surface | None
    """None where too few settings have an effect."""
    margins: Array
    """The prediction's, at all places shown."""
    settling: Settling | None = None
    """How modularity rose during training; None if no curves are known."""
    front: Front | None = None
    """The front of an effect that has a price; None for other effects, and if nothing could be fitted."""
    left_open: str = ""
    """The text that replaces all sentences of a map if a preset decides nothing."""

    @property
    def threshold(self) -> float:
        """Return the least effect that matters, on the scale of the surface."""
        return self.of.effect.threshold

    @cached_property
    def regions(self) -> NDArray[np.int_]:
        """Return what holds at each place shown; undecided everywhere where nothing could be fitted."""
        if self.surface is None:
            return np.zeros(len(self.margins), dtype=np.int_)
        return regions(self.surface, self.threshold)

    def crossings(self, key: str, panel: Panel | None) -> list[Crossing]:
        """Return where the mean effect passes its threshold along x or y, in a panel or over all of the map."""
        if self.surface is None:
            return []
        places = slice(0, len(self.margins)) if panel is None else panel.places
        return crossings(self.plan.ticks, self._profile(self.surface, key, places), self.threshold)

    def predicted_crossings(self, key: str, panel: Panel | None) -> list[float]:
        """Return where the prediction's median margin passes 0 along x or y, as places from 0 to 1."""
        margins = self.margins if panel is None else self.margins[panel.places]
        if not np.isfinite(margins).all():
            return []
        median = np.median(
            margins.reshape(-1, RESOLUTION, RESOLUTION), axis=(0, 1 if key == self.plan.x else 2)
        )
        return [place for place, _ in zeros(self.plan.ticks, median)]

    def mean_region(self, panel: Panel | None) -> int:
        """Return the region that the map's, or a panel's, mean effect lies in: its own band decides."""
        if self.surface is None:
            return 0
        places = slice(0, len(self.margins)) if panel is None else panel.places
        mean = self.surface.profile(places, (1, len(self.margins[places])), over=1)
        return int(regions(mean, self.threshold)[0])

    def _profile(self, surface: Surface, key: str, places: slice) -> Surface:
        if key == self.plan.x:
            rows = len(self.margins[places]) // RESOLUTION
            return surface.profile(places, (rows, RESOLUTION), over=0)
        by_panel = surface.profile(places, (len(self.margins[places]) // RESOLUTION, RESOLUTION), over=1)
        return by_panel.profile(slice(None), (len(by_panel.effect) // RESOLUTION, RESOLUTION), over=0)


def draw_map(
    of: ClaimMap, axes: Mapping[str, Axis], results: pd.DataFrame, curves: pd.DataFrame | None = None
) -> DrawnMap:
    """Return the map of a claim from the results of its experiment, whose settings were drawn over these axes.

    Curves during training, if given, say whether modularity had settled.
    """
    plan = Plan.of(axes)
    effects = of.effect.of_settings(results, list(axes))
    surface = None
    if len(effects) >= LEAST_SETTINGS:
        surface = fit_surface(
            plan.columns(effects),
            effects["effect"].to_numpy(dtype=np.float64),
            [plan.columns(shown) for shown in plan.shown],
        )
    constant = _constant_settings(results)
    number = len(plan.panels) * RESOLUTION**2
    margins = [
        of.prediction.margin({key: np.full(number, value) for key, value in constant.items()} | shown)
        for shown in plan.shown
    ]
    measured = results[of.effect.measure].notna() if of.effect.measure in results else np.zeros(len(results))
    lost = len(results) - int(np.sum(measured & (results["status"] == "completed")))
    mean = np.clip(margins, -_FARTHEST, _FARTHEST).mean(axis=0)
    rising = None if curves is None else settling(results, curves, of.effect)
    front = None
    if surface is not None and of.effect.price is not None:
        front = find_front(of.effect, plan, results, surface)
    return DrawnMap(of, plan, effects, len(results), lost, surface, mean, rising, front)


def _constant_settings(results: pd.DataFrame) -> dict[str, Any]:
    """Return the settings, numbers and words, that all members share."""
    found: dict[str, Any] = {}
    for name in results.columns:
        if str(name).startswith("config."):
            values = results[name].tolist()
            if isinstance(values[0], str | int | float | bool) and all(
                value == values[0] for value in values
            ):
                found[str(name).removeprefix("config.")] = values[0]
    return found
