"""Matrices on a page: one image, with the number and the units of the cell under the pointer.

A cell per number would be a node of the page each, ten thousands of them; a matrix is one image instead, which the page
makes of the same numbers that it says.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.colors import to_hex, to_rgb
from numpy.typing import NDArray

Spec = dict[str, Any]

MOST_CELLS = 200_000
"""The largest number of cells of the matrices of a figure, over a megabyte; with more it is shown as printed."""

_STOPS = 9
_DARK_GROUND, _LIGHT = "#202225", 0.3
"""On dark screens, the colour of 0, that of a page's cards, and the position of the other end in the colour map."""


@dataclass(frozen=True)
class Matrix:
    """Non-negative numbers, the first row above, and what their rows and columns are."""

    values: NDArray[np.float64]
    """One row for each of `rows`, one column for each of `columns`."""
    rows: Sequence[str]
    columns: Sequence[str]
    largest: float
    """The number that has the last colour; those beyond have it, too."""
    colours: str
    """A colour map of matplotlib, from white on."""
    row_dividers: Sequence[float] = ()
    """Numbers of rows between which and the next ones a line is drawn."""
    column_dividers: Sequence[float] = ()

    def as_json(self) -> dict[str, Any]:
        """Return the matrix as plain values: numbers row by row, in as many digits as a page shows."""
        return {
            "values": [_three_digits(value) for value in self.values.ravel().tolist()],
            "rows": list(self.rows),
            "columns": list(self.columns),
            "largest": self.largest,
            "colours": colour_stops(self.colours),
        }

    def layers(self, x: Spec, y: Spec) -> list[Spec]:
        """Return the image, whose address the page sets, and the lines that divide it, on the axes of a panel."""
        image: Spec = {
            "data": {"values": [{"x": 0, "y": 0}]},
            "mark": {
                "type": "image", "aspect": False, "smooth": False, "align": "left", "baseline": "top",
                "width": {"expr": "width"}, "height": {"expr": "height"},
            },
            "encoding": {"x": x, "y": y, "url": {"value": {"expr": "image"}}},
        }  # fmt: skip
        lines = [
            {
                "data": {"values": [{axis: place} for place in places]},
                "mark": {"type": "rule", "strokeWidth": 0.8},
                "encoding": {axis: encoding, other: {"value": 0}, f"{other}2": {"value": {"expr": extent}}, **_FIRST},
            }
            for axis, other, extent, encoding, places in (
                ("x", "y", "height", x, self.column_dividers),
                ("y", "x", "width", y, self.row_dividers),
            )
            if len(places)
        ]  # fmt: skip
        return [image, *lines]

    def pointed(self, x: Spec, y: Spec, line: Spec) -> Spec:
        """Return what shows the cell under the pointer, whose number from the top left is `hover`."""
        across = len(self.columns)
        ends = {
            "x": f"hover % {across}", "x1": f"hover % {across} + 1",
            "y": f"floor(hover / {across})", "y1": f"floor(hover / {across}) + 1",
        }  # fmt: skip
        return {
            "data": {"values": [{}]},
            "transform": [
                {"filter": "hover >= 0"},
                *({"calculate": text, "as": name} for name, text in ends.items()),
            ],
            "mark": {"type": "rect", "fill": "none", **line},
            "encoding": {"x": x, "x2": {"field": "x1"}, "y": y, "y2": {"field": "y1"}},
        }


_FIRST: Spec = {"color": {"value": "var(--arm-0)"}}
"""Lines have the colour of the chart's first arm."""


def colour_stops(colours: str) -> dict[str, list[str]]:
    """Return colours from 0 to the largest number, at equal steps, on light screens and on dark ones."""
    shades = mpl.colormaps[colours]
    places = np.linspace(0, 1, _STOPS)
    ground, light = np.array(to_rgb(_DARK_GROUND)), np.array(shades(_LIGHT)[:3])
    return {
        "light": [to_hex(shades(place)) for place in places],
        "dark": [to_hex(ground + place * (light - ground)) for place in places],
    }


def _three_digits(value: float) -> float:
    rounded = float(f"{value:.3g}")
    return int(rounded) if rounded.is_integer() else rounded
