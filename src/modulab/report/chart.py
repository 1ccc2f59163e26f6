"""The interactive form of a figure: the numbers of its panels, and how a page draws them.

A chart is made from the same table as the drawing of its figure, with the axes and styles of that drawing.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, LogLocator

from modulab.report.matrices import Matrix, colour_stops
from modulab.report.style import ArmStyle, arm_text, on_dark
from modulab.report.vega import look, panel_spec

COLUMNS = (
    "run_id", "arm", "shown", "x", "y", "x_low", "x_high", "y_low", "y_high", "value", "words", "part",
    "x_half", "y_half", "size",
)  # fmt: skip
"""The columns of a panel's rows; each form has those that it needs.

`shown` is one of `SHOWN`. `words` are lines that say where a row is, in place of its x, where that is no value of the
axis. Rows of one `part` of a guide are joined. In a graph, links reach as far as `x_half` and `y_half` to both sides,
and nodes are of a `size`.
"""

SHOWN = {"member": 0, "mean": 1, "limit": 2, "guide": 3}
"""What a row is, and its number on a page: one network's value; a mean with the ends of its interval; the upper end of
an estimate that is 0, which has no place on a logarithmic axis; a point of a line to compare with."""

MOST_POINTS = 4000
"""Single networks' values in one panel of a page: of more, a sample is shown, so the page stays responsive."""

Form = Literal["band", "steps", "paths", "front", "strip", "cells", "regions", "matrix", "graph"]
"""Means as a line with its interval shaded; the same, in steps; the same, with a line for each network; as marks with
bars, joined; as marks with bars; as cells of a plane, coloured by their value; or by their arm, with lines and
networks above them. And of one network, a `Matrix`; or nodes and the links between them."""

FIELDS = {
    "x": "x", "y": "y", "xl": "x_low", "xh": "x_high", "yl": "y_low", "yh": "y_high", "v": "value", "p": "part",
    "dx": "x_half", "dy": "y_half", "s": "size",
}  # fmt: skip
"""The short names on a page of the columns of `COLUMNS` that contain numbers."""

_PLANES = ("cells", "matrix")

Swatch = Literal["area", "line", "mark"]

MEANS = "Mean and its 95% interval"


@dataclass(frozen=True)
class ChartAxis:
    """An axis as it was drawn: its title, scale, ends, and ticks with their texts, or none for the usual ones."""

    title: str
    scale: str
    ends: tuple[float, float]
    ticks: Mapping[float, str] = field(default_factory=dict[float, str])


@dataclass(frozen=True)
class Panel:
    """One plane of a chart."""

    title: str
    x: ChartAxis
    y: ChartAxis
    rows: pd.DataFrame
    form: Form
    height: float
    """The height of the plane, relative to its width."""
    values: str = ""
    """What the colours of cells mean, or what the marks of a plane of places are of; the values of networks and cells
    are then in the column `value`."""
    log_values: bool = False
    value_ends: tuple[float, float] = (0.0, 1.0)
    means: str = MEANS
    """Words for a row that does not belong to a single network."""
    members: str = ""
    """Words for a single mark that is not a network."""
    absent: str = ""
    """The text for a cell without a value."""
    heading: str = ""
    """Above this panel and all that follow it, where others are of something else."""
    matrix: Matrix | None = None
    """The matrix that the panel shows instead of rows."""
    run_id: str = ""
    """The run_id of the network that the panel shows, if it shows one."""


@dataclass(frozen=True)
class Chart:
    """The panels of a figure, and how each of its arms looks."""

    panels: Sequence[Panel]
    styles: Mapping[str, ArmStyle]
    arm_title: str = ""
    legend: bool = True
    """Whether there is a legend: not if an axis names the arms."""
    swatches: Mapping[str, Swatch] = field(default_factory=dict[str, Swatch])
    """How the legend shows arms that have not both a line and a mark."""
    columns: int = 0
    """Panels side by side where there is room, of a figure whose rows of panels are values of a setting; 0 for any."""
    block: int = 0
    """The number of panels of one such value, after which a new row begins; 0 if rows may begin anywhere."""
    on_white: bool = False
    """Whether the background is also white on dark screens, because of the colours."""
    bars: Mapping[str, str] = field(default_factory=dict[str, str])
    """The meaning of colours from 0 to 1, and their colour map of matplotlib."""


def drawn_axis(axes: Axes, which: str, ticks: Mapping[float, str] | None = None) -> ChartAxis:
    """Return an axis of a drawing; ticks that were chosen for its values come along."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    low, high = axes.get_xlim() if which == "x" else axes.get_ylim()
    if ticks is None:
        ticks = {}
        if isinstance(axis.get_major_locator(), FixedLocator | LogLocator):
            places = np.asarray(axis.get_majorticklocs(), dtype=float)
            inside = places[(places >= min(low, high)) & (places <= max(low, high))]
            texts = axis.get_major_formatter().format_ticks(inside.tolist())
            ticks = dict(zip(inside.tolist(), texts, strict=True))
    return ChartAxis(axis.get_label_text(), axis.get_scale(), (float(low), float(high)), ticks)


def drawn_panel(
    axes: Axes,
    rows: pd.DataFrame,
    form: Form,
    height: float = 0.8,
    y_ticks: Mapping[float, str] | None = None,
) -> Panel:
    """Return a panel with the title and the axes of a drawing."""
    x, y = drawn_axis(axes, "x"), drawn_axis(axes, "y", y_ticks)
    return Panel(axes.get_title(), x, y, rows, form, height)


def panel_rows(data: pd.DataFrame, x: str, arm: str | None) -> pd.DataFrame:
    """Return the rows of a panel whose horizontal axis is a column of a figure's data, and whose height its value."""
    singles = data.loc[data["shown"] == "member"]
    named = data.assign(arm="" if arm is None else data[arm].map(arm_text))
    members = pd.DataFrame(
        {
            "run_id": singles["run_id"],
            "arm": named.loc[singles.index, "arm"],
            "shown": "member",
            "x": singles[x].astype(float),
            "y": singles["value"],
        }
    )
    means = spread_means(named.assign(x=data[x].astype(float)), ["arm", "x"])
    return pd.concat([members, means.rename(columns={"mean": "y", "low": "y_low", "high": "y_high"})])


