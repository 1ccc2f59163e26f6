"""Texts of a drawing that fit: no label leaves the figure or is longer than its axis, and no tick labels touch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.text import Text

from modulab.report.style import wrapped

_BETWEEN = 0.02
"""Inches between the labels of two ticks, at least."""


def fit_texts(figure: Figure) -> bool:
    """Break labels that are too long, and leave out ticks whose labels touch; return whether anything was changed.

    The figure has been laid out: how long texts are is known only then.
    """
    changed = False
    width, _ = figure.get_size_inches() * figure.dpi
    for axes in figure.axes:
        if not axes.get_visible():
            continue
        box = axes.get_window_extent()
        changed |= _break(axes.yaxis.label, box.height, vertical=True)
        changed |= _break(axes.xaxis.label, max(box.width, 0.5 * width))
        for title in _titles(axes):
            changed |= _break(title, width - max(0.0, title.get_window_extent().x0))
        for axis in (axes.xaxis, axes.yaxis):
            changed |= _thin_out(axis, figure.dpi)
    for legend in figure.legends:
        for text in legend.get_texts():
            changed |= _break(text, width - 0.7 * figure.dpi)
    return changed


def _titles(axes: Axes) -> list[Text]:
    """Return the titles of axes: those in the middle and at their left."""
    return [
        each
        for each in axes.get_children()
        if isinstance(each, Text) and each.get_text() and _is_title(axes, each)
    ]


def _is_title(axes: Axes, text: Text) -> bool:
    return text.get_text() in (axes.get_title(), axes.get_title("left"))


def _break(text: Text, room: float, vertical: bool = False) -> bool:
    """Break each line of a text that is longer than its room, in pixels, where words end."""
    extent = text.get_window_extent()
    length = extent.height if vertical else extent.width
    if not text.get_text() or length <= room:
        return False
    lines = text.get_text().split("\n")
    most = max(8, math.floor(max(map(len, lines)) * room / length))
    text.set_text("\n".join(part for line in lines for part in wrapped(line, most) or [""]))
    return True


def touching(labels: Sequence[Text], room: float) -> bool:
    """Return whether two neighbours among the labels of ticks are nearer to each other than `room` pixels."""
    boxes = [label.get_window_extent() for label in labels if label.get_text() and label.get_visible()]
    return any(
        one.x1 + room > other.x0 and other.x1 + room > one.x0 and one.y1 > other.y0 and other.y1 > one.y0
        for one, other in pairwise(boxes)
    )


def _thin_out(axis: Axis, dpi: float) -> bool:
    """Leave out every second tick until the labels of the others do not touch."""
    if not touching(axis.get_ticklabels(), _BETWEEN * dpi):
        return False
    while touching(axis.get_ticklabels(), _BETWEEN * dpi):
        low, high = sorted(axis.get_view_interval())
        kept = [
            (place, text.get_text())
            for place, text in zip(axis.get_majorticklocs(), axis.get_ticklabels(), strict=True)
            if low <= place <= high
        ][::2]
        axis.set_ticks([place for place, _ in kept], [text for _, text in kept])
        if len(kept) < 3:
            break
    return True
