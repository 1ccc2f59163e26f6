"""The figure of an archive of elites: the objective of the best candidate of each cell of the plane of two measures."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure

from modulab.errors import ConfigError
from modulab.report.chart import Chart, ChartAxis, Panel
from modulab.report.figure import ReportFigure
from modulab.report.page import Section
from modulab.report.panels import PANEL_WIDTH
from modulab.report.style import arm_styles, arm_text, choose_measure_scale, drawing, label, measure_label
from modulab.sweep.archive import ReadArchive, read_archive

_MOST_TICKS = 7
"""The largest number of ticks on an axis of the interactive form."""


def archive_section(folder: Path) -> Section | None:
    """Return the section on the archive that a search in this folder ended with, or None if there is none."""
    try:
        archive = read_archive(folder)
    except ConfigError as error:
        return Section("Archive of elites", [str(error)])
    if archive is None:
        return None
    title = f"{label(archive.objective)} of elites"
    return Section("Archive of elites", figures=[archive_figure(archive, name="archive", title=title)])


def archive_figure(archive: ReadArchive, *, name: str, title: str) -> ReportFigure:
    """Draw an archive: cells by the objective of their elites, those without one left grey."""
    with drawing():
        figure = Figure(figsize=(PANEL_WIDTH * 1.6, PANEL_WIDTH * 1.2), layout="constrained")
        norm = draw_archive(figure.add_subplot(), archive)
    chart = Chart([_panel(archive, norm)], arm_styles([""]), legend=False)
    return ReportFigure(name, title, archive_sentence(archive), figure, archive.table, chart)


def _panel(archive: ReadArchive, norm: Normalize) -> Panel:
    """Return an archive as a panel: one cell per cell of the archive, with the settings of its elite in words."""
    table = archive.table
    own = {
        archive.objective,
        *(f"{measure}:{end}" for measure in archive.measures for end in ("low", "high")),
    }
    settings = [str(name) for name in table if name not in own and name not in archive.measures]
    words: list[str] = []
    for row in table.to_dict("records"):
        lines = [
            f"{measure_label(measure)}: {row[f'{measure}:low']:g} to {row[f'{measure}:high']:g}"
            for measure in archive.measures
        ]
        if np.isfinite(row[archive.objective]):
            lines += [f"{name}: {arm_text(row[name])}" for name in settings]
        words.append("\n".join(lines))
    axes: list[ChartAxis] = []
    places: dict[str, list[float]] = {}
    for which, measure in zip(("x", "y"), archive.measures, strict=True):
        edges = _edges(table, measure)
        places[which] = [edges.index(low) + 0.5 for low in table[f"{measure}:low"].tolist()]
        step = -(-len(edges) // _MOST_TICKS)
        ticks = {float(place): f"{edges[place]:.3g}" for place in range(0, len(edges), step)}
        axes.append(ChartAxis(measure_label(measure), "linear", (0.0, len(edges) - 1.0), ticks))
    rows = pd.DataFrame(
        {
            "run_id": None, "arm": "", "shown": "mean", "x": places["x"], "y": places["y"],
            "value": table[archive.objective].to_numpy(dtype=float), "words": words,
        }
    )  # fmt: skip
    return Panel(
        "", axes[0], axes[1], rows, "cells", 0.8, measure_label(archive.objective), isinstance(norm, LogNorm),
        (float(norm.vmin or 0.0), float(norm.vmax or 0.0)), means="Cell and its elite",
        absent="No elite: never reached",
    )  # fmt: skip


def archive_sentence(archive: ReadArchive) -> str:
    """Return sentences on how much of an archive is filled, and on the range of the objective."""
    found = archive.table[archive.objective].to_numpy(dtype=float)
    found = found[np.isfinite(found)]
    sentence = (
        f"Each cell shows its elite, the best of all trials whose two measures lie in it. {len(found)} of "
        f"{len(archive.table)} cells are filled; no trial reached the grey ones."
    )
    ends = list(dict.fromkeys(f"{value:.3g}" for value in (found.min(), found.max()))) if len(found) else []
    if ends:
        sentence += f" {label(archive.objective)} of elites: {' to '.join(ends)}."
    return sentence


def draw_archive(axes: Axes, archive: ReadArchive) -> Normalize:
    """Draw an archive as coloured cells, with a bar that says what colours mean; return their scale."""
    first, second = archive.measures
    columns, rows = _edges(archive.table, first), _edges(archive.table, second)
    cells = archive.table.pivot_table(
        index=f"{second}:low", columns=f"{first}:low", values=archive.objective, dropna=False
    ).to_numpy(dtype=float)
    found = cells[np.isfinite(cells)]
    low, high = (float(found.min()), float(found.max())) if len(found) else (0.0, 1.0)
    is_log = len(found) > 0 and choose_measure_scale(found) == "log"
    norm = LogNorm(low, high) if is_log else Normalize(low, high if high > low else low + 1)
    axes.set_facecolor("0.88")
    image = axes.pcolormesh(
        columns, rows, np.ma.masked_invalid(cells), norm=norm, cmap=mpl.colormaps["cividis"],
        edgecolors="white", linewidth=0.5,
    )  # fmt: skip
    axes.set(
        xlim=(columns[0], columns[-1]), ylim=(rows[0], rows[-1]), xlabel=measure_label(first),
        ylabel=measure_label(second),
    )  # fmt: skip
    axes.spines[:].set_visible(False)
    figure = axes.get_figure()
    assert isinstance(figure, Figure)
    texts = "{x:g}" if is_log else None
    figure.colorbar(image, ax=axes, label=measure_label(archive.objective), pad=0.02, format=texts)
    return norm


def _edges(table: pd.DataFrame, measure: str) -> list[float]:
    lows = sorted(set(table[f"{measure}:low"].tolist()))
    return [*lows, max(table[f"{measure}:high"].tolist())]
