"""Panels side by side, and one legend below them all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from modulab.report.style import ArmStyle

PANEL_WIDTH = 3.1
PANEL_HEIGHT = 2.5
"""The width of a panel in inches."""

MOST_COLUMNS = 3
_CHARACTER = 0.062
"""Width of a letter of the legend in inches, about."""
_HANDLE = 0.65
"""Width of a line and of the space between columns of the legend in inches, about."""


def panel_grid(
    count: int, columns: int | None = None, height: float = PANEL_HEIGHT, block: int = 0
) -> tuple[Figure, list[Axes]]:
    """Return a figure with `count` panels, row by row, at most three per row unless `columns` says how many.

    After each `block` panels a new row begins, if it is not 0.
    """
    columns = columns or min(count, MOST_COLUMNS if count != 4 else 2)
    block = block or count
    rows_of_block = -(-block // columns)
    rows = rows_of_block * -(-count // block)
    width = PANEL_WIDTH * columns + (1.6 if columns == 1 else 0.6 if columns == 2 else 0)
    figure = Figure(figsize=(width, height * rows + 0.35), layout="constrained")
    axes = np.atleast_1d(np.asarray(figure.subplots(rows, columns, squeeze=False))).ravel()
    places = [place // block * rows_of_block * columns + place % block for place in range(count)]
    for empty in set(range(len(axes))) - set(places):
        axes[empty].set_visible(False)
    return figure, [axes[place] for place in places]


def legend_below(
    figure: Figure, arms: Sequence[str], styles: Mapping[str, ArmStyle], title: str | None
) -> None:
    """Name the arms below the panels, in as many columns as there is room for; one arm needs no name."""
    if len(arms) < 2:
        return
    handles = [
        Line2D(
            [],
            [],
            color=styles[arm].colour,
            marker=styles[arm].marker,
            ls=styles[arm].dashes,
            ms=5,
        )
        for arm in arms
    ]
    columns = _columns(arms, figure.get_figwidth())
    rows = -(-len(arms) // columns)
    figure.set_figheight(figure.get_figheight() + 0.2 * rows + (0.2 if title else 0))
    legend = figure.legend(
        handles,
        [str(place) for place in range(len(arms))],
        loc="outside lower center",
        ncols=columns,
        title=title,
        title_fontsize=8,
        handlelength=3.2,
    )
    # Only now: a legend leaves out labels that begin with an underscore.
    for text, arm in zip(legend.get_texts(), arms, strict=True):
        text.set_text(arm)


def _columns(arms: Sequence[str], width: float) -> int:
    """Return how many columns of a legend fit side by side: so many that the rows are few, but no more than those need.

    A legend fills its columns from top to bottom, and each is as wide as its longest name.
    """
    for rows in range(1, len(arms)):
        columns = -(-len(arms) // rows)
        parts = np.array_split(np.array([len(arm) for arm in arms]), columns)
        if sum(float(part.max()) * _CHARACTER + _HANDLE for part in parts) <= width:
            return columns
    return 1


def share_ends(panels: Sequence[Axes], columns: int) -> None:
    """Let the panels of each column show the same range of values, and of the setting that they are drawn against.

    By itself, a panel with a single value of a setting would have an axis of no length.
    """
    for column in range(columns):
        own = panels[column::columns]
        ends = [axes.get_ylim() for axes in own]
        across = [axes.get_xlim() for axes in own if axes.has_data()]
        for axes in own:
            axes.set_ylim(min(low for low, _ in ends), max(high for _, high in ends))
            if across:
                axes.set_xlim(min(low for low, _ in across), max(high for _, high in across))
