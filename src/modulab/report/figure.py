"""A figure with its data, and how both are stored: the same results give the same files."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import PlaceHolderLayoutEngine
from matplotlib.text import Text

from modulab.report.chart import Chart
from modulab.report.fitting import fit_texts
from modulab.report.style import drawing
from modulab.results.files import write_whole
from modulab.text import printable

DPI = 200
KINDS = ("svg", "png", "csv")
"""The kinds of files in which a figure is stored."""
_SHOWN_DPI = 96
"""The resolution in a notebook, by the inches of a browser."""
_MOST_FITTINGS = 3
"""A broken label takes room from its axis, so others may have to be fitted after it."""


@dataclass(frozen=True)
class ReportFigure:
    """A drawing, its title and caption, and every number in it as a tidy table."""

    name: str
    """The name of the figure's files; unique on a page."""
    title: str
    caption: str
    figure: Figure
    data: pd.DataFrame
    chart: Chart | None = None
    """The interactive form on a page, if there is one."""

    def svg(self) -> bytes:
        """Return the drawing as SVG, text as outlines, so it looks the same without its fonts."""
        return self._drawn("svg", {"Date": None, "Creator": None})

    def png(self) -> bytes:
        """Return the drawing as PNG."""
        return self._drawn("png", {"Software": None})

    def shown(self) -> tuple[bytes, dict[str, int]]:
        """Return the drawing as a notebook shows it: PNG, and the width and height that its texts are made for."""
        width, height = (int(length * _SHOWN_DPI) for length in self.figure.get_size_inches())
        return self.png(), {"width": width, "height": height}

    def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
        return self.shown()

    def __repr__(self) -> str:
        return f"<figure {self.name}: {self.title}>"

    def _drawn(self, kind: str, metadata: dict[str, str | None]) -> bytes:
        # The salt and the empty metadata keep what is random, or of the day, out of the file.
        settings = {"svg.hashsalt": self.name, "svg.fonttype": "path"}
        with drawing(**settings), warnings.catch_warnings():
            # Of letters that the font lacks, an empty box is drawn.
            warnings.filterwarnings("ignore", message=r"Glyph \d+")
            _lay_out(self.figure)
            buffer = BytesIO()
            self.figure.savefig(buffer, format=kind, dpi=DPI, metadata=metadata)
        return buffer.getvalue()


def _lay_out(figure: Figure) -> None:
    """Lay out a figure's texts, once for all of its files: it takes as long as drawing one."""
    if isinstance(figure.get_layout_engine(), PlaceHolderLayoutEngine):
        return  # for another file
    _show_as_text(figure)
    engine = figure.get_layout_engine()
    if engine is None:
        return
    FigureCanvasAgg(
        figure
    )  # It keeps its renderer; the plain canvas makes one for each text that is measured.
    engine.execute(figure)
    for _ in range(_MOST_FITTINGS):
        if not fit_texts(figure):
            break
        _show_as_text(figure)
        engine.execute(figure)
    figure.set_layout_engine("none")


def _show_as_text(figure: Figure) -> None:
    """Let names, which users choose, be drawn as they are: dollar signs, and control characters as escapes."""
    for text in figure.findobj(Text):
        text.set_parse_math(False)
        text.set_text("\n".join(map(printable, text.get_text().split("\n"))))


def save_figures(figures: Iterable[ReportFigure], folder: Path) -> list[Path]:
    """Write each figure as name.png and name.svg, and its data as name.csv beside them; return the files."""
    folder.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    for figure in figures:
        contents = {
            "svg": figure.svg(),
            "png": figure.png(),
            "csv": figure.data.to_csv(index=False).encode(),
        }
        for kind, content in contents.items():
            written.append(folder / f"{figure.name}.{kind}")
            write_whole(written[-1], content)
    return written
