"""Which rows of a table of results a command names: by their numbers, or by the beginnings of their run_ids."""

from __future__ import annotations

import re
from collections.abc import Iterable

import pandas as pd

from modulab.errors import ConfigError
from modulab.schema import suggest

_RANGE = re.compile(r"(\d+)-(\d+)")


def row_number(results: pd.DataFrame, member: str, option: str = "--member") -> int:
    """Return the place of a row that is given by its number or by the beginning of its run_id.

    Raises: ConfigError, which names the option, where there is none or are several.
    """
    if member.isdecimal() and int(member) < len(results):
        return int(member)
    found = [
        row for row, name in enumerate(results["run_id"]) if len(member) >= 4 and name.startswith(member)
    ]
    if len(found) != 1:
        reason = "several rows have" if found else "no row has"
        hint = "" if found else suggest(member, results["run_id"]) if len(member) > 6 else ""
        raise ConfigError(
            f"{option} {member}: {reason} that number or run_id. Give a number from 0 to {len(results) - 1}, "
            f"or the first letters of a run_id. {hint}".rstrip()
        )
    return found[0]


def row_numbers(results: pd.DataFrame, members: Iterable[str], option: str) -> dict[int, str]:
    """Return the places of rows, each with what named it: rows as `row_number` takes them, or ranges such as 0-9.

    Raises: ConfigError, which names the option, for rows that are not there and a range that begins after its end.
    """
    found: dict[int, str] = {}
    for each in members:
        ends = _RANGE.fullmatch(each)
        first, last = (each, each) if ends is None else ends.groups()
        rows = [row_number(results, end, option) for end in (first, last)]
        if rows[0] > rows[1]:
            raise ConfigError(f"{option} {each}: it begins after its end. Write {last}-{first}.")
        found |= dict.fromkeys(range(rows[0], rows[1] + 1), each)
    return found
