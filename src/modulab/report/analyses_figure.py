"""Figures of the results of analyses: values with their controls, matrices of modules, and values by level."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from modulab.report.categories import HOW_TO_READ, strip_figure
from modulab.report.chart import Chart, ChartAxis, Panel
from modulab.report.figure import ReportFigure
from modulab.report.lines import HOW_TO_READ as LINES
from modulab.report.lines import lines_figure
from modulab.report.style import arm_styles, drawing

_MOST_GROUPS = 8
"""The largest number of kinds of networks shown, the first ones."""
_PANEL = 2.2
_HOW = "arm"


@dataclass(frozen=True)
class Arms:
    """Values of an analysis side by side, or one alone: the ends of their columns, and words for each."""

    ends: dict[str, str]
    title: str
    caption: str


@dataclass(frozen=True)
class Matrix:
    """Values of an analysis by two modules: the pattern of their columns' ends, and words."""

    pattern: re.Pattern[str]
    title: str
    rows: str
    columns: str
    colours: str
    values: str
    """The meaning of the colours."""
    caption: str
    symmetric: bool = False


@dataclass(frozen=True)
class Course:
    """Values of an analysis along a number that the ends of their columns have, and words for them."""

    pattern: re.Pattern[str]
    """Pattern of names: group `x` is the number, `arm` distinguishes lines. Each kind of network has a panel."""
    title: str
    along: str
    value: str
    caption: str
    arms: str


COMPARED = (
    Arms(
        {"rise": "modules cut apart", "rise_random": "random modules cut apart"},
        "Rise of test error when modules are cut apart",
        "The rise of test error when all connections between modules are cut, and when those between random "
        "modules of equal sizes are cut. It is smaller for modules that work independently.",
    ),
    Arms(
        {
            "error": "a trained network's module",
            "error_random": "an untrained module",
            "error_shuffled": "a trained module, shuffled",
        },
        "Test error with transplanted modules",
        "Test error of a module that was copied from a trained network to a new one, which was then trained "
        "further. The controls are an untrained module, and a module with permuted weights.",
    ),
    Arms(
        {"times": "experts found", "times_random": "random experts"},
        "Concentration of the units of one function in one expert",
        "The number of a function's most predictive units in the expert that has most of them, divided by "
        "the number expected by chance; for the experts found, and for random experts of equal sizes.",
    ),
    Arms(
        {"passed": "stages passed"},
        "Stages passed in a curriculum",
        "The number of stages that each network passed.",
    ),
)
COURSES = (
    Course(
        re.compile(r"rise_(?P<arm>(?!random_)\w+)@(?P<x>[\d.]+)"),
        "Rise of test error when each input keeps a share of the experts",
        along="Share of experts kept",
        value="Rise of test error",
        caption="The rise of test error for each router.",
        arms="Experts kept by",
    ),
)
MATRICES = (
    Matrix(
        re.compile(r"module_(?P<row>\d+)_on_(?P<column>\d+)"),
        "Which outputs change when a module's units are disturbed",
        "Units of module",
        "Outputs of module",
        "Blues",
        "Change / standard deviation of the outputs",
        "Change of outputs in standard deviations, averaged over factors and networks. If modules act only "
        "on their own outputs, only the diagonal differs from 0.",
    ),
    Matrix(
        re.compile(r"modules_(?P<row>\d+)_(?P<column>\d+)"),
        "Which modules' inputs act jointly",
        "Inputs of module",
        "Inputs of module",
        "Purples",
        "Share of the outputs' variance",
        "The share of the outputs' variance that depends on the inputs of both modules jointly, averaged "
        "over networks. It is 0 for a sum of functions of one module each.",
        symmetric=True,
    ),
)


def analysis_figures(results: pd.DataFrame, group: str, names: Sequence[str]) -> list[ReportFigure]:
    """Return figures of the named analyses, by a column of results with the kind of each network."""
    kinds = list(dict.fromkeys(results[group].tolist()))[:_MOST_GROUPS]
    results = results.loc[results[group].isin(kinds)]
    found: list[ReportFigure] = []
    for name in names:
        own = [
            str(column).removeprefix(f"{name}/") for column in results if str(column).startswith(f"{name}/")
        ]
        found += [_compared(results, group, name, each) for each in COMPARED if set(each.ends) <= set(own)]
        for each in COURSES:
            points = {end: parts for end in own if (parts := each.pattern.fullmatch(end))}
            if points:
                found.append(_course(results, group, name, each, points))
        for each in MATRICES:
            cells = {end: parts for end in own if (parts := each.pattern.fullmatch(end))}
            if cells:
                found.append(_matrices(results, group, name, each, cells))
    return found


def _compared(results: pd.DataFrame, group: str, name: str, arms: Arms) -> ReportFigure:
    first = f"{name}/{next(iter(arms.ends))}"
    parts = [
        results.assign(**{first: results[f"{name}/{end}"], _HOW: words}) for end, words in arms.ends.items()
    ]
    return strip_figure(
        pd.concat(parts, ignore_index=True), group, [first], name=f"analysis_{name}", title=f"{arms.title} ({name})",
        arm=_HOW if len(arms.ends) > 1 else None, caption=f"{arms.caption} {HOW_TO_READ}",
    )  # fmt: skip


