"""Measures as lines: against a setting, against the level of a perturbation, against training steps."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from numpy.typing import NDArray

from modulab.report.chart import Chart, drawn_panel, panel_rows
from modulab.report.figure import ReportFigure
from modulab.report.panels import PANEL_WIDTH, legend_below, panel_grid, share_ends
from modulab.report.points import axis_values, equals, figure_data, in_order, summary_columns
from modulab.report.style import (
    BEYOND,
    ArmStyle,
    Scale,
    arm_styles,
    arm_text,
    choose_measure_scale,
    choose_setting_scale,
    drawing,
    keep_marks_in_view,
    label,
    set_measure_axis,
    set_setting_axis,
)

Members = Literal["marks", "lines"]
"""How single members are shown: as small marks, or as thin lines through their values."""

HOW_TO_READ = {
    "marks": "Lines join means over seeds, shading is their 95% interval, small marks are single networks.",
    "lines": "Thick lines are means over seeds, shading their 95% interval, thin lines are single networks.",
}
_OF_ONE = "The values of the one network."
_MANY = 2000

_MOST_BESIDE = 4
"""The largest number of panels side by side, with their labels."""


def _columns(measures: int) -> int:
    """Return how many panels stand side by side where each level of a setting has a panel for each measure."""
    if measures <= _MOST_BESIDE:
        return measures
    return next((count for count in range(_MOST_BESIDE, 2, -1) if measures % count == 0), _MOST_BESIDE)


def lines_figure(
    results: pd.DataFrame,
    x: str,
    measures: Sequence[str],
    *,
    name: str,
    title: str,
    arm: str | None = None,
    row: str | None = None,
    styles: Mapping[str, ArmStyle] | None = None,
    caption: str | None = None,
    members: Members = "marks",
    x_scale: Scale | None = None,
    y_scales: Mapping[str, Scale] | None = None,
) -> ReportFigure:
    """Draw measures against a numeric column: one panel per measure, one line per arm, every seed shown.

    `arm` and `row` are columns too; each value of `row` gets panels of its own. Scales that are not given are
    chosen by the values.
    """
    by = [column for column in (row, arm, x) if column is not None]
    data = figure_data(results, measures, by)
    x_key, arm_key, row_key = (
        None if each is None else each.removeprefix("config.") for each in (x, arm, row)
    )
    assert x_key is not None
    arms = in_order(results, arm)
    styles = styles or arm_styles(arms)
    measures = [measure for measure in measures if measure in set(data["measure"])]
    rows = in_order(results, row) if row is not None else [None]
    scale = x_scale or choose_setting_scale(data[x_key])
    parts: list[pd.DataFrame] = []
    beyond = False
    with drawing():
        figure, panels = panel_grid(
            len(measures) * len(rows),
            None if row is None else _columns(len(measures)),
            block=0 if row is None else len(measures),
        )
        inches = 0.7 * figure.get_figwidth() / max(1, round(figure.get_figwidth() / PANEL_WIDTH))
        for place, axes in enumerate(panels):
            level, measure = rows[place // len(measures)], measures[place % len(measures)]
            own = data.loc[data["measure"] == measure]
            y_scale = (y_scales or {}).get(measure) or choose_measure_scale(axis_values(own))
            if x_key != "step":
                set_setting_axis(axes, own[x_key], scale, inches)
            set_measure_axis(axes, measure, axis_values(own), y_scale)
            shown = own if row_key is None else own.loc[equals(own[row_key], level)]
            parts.append(panel_rows(shown, x_key, arm_key))
            for each in arms:
                points = shown if arm_key is None else shown.loc[equals(shown[arm_key], each)]
                if len(points):
                    _draw_arm(axes, points, x_key, styles[arm_text(each)], members)
            beyond |= keep_marks_in_view(axes, axis_values(shown))
            axes.set_xlabel(label(x))
            if row is not None:
                # The names of arms contain their settings.
                axes.set_title(arm_text(level) if row == "arm" else f"{label(row)}: {arm_text(level)}")
        share_ends(panels, len(measures))
        texts = [arm_text(each) for each in arms]
        arm_title = None if arm in (None, "arm") else label(str(arm))
        legend_below(figure, texts, styles, arm_title)
        form = "paths" if members == "lines" else "band"
        drawn = [drawn_panel(axes, rows, form) for axes, rows in zip(panels, parts, strict=True)]
    columns = _columns(len(measures)) if row is not None and len(measures) > 1 else 0
    chart = Chart(
        drawn,
        {text: styles[text] for text in texts},
        arm_title or "",
        columns=columns,
        block=len(measures) if columns else 0,
    )
    if caption is None:
        caption = HOW_TO_READ[members] if len(set(data["run_id"].dropna())) > 1 else _OF_ONE
    caption += f" {BEYOND}" if beyond else ""
    return ReportFigure(name, title, caption, figure, data, chart)


def _draw_arm(axes: Axes, points: pd.DataFrame, x: str, style: ArmStyle, members: Members) -> None:
    singles = points.loc[points["shown"] == "member"]
    summary = summary_columns(points, x).sort_index()
    xs = summary.index.to_numpy(dtype=float)
    few = len(singles) <= _MANY
    axes.fill_between(xs, summary["low"], summary["high"], color=style.colour, alpha=0.2, lw=0)
    if len(xs) == 1:
        axes.vlines(xs, summary["low"], summary["high"], color=style.colour, lw=1.2)
    if members == "lines":
        lines = LineCollection(
            _paths(singles, x), colors=style.colour, alpha=0.35, lw=0.6, rasterized=not few
        )
        axes.add_collection(lines)
        axes.autoscale_view()
        axes.plot(xs, summary["mean"], color=style.colour, ls=style.dashes, marker=style.marker, ms=3)
        return
    axes.plot(xs, summary["mean"], color=style.colour, ls=style.dashes, marker=style.marker, ms=5)
    axes.plot(
        singles[x].to_numpy(dtype=float), singles["value"], ls="", marker=style.marker, ms=2.5, mew=0,
        color=style.colour, alpha=0.5, rasterized=not few,
    )  # fmt: skip


def _paths(singles: pd.DataFrame, x: str) -> list[NDArray[np.float64]]:
    """Return each network's points in order, networks by run_id: sorted once, as there may be very many."""
    ordered = singles.sort_values(["run_id", x])
    run_ids = ordered["run_id"].to_numpy()
    ends = np.flatnonzero(run_ids[1:] != run_ids[:-1]) + 1
    return np.split(ordered[[x, "value"]].to_numpy(dtype=float), ends) if len(ordered) else []


