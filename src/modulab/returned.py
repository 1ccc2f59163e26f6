"""What functions of the Python interface return, and how a notebook displays it."""

from __future__ import annotations

import os
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from modulab.python_words import in_python
from modulab.text import printable

if TYPE_CHECKING:
    from modulab.report.figure import ReportFigure
else:
    # Annotations are checked in tests, and importing this takes a second that reading results does not need.
    ReportFigure = object


def html_table(headings: Sequence[str], rows: Sequence[Sequence[str]], lines: Sequence[str] = ()) -> str:
    """Return a table of texts as HTML, with sentences below it. Texts are escaped."""

    def row(texts: Sequence[str], kind: str) -> str:
        cells = (f"<{kind} style='text-align: left'>{_safe(text)}</{kind}>" for text in texts)
        return f"<tr>{''.join(cells)}</tr>"

    head = f"<thead>{row(headings, 'th')}</thead>" if any(headings) else ""
    body = "".join(row(each, "td") for each in rows)
    below = "".join(f"<div>{_safe(line)}</div>" for line in lines)
    return f"<table>{head}<tbody>{body}</tbody></table>{below}"


def _safe(text: str) -> str:
    return escape("\n".join(map(printable, text.split("\n"))))


@dataclass(frozen=True)
class Table:
    """A table as it is displayed, with the lines below it, and a data frame of all its numbers."""

    frame: pd.DataFrame
    """For a summary: settings, numbers of networks by status, and for each measure NAME its mean in the column NAME,
    its 95% interval in NAME.low and NAME.high, and the number of values in NAME.n."""
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    """The cells of the displayed table, as texts."""
    lines: tuple[str, ...] = ()
    """The lines below the table."""

    def __repr__(self) -> str:
        from modulab.results.layout import plain_text

        return "\n".join([plain_text(self.headings, self.rows), *self.lines])

    def html(self) -> str:
        """Return the table as a notebook displays it."""
        return html_table(self.headings, self.rows, self.lines)

    _repr_html_ = html


@dataclass(frozen=True)
class Results:
    """The results of a call: one row per member, curves, and their folder."""

    table: pd.DataFrame
    """One row per network: its run_id, status, settings (`config.KEY`) and measures."""
    curves: pd.DataFrame
    """Measures during training, as run_id, step, measure and value."""
    folder: Path

    @property
    def shown(self) -> Table:
        """Return the table that a notebook displays for these results."""
        return summary_table(self.table, [f"Results: {self.folder}"])

    def __repr__(self) -> str:
        return repr(self.shown)

    def _repr_html_(self) -> str:
        return self.shown.html()


@dataclass(frozen=True)
class Figures(Mapping[str, ReportFigure]):
    """The figures of a report by name; a notebook displays all of them, or one: `figures["measures"]`.

    Each has a matplotlib `figure`, and `data`, a table of every number in it.
    """

    by_name: Mapping[str, ReportFigure]

    def __getitem__(self, name: str) -> ReportFigure:
        return self.by_name[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.by_name)

    def __len__(self) -> int:
        return len(self.by_name)

    def __repr__(self) -> str:
        return "\n".join(f"{name}: {each.title}" for name, each in self.items()) or "no figures"

    def _repr_html_(self) -> str:
        return "".join(map(_figure_html, self.values())) or "<div>no figures</div>"


def _figure_html(figure: ReportFigure) -> str:
    png, size = figure.shown()
    caption = " ".join(text for text in (f"{figure.name}: {figure.title}.", figure.caption) if text)
    return (
        f"<figure><img alt='{escape(figure.title)}' width='{size['width']}' "
        f"src='data:image/png;base64,{b64encode(png).decode()}'><figcaption>{_safe(caption)}</figcaption></figure>"
    )


@dataclass(frozen=True)
class WrittenPage:
    """A page that was written; it can be used as a path."""

    path: Path

    def __fspath__(self) -> str:
        return str(self.path)

    def __repr__(self) -> str:
        return str(self.path)

    def link(self) -> str:
        """Return a link to the page, as a notebook displays it."""
        # A notebook's links start at its own folder, which is the one that its kernel works in.
        return f"<a href='{escape(os.path.relpath(self.path))}' target='_blank'>{_safe(str(self.path))}</a>"

    _repr_html_ = link


@dataclass(frozen=True)
class Verdicts:
    """The verdicts on claims."""

    table: pd.DataFrame
    """One row per claim: its verdict, its first quantity, the effect, and the number of networks."""
    page: WrittenPage
    lines: tuple[str, ...]
    """The lines below the table: about presets that decide nothing, and experiments that failed."""

    def __repr__(self) -> str:
        return "\n".join([self.table.to_string(index=False), *self.lines, f"Report: {self.page}"])

    def _repr_html_(self) -> str:
        rows = [[str(cell) for cell in row] for row in self.table.itertuples(index=False)]
        table = html_table([str(name) for name in self.table], rows, self.lines)
        return f"{table}<div>Report: {self.page.link()}</div>"


def text_table(headings: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> Table:
    """Return a table of texts."""
    return Table(pd.DataFrame(rows, columns=list(headings)), headings, tuple(rows))


def summary_table(
    results: pd.DataFrame,
    lines: Sequence[str] = (),
    *,
    by: Sequence[str] | None = None,
    metrics: Sequence[str] | None = None,
    baseline: Mapping[str, str] | None = None,
    ratio: bool = False,
) -> Table:
    """Return the table of some results, or their comparison with a baseline; `lines` are said below it.

    Raises: ConfigError as `summarise` and `compare` do.
    """
    from modulab.measure_names import arrow_key
    from modulab.results.pairing import compare
    from modulab.results.showing import about, notes
    from modulab.results.summary import cells, member_cells, summarise, to_frame

    every = ["*"] if metrics is None else metrics
    if baseline is None:
        shown, whole = summarise(results, by, metrics), summarise(results, by, every)
        if len(results) == 1 and by is None:
            headings, rows, said = *member_cells(results, metrics), []
        else:
            headings, rows = cells(shown)
            said = ["Means over seeds with 95% intervals; n is the number of completed networks."]
    else:
        shown = compare(results, baseline, by, metrics, ratio)
        whole = compare(results, baseline, by, every, ratio)
        headings, rows = cells(shown)
        said = []
    key = arrow_key([*headings, *(row[0] for row in rows)])
    words = [*said, *([f"{key}."] if key else []), *about(shown), *notes(results), *lines]
    return Table(to_frame(whole), tuple(headings), tuple(map(tuple, rows)), tuple(map(in_python, words)))
