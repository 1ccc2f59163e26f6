"""Measures by category: every seed as a mark, the mean and its interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from modulab.report.figure import ReportFigure
from modulab.report.panels import legend_below, panel_grid
from modulab.report.points import axis_values, equals, figure_data, in_order
from modulab.report.style import (
    ArmStyle,
    Scale,
    arm_styles,
    arm_text,
    choose_measure_scale,
    drawing,
    label,
    set_measure_axis,
)

HOW_TO_READ = "Small marks are single networks, large ones means over seeds, bars their 95% intervals."
_ROW_HEIGHT = 0.3
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
    with drawing():
        height = 0.75 + _ROW_HEIGHT * len(categories) * max(1.0, 0.7 * len(arms))
        figure, panels = panel_grid(len(measures), height=height)
        for place, (axes, measure) in enumerate(zip(panels, measures, strict=True)):
            own = data.loc[data["measure"] == measure]
            scale = (x_scales or {}).get(measure) or choose_measure_scale(axis_values(own))
            set_measure_axis(axes, measure, axis_values(own), scale, axis="x")
            for row, level in enumerate(categories):
                for number, each in enumerate(arms):
                    points = own.loc[equals(own[key], level)]
                    points = points if arm_key is None else points.loc[equals(points[arm_key], each)]
                    shift = 0.8 * ((number + 0.5) / len(arms) - 0.5)
                    style = styles[arm_text(level if arm is None else each)]
                    _draw_strip(axes, points, row + shift, 0.28 / len(arms), style)
            first = place % _columns(panels) == 0
            axes.set_yticks(
                range(len(categories)), [arm_text(level) for level in categories] if first else []
            )
            axes.tick_params(axis="y", length=0)
            axes.set_ylim(len(categories) - 0.5, -0.5)
            axes.grid(axis="x", color="0.9", lw=0.6)
            axes.set_axisbelow(True)
        if category != "arm":
            panels[0].set_ylabel(label(category))
        if arm is not None:
            legend_below(
                figure, [arm_text(each) for each in arms], styles, None if arm == "arm" else label(arm)
            )
    return ReportFigure(name, title, caption, figure, data)


def _columns(panels: Sequence[Axes]) -> int:
    specification = panels[0].get_subplotspec()
    assert specification is not None
    return specification.get_gridspec().ncols


def _draw_strip(axes: Axes, points: pd.DataFrame, place: float, spread: float, style: ArmStyle) -> None:
    values = points.loc[points["shown"] == "member", "value"].to_numpy(dtype=float)
    if not values.size:
        return
    # Marks are spread by their order of coming, so that the same results give the same picture.
    shifts = np.linspace(-spread, spread, values.size) if values.size > 1 else np.zeros(1)
    axes.plot(
        values, place + shifts, ls="", marker=style.marker, ms=3, mew=0, color=style.colour, alpha=0.5,
        rasterized=values.size > _MANY,
    )  # fmt: skip
    shown = points.set_index("shown")["value"]
    if "low" in shown.index:
        axes.plot(
            [shown["low"], shown["high"]], [place, place], color=style.colour, lw=2, solid_capstyle="butt"
        )
    axes.plot(
        [shown["mean"]], [place], ls="", marker=style.marker, ms=6, color=style.colour, mec="white", mew=0.8
    )
