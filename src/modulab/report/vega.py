"""Specifications by which Vega-Lite draws the panels of charts (Satyanarayan et al., IEEE TVCG 23, 2017, 341-350).

Rows have a field for each number of a panel, `a` for the arm, `n` for the network, `m` for what they are (`SHOWN` of
modulab.report.chart) and `o` for their order. The page sets the parameters: `seeds` and `intervals` for what shows,
`hidden` arms, `picked` networks, `hover` for the row under the pointer, and the `image` of a matrix. Colours are
variables of its style, because they differ on light and dark screens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from modulab.report.style import ArmStyle, wrapped

if TYPE_CHECKING:
    from modulab.report.chart import ChartAxis, Panel
else:
    # Annotations alone: chart imports this module.
    ChartAxis = Panel = object

Spec = dict[str, Any]

_SHAPES = {
    "o": "M1 0A1 1 0 1 1-1 0A1 1 0 1 1 1 0Z",
    "s": "M-.9-.9H.9V.9H-.9Z",
    "^": "M0-1L1 .8H-1Z",
    "D": "M0-1.1L1.1 0 0 1.1-1.1 0Z",
    "v": "M0 1L1-.8H-1Z",
    "P": "M-.4-1H.4V-.4H1V.4H.4V1H-.4V.4H-1V-.4H-.4Z",
    "X": "M-.56-1L0-.44.56-1 1-.56.44 0 1 .56.56 1 0 .44-.56 1-1 .56-.44 0-1-.56Z",
}
"""Outlines of matplotlib's markers, from -1 to 1."""

_ARROW = "M0 1.4L0 5M-1.1 3.6L0 5L1.1 3.6"
"""The arrow of an upper end, below its mark."""

_LONGEST_LINE = 34
"""The number of letters of a title that fit along an axis."""
_LEAST_GAP = 6
"""Pixels between the labels of ticks: without, those that touch read as one number."""

_MOST_WRITTEN = 8
"""The largest number of cells side by side that have room for their values."""

_PARAMETERS = {"seeds": True, "intervals": True, "hidden": {}, "picked": None, "hover": -1, "image": ""}
_SINGLE, _MEAN, _LIMIT, _GUIDE = (f"datum.m === {number} && !hidden[datum.a]" for number in range(4))
_FADED = {"test": "picked && !picked[datum.n]", "value": 0.06}


def look(style: ArmStyle) -> dict[str, Any]:
    """Return the shape of an arm's marks and the dashes of its lines."""
    dash = [] if style.dashes == "-" else [2 * float(length) for length in style.dashes[1]]
    return {"shape": _SHAPES[style.marker], "dash": dash}


def panel_spec(panel: Panel, styles: Sequence[ArmStyle]) -> Spec:
    """Return the specification of one panel, without its rows and its size."""
    plane = _Plane(panel, styles)
    forms = {
        "band": lambda: [plane.band(), *plane.lone_bars(), plane.marks(), plane.line(), plane.means()],
        "steps": lambda: [plane.band("step-after"), plane.marks(), plane.line("step-after")],
        "paths": lambda: [plane.band(), plane.paths(), plane.line()],
        "front": lambda: [
            plane.bars("y"),
            plane.bars("x"),
            plane.marks(),
            plane.line(),
            plane.means(),
            *plane.limits(),
        ],
        "strip": lambda: [plane.bars("x", 3), plane.marks(), plane.means()],
        "cells": plane.cells,
        "regions": plane.regions,
        "matrix": plane.matrix,
        "graph": plane.graph,
    }
    parameters = [{"name": name, "value": value} for name, value in (_PARAMETERS | plane.names).items()]
    return {
        "params": parameters,
        "data": {"name": "rows"},
        "encoding": {"x": plane.along("x"), "y": plane.along("y")},
        "layer": [*forms[panel.form](), *plane.guides(), plane.pointed()],
        "autosize": {"type": "fit", "contains": "padding"},
        "background": None,
        **({"view": {"stroke": "currentColor", "strokeOpacity": 0.4}} if panel.form == "matrix" else {}),
    }


