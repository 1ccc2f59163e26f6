"""Tables of results on a terminal, with the sentences below them."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Mapping, Sequence

import pandas as pd

from modulab.measure_names import arrow_key, encodable
from modulab.results.layout import fitted, plain_text, terminal_width
from modulab.results.summary import (
    Summary,
    cells,
    lost_measures,
    member_cells,
    problems,
    summarise,
    unfinished,
)
from modulab.text import printable


def show(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table: drawn by rich on a terminal, plain aligned text elsewhere.

    Texts come from files and users: they are shown as they are, never interpreted as markup or control sequences.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    headings = [_shown(heading) for heading in headings]
    rows = [[_shown(cell) for cell in row] for row in rows]
    console = Console()
    if not console.is_terminal:
        print(plain_text(headings, rows))
        return
    table = Table()
    for heading, width in zip(headings, _column_widths(headings, rows, console.width), strict=True):
        table.add_column(Text(heading), overflow="fold", width=width)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    console.print(table)


def _column_widths(
    headings: Sequence[str], rows: Sequence[Sequence[str]], width: int
) -> list[int] | list[None]:
    """Return widths with which a table with borders fits a line and breaks no word; None where there are none, or more.

    Each column has room for its longest word. The rest goes to those whose cells would need the most lines.
    """
    columns = [[text for text in texts if text] for texts in zip(headings, *rows, strict=True)]
    wanted = [max((len(text) for text in texts), default=1) for texts in columns]
    widths = [max((len(word) for text in texts for word in text.split()), default=1) for texts in columns]
    room = width - 3 * len(columns) - 1
    if not sum(widths) <= room < sum(wanted):
        return [None] * len(columns)
    for _ in range(room - sum(widths)):
        most = max(range(len(columns)), key=lambda column: wanted[column] / widths[column])
        widths[most] += 1
    return widths


def _shown(text: str) -> str:
    return encodable(printable(text), sys.stdout.encoding)


def show_results(results: pd.DataFrame, by: Sequence[str] | None, metrics: Sequence[str] | None) -> None:
    """Print the table of some results; one member alone gets one row per measure."""
    for line in [*table_lines(results, by, metrics), *sentences(notes(results))]:
        print(_shown(line))


def sentences(lines: Sequence[str]) -> list[str]:
    """Return what is said below a table as lines that fit the terminal."""
    width = terminal_width()
    return [part for line in lines for part in _wrapped(_shown(line), width)]


def table_lines(results: pd.DataFrame, by: Sequence[str] | None, metrics: Sequence[str] | None) -> list[str]:
    """Return the lines of the table of some results."""
    if len(results) == 1 and by is None:
        return laid_out(*member_cells(results, metrics), 1)
    summary = summarise(results, by, metrics)
    return [*summary_lines(summary), *sentences(pooled_over(summary))]


def summary_lines(summary: Summary) -> list[str]:
    """Return the lines of the table of a summary, without what is said below it."""
    headings, rows = cells(summary)
    _, narrow = cells(summary, narrow=True)
    return laid_out(headings, rows, len(headings) - summary.mean.shape[1], narrow=narrow)


def laid_out(
    headings: Sequence[str],
    rows: Sequence[Sequence[str]],
    fixed: int,
    names_columns: bool = True,
    narrow: Sequence[Sequence[str]] | None = None,
) -> list[str]:
    """Return the lines of a table, no wider than the terminal, with sentences on what it leaves out.

    The first `fixed` columns stay in any case. `narrow` are cells for where there is little room. What has no room is
    named, or counted where headings are not names.
    """
    headings, rows = [_shown(each) for each in headings], _shown_rows(rows)
    width = terminal_width()
    layout = fitted(headings, rows, fixed, width, None if narrow is None else _shown_rows(narrow))
    lines = _wrapped(f"In every row: {settings_words(layout.constant)}.", width) if layout.constant else []
    table = plain_text(layout.headings, layout.rows).split("\n")
    first = len(table) - len(layout.rows)
    lines += table[:first]
    for number, line in enumerate(table[first:]):
        if number in layout.sections:
            lines += _wrapped(f"{settings_words(layout.sections[number])}:", width)
        lines.append(line)
    key = arrow_key([*layout.headings, *(row[0] for row in layout.rows)])
    lines += [f"{key}."] if key else []
    if layout.is_narrow and any("±" in cell for row in layout.rows for cell in row):
        lines.append("± is half the width of the 95% interval.")
    if layout.left_out and names_columns:
        words = f"No room for {', '.join(layout.left_out)}. --metric NAME shows one, --transpose all in rows."
        lines += _wrapped(words, width)
    elif layout.left_out:
        words = f"No room for the last {len(layout.left_out)} of {len(headings)} columns. --csv FILE has all."
        lines += _wrapped(words, width)
    return lines


def _shown_rows(rows: Sequence[Sequence[str]]) -> list[list[str]]:
    return [[_shown(cell) for cell in row] for row in rows]


_UNBROKEN = "\N{NO-BREAK SPACE}"


def settings_words(settings: Mapping[str, str]) -> str:
    """Return settings as words, of which `_wrapped` does not break one from its value."""
    return ", ".join(f"{name} = {text}".replace(" ", _UNBROKEN) for name, text in settings.items())


def _wrapped(words: str, width: int | None) -> list[str]:
    lines = [words]
    if width is not None:
        lines = textwrap.wrap(words, width, break_long_words=False, break_on_hyphens=False)
    return [line.replace(_UNBROKEN, " ") for line in lines]


def pooled_over(summary: Summary) -> list[str]:
    """Return a sentence that names the settings over which a table pools, if it does."""
    if not summary.pooled:
        return []
    return [
        f"Pooled over {', '.join(summary.pooled)}, which --by does not name: "
        "means are over all of its values, intervals over seeds alone."
    ]


def about(summary: Summary) -> list[str]:
    """Return the sentences below a table: what it compares, and what it pools over."""
    lines = pooled_over(summary)
    if summary.compared:
        unpaired = summary.counts["completed"].tolist().count(0)
        lines.insert(0, f"{summary.compared}, paired by seed, with 95% intervals; n is the number of pairs.")
        if unpaired:
            lines.insert(1, f"Rows without any pair of completed networks of equal seed: {unpaired}.")
    return lines


def notes(results: pd.DataFrame) -> list[str]:
    """Return what is to be said of networks without results, and of measures that failed."""
    several = problems(results) if len(results) > 1 else []
    return [*several, *lost_measures(results), *unfinished(results)]
