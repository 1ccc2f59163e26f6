"""The interactive form of a figure: what its panels show, number by number, and how a page draws them.

A chart is made of the same table as the drawing of its figure, and takes axes and styles from that drawing.
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

from modulab.report.style import ArmStyle, arm_text, on_dark
from modulab.report.vega import look, panel_spec

COLUMNS = ("run_id", "arm", "shown", "x", "y", "x_low", "x_high", "y_low", "y_high", "value")
"""Of a panel's rows. `shown` is `member` for one network's value, `mean` for a mean with the ends of its interval."""

MOST_POINTS = 4000
"""Single networks' values in one panel of a page: of more, a sample is shown, so that the page stays responsive."""

Form = Literal["band", "paths", "front", "strip", "cells"]
"""Means as a line with its interval shaded; the same, with a line for each network; as marks with bars, joined; as
marks with bars; as cells of a plane."""

FIELDS = {
    "x": "x", "y": "y", "xl": "x_low", "xh": "x_high", "yl": "y_low", "yh": "y_high", "v": "value",
}  # fmt: skip
"""What a page calls the columns of `COLUMNS` that hold numbers."""


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
    """Of its plane, relative to its width."""
    values: str = ""
    """What the colours of cells mean; the values of networks and cells are then in the column `value`."""
    log_values: bool = False
    value_ends: tuple[float, float] = (0.0, 1.0)


@dataclass(frozen=True)
class Chart:
    """The panels of a figure, and how each of its arms looks."""

    panels: Sequence[Panel]
    styles: Mapping[str, ArmStyle]
    arm_title: str = ""
    legend: bool = True
    """Whether its arms need names: where an axis names them, they do not."""


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
    counts = [
        len({run_id for rows in parts for run_id in rows["run_id"].dropna()})
        for parts in (shown, [panel.rows for panel in chart.panels])
    ]
    note = (
        f"Marks of {counts[0]:,} networks of {counts[1]:,}, a random sample." if counts[0] < counts[1] else ""
    )
    return {
        "arms": [
            {"name": name, "colour": {"light": style.colour, "dark": on_dark(style.colour)}, **look(style)}
            for name, style in chart.styles.items()
        ],
        "armTitle": chart.arm_title,
        "legend": chart.legend and len(chart.styles) > 1,
        "note": note,
        "panels": [
            {
                "title": panel.title,
                "form": panel.form,
                "x": panel.x.title,
                "y": panel.y.title,
                "value": panel.values,
                "ratio": panel.height,
                "spec": panel_spec(panel, list(chart.styles.values())),
                "rows": _columns(rows, panel, list(chart.styles), numbers),
            }
            for panel, rows in zip(chart.panels, shown, strict=True)
        ],
    }


def _sampled(rows: pd.DataFrame, listed: Collection[str]) -> pd.DataFrame:
    """Return means, and as many networks as there is room for: those of the least run_ids, which are hashes."""
    if listed:
        means = (rows["shown"] == "mean").to_numpy()
        rows = rows.loc[means | rows["run_id"].isin(list(listed)).to_numpy(), :]
    means = (rows["shown"] == "mean").to_numpy()
    if len(rows) - means.sum() <= MOST_POINTS:
        return rows
    sizes = Counter(rows["run_id"].dropna().tolist())
    names = sorted(sizes)
    kept = bisect_right(list(accumulate(sizes[name] for name in names)), MOST_POINTS)
    return rows.loc[means | rows["run_id"].isin(names[:kept]).to_numpy(), :]


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
        "m": [int(shown == "mean") for shown in rows["shown"]],
    }
    for short, name in FIELDS.items():
        if name in rows and not all(rows[name].isna()):
            axis = panel.x if name.startswith("x") else panel.y
            # Logarithms of what an interval of an error may reach below 0 do not exist: it ends with the axis.
            least = min(axis.ends) if axis.scale == "log" and name != "value" else -math.inf
            found[short] = [_six_digits(max(value, least)) for value in rows[name].astype(float).tolist()]
    return found


def _six_digits(value: float) -> float | None:
    """Return a number in more digits than the page shows of any; None where there is none."""
    return float(f"{value:.6g}") if math.isfinite(value) else None
