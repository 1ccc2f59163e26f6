"""Two quantities at once: one measure against another, and a measure over the plane of two settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure

from modulab.report.chart import Chart, ChartAxis, Panel, drawn_panel, spread_means
from modulab.report.figure import ReportFigure
from modulab.report.panels import PANEL_HEIGHT, PANEL_WIDTH, legend_below, panel_grid
from modulab.report.points import axis_values, equals, figure_data, in_order
from modulab.report.style import (
    BEYOND,
    ArmStyle,
    Scale,
    arm_styles,
    arm_text,
    choose_measure_scale,
    drawing,
    keep_marks_in_view,
    label,
    measure_label,
    set_measure_axis,
)

_MANY = 2000


def front_figure(
    results: pd.DataFrame,
    x: str,
    y: str,
    *,
    name: str,
    title: str,
    arm: str | None = None,
    order: str | None = None,
    styles: Mapping[str, ArmStyle] | None = None,
    caption: str | None = None,
    x_scale: Scale | None = None,
    y_scale: Scale | None = None,
) -> ReportFigure:
    """Draw one measure against another: one colour per arm, every seed, and means joined in the order of a strength.

    Bars are 95% intervals of the means. `order` is a setting; without it, an arm has one mean.
    """
    by = [column for column in (arm, order) if column is not None]
    data = figure_data(results, [x, y], by)
    arm_key, order_key = (None if each is None else each.removeprefix("config.") for each in (arm, order))
    arms = in_order(results, arm)
    styles = styles or arm_styles(arms)
    of = {measure: data.loc[data["measure"] == measure] for measure in (x, y)}
    with drawing():
        figure, (axes,) = panel_grid(1, height=3.2)
        axes_of: tuple[tuple[str, str, Scale | None], ...] = (("x", x, x_scale), ("y", y, y_scale))
        for axis, measure, scale in axes_of:
            values = axis_values(of[measure])
            set_measure_axis(axes, measure, values, scale or choose_measure_scale(values), axis)
        parts: list[pd.DataFrame] = []
        for each in arms:
            own = [part if arm_key is None else part.loc[equals(part[arm_key], each)] for part in of.values()]
            parts.append(_front_rows(own[0], own[1], order_key).assign(arm=arm_text(each)))
            _draw_front(axes, parts[-1], styles[arm_text(each)])
        ends = [keep_marks_in_view(axes, axis_values(of[measure]), axis) for axis, measure, _ in axes_of]
        names = [arm_text(each) for each in arms]
        legend_below(figure, names, styles, _legend_title(arm))
        drawn = drawn_panel(axes, pd.concat(parts), "front", 0.7)
    joined = "" if order is None else f" joined in the order of {_lower(label(order))},"
    text = f"Small marks are single networks; large ones are means over seeds,{joined} with 95% intervals."
    chart = Chart([drawn], {each: styles[each] for each in names}, _legend_title(arm) or "")
    text = text if caption is None else caption
    text += f" {BEYOND}" if any(ends) else ""
    return ReportFigure(name, title, text, figure, data, chart)


def _legend_title(arm: str | None) -> str | None:
    return None if arm in (None, "arm") else label(str(arm))


def _lower(words: str) -> str:
    return words[:1].lower() + words[1:]


def _front_rows(xs: pd.DataFrame, ys: pd.DataFrame, order: str | None) -> pd.DataFrame:
    """Return one arm as rows of a panel: its networks, and its means in the order of a strength."""
    keys = ["run_id", "seed", "shown"] if order is None else ["run_id", "seed", "shown", order]
    singles = xs.loc[xs["shown"] == "member"].merge(ys.loc[ys["shown"] == "member"], on=keys)
    members = singles.rename(columns={"value_x": "x", "value_y": "y"})
    over = "order" if order is None else order
    means = [
        spread_means(part if order is not None else part.assign(order=0.0), [over])
        .rename(columns={"mean": axis, "low": f"{axis}_low", "high": f"{axis}_high"})
        for axis, part in (("x", xs), ("y", ys))
    ]  # fmt: skip
    joined = means[0].merge(means[1], on=[over, "shown"]).sort_values(over, kind="stable")
    return pd.concat([members, joined])


def _draw_front(axes: Axes, rows: pd.DataFrame, style: ArmStyle) -> None:
    singles, means = (rows.loc[rows["shown"] == shown] for shown in ("member", "mean"))
    axes.plot(
        singles["x"], singles["y"], ls="", marker=style.marker, ms=3, mew=0, color=style.colour,
        alpha=0.5, rasterized=len(singles) > _MANY,
    )  # fmt: skip
    for mean in means.to_dict("records"):
        for ends in ("x_low", "x_high"), ("y_low", "y_high"):
            if np.isfinite(mean[ends[0]]):
                across = [mean[ends[0]], mean[ends[1]]] if ends[0] == "x_low" else [mean["x"]] * 2
                up = [mean[ends[0]], mean[ends[1]]] if ends[0] == "y_low" else [mean["y"]] * 2
                axes.plot(across, up, color=style.colour, lw=0.8)
    axes.plot(
        means["x"], means["y"],
        color=style.colour, ls=style.dashes, lw=1.2, marker=style.marker, ms=6, mec="white", mew=0.8,
    )  # fmt: skip


def map_figure(
    results: pd.DataFrame,
    x: str,
    y: str,
    measures: Sequence[str],
    *,
    name: str,
    title: str,
    panel: str | None = None,
    caption: str | None = None,
) -> ReportFigure:
    """Draw measures over the plane of two settings: the mean over seeds in each cell, below it the interval.

    With `panel`, a column, each of its values gets a map of its own, on one scale of colours per measure.
    """
    by = [column for column in (panel, x, y) if column is not None]
    data = figure_data(results, measures, by)
    measures = [measure for measure in measures if measure in set(data["measure"])]
    levels = in_order(results, panel)
    columns, rows = in_order(results, x), in_order(results, y)
    keys = (x.removeprefix("config."), y.removeprefix("config."))
    with drawing():
        width, height = _map_width(columns), max(PANEL_HEIGHT, 0.42 * len(rows) + 1.0)
        across = len(measures) if panel is not None else min(len(measures), 3 if width < 3.6 else 2)
        down = -(-len(measures) * len(levels) // across)
        figure = Figure(figsize=(width * across + 0.3, height * down), layout="constrained")
        panels = np.asarray(figure.subplots(down, across, squeeze=False)).ravel()
        for empty in panels[len(measures) * len(levels) :]:
            empty.set_visible(False)
        drawn: list[Panel] = []
        for place, axes in enumerate(panels[: len(measures) * len(levels)]):
            level, measure = levels[place // len(measures)], measures[place % len(measures)]
            own = data.loc[data["measure"] == measure]
            means = own.loc[own["shown"] == "mean", "value"]
            norm = _norm(means)
            if panel is not None:
                own = own.loc[equals(own[panel.removeprefix("config.")], level)]
            _draw_map(axes, own, keys, (columns, rows), norm, measure_label(measure))
            axes.set_xlabel(label(x))
            axes.set_ylabel(label(y))
            if panel is not None:
                axes.set_title(f"{label(panel)}: {arm_text(level)}")
            drawn.append(_map_panel(axes, own, keys, (columns, rows), norm, measure_label(measure)))
    text = "Each cell is a mean over seeds, with its 95% interval below it where there is room."
    chart = Chart(
        drawn, arm_styles([""]), legend=False, columns=across if panel is not None and across > 1 else 0
    )
    return ReportFigure(name, title, text if caption is None else caption, figure, data, chart)


def _map_panel(
    axes: Axes,
    data: pd.DataFrame,
    keys: tuple[str, str],
    values: tuple[Sequence[object], Sequence[object]],
    norm: Normalize,
    measure: str,
) -> Panel:
    """Return a map as a panel: a cell at each pair of places, and the networks that are in it."""
    place_of = [{value: place for place, value in enumerate(each)} for each in values]
    placed = data.assign(
        arm="",
        x=[place_of[0][value] + 0.5 for value in data[keys[0]]],
        y=[place_of[1][value] + 0.5 for value in data[keys[1]]],
    )
    means = spread_means(placed, ["arm", "x", "y"])
    means = means.rename(columns={"mean": "value", "low": "y_low", "high": "y_high"})
    rows = pd.concat([placed.loc[placed["shown"] == "member"], means])
    ticks = [{place + 0.5: arm_text(value) for value, place in each.items()} for each in place_of]
    ends = [(0.0, float(len(each))) for each in values]
    x = ChartAxis(axes.get_xlabel(), "linear", ends[0], ticks[0])
    y = ChartAxis(axes.get_ylabel(), "linear", ends[1], ticks[1])
    return Panel(
        axes.get_title(), x, y, rows, "cells", 0.8, measure, isinstance(norm, LogNorm),
        (float(norm.vmin or 0.0), float(norm.vmax or 0.0)),
    )  # fmt: skip


def _map_width(columns: Sequence[object]) -> float:
    """Return the width of a map with these columns, in inches; about three fifths of it are cells."""
    return max(PANEL_WIDTH, 0.62 * len(columns) + 1.2)


def _norm(values: pd.Series) -> Normalize:
    low, high = float(values.min()), float(values.max())
    if choose_measure_scale(values) == "log":
        return LogNorm(low, high)
    return Normalize(low, high if high > low else low + 1)


def _short(value: float) -> str:
    """Return two digits that count, `0.10` and not `0.1`; large numbers as they are."""
    return f"{value:#.2g}".rstrip(".") if abs(value) < 100 else f"{value:.3g}"


def _draw_map(
    axes: Axes,
    data: pd.DataFrame,
    keys: tuple[str, str],
    values: tuple[Sequence[object], Sequence[object]],
    norm: Normalize,
    measure: str,
) -> None:
    columns, rows = values
    cells = {kind: np.full((len(rows), len(columns)), np.nan) for kind in ("mean", "low", "high")}
    for each in data.loc[data["shown"] != "member"].to_dict("records"):
        cells[each["shown"]][rows.index(each[keys[1]]), columns.index(each[keys[0]])] = each["value"]
    image = axes.pcolormesh(
        np.arange(len(columns) + 1), np.arange(len(rows) + 1), cells["mean"], norm=norm, cmap="cividis",
        edgecolors="white", linewidth=1,
    )  # fmt: skip
    colours = mpl.colormaps["cividis"](norm(np.nan_to_num(cells["mean"], nan=norm.vmin or 0.0)))
    for row, column in zip(*np.nonzero(np.isfinite(cells["mean"])), strict=True):
        ink = "white" if colours[row, column, :3] @ (0.299, 0.587, 0.114) < 0.5 else "black"
        text = _short(float(cells["mean"][row, column]))
        ends = float(cells["low"][row, column]), float(cells["high"][row, column])
        interval = f"{_short(ends[0])} to {_short(ends[1])}"
        if np.isfinite(ends[0]) and len(interval) * 0.037 < 0.62 * _map_width(columns) / len(columns):
            axes.text(
                column + 0.5,
                row + 0.25,
                interval,
                ha="center",
                va="center",
                color=ink,
                size=5,
            )
            axes.text(column + 0.5, row + 0.6, text, ha="center", va="center", color=ink, size=7.5)
        else:
            axes.text(column + 0.5, row + 0.5, text, ha="center", va="center", color=ink, size=7)
    axes.set_xticks(np.arange(len(columns)) + 0.5, [arm_text(value) for value in columns])
    axes.set_yticks(np.arange(len(rows)) + 0.5, [arm_text(value) for value in rows])
    if sum(len(arm_text(value)) + 1.5 for value in columns) * 0.075 > PANEL_WIDTH * 0.6:
        axes.tick_params(axis="x", rotation=45)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    figure = axes.get_figure()
    assert isinstance(figure, Figure)
    # The usual texts of logarithmic ticks are formulas, and names are never interpreted as those.
    texts = "{x:g}" if isinstance(norm, LogNorm) else None
    figure.colorbar(image, ax=axes, label=measure, pad=0.02, format=texts)
