"""What holds of every figure, whatever it shows; the tests of a folder check all that they draw."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import combinations, pairwise

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from modulab.report.figure import ReportFigure
from modulab.report.style import drawing

_RAW = re.compile(r"^[a-z_]+(\.[a-z_]+)+|^[a-z]+_[a-z_]+|mathdefault")
"""Keys and names of configs, and formulas that would be shown as they are written."""


def broken_rules(figure: Figure) -> list[str]:
    """Return what is wrong with a figure that has been drawn."""
    with drawing():
        figure.draw_without_rendering()  # files are drawn at another resolution
    edge, absent = figure.bbox.padded(1), _not_drawn(figure)
    texts = [
        text
        for text in figure.findobj(Text)
        if text.get_visible() and text.get_text().strip() and id(text) not in absent
    ]
    found = [
        f"{text.get_text()!r} is cut off" for text in texts if not _inside(edge, text.get_window_extent())
    ]
    found += [f"{text.get_text()!r} is no word" for text in texts if _RAW.search(text.get_text())]
    for axes in figure.axes:
        if not axes.get_visible():
            continue
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            ticks = [
                tick.label1
                for tick in axis.get_major_ticks()
                if tick.label1.get_text() and low <= tick.get_loc() <= high and tick.label1.get_visible()
            ]
            for one, other in pairwise(ticks):
                if _overlap(one.get_window_extent(), other.get_window_extent()):
                    found.append(f"ticks {one.get_text()} and {other.get_text()} overlap")
        for line in axes.lines:
            if line.get_marker() in ("", "None", None) or line.get_transform() != axes.transData:
                continue
            places = axes.transData.transform(np.asarray(line.get_xydata(), dtype=float))
            places = places[np.isfinite(places).all(axis=1)]
            half = line.get_markersize() / 2 * figure.dpi / 72 - 1
            box = axes.bbox
            cut = (places[:, 0] - half < box.x0) | (places[:, 0] + half > box.x1)
            cut |= (places[:, 1] - half < box.y0) | (places[:, 1] + half > box.y1)
            if cut.any() and line.get_clip_on():
                found.append(f"{cut.sum()} marks of {axes.get_ylabel()!r} are cut")
    labels = [
        each for axes in figure.axes if axes.get_visible() for each in (axes.xaxis.label, axes.yaxis.label)
    ]
    labels = [label for label in labels if label.get_text() and id(label) not in absent]
    for one, other in combinations(labels, 2):
        if _overlap(one.get_window_extent(), other.get_window_extent()):
            found.append(f"labels {one.get_text()!r} and {other.get_text()!r} overlap")
    return found


def _not_drawn(figure: Figure) -> set[int]:
    """Return the texts that are on no picture: of axes that are switched off, and of ticks out of view."""
    found: set[int] = set()
    for axes in figure.axes:
        if not axes.get_visible() or not axes.axison:
            found |= {id(text) for axis in (axes.xaxis, axes.yaxis) for text in axis.findobj(Text)}
        if not axes.get_visible():
            found |= {id(text) for text in axes.findobj(Text)}
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            shown = {
                id(tick)
                for tick in [*axis.get_major_ticks(), *axis.get_minor_ticks()]
                if low <= tick.get_loc() <= high
            }
            ticks = [*axis.majorTicks, *axis.minorTicks]
            found |= {id(text) for tick in ticks if id(tick) not in shown for text in tick.findobj(Text)}
    return found


def _inside(edge: Bbox, box: Bbox) -> bool:
    return box.x0 >= edge.x0 and box.y0 >= edge.y0 and box.x1 <= edge.x1 and box.y1 <= edge.y1


def _overlap(one: Bbox, other: Bbox) -> bool:
    wide = min(one.x1, other.x1) - max(one.x0, other.x0)
    high = min(one.y1, other.y1) - max(one.y0, other.y0)
    return wide > 1 and high > 1


def check_every_figure() -> Iterator[None]:
    """Check every figure that is written while this is open."""
    write = ReportFigure.svg
    broken: list[str] = []

    def checked(figure: ReportFigure) -> bytes:
        content = write(figure)
        broken.extend(f"{figure.name}: {each}" for each in broken_rules(figure.figure))
        if figure.chart is not None:
            looks = [(style.colour, style.marker) for style in figure.chart.styles.values()]
            if len(set(looks)) < len(looks):
                broken.append(f"{figure.name}: two arms have one colour and marker")
        return content

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ReportFigure, "svg", checked)
        yield
    assert not broken, "\n".join(broken)
