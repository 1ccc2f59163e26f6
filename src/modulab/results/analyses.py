"""The results of analyses, stored next to the results of a folder: analyses/NAME.analysis.parquet, one row per member.

The files of results are never changed, so no finished measure can be lost. Readers join the columns of
analyses to the rows of the same run_id. Members that are trained later have no row until they are analysed.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pyarrow.compute

from modulab.errors import ConfigError
from modulab.results.parquet import ANALYSIS, read_table, write_table
from modulab.results.tables import concatenate, merge
from modulab.schema import is_reserved

ANALYSES = "analyses"
_compute: Any = pyarrow.compute  # Its functions are made at run time, so type checkers do not know them.
_FIXED = ("run_id", "settings", "skipped", "error")


@dataclass(frozen=True)
class Analysed:
    """The results of an analysis for some members: values by column, or the reason why a member has none."""

    run_ids: Sequence[str]
    values: Mapping[str, Sequence[float]] = field(default_factory=dict[str, "Sequence[float]"])
    skipped: str | None = None
    """Why these members cannot be analysed."""
    error: str | None = None
    """How the analysis failed with them."""


def analysis_path(folder: Path, name: str) -> Path:
    """Return the file in which the results of an analysis are stored."""
    return folder / ANALYSES / f"{name}.{ANALYSIS}"


def save_analysed(folder: Path, name: str, settings: str, found: Sequence[Analysed]) -> None:
    """Store the results of an analysis; a member's new row replaces its earlier one."""
    path = analysis_path(folder, name)
    tables = [_table(each, settings) for each in found]
    if tables:
        new = concatenate(tables)
        write_table(path, merge(read_table(path), new) if path.exists() else new)


def _table(found: Analysed, settings: str) -> pa.Table:
    count = len(found.run_ids)
    text = pa.string()
    columns = {
        "run_id": pa.array(list(found.run_ids), text),
        "settings": pa.array([settings] * count, text),
        "skipped": pa.array([found.skipped] * count, text),
        "error": pa.array([found.error] * count, text),
    }
    columns |= {name: pa.array(list(values), pa.float64()) for name, values in found.values.items()}
    return pa.table(columns)


def analysed(folder: Path, name: str) -> dict[str, str]:
    """Return the settings under which each member was analysed without an error, by run_id."""
    path = analysis_path(folder, name)
    if not path.exists():
        return {}
    rows = read_table(path, ["run_id", "settings", "error"]).to_pylist()
    return {row["run_id"]: row["settings"] for row in rows if row["error"] is None}


def analysis_files(path: Path) -> list[Path]:
    """Return the files of analyses below a folder, in the order of their names."""
    return sorted([*path.glob(f"{ANALYSES}/*.{ANALYSIS}"), *path.glob(f"*/**/{ANALYSES}/*.{ANALYSIS}")])


def analysis_names(path: Path) -> list[str]:
    """Return the names of the analyses that were taken of the networks below a path."""
    found = analysis_files(path) if path.is_dir() else []
    return list(dict.fromkeys(file.name.removesuffix(f".{ANALYSIS}") for file in found))


def with_analyses(results: pa.Table, path: Path) -> pa.Table:
    """Return results with the columns of all analyses below a folder; `skipped` says what members lack, and why.

    A value from training, or from the analysis whose name comes first, takes precedence. Where members were
    analysed under different settings, those that differ are settings of the rows, `config.NAME.FIELD`, so no
    mean is over values computed in different ways.

    Raises: ConfigError for a file that is damaged, or whose columns are not those of an analysis.
    """
    files = analysis_files(path)
    if not files:
        return results
    run_ids = results["run_id"].to_pylist()
    settings: defaultdict[str, list[str | None]] = defaultdict(lambda: [None] * len(run_ids))
    reasons: list[list[str]] = [[] if each is None else [each] for each in results["skipped"].to_pylist()]
    for file in files:
        table = read_table(file)
        rows = {run_id: row for row, run_id in enumerate(table["run_id"].to_pylist())}
        places = pa.array([rows.get(run_id) for run_id in run_ids], pa.int64())
        name = file.name.removesuffix(f".{ANALYSIS}")
        for row, given in enumerate(table["settings"].take(places).to_pylist()):
            settings[name][row] = settings[name][row] or given
        for fixed, words in (("skipped", ""), ("error", "it failed with ")):
            for own, reason in zip(reasons, table[fixed].take(places).to_pylist(), strict=True):
                if reason is not None:
                    own.append(f"{name}: {words}{reason}")
        for column in _value_names(file, table):
            values = table[column].cast(pa.float64()).take(places)
            if column in results.column_names:
                place = results.column_names.index(column)
                values = _compute.coalesce(results[column].cast(pa.float64()), values)
                results = results.set_column(place, column, values)
            else:
                results = results.append_column(column, values)
    for name, given in settings.items():
        for column, values in _differing(name, given).items():
            if column not in results.column_names:
                results = results.append_column(column, pa.array(values, pa.string()))
    skipped = pa.array(["; ".join(each) or None for each in reasons], pa.string())
    results = results.set_column(results.column_names.index("skipped"), "skipped", skipped)
    return concatenate([results])


def _differing(name: str, given: Sequence[str | None]) -> dict[str, list[str | None]]:
    """Return the fields of an analysis in which rows differ, as columns of texts; None for rows without it."""
    known = {text: _fields(text) for text in dict.fromkeys(given) if text}
    fields = dict.fromkeys(field for each in known.values() for field in each)
    return {
        f"config.{name}.{field}": [known[text].get(field) if text else None for text in given]
        for field in fields
        if len({each.get(field) for each in known.values()}) > 1
    }


def _fields(settings: str) -> dict[str, str]:
    """Return the fields of an analysis by dotted name; text in any other form is a single field."""
    try:
        node: Any = json.loads(settings)
    except ValueError:
        node = None
    return dict(_leaves(node)) if isinstance(node, dict) else {"settings": settings}


def _leaves(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in node.items():
        if isinstance(value, dict):
            yield from _leaves(cast("dict[str, Any]", value), f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value if isinstance(value, str) else json.dumps(value)


def _value_names(file: Path, table: pa.Table) -> list[str]:
    names = [name for name in table.column_names if name not in _FIXED]
    wrong = [name for name in names if is_reserved(name) or names.count(name) > 1]
    if wrong:
        raise ConfigError(
            f"{file}: its column {wrong[0]!r} is not one of an analysis. The file was changed by something else. "
            "Restore it from a copy, or move it away and run the analysis again."
        )
    return names


@dataclass(frozen=True)
class Tally:
    """A summary of an analysis of some members: its columns, and the number of members without values by reason."""

    columns: list[str]
    skipped: Counter[str]
    errors: Counter[str]


def found_by(path: Path, name: str, run_ids: Collection[str]) -> Tally:
    """Return the summary of an analysis of some members of all folders below a path."""
    columns: dict[str, None] = {}
    skipped: Counter[str] = Counter()
    errors: Counter[str] = Counter()
    for file in analysis_files(path):
        if file.name == f"{name}.{ANALYSIS}":
            table = read_table(file)
            rows = [row for row in table.to_pylist() if row["run_id"] in run_ids]
            columns |= dict.fromkeys(
                column
                for column in table.column_names
                if column not in _FIXED and any(row[column] is not None for row in rows)
            )
            skipped.update(row["skipped"] for row in rows if row["skipped"] is not None)
            errors.update(row["error"] for row in rows if row["error"] is not None)
    return Tally(list(columns), skipped, errors)
