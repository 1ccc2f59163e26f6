"""Tables in Parquet files: written atomically, and checked when read, because results may come from anywhere."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq

from modulab.errors import ConfigError
from modulab.measure_names import current_measure
from modulab.results.files import replacing
from modulab.schema import RENAMED_KEYS

ROWS_AT_ONCE = 1 << 16
"""The number of rows that are read and written at once, so that memory does not grow with the file."""
FORMAT_VERSION = 1
"""Increased when the meaning of a column changes; files of another version are rejected."""

RESULTS = "results.parquet"
CURVES = "curves.parquet"
ANALYSIS = "analysis.parquet"
"""The kinds of files, by the ends of their names."""
_FORMAT_KEY = b"modulab.format"
_SHAPE_KEY = b"modulab.shape"
_SEVERAL = object()
_compute: Any = pyarrow.compute  # Its functions are made at run time, so type checkers do not know them.
_NEEDED = {
    RESULTS: ("run_id", "status"),
    CURVES: ("run_id", "step", "measure", "value"),
    ANALYSIS: ("run_id", "settings", "skipped", "error"),
}
_RUN_ID = "^[0-9a-f]{1,16}$"
"""A run_id is part of file names, so anything else, such as a path, is rejected."""


def read_table(path: Path, columns: list[str] | None = None) -> pa.Table:
    """Return a table, or some of its columns. Raises: ConfigError if it is damaged or of another version."""
    with _in_words(path):
        file = _opened(path)
        table = file.read(columns)
    return _understood(path, file, table, columns)


def read_batches(path: Path, columns: list[str] | None = None) -> Iterator[pa.Table]:
    """Yield a table, or some of its columns, in parts of many rows: one at least, with the types of the columns.

    Raises: ConfigError if it is damaged or of another version.
    """
    with _in_words(path):
        file = _opened(path)
        batches = file.iter_batches(ROWS_AT_ONCE, columns=columns)
        empty = file.schema_arrow.empty_table()
    known = empty.column_names
    wanted = empty if columns is None else empty.select([name for name in columns if name in known])
    yield _understood(path, file, wanted, columns)
    while True:
        with _in_words(path):
            batch = next(batches, None)
            table = None if batch is None else pa.Table.from_batches([batch])
        if table is None:
            return
        yield _understood(path, file, table, columns)


Keep = Callable[[str], bool]
"""Selects the columns to read, by their present names."""


def columns_kept(path: Path, keep: Keep) -> list[str]:
    """Return the columns of a file, under the names that they have there, that are kept under their present names."""
    renamed = {
        f"config.{group}.{old}": f"config.{group}.{new}" for (group, old), (new, _) in RENAMED_KEYS.items()
    }
    with _in_words(path):
        names: list[str] = _opened(path).schema_arrow.names
    return [name for name in names if keep(current_measure(renamed.get(name, name)))]


def count_rows(path: Path) -> int:
    """Return how many rows a file has. Raises: ConfigError if it is damaged."""
    with _in_words(path):
        return _opened(path).metadata.num_rows


def constants(path: Path) -> dict[str, Any]:
    """Return the columns that have one value in all rows of a file, as far as it says so itself, with that value."""
    with _in_words(path):
        metadata = _opened(path).metadata
        groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
        found: dict[str, set[Any]] = {}
        for group in groups:
            for column in map(group.column, range(group.num_columns)):
                found.setdefault(column.path_in_schema, set()).add(_only_value(column))
    return {
        name: value
        for name, values in found.items()
        if len(values) == 1 and (value := values.pop()) is not _SEVERAL
    }


def _only_value(column: pq.ColumnChunkMetaData) -> Any:
    """Return the value of all rows of a part of a column, None if it has none, or `_SEVERAL`."""
    statistics = column.statistics
    if statistics is None or not statistics.has_null_count:
        return _SEVERAL
    if statistics.null_count == column.num_values:
        return None
    is_one = statistics.has_min_max and statistics.null_count == 0 and statistics.min == statistics.max
    return statistics.min if is_one else _SEVERAL


def _opened(path: Path) -> pq.ParquetFile:
    return pq.ParquetFile(path, page_checksum_verification=True)


_FOREIGN = "{} was not written by modulab. Give another path, or move the file away."


def _is_of_another_kind(path: Path) -> bool:
    """Return whether a file does not begin as a Parquet file does; a truncated one still would. A folder does not."""
    if path.is_dir():
        return True
    with path.open("rb") as file:
        start = file.read(4)
    return len(start) == 4 and start != b"PAR1"


@contextmanager
def _in_words(path: Path) -> Generator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path)) from error
    except Exception as error:  # Arrow raises a different kind for each way a file can be broken
        if _is_of_another_kind(path):
            raise ConfigError(_FOREIGN.format(path)) from error
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ConfigError(
            f"{path} is damaged and cannot be read ({reason}). It was not changed. "
            "Restore it from a copy, or move it away and run the same command again."
        ) from error


def _understood(path: Path, file: pq.ParquetFile, table: pa.Table, columns: list[str] | None) -> pa.Table:
    """Return a file's table, or a part of it, with names of this version. Raises: ConfigError for a foreign file."""
    with _in_words(path):
        shape = _shape(file.schema_arrow, file.metadata.num_rows)
    metadata = cast("dict[bytes, bytes]", file.schema_arrow.metadata or {})
    found = metadata.get(_FORMAT_KEY)
    if found is None:
        raise ConfigError(_FOREIGN.format(path))
    if found != str(FORMAT_VERSION).encode():
        raise ConfigError(
            f"{path} was written by another version of modulab (file format {found.decode()}; this one reads "
            f"{FORMAT_VERSION}). Use that version for it, or another folder for new runs."
        )
    if metadata.get(_SHAPE_KEY, shape) != shape:
        raise ConfigError(
            f"{path} is damaged: its columns are not those that were written. It was not changed. "
            "Restore it from a copy, or move it away and run the same command again."
        )
    kind = next((kind for kind in (CURVES, ANALYSIS) if path.name.endswith(kind)), RESULTS)
    _check_content(path, table, columns, kind)
    table = _with_current_measures(table.replace_schema_metadata(None), kind)
    return _with_current_names(table)


