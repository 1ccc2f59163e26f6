"""The layout of a table of texts: to the width of a terminal, with rows and columns exchanged, or as Markdown."""

from __future__ import annotations

import itertools
import shutil
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

_GAP = 2
_SHORTEST = 8
"""The number of characters to which texts of settings are cut if nothing else makes a table narrow enough."""
_MEASURES = 3
"""So many measures are shown, if there are ways to make room for them."""

Columns = list[list[str]]
"""Each column's heading, and below it its texts."""


@dataclass(frozen=True)
class Layout:
    """A table that fits, and what it leaves out."""

    headings: list[str]
    """A heading may have several lines."""
    rows: list[list[str]]
    constant: dict[str, str] = field(default_factory=dict[str, str])
    """Columns with a single value, which is stated once instead."""
    left_out: list[str] = field(default_factory=list[str])
    """Headings of columns that do not fit."""
    sections: dict[int, dict[str, str]] = field(default_factory=dict[int, dict[str, str]])
    """The settings that are said above a row for it and those below, instead of in columns, by the row's number."""
    is_narrow: bool = False
    """Whether cells are the `narrow` ones."""


def terminal_width() -> int | None:
    """Return how many characters a line of the terminal has, or None if the output goes elsewhere."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def plain_text(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return aligned columns, two spaces apart."""
    above = [heading.split("\n") for heading in headings]
    height = max(map(len, above), default=1)
    lines = [[parts[place] if place < len(parts) else "" for parts in above] for place in range(height)]
    lines += [list(row) for row in rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(headings))]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def transposed(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> tuple[list[str], list[list[str]]]:
    """Return a table with rows and columns exchanged: the first heading, and below it the others, begin the rows."""
    lines = [list(line) for line in zip(headings, *rows, strict=True)]
    return lines[0], lines[1:]


def markdown(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table in Markdown, as GitHub reads it."""

    def line(cells: Iterable[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    return "\n".join([line(headings), "|" + "---|" * len(headings), *map(line, rows)])


def fitted(
    headings: Sequence[str],
    rows: Sequence[Sequence[str]],
    fixed: int,
    width: int | None,
    narrow: Sequence[Sequence[str]] | None = None,
) -> Layout:
    """Return a table that is no wider than `width`, if that can be: numbers are never broken.

    The first `fixed` columns stay, unless all rows have the same text there, which is then said once. What is too wide
    gets headings of two lines. Where fewer than three of the other columns fit, cells become the `narrow` ones, and the
    first of the fixed columns become headings of sections. Then columns are left out from the right, all but one, and
    last texts of the fixed columns are cut. Without a width, the table is as given.
    """
    if width is None:
        return Layout(list(headings), [list(row) for row in rows])
    columns = _columns(headings, rows)
    constant = {
        column[0]: column[1] for column in columns[:fixed] if len(rows) > 1 and len(set(column[1:])) == 1
    }
    if len(constant) == len(columns):
        constant = {}
    settings = [column for column in columns[:fixed] if column[0] not in constant]
    measures = columns[fixed:]
    names = [column[0] for column in settings]
    if _width([*settings, *measures]) > width:
        settings, measures = _with_broken_headings(settings), _with_broken_headings(measures)
    is_narrow = narrow is not None and _width([*settings, *measures[:_MEASURES]]) > width
    if narrow is not None and is_narrow:
        measures = _with_broken_headings(_columns(headings, narrow)[fixed:])
    told = _told_in_sections(settings, measures, width)
    sections = _sections(names[:told], settings[:told])
    settings = settings[told:]
    left_out: list[str] = []
    while len(measures) > 1 and _width([*settings, *measures]) > width:
        left_out.insert(0, columns[fixed + len(measures) - 1][0])
        measures.pop()
    longest = max((_width([column]) for column in settings), default=0)
    while _width([*settings, *measures]) > width and longest > _SHORTEST:
        longest -= 1
        settings = [[column[0], *(_cut(text, longest) for text in column[1:])] for column in settings]
    kept = [*settings, *measures]
    table = [list(line) for line in zip(*kept, strict=True)]
    return Layout([column[0] for column in kept], table[1:], constant, left_out, sections, is_narrow)


def _columns(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> Columns:
    return [[heading, *(row[place] for row in rows)] for place, heading in enumerate(headings)]


def _with_broken_headings(columns: Columns) -> Columns:
    return [[_broken(column[0]), *column[1:]] for column in columns]


def _told_in_sections(settings: Columns, measures: Columns, width: int) -> int:
    """Return how many of the settings, as few as possible, sections should state to make room for measures."""
    for wanted in range(min(_MEASURES, len(measures)), 0, -1):
        for count in range(len(settings)):
            if _width([*settings[count:], *measures[:wanted]]) <= width and _are_grouped(settings[:count]):
                return count
    return 0


def _are_grouped(settings: Columns) -> bool:
    """Return whether rows that have the same settings follow one another, and there are several of most."""
    rows = list(zip(*(column[1:] for column in settings), strict=True))
    number = len(set(rows))
    return not settings or (2 * number <= len(rows) and number == len(list(itertools.groupby(rows))))


def _sections(names: Sequence[str], settings: Columns) -> dict[int, dict[str, str]]:
    sections: dict[int, dict[str, str]] = {}
    before: tuple[str, ...] = ()
    for number, values in enumerate(zip(*(column[1:] for column in settings), strict=True)):
        if values != before:
            sections[number] = dict(zip(names, values, strict=True))
            before = values
    return sections


def _width(columns: Sequence[Sequence[str]]) -> int:
    return (
        sum(max(len(line) for text in column for line in text.split("\n")) + _GAP for column in columns)
        - _GAP
    )


def _broken(heading: str) -> str:
    """Return a heading on two lines: the group of a setting or measure, and its name there."""
    first = min((place for mark in "./" if (place := heading.find(mark)) > 0), default=-1)
    return f"{heading[: first + 1]}\n{heading[first + 1 :]}" if first > 0 else heading


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[: longest - 2]}.."