def _course(
    results: pd.DataFrame, group: str, name: str, course: Course, points: Mapping[str, re.Match[str]]
) -> ReportFigure:
    parts: list[pd.DataFrame] = []
    for end, found in points.items():
        own = {
            course.along: float(found["x"]),
            course.value: results[f"{name}/{end}"],
            course.arms: found["arm"].replace("_", " "),
        }
        parts.append(results.assign(**own))
    return lines_figure(
        pd.concat(parts, ignore_index=True), course.along, [course.value], name=f"analysis_{name}",
        title=f"{course.title} ({name})", arm=course.arms, row=group,
        caption=f"{course.caption} {LINES['marks']}", x_scale="linear",
    )  # fmt: skip


def _matrices(
    results: pd.DataFrame, group: str, name: str, matrix: Matrix, cells: dict[str, re.Match[str]]
) -> ReportFigure:
    size = max(int(parts[side]) for parts in cells.values() for side in ("row", "column"))
    means: dict[str, NDArray[np.float64]] = {}
    for kind, own in results.groupby(group, sort=False):
        values = np.full((size, size), np.nan)
        for end, parts in cells.items():
            column = own[f"{name}/{end}"].to_numpy(dtype=float, na_value=np.nan)
            row, across = int(parts["row"]) - 1, int(parts["column"]) - 1
            mean = float(np.nanmean(column)) if np.isfinite(column).any() else np.nan
            values[row, across] = mean
            if matrix.symmetric:
                values[across, row] = mean
        if np.isfinite(values).any():
            means[str(kind)] = values
    figure = _draw_matrices(means, matrix)
    table = pd.DataFrame(
        [
            {
                "analysis": name,
                group.removeprefix("config."): kind,
                "row": row + 1,
                "column": column + 1,
                "value": value,
            }
            for kind, values in means.items()
            for (row, column), value in np.ndenumerate(values)
            if np.isfinite(value)
        ]
    )
    charted = [_charted(kind, values, matrix, _largest(means)) for kind, values in means.items()]
    chart = Chart(charted, arm_styles([""]), legend=False) if charted else None
    return ReportFigure(f"analysis_{name}", f"{matrix.title} ({name})", matrix.caption, figure, table, chart)


def _largest(means: dict[str, NDArray[np.float64]]) -> float:
    return max((float(np.nanmax(values)) for values in means.values()), default=0.0) or 1.0


def _charted(kind: str, values: NDArray[np.float64], matrix: Matrix, largest: float) -> Panel:
    """Return one kind of networks' matrix as a panel, its first row above."""
    rows = pd.DataFrame(
        [
            {"run_id": None, "arm": "", "shown": "mean", "x": column + 0.5, "y": row + 0.5, "value": value}
            for (row, column), value in np.ndenumerate(values)
            if np.isfinite(value)
        ]
    )
    size = len(values)
    ticks = {module + 0.5: str(module + 1) for module in range(size)}
    across = ChartAxis(matrix.columns, "linear", (0.0, float(size)), ticks)
    down = ChartAxis(matrix.rows, "linear", (float(size), 0.0), ticks)
    return Panel(
        kind, across, down, rows, "cells", 0.8, matrix.values, value_ends=(0.0, largest),
        means="Mean over networks",
    )  # fmt: skip


def _draw_matrices(means: dict[str, NDArray[np.float64]], matrix: Matrix) -> Figure:
    across = max(1, min(len(means), 4))
    down = max(1, -(-len(means) // across))
    largest = _largest(means)
    with drawing():
        figure = Figure(figsize=(_PANEL * across + 1.0, (_PANEL + 0.35) * down), layout="constrained")
        panels = np.asarray(figure.subplots(down, across, squeeze=False)).ravel()
        for empty in panels[len(means) :]:
            empty.set_visible(False)
        shown = panels[: len(means)]
        for place, (axes, (kind, values)) in enumerate(zip(shown, means.items(), strict=True)):
            size = len(values)
            image = axes.imshow(
                values, cmap=matrix.colours, vmin=0.0, vmax=largest,
                extent=(0.5, size + 0.5, size + 0.5, 0.5),
            )  # fmt: skip
            for (row, column), value in np.ndenumerate(values):
                if size <= _MOST_GROUPS and np.isfinite(value):
                    colour = "white" if value > 0.6 * largest else "black"
                    axes.text(
                        column + 1,
                        row + 1,
                        f"{value:.2g}",
                        ha="center",
                        va="center",
                        fontsize=7,
                        color=colour,
                    )
            axes.set_title(kind, loc="left")
            axes.set_xlabel(matrix.columns)
            if place % across == 0:
                axes.set_ylabel(matrix.rows)
            for axis in (axes.xaxis, axes.yaxis):
                axis.set_major_locator(MaxNLocator(integer=True, nbins=8))
            if place + 1 == len(means):
                figure.colorbar(image, ax=list(shown), fraction=0.05, shrink=0.8, label=matrix.values)
    return figure