def _with_current_measures(table: pa.Table, kind: str) -> pa.Table:
    """Return a table in which measures have the names of this version.

    A row that has a measure under both names, from two versions, has one value: that of the present name, if any.
    """
    if kind == CURVES:
        place = table.column_names.index("measure") if "measure" in table.column_names else None
        if place is None:
            return table
        encoded = table["measure"].combine_chunks().dictionary_encode()
        names = [name and current_measure(name) for name in encoded.dictionary.to_pylist()]
        renamed = pa.array(names, pa.string()).take(encoded.indices)
        return table.set_column(place, "measure", renamed)
    for old in table.column_names:
        new = current_measure(old)
        if new == old:
            continue
        names = table.column_names
        if names.count(old) > 1:
            continue
        if new not in names:
            table = table.rename_columns([new if name == old else name for name in names])
        else:
            both = _compute.coalesce(table[new].cast(pa.float64()), table[old].cast(pa.float64()))
            table = table.set_column(names.index(new), new, both).drop_columns([old])
    return table


def _with_current_names(table: pa.Table) -> pa.Table:
    """Return results whose settings have the names of this version, with the values that these have."""
    for (group, old), (new, values) in RENAMED_KEYS.items():
        first, now = f"config.{group}.{old}", f"config.{group}.{new}"
        names = table.column_names
        if names.count(first) == 1 and now not in names and pa.types.is_boolean(table[first].type):
            named = [None if value is None else values[value] for value in table[first].to_pylist()]
            table = table.set_column(names.index(first), now, pa.array(named, pa.string()))
    return table


def _check_content(path: Path, table: pa.Table, columns: list[str] | None, kind: str) -> None:
    """Check that a table has the columns that every reader needs, and that its run_ids are names of members."""
    missing = [name for name in columns or _NEEDED[kind] if name not in table.column_names]
    if missing:
        raise ConfigError(
            f"{path} lacks the columns {', '.join(missing)}. Restore it from a copy, or move it away."
        )
    if "run_id" not in table.column_names or table.num_rows == 0:
        return
    for name in table.column_names:
        if not _holds_its_type(name, table[name].type):
            raise ConfigError(
                f"{path}: the column {name} holds {table[name].type}, which modulab never writes there. Restore the "
                "file from a copy, or move it away."
            )
    run_ids = table["run_id"]
    valid = pa.types.is_string(run_ids.type) and run_ids.null_count == 0
    if not valid or not _compute.all(_compute.match_substring_regex(run_ids, _RUN_ID)).as_py():
        raise ConfigError(
            f"{path} has a run_id that is not one: modulab writes 16 hexadecimal digits. The file was changed by "
            "something else. Restore it from a copy, or move it away."
        )


def _holds_its_type(name: str, kind: pa.DataType) -> bool:
    """Return whether a column of results or curves may have a type; settings and versions may have any."""
    types = pa.types
    if types.is_null(kind) or name.startswith(("config.", "version.")):
        return True
    if name in ("run_id", "status", "error", "skipped", "engine", "device", "measure", "settings"):
        return types.is_string(kind) or types.is_large_string(kind)
    return types.is_floating(kind) or types.is_integer(kind)


def _shape(schema: pa.Schema, rows: int) -> bytes:
    """Return a hash of what no page's checksum covers: names and types of columns, and the number of rows."""
    columns = [(field.name, str(field.type)) for field in schema]
    return hashlib.sha256(repr((columns, rows)).encode()).hexdigest().encode()


def write_table(path: Path, table: pa.Table) -> None:
    """Write a table, replacing an earlier one."""
    write_batches(path, table.schema, table.num_rows, [table])


def write_batches(path: Path, schema: pa.Schema, rows: int, tables: Iterable[pa.Table]) -> None:
    """Write tables of one schema, with `rows` rows in all, below one another, replacing an earlier file.

    No more than one of them is in memory at a time.
    """
    marked = schema.with_metadata(
        {_FORMAT_KEY: str(FORMAT_VERSION), _SHAPE_KEY: _shape(schema.remove_metadata(), rows)}
    )
    with replacing(path) as beside, pq.ParquetWriter(beside, marked, write_page_checksum=True) as writer:
        for table in tables:
            if table.num_rows:
                writer.write_table(
                    table.replace_schema_metadata(marked.metadata), row_group_size=ROWS_AT_ONCE
                )
