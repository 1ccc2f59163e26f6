"""Measures by category: every seed as a mark, the mean and its interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from modulab.report.chart import Chart, Panel, drawn_panel
from modulab.report.figure import ReportFigure
from modulab.report.panels import PANEL_WIDTH, legend_below, panel_grid
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
    set_measure_axis,
)

HOW_TO_READ = "Small marks are single networks, large ones means over seeds, bars their 95% intervals."
_ROW_HEIGHT = 0.3
_NEAREST = 0.5
"""The least distance of a mark from the middle, where a bar would cover it, as a share of the spread."""
_MANY = 2000


def strip_figure(
    results: pd.DataFrame,
    category: str,
    measures: Sequence[str],
    *,
    name: str,
    title: str,
    arm: str | None = None,
    styles: Mapping[str, ArmStyle] | None = None,
    caption: str = HOW_TO_READ,
    x_scales: Mapping[str, Scale] | None = None,
) -> ReportFigure:
    """Draw measures by a column of categories: one panel per measure, one line of marks per category (and arm)."""
    by = [category] if arm is None else [category, arm]
    data = figure_data(results, measures, by)
    key, arm_key = category.removeprefix("config."), None if arm is None else arm.removeprefix("config.")
    categories = in_order(results, category)
    arms = in_order(results, arm)
    styles = styles or arm_styles(arms if arm is not None else categories)
    measures = [measure for measure in measures if measure in set(data["measure"])]
    names = {float(row): arm_text(level) for row, level in enumerate(categories)}
    drawn: list[Panel] = []
    beyond = False
    with drawing():
        height = 0.75 + _ROW_HEIGHT * len(categories) * max(1.0, 0.7 * len(arms))
        figure, panels = panel_grid(len(measures), height=height)
        for place, (axes, measure) in enumerate(zip(panels, measures, strict=True)):
            own = data.loc[data["measure"] == measure]
            scale = (x_scales or {}).get(measure) or choose_measure_scale(axis_values(own))
            set_measure_axis(axes, measure, axis_values(own), scale, axis="x")
            parts: list[pd.DataFrame] = []
            for row, level in enumerate(categories):
                for number, each in enumerate(arms):
                    points = own.loc[equals(own[key], level)]
                    points = points if arm_key is None else points.loc[equals(points[arm_key], each)]
                    shift = 0.8 * ((number + 0.5) / len(arms) - 0.5)
                    text = arm_text(level if arm is None else each)
                    parts.append(_placed(points, row + shift, 0.28 / len(arms)).assign(arm=text))
                    _draw_strip(axes, parts[-1], styles[text])
            beyond |= keep_marks_in_view(axes, axis_values(own), "x")
            first = place % _columns(panels) == 0
            axes.set_yticks(
                range(len(categories)), [arm_text(level) for level in categories] if first else []
            )
            axes.tick_params(axis="y", length=0)
            axes.set_ylim(len(categories) - 0.5, -0.5)
            axes.grid(axis="x", color="0.9", lw=0.6)
            axes.set_axisbelow(True)
            shape = height / PANEL_WIDTH
            drawn.append(drawn_panel(axes, pd.concat(parts), "strip", shape, y_ticks=names))
        if category != "arm":
            panels[0].set_ylabel(label(category))
        if arm is not None:
            legend_below(
                figure, [arm_text(each) for each in arms], styles, None if arm == "arm" else label(arm)
            )
    shown = list(names.values()) if arm is None else [arm_text(each) for each in arms]
    title_of_arms = "" if arm in (None, "arm") else label(str(arm))
    chart = Chart(drawn, {text: styles[text] for text in shown}, title_of_arms, legend=arm is not None)
    caption += f" {BEYOND}" if beyond else ""
    return ReportFigure(name, title, caption, figure, data, chart)


def _columns(panels: Sequence[Axes]) -> int:
    specification = panels[0].get_subplotspec()
    assert specification is not None
    return specification.get_gridspec().ncols


def _placed(points: pd.DataFrame, place: float, spread: float) -> pd.DataFrame:
    """Return one line of marks as rows of a panel: networks beside its place, and their mean in the middle."""
    singles = points.loc[points["shown"] == "member"]
    # Marks are spread by their order of coming, so the same results give the same picture.
    side = np.linspace(spread, _NEAREST * spread, (len(singles) + 1) // 2)
    both = np.concatenate([-side, side[::-1]])[: len(singles)]
    shifts = both if len(singles) > 1 else np.zeros(len(singles))
    marks = singles[["run_id", "seed", "shown"]].assign(x=singles["value"], y=place + shifts)
    ends = {"mean": "x", "low": "x_low", "high": "x_high"}
    summary = points.loc[points["shown"] != "member"].set_index("shown")["value"].rename(ends)
    if summary.empty:
        return marks
    return pd.concat([marks, pd.DataFrame([{**summary, "shown": "mean", "y": place}])])


def _draw_strip(axes: Axes, rows: pd.DataFrame, style: ArmStyle) -> None:
    singles = rows.loc[rows["shown"] == "member"]
    axes.plot(
        singles["x"], singles["y"], ls="", marker=style.marker, ms=3, mew=0, color=style.colour, alpha=0.5,
        rasterized=len(singles) > _MANY,
    )  # fmt: skip
    for mean in rows.loc[rows["shown"] == "mean"].to_dict("records"):
        if "x_low" in mean:
            ends = [mean["x_low"], mean["x_high"]]
            axes.plot(ends, [mean["y"]] * 2, color=style.colour, lw=2, solid_capstyle="butt")
        axes.plot(
            [mean["x"]],
            [mean["y"]],
            ls="",
            marker=style.marker,
            ms=6,
            color=style.colour,
            mec="white",
            mew=0.8,
        )