def levels_figure(
    results: pd.DataFrame,
    families: Sequence[str],
    *,
    name: str,
    title: str,
    arm: str | None = None,
    row: str | None = None,
    styles: Mapping[str, ArmStyle] | None = None,
    caption: str | None = None,
    x_label: str = "level",
) -> ReportFigure:
    """Draw measures that were taken at several levels, `family@level`, against the level: one panel per family."""
    parts: list[pd.DataFrame] = []
    keep = [
        column
        for column in ("run_id", "status", "config.seed", arm, row)
        if column is not None and column in results
    ]
    for family in families:
        for column, level in measured_levels(results, family).items():
            parts.append(results[keep].assign(**{family: results[column], x_label: level}))
    long = pd.concat(parts, ignore_index=True)
    return lines_figure(
        long, x_label, families, name=name, title=title, arm=arm, row=row, styles=styles, caption=caption
    )  # fmt: skip


def measured_levels(results: pd.DataFrame, family: str) -> dict[str, float]:
    """Return the columns `family@level` with their levels, in order."""
    found = {
        str(column): float(match[1])
        for column in results
        if (match := re.fullmatch(re.escape(family) + r"@([\d.e+-]+)", str(column)))
    }
    return dict(sorted(found.items(), key=lambda item: item[1]))


def curves_figure(
    curves: pd.DataFrame,
    results: pd.DataFrame,
    *,
    name: str,
    title: str,
    measures: Sequence[str] | None = None,
    arm: str | None = None,
    row: str | None = None,
    styles: Mapping[str, ArmStyle] | None = None,
    caption: str | None = None,
) -> ReportFigure:
    """Draw the curves (run_id, step, measure, value) of members of `results` against training steps."""
    measures = list(curves["measure"].unique()) if measures is None else list(measures)
    chosen = curves.loc[curves["measure"].isin(measures)]
    wide = chosen.pivot_table(index=["run_id", "step"], columns="measure", values="value").reset_index()
    columns = [column for column in ("run_id", "status", "config.seed", arm, row) if column in results]
    joined = results[columns].merge(wide, on="run_id")
    measures = [measure for measure in measures if measure in joined and np.isfinite(joined[measure]).any()]
    return lines_figure(
        joined, "step", measures, name=name, title=title, arm=arm, row=row, styles=styles, caption=caption,
        members="lines", x_scale="linear",
    )  # fmt: skip