def spread_means(data: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
    """Return the mean and the ends of its interval beside one another, a row for each combination of keys."""
    summaries = data.loc[data["shown"] != "member"]
    wide = summaries.pivot_table(index=list(keys), columns="shown", values="value", sort=False)
    found = wide.reindex(columns=["mean", "low", "high"]).reset_index()
    found.columns = [str(name) for name in found.columns]
    return found.assign(shown="mean")


def as_json(chart: Chart, listed: Collection[str], numbers: dict[str, int]) -> dict[str, Any]:
    """Return a chart as plain values, of the networks that the page lists; of all of them where it lists none.

    `numbers` gives each network the number by which the page calls it, and gets those that it lacks.
    """
    shown = [_sampled(panel.rows, listed) for panel in chart.panels]
    # Cells show no marks of single networks.
    marked = [place for place, panel in enumerate(chart.panels) if panel.form not in _PLANES]
    counts = [
        len({run_id for place in marked for run_id in parts[place]["run_id"].dropna()})
        for parts in (shown, [panel.rows for panel in chart.panels])
    ]
    note = (
        f"Marks of {counts[0]:,} networks of {counts[1]:,}, a random sample." if counts[0] < counts[1] else ""
    )
    return {
        "arms": [
            {
                "name": name,
                "colour": {"light": style.colour, "dark": on_dark(style.colour)},
                "swatch": chart.swatches.get(name, ""),
                **look(style),
            }
            for name, style in chart.styles.items()
        ],
        "armTitle": chart.arm_title,
        "legend": chart.legend and len(chart.styles) > 1,
        "columns": chart.columns,
        "block": chart.block,
        "onWhite": chart.on_white,
        "note": note,
        "bars": [{"title": title, "colours": colour_stops(name)} for title, name in chart.bars.items()],
        "panels": [
            {
                "title": panel.title,
                "form": panel.form,
                "x": panel.x.title,
                "y": panel.y.title,
                "value": panel.values,
                "means": panel.means,
                "members": panel.members,
                "absent": panel.absent,
                "heading": panel.heading,
                "ratio": panel.height,
                "network": _number_of(panel.run_id, listed, numbers),
                "matrix": None if panel.matrix is None else panel.matrix.as_json(),
                "spec": panel_spec(panel, list(chart.styles.values())),
                "rows": _columns(rows, panel, list(chart.styles), numbers),
            }
            for panel, rows in zip(chart.panels, shown, strict=True)
        ],
    }


def _number_of(run_id: str, listed: Collection[str], numbers: dict[str, int]) -> int | None:
    """Return the number of the network that a panel is of, if it is of one that the page lists."""
    if not run_id or (listed and run_id not in listed):
        return None
    return numbers.setdefault(run_id, len(numbers))


def _sampled(rows: pd.DataFrame, listed: Collection[str]) -> pd.DataFrame:
    """Return all that is no network, and as many as there is room for: those of the least run_ids, which are hashes."""
    kept = (rows["shown"] != "member").to_numpy() | rows["run_id"].isna().to_numpy()
    if listed:
        rows = rows.loc[kept | rows["run_id"].isin(list(listed)).to_numpy(), :]
        kept = (rows["shown"] != "member").to_numpy() | rows["run_id"].isna().to_numpy()
    if len(rows) - kept.sum() <= MOST_POINTS:
        return rows
    sizes = Counter(rows.loc[~kept, "run_id"].tolist())
    names = sorted(sizes)
    found = bisect_right(list(accumulate(sizes[name] for name in names)), MOST_POINTS)
    return rows.loc[kept | rows["run_id"].isin(names[:found]).to_numpy(), :]


def _columns(
    rows: pd.DataFrame, panel: Panel, arms: Sequence[str], numbers: dict[str, int]
) -> dict[str, list[Any]]:
    """Return the columns that have values, by their short names; networks and arms by their numbers."""
    places = {name: place for place, name in enumerate(arms)}
    found: dict[str, list[Any]] = {
        "n": [
            numbers.setdefault(run_id, len(numbers)) if isinstance(run_id, str) else None
            for run_id in rows["run_id"]
        ],
        "a": [places[arm] for arm in rows["arm"]],
        "m": [SHOWN[shown] for shown in rows["shown"]],
    }
    for short, name in FIELDS.items():
        if name in rows and not all(rows[name].isna()):
            axis = {"x": panel.x, "y": panel.y}.get(name)
            # A mark at 0 of a logarithmic axis is drawn at the axis's end.
            least = min(axis.ends) if axis is not None and axis.scale == "log" else -math.inf
            found[short] = [_six_digits(max(value, least)) for value in rows[name].astype(float).tolist()]
    if "words" in rows:
        found["w"] = [words if isinstance(words, str) else None for words in rows["words"]]
    return found


def _six_digits(value: float) -> float | None:
    """Return a number in more digits than the page shows of any; None if there is none."""
    return float(f"{value:.6g}") if math.isfinite(value) else None
