"""One self-contained HTML page: text, tables and figures, readable on wide and narrow screens and on paper."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modulab.report.chart import SHOWN, as_json
from modulab.report.figure import ReportFigure, save_figures
from modulab.results.files import write_whole

if TYPE_CHECKING:
    from markupsafe import Markup
else:
    # It is only needed where a page is rendered.
    Markup = str

_LONG_TEXT = 24
"""The number of letters from which a cell of a table gets room for several words per line."""
_LETTERS_AT_ONE_POINT = 858
"""The number of letters of one point that fit side by side in a printed table, with two between columns."""
_LARGEST_PRINT, _SMALLEST_PRINT = 7.0, 5.2
"""The font sizes in which tables are printed, in points."""
_WORDY_LETTERS = 20
"""The number of letters of a line in a cell of several words."""
_MOST_UNBROKEN = 24
"""The largest number of lines of a table that is printed on one page, so that it leaves little of another one empty."""
_INTERVAL = re.compile(r" (\[[^\]]*\])")
"""The interval in the text of a cell, which may be below the number."""
_DIVISIONS: dict[str, Callable[[str], Sequence[str]]] = {
    "level": lambda cell: [cell], "stacked": _INTERVAL.split, "divided": str.split,
}  # fmt: skip
"""Functions that divide a cell with a number into lines on paper, in the order in which they are tried."""
_JOINTS = re.compile(r"(?<=[./_@])(?=\w)(?<!\d\.)")
"""The positions between parts of a name at which a line may be broken; not within a number."""
LARGEST_SVG = 1_500_000
"""Bytes from which on a figure is embedded as PNG: a page of many marks should still open at once."""


@dataclass(frozen=True)
class PageTable:
    """A table of texts. Columns in which every cell is a number are set flush right."""

    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    notes: Sequence[str] = ()
    """A sentence below each row, across all columns; empty for none."""
    links: Sequence[str] = ()
    """Anchors of the page, to which the first cells of the rows lead."""
    networks: Sequence[str] = ()
    """The run_id of each row, where rows are networks; it is the first cell."""
    settings: Sequence[str] = ()
    """In such a table, the headings of settings."""
    repeat: str = ""
    """For such a table, the command that trains one of the networks again, without the run_id at the end."""
    hints: Sequence[str] = ()
    """Sentences above the table, on screens alone."""
    on_paper: str = ""
    """The text that is printed in place of the table, if any."""

    @cached_property
    def numeric(self) -> list[bool]:
        """Return for each column whether it holds numbers, or numbers with their interval."""
        return [
            any(row[column] != "-" for row in self.rows) and all(_is_number(row[column]) for row in self.rows)
            for column in range(len(self.headings))
        ]

    @cached_property
    def wordy(self) -> list[bool]:
        """Return for each column whether it holds texts that are long enough to need room."""
        return [
            not self.numeric[column] and any(len(row[column]) > _LONG_TEXT for row in self.rows)
            for column in range(len(self.headings))
        ]

    def _letters(self, divide: Callable[[str], Sequence[str]]) -> int:
        """Return how many letters side by side the columns need on paper, cells with numbers divided into lines."""
        total = 0
        for place, (heading, *cells) in enumerate(zip(self.headings, *self.rows, strict=True)):
            lines = divide if self.numeric[place] else str.split
            parts = [*_JOINTS.split(heading), *(part for cell in cells for part in lines(cell))]
            total += 2 + max(
                _WORDY_LETTERS if self.wordy[place] else 0, *(len(part.strip()) for part in parts)
            )
        return total

    @cached_property
    def print_look(self) -> tuple[str, float]:
        """Return a class of the table on paper, and the size in which all columns find room, in points.

        The class is `level` where intervals stand beside their numbers, `stacked` where they are below them, `divided`
        where they have two lines there, and `wide` where no size that can be read leaves words whole.
        """
        for name, divide in _DIVISIONS.items():
            size = _LETTERS_AT_ONE_POINT / self._letters(divide)
            if size >= _SMALLEST_PRINT:
                return name, min(_LARGEST_PRINT, size)
        return "wide", _SMALLEST_PRINT

    @property
    def unbroken(self) -> bool:
        """Return whether the table is short enough to be printed on one page."""
        look, _ = self.print_look
        lines = 1 if look == "level" or not any(self.numeric) else 2 if look == "stacked" else 3
        return len(self.rows) * lines <= _MOST_UNBROKEN


@dataclass(frozen=True)
class Section:
    """A part of a page: facts, paragraphs, figures, tables, commands and further sections, in this order."""

    title: str
    facts: Sequence[tuple[str, str]] = field(default=(), kw_only=True)
    """Names with what is said of them."""
    paragraphs: Sequence[str] = ()
    figures: Sequence[ReportFigure] = ()
    tables: Sequence[PageTable] = ()
    commands: Sequence[str] = ()
    sections: Sequence[Section] = ()
    folded: bool = False
    """Show the title alone, until it is clicked on; on paper, all of it."""
    badge: str = ""
    """A word or two beside the title, such as a verdict."""

    @property
    def anchor(self) -> str:
        """Return the name by which the page links to this section."""
        return "-".join("".join(each if each.isalnum() else " " for each in self.title.lower()).split())


@dataclass(frozen=True)
class Page:
    """The content of a page, from the top: title, lead, facts as name and value, sections."""

    title: str
    lead: Sequence[str] = ()
    facts: Sequence[tuple[str, str]] = ()
    sections: Sequence[Section] = field(default=())
    banner: str = ""
    """A warning at the top of the page."""


def _all_sections(page: Page) -> list[Section]:
    found: list[Section] = []
    waiting = list(page.sections)
    while waiting:
        found.append(waiting.pop(0))
        waiting = [*found[-1].sections, *waiting]
    return found


def page_figures(page: Page) -> list[ReportFigure]:
    """Return all figures of a page in order. Raises: ValueError if two have one name."""
    found = [figure for section in _all_sections(page) for figure in section.figures]
    names = [figure.name for figure in found]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"two figures of a page are called {', '.join(twice)}. Give each its own name.")
    return found


def page_charts(page: Page) -> dict[str, Any]:
    """Return the interactive form of each figure that has one, and the run_ids of their networks, in their order."""
    tables = [table for section in _all_sections(page) for table in section.tables]
    listed = {run_id for table in tables for run_id in table.networks}
    numbers: dict[str, int] = {}
    charts = {
        figure.name: as_json(figure.chart, listed, numbers)
        for figure in page_figures(page)
        if figure.chart is not None
    }
    return {"figures": charts, "networks": list(numbers)}


def render_page(page: Page, folder: Path | None = None) -> str:
    """Return the page as HTML, its figures embedded; with the `folder` they are saved in, read from there."""
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["breakable"] = _breakable
    environment.filters["with_interval"] = _with_interval
    template = environment.from_string(_own_file("template.html"))
    charts = page_charts(page)
    return template.render(
        page=page,
        sources={figure.name: _data_uri(figure, folder) for figure in page_figures(page)},
        linked=folder is not None,
        style=Markup(_own_file("page.css")),
        charts=charts,
        singles=_singles(charts),
        scripts=[Markup(each) for each in _scripts(bool(charts["figures"]))],
    )


def _breakable(name: str) -> Markup:
    """Return a heading that lines may be broken in, after the marks that join the parts of a name."""
    from markupsafe import Markup, escape

    return Markup("<wbr>").join(escape(part) for part in _JOINTS.split(name))


def _with_interval(text: str) -> Markup:
    """Return the text of a cell, with its interval marked, if it has one."""
    from markupsafe import Markup, escape

    before, *rest = _INTERVAL.split(text, maxsplit=1)
    if not rest:
        return escape(text)
    return Markup('{} <span class="interval">{}</span>{}').format(before, *rest)


def _singles(charts: Mapping[str, Any]) -> str:
    """Return what the small marks of charts are, or nothing if there are none."""
    panels = [panel for figure in charts["figures"].values() for panel in figure["panels"]]
    own = [panel["rows"] for panel in panels if SHOWN["member"] in panel["rows"]["m"]]
    if any(number is not None for rows in own for number in rows["n"]):
        return "networks"
    return "settings" if own else ""


def _own_file(name: str) -> str:
    return files("modulab.report").joinpath(name).read_text("utf-8")


def _scripts(with_charts: bool) -> list[str]:
    """Return the scripts of a page: its own, after the libraries that draw charts where there are any."""
    libraries = ["vega/vega.min.js", "vega/vega-lite.min.js"] if with_charts else []
    # Without the line that names a file for debuggers, which is not there.
    found = [_own_file(name).partition("//# sourceMappingURL")[0] for name in (*libraries, "page.js")]
    assert not any("</script" in script for script in found)
    return found


def write_page(page: Page, folder: Path, name: str = "report.html") -> Path:
    """Write the page and, beside it, each figure as PNG, SVG and CSV; return the page's path."""
    save_figures(page_figures(page), folder)
    write_whole(folder / name, render_page(page, folder).encode())
    return folder / name


def _data_uri(figure: ReportFigure, folder: Path | None) -> str:
    def content(kind: str) -> bytes:
        if folder is not None:
            return (folder / f"{figure.name}.{kind}").read_bytes()
        return figure.svg() if kind == "svg" else figure.png()

    drawn = content("svg")
    kind = "svg+xml"
    if len(drawn) > LARGEST_SVG:
        drawn, kind = content("png"), "png"
    return f"data:image/{kind};base64,{b64encode(drawn).decode()}"


def _is_number(text: str) -> bool:
    """Return whether a text is a number, maybe with its interval and a unit of one word, or absent."""
    first, _, others = text.partition(" ")
    try:
        float(first)
    except ValueError:
        return text == "-"
    return len(re.sub(r"\[.*?\]", "", others).split()) < 2