class _Plane:
    """The layers of one panel, whose axes and scales they share."""

    def __init__(self, panel: Panel, styles: Sequence[ArmStyle]) -> None:
        self.panel = panel
        self.axes = {"x": panel.x, "y": panel.y}
        arms = list(range(len(styles)))
        looks = [look(style) for style in styles]
        self.colour: Spec = {
            "field": "a", "type": "nominal", "legend": None,
            "scale": {"domain": arms, "range": [f"var(--arm-{arm})" for arm in arms]},
        }  # fmt: skip
        self.shape: Spec = {
            "field": "a", "type": "nominal", "legend": None,
            "scale": {"domain": arms, "range": [each["shape"] for each in looks]},
        }  # fmt: skip
        self.dash: Spec = {
            "field": "a", "type": "nominal", "legend": None,
            "scale": {"domain": arms, "range": [each["dash"] or [1, 0] for each in looks]},
        }  # fmt: skip

    @property
    def names(self) -> Spec:
        """Return the places and texts of ticks as parameters: texts are data, never part of an expression."""
        found: Spec = {}
        for which, axis in self.axes.items():
            found[f"{which}_places"] = list(axis.ticks)
            found[f"{which}_texts"] = list(axis.ticks.values())
        return found

    def along(self, which: str, field: str | None = None) -> Spec:
        """Return the position of marks along an axis."""
        axis = self.axes[which]
        if self.panel.form == "graph":
            return {"field": field or which, "type": "quantitative", "scale": _scale(axis), "axis": None}
        drawn: Spec = {"title": wrapped(axis.title, _LONGEST_LINE), "labelOverlap": "greedy"}
        drawn["labelSeparation"] = _LEAST_GAP
        if axis.ticks:
            # Of more values than the count that Vega is told, it leaves out every second one.
            drawn |= {"values": list(axis.ticks), "tickCount": len(axis.ticks)}
            drawn["labelExpr"] = f"{which}_texts[indexof({which}_places, datum.value)]"
        if self.panel.form == "regions":
            drawn["grid"] = False
        if self.panel.form == "strip" and which == "y":
            drawn["labelOverlap"] = False  # each line of marks needs its name
        if self.panel.form in ("cells", "matrix") or (self.panel.form == "strip" and which == "y"):
            drawn |= {"grid": False, "ticks": False, "domain": False}
        return {"field": field or which, "type": "quantitative", "scale": _scale(axis), "axis": drawn}

    def band(self, joined: str = "linear") -> Spec:
        """Return the shaded intervals of means."""
        return {
            "transform": [{"filter": f"{_MEAN} && intervals && isValid(datum.yl)"}, self._low_end("y")],
            "mark": {"type": "area", "opacity": 0.2, "clip": True, "interpolate": joined},
            "encoding": {"y": self.along("y", "y0"), "y2": {"field": "yh"}, "color": self.colour},
        }

    def bars(self, which: str, width: float = 1.3) -> Spec:
        """Return the intervals of means along an axis, each as a bar."""
        return {
            "transform": [
                {"filter": f"{_MEAN} && intervals && isValid(datum.{which}l)"},
                self._low_end(which),
            ],
            "mark": {"type": "rule", "strokeWidth": width, "clip": True},
            "encoding": {
                which: self.along(which, f"{which}0"),
                f"{which}2": {"field": f"{which}h"},
                "color": self.colour,
            },
        }

    def _low_end(self, which: str) -> Spec:
        """Return where an interval is drawn from, which on a logarithmic axis ends with the axis: there is no 0."""
        axis = self.axes[which]
        low = f"datum.{which}l"
        drawn = f"max({low}, {min(axis.ends)})" if axis.scale == "log" else low
        return {"calculate": drawn, "as": f"{which}0"}

    def lone_bars(self) -> list[Spec]:
        """Return intervals as bars if there is only one place, so that no area can be shaded."""
        means = self.panel.rows.loc[self.panel.rows["shown"] == "mean", "x"]
        return [self.bars("y")] if means.nunique() == 1 else []

    def marks(self) -> Spec:
        """Return a small mark for each network."""
        return {
            "transform": [{"filter": f"{_SINGLE} && seeds"}],
            "mark": {"type": "point", "filled": True, "size": 16},
            "encoding": {
                "color": self.colour,
                "shape": self.shape,
                "opacity": {"condition": _FADED, "value": 0.55},
            },
        }

    def paths(self) -> Spec:
        """Return a thin line for each network."""
        return {
            "transform": [{"filter": f"{_SINGLE} && seeds"}],
            "mark": {"type": "line", "strokeWidth": 0.8, "clip": True},
            "encoding": {
                "color": self.colour,
                "detail": {"field": "n"},
                "opacity": {"condition": _FADED, "value": 0.4},
            },
        }

    def line(self, joined: str = "linear") -> Spec:
        """Return the lines that join means, in their order."""
        return {
            "transform": [{"filter": _MEAN}],
            "mark": {"type": "line", "strokeWidth": 1.8, "interpolate": joined},
            "encoding": {
                "color": self.colour,
                "strokeDash": self.dash,
                "order": {"field": "o", "type": "quantitative"},
            },
        }

    def guides(self) -> list[Spec]:
        """Return lines to compare with: dotted, except on a plane of regions, where they have their own arms."""
        if "guide" not in set(self.panel.rows["shown"]):
            return []
        of_own = self.panel.form == "regions"
        mark: Spec = {"type": "line", "strokeWidth": 2.2 if of_own else 1.3, "clip": True}
        return [
            {
                "transform": [{"filter": _GUIDE}],
                "mark": mark if of_own else {**mark, "strokeDash": [1.5, 3]},
                "encoding": {
                    "color": self.colour,
                    **({"strokeDash": self.dash} if of_own else {}),
                    "detail": {"field": "p"},
                    "order": {"field": "o", "type": "quantitative"},
                },
            }
        ]

    def limits(self) -> list[Spec]:
        """Return the upper ends of estimates that are 0: open marks, each with an arrow down."""
        if "limit" not in set(self.panel.rows["shown"]):
            return []
        mark: Spec = {"type": "point", "filled": False, "size": 55, "strokeWidth": 1.4}
        shapes: list[Spec] = [{"shape": self.shape}, {"shape": {"value": _ARROW}}]
        return [
            {
                "transform": [{"filter": _LIMIT}],
                "mark": mark,
                "encoding": {"color": self.colour, **shape},
            }
            for shape in shapes
        ]

    def means(self) -> Spec:
        """Return a large mark for each mean."""
        return {
            "transform": [{"filter": _MEAN}],
            "mark": {"type": "point", "filled": True, "size": 55, "opacity": 1},
            "encoding": {"color": self.colour, "shape": self.shape},
        }

    def cells(self) -> list[Spec]:
        """Return a cell for each mean, coloured by it, with its value in it where there is room; grey without one."""
        colour: Spec = {
            "field": "v", "type": "quantitative",
            "scale": {
                "scheme": "cividis",
                "type": "log" if self.panel.log_values else "linear",
                "domain": list(self.panel.value_ends),
                "nice": False,
            },
            "legend": {"title": self.panel.values, "titleLimit": 240, "orient": "top", "titleAnchor": "start"},
        }  # fmt: skip
        empty: Spec = {"value": "var(--empty)"}
        edges = {"stroke": "var(--card)", "strokeWidth": 0.8}
        layers = [
            self._rectangles(f"{_MEAN} && !isValid(datum.v)", 0.5, {"fill": empty}, edges),
            self._rectangles(f"{_MEAN} && isValid(datum.v)", 0.5, {"color": colour}, edges),
        ]
        means = self.panel.rows.loc[self.panel.rows["shown"] == "mean", "x"]
        if means.nunique() > _MOST_WRITTEN:
            return layers
        written: Spec = {
            "transform": [{"filter": f"{_MEAN} && isValid(datum.v)"}],
            "mark": {"type": "text", "fontSize": 10},
            "encoding": {
                "text": {"field": "v", "type": "quantitative", "format": ".2~g"},
                "color": {
                    "condition": {"test": "luminance(scale('color', datum.v)) < 0.3", "value": "white"},
                    "value": "black",
                },
            },
        }
        return [*layers, written]

    def regions(self) -> list[Spec]:
        """Return a rectangle for each place, coloured by its arm, and a mark for each network or setting."""
        places = np.unique(self.panel.rows.loc[self.panel.rows["shown"] == "mean", "x"].to_numpy(dtype=float))
        half = float(np.diff(places).min()) / 2 if len(places) > 1 else 0.5
        return [
            # Edges have the same colour, because the background would be visible between shapes that only touch.
            self._rectangles(_MEAN, half, {"fill": self.colour, "stroke": self.colour}, {"strokeWidth": 0.6}),
            {
                "transform": [{"filter": f"{_SINGLE} && seeds"}],
                "mark": {"type": "point", "filled": True, "size": 26, "stroke": "black", "strokeWidth": 0.8},
                "encoding": {"fill": self.colour, "shape": self.shape},
            },
        ]

    def matrix(self) -> list[Spec]:
        """Return a matrix as an image with lines between its parts."""
        assert self.panel.matrix is not None
        return self.panel.matrix.layers(self.along("x"), self.along("y"))

    def graph(self) -> list[Spec]:
        """Return links as lines as wide as their value, nodes with areas by their size, and the values of both."""
        ends = [
            {"calculate": f"datum.{axis} {sign} datum.d{axis}", "as": f"{axis}{place}"}
            for axis in ("x", "y")
            for place, sign in (("0", "-"), ("1", "+"))
        ]
        width: Spec = {"domain": [0, 1], "range": [0.4, 22]}
        nodes_in_all = float(np.nansum(self.panel.rows["size"].to_numpy(dtype=float)))
        area: Spec = {"domain": [0, nodes_in_all], "range": [0, 6000]}
        links: Spec = {
            "transform": [{"filter": "isValid(datum.dx)"}, *ends],
            "mark": {"type": "rule", "color": "currentColor", "opacity": 0.35},
            "encoding": {
                "x": self.along("x", "x0"), "x2": {"field": "x1"},
                "y": self.along("y", "y0"), "y2": {"field": "y1"},
                "strokeWidth": {"field": "v", "type": "quantitative", "scale": width, "legend": None},
            },
        }  # fmt: skip
        nodes: Spec = {
            "transform": [{"filter": "isValid(datum.s)"}],
            "encoding": {"size": {"field": "s", "type": "quantitative", "scale": area, "legend": None}},
        }  # fmt: skip
        # Pale, so the shares in them can be read, and opaque: links end at the middles of nodes.
        opaque, pale = (
            {
                **nodes,
                "mark": {"type": "circle", "opacity": opacity},
                "encoding": {**nodes["encoding"], "color": colour},
            }
            for opacity, colour in ((1, {"value": "var(--card)"}), (0.5, self.colour))
        )
        shares: Spec = {
            "mark": {"type": "text", "fontSize": 11, "color": "currentColor"},
            "encoding": {"text": {"field": "v", "type": "quantitative", "format": ".0%"}},
        }
        of_links = {"type": "text", "fontSize": 11, "stroke": "var(--card)", "strokeWidth": 4}
        ground: Spec = {**shares, "transform": [{"filter": "isValid(datum.dx)"}], "mark": of_links}
        return [links, opaque, pale, ground, shares]

    def pointed(self) -> Spec:
        """Return the layer that marks the row under the pointer: a ring around a mark, or the edge of a cell."""
        line: Spec = {"strokeWidth": 2, "stroke": "currentColor"}
        if self.panel.matrix is not None:
            return self.panel.matrix.pointed(self.along("x"), self.along("y"), line)
        if self.panel.form == "cells":
            return self._rectangles("datum.o === hover", 0.5, {}, {**line, "fill": "none"})
        return {
            "transform": [{"filter": "datum.o === hover"}],
            "mark": {"type": "point", "filled": False, "size": 130, **line},
        }

    def _rectangles(self, test: str, half: float, colour: Spec, edges: Spec | None = None) -> Spec:
        """Return rectangles around the places of rows that pass a test, with this half-width."""
        ends = [
            {"calculate": f"datum.{axis} {sign} {half}", "as": f"{axis}{place}"}
            for axis in ("x", "y")
            for place, sign in (("0", "-"), ("1", "+"))
        ]
        return {
            "transform": [{"filter": test}, *ends],
            "mark": {"type": "rect", "clip": True, **(edges or {})},
            "encoding": {
                "x": self.along("x", "x0"), "x2": {"field": "x1"},
                "y": self.along("y", "y0"), "y2": {"field": "y1"},
                **colour,
            },
        }  # fmt: skip


def _scale(axis: ChartAxis) -> Spec:
    found: Spec = {"domain": list(axis.ends), "nice": False, "type": axis.scale}
    if axis.scale == "linear":
        found["zero"] = False
    if axis.scale == "symlog":
        positive = [place for place in axis.ticks if place > 0]
        found["constant"] = min(positive, default=1.0)
    return found
