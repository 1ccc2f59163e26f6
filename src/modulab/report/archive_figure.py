"""The figure of an archive of elites: how good the best candidate of each cell is, over the plane of two measures."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure

from modulab.errors import ConfigError
from modulab.report.figure import ReportFigure
from modulab.report.page import Section
from modulab.report.panels import PANEL_WIDTH
from modulab.report.style import choose_measure_scale, drawing, measure_label
from modulab.sweep.archive import ReadArchive, read_archive


def archive_section(folder: Path) -> Section | None:
    """Return the section on the archive that a search in this folder ended with, or None where there is none."""
    try:
        archive = read_archive(folder)
    except ConfigError as error:
        return Section("Archive of elites", [str(error)])
    if archive is None:
        return None
    title = f"{measure_label(archive.objective)} of elites"
    return Section("Archive of elites", figures=[archive_figure(archive, name="archive", title=title)])


def archive_figure(archive: ReadArchive, *, name: str, title: str) -> ReportFigure:
    """Draw an archive: cells by the objective of their elites, those without one left grey."""
    with drawing():
        figure = Figure(figsize=(PANEL_WIDTH * 1.6, PANEL_WIDTH * 1.2), layout="constrained")
        draw_archive(figure.add_subplot(), archive)
    return ReportFigure(name, title, archive_sentence(archive), figure, archive.table)


def archive_sentence(archive: ReadArchive) -> str:
    """Return what an archive says: how much of it is filled, and how the objective varies over it."""
    found = archive.table[archive.objective].to_numpy(dtype=float)
    found = found[np.isfinite(found)]
    sentence = (
        f"Each cell shows the best of all trials whose two measures lie in it: {len(found)} of "
        f"{len(archive.table)} cells are filled, and grey ones were never reached."
    )
    if len(found):
        words = measure_label(archive.objective)
        sentence += f" {words} of elites goes from {found.min():.3g} to {found.max():.3g}."
    return sentence


def draw_archive(axes: Axes, archive: ReadArchive) -> None:
    """Draw an archive as coloured cells, with a bar that says what colours mean."""
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


def _edges(table: pd.DataFrame, measure: str) -> list[float]:
    lows = sorted(set(table[f"{measure}:low"].tolist()))
    return [*lows, max(table[f"{measure}:high"].tolist())]
