"""Results on disk: results.parquet, a row a member, and curves.parquet, a row a member, step and measure.

While a run goes on, each population that ends leaves its rows in files of its own below parts/, so that the
price of keeping a result does not grow with the number already kept, and processes on different machines do
not write to one file. `gather` then joins them to the two files. Readers read both, and see every row at any
time. Files are replaced whole; a member's new row replaces its old one. A file
that cannot be read is never overwritten.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import pandas as pd
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq

from modulab.errors import ConfigError
from modulab.results.files import check_links, replacing
from modulab.results.tables import Status, concatenate, failed_measures, merge
from modulab.schema import RENAMED_KEYS

FORMAT_VERSION = 1
"""Goes up when a column changes its meaning; files of another version are refused."""

RESULTS = "results.parquet"
CURVES = "curves.parquet"
PARTS = "parts"
_FORMAT_KEY = b"modulab.format"
_SHAPE_KEY = b"modulab.shape"
_compute: Any = pyarrow.compute  # Its functions are made at run time, so type checkers do not know them.
_DONE = ("completed", "diverged")
_NEEDED = {RESULTS: ("run_id", "status"), CURVES: ("run_id", "step", "measure", "value")}
_RUN_ID = "^[0-9a-f]{1,16}$"
"""A run_id names files: anything else, such as a path, is refused wherever a file says it."""


def save_part(folder: Path, part: str, results: pa.Table, curves: pa.Table | None = None) -> None:
    """Keep the rows of one population in files of their own, in the place of those that it left before.

    Curves go first, so that no row is ever without its curves.
    """
    if curves is not None:
        _write_part(folder / PARTS / f"{part}.{CURVES}", curves)
    _write_part(folder / PARTS / f"{part}.{RESULTS}", results)


def _write_part(path: Path, table: pa.Table) -> None:
    path.parent.mkdir(exist_ok=True)
    try:
        _write(path, table)
    except FileNotFoundError:  # another process joined all parts meanwhile, and removed their folder
        _write_part(path, table)


def gather(folder: Path, planned: pa.Table | None = None) -> None:
    """Join the parts to a folder's two files, and remove them.

    With `planned`, rows of members that are to be trained, those of them that have no row yet are added, and
    members that are missing and no longer planned are dropped.

    Raises: ConfigError where a present file is damaged or of another version; it is left as it is.
    """
    for name in (CURVES, RESULTS):
        files = _files(folder, name)
        parts = files[1:] if (folder / name).exists() else files
        table = _join(files, name) if files else None
        if name == RESULTS and planned is not None:
            table = _with_missing(table, planned)
        if table is not None and (parts or planned is not None):
            _write(folder / name, table)
        for part in parts:
            part.unlink()
    with suppress(OSError):  # not there, or holds something else
        (folder / PARTS).rmdir()


def _with_missing(table: pa.Table | None, planned: pa.Table) -> pa.Table:
    if table is None:
        return planned
    present = table.filter(_compute.not_equal(table["status"], "missing"))
    new = planned.filter(
        _compute.invert(_compute.is_in(planned["run_id"], value_set=present["run_id"].combine_chunks()))
    )
    return merge(present, new) if new.num_rows else present


def statuses(folder: Path) -> dict[str, Status]:
    """Return the status of every member that a folder has a row of, by run_id."""
    files = _files(folder, RESULTS)
    try:
        table = _join(files, RESULTS, ["run_id", "status"]) if files else None
    except FileNotFoundError:  # another process has joined the parts meanwhile
        return statuses(folder)
    if table is None:
        return {}
    return dict(zip(table["run_id"].to_pylist(), table["status"].to_pylist(), strict=True))


def completed(folder: Path) -> set[str]:
    """Return the run_ids that a folder holds as completed or diverged: training again changes neither.

    Those of which a measure raised an error are left out: the measure may have been mended.
    """
    files = _files(folder, RESULTS)
    try:
        told = files and all("skipped" in pq.read_schema(file).names for file in files)
        table = _join(files, RESULTS, ["run_id", "status", "skipped"]) if told else None
    except FileNotFoundError:  # another process has joined the parts meanwhile
        return completed(folder)
    except (OSError, pa.ArrowInvalid):  # which reading the statuses puts into words
        table = None
    if table is None:
        return {run_id for run_id, status in statuses(folder).items() if status in _DONE}
    columns = (table[name].to_pylist() for name in ("run_id", "status", "skipped"))
    return {
        run_id
        for run_id, status, skipped in zip(*columns, strict=True)
        if status in _DONE and not failed_measures(skipped)
    }


def copy_rows(source: Path, target: Path, run_ids: Sequence[str]) -> None:
    """Write the results and curves of some members of one folder to another."""
    wanted = pa.array(run_ids, pa.string())
    for name in (CURVES, RESULTS):
        files = _files(source, name)
        if files:
            table = _join(files, name)
            _write(target / name, table.filter(_compute.is_in(table["run_id"], value_set=wanted)))


def read_rows(
    folder: Path, name: str, run_ids: Sequence[str] | None = None, columns: list[str] | None = None
) -> list[dict[str, Any]]:
    """Return the rows of a folder's results or curves, or those of some members, as plain values."""
    files = _files(folder, name)
    try:
        table = _join(files, name, columns) if files else None
    except FileNotFoundError:  # another process has joined the parts meanwhile
        return read_rows(folder, name, run_ids, columns)
    if table is None:
        return []
    if run_ids is not None:
        table = table.filter(_compute.is_in(table["run_id"], value_set=pa.array(run_ids, pa.string())))
    return table.to_pylist()


def check_folder(folder: Path) -> None:
    """Create a run's folder. Raises: ConfigError if it cannot be written, or holds unreadable results."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".writable.{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ConfigError(
            f"cannot write to the output folder {folder} ({error.strerror}). "
            "Choose another with hydra.run.dir=FOLDER."
        ) from error
    check_links(folder)
    for name in (RESULTS, CURVES):
        for file in _files(folder, name):
            _read(file)


def load_results(path: str | Path) -> pd.DataFrame:
    """Return the results under a path: a run's or sweep's folder, a folder of such folders, or a file.

    A member that stands in several folders appears once, completed rather than failed, else the latest.

    Raises: ConfigError where there are none, or where a file is damaged or of another version.
    """
    return _load(path, RESULTS)


def load_curves(path: str | Path) -> pd.DataFrame:
    """Return curves during training under a path: run_id, step, measure, value."""
    return _load(path, CURVES)


def _load(path: str | Path, name: str) -> pd.DataFrame:
    path = Path(path)
    files = [path] if path.is_file() else _files(path, name)
    if not files:
        files = sorted(
            [*path.rglob(name), *path.rglob(f"{PARTS}/*.{name}")],
            key=lambda file: (file.stat().st_mtime_ns, file),
        )
    if not files:
        reason = "it holds no" if path.exists() else "there is no such path, and so no"
        raise ConfigError(f"{path}: {reason} {name}. Give the folder that modulab train printed.")
    try:
        table = _join(files, name)
    except FileNotFoundError:  # a run at work has joined its parts meanwhile
        return _load(path, name)
    if name == RESULTS:
        table = _readable(table, path)
    types = {pa.int64(): pd.Int64Dtype(), pa.bool_(): pd.BooleanDtype()}
    nullable = {field.type for field in table.schema if table[field.name].null_count}

    def pandas_type(kind: pa.DataType) -> Any:
        return types.get(kind) if kind in nullable else None

    return table.to_pandas(types_mapper=pandas_type)


def _files(folder: Path, name: str) -> list[Path]:
    """Return a folder's own file of a name, where it has one, and then its parts, the latest last."""
    parts = sorted((folder / PARTS).glob(f"*.{name}"), key=lambda file: (file.stat().st_mtime_ns, file))
    return [*([folder / name] if (folder / name).exists() else []), *parts]


def _join(files: Sequence[Path], name: str, columns: list[str] | None = None) -> pa.Table:
    """Return the rows of files, each member once: done rather than failed or missing, else the latest."""
    tables = [_read(file, columns) for file in files]
    if len(tables) == 1:
        return tables[0]
    if name == RESULTS:
        winners: dict[str, tuple[bool, int]] = {}
        for place, table in enumerate(tables):
            rows = zip(table["run_id"].to_pylist(), table["status"].to_pylist(), strict=True)
            for run_id, status in rows:
                winners[run_id] = max(winners.get(run_id, (False, 0)), (status in _DONE, place))
        owners = {run_id: place for run_id, (_, place) in winners.items()}
    else:
        owners = {
            run_id: place
            for place, table in enumerate(tables)
            for run_id in _compute.unique(table["run_id"]).to_pylist()
        }
    kept: list[pa.Table] = []
    for place, table in enumerate(tables):
        own = pa.array([run_id for run_id, owner in owners.items() if owner == place], pa.string())
        kept.append(table.filter(_compute.is_in(table["run_id"], value_set=own)))
    return concatenate(kept)


def _read(path: Path, columns: list[str] | None = None) -> pa.Table:
    try:
        file = pq.ParquetFile(path, page_checksum_verification=True)
        table, shape = file.read(columns), _shape(file.schema_arrow, file.metadata.num_rows)
    except FileNotFoundError:
        raise
    except Exception as error:  # Arrow raises a different kind for each way a file can be broken
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ConfigError(
            f"{path} is damaged and cannot be read ({reason}). It is left as it is. "
            "Restore it from a copy, or move it away and run the same command again."
        ) from error
    metadata = cast("dict[bytes, bytes]", table.schema.metadata or {})
    found = metadata.get(_FORMAT_KEY)
    if found is None:
        raise ConfigError(f"{path} was not written by modulab. Give another path, or move the file away.")
    if found != str(FORMAT_VERSION).encode():
        raise ConfigError(
            f"{path} was written by another version of modulab (file format {found.decode()}; this one reads "
            f"{FORMAT_VERSION}). Use that version for it, or another folder for new runs."
        )
    if metadata.get(_SHAPE_KEY, shape) != shape:
        raise ConfigError(
            f"{path} is damaged: its columns are not those that were written. It is left as it is. "
            "Restore it from a copy, or move it away and run the same command again."
        )
    _check_content(path, table, columns)
    return _with_current_names(table.replace_schema_metadata(None))


def _with_current_names(table: pa.Table) -> pa.Table:
    """Return results whose settings have the names of this version, with the values that these have."""
    for (group, old), (new, values) in RENAMED_KEYS.items():
        first, now = f"config.{group}.{old}", f"config.{group}.{new}"
        names = table.column_names
        if names.count(first) == 1 and now not in names and pa.types.is_boolean(table[first].type):
            named = [None if value is None else values[value] for value in table[first].to_pylist()]
            table = table.set_column(names.index(first), now, pa.array(named, pa.string()))
    return table


def _check_content(path: Path, table: pa.Table, columns: list[str] | None) -> None:
    """Check that a table has the columns that every reader needs, and that its run_ids are names of members."""
    kind = CURVES if path.name.endswith(CURVES) else RESULTS
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
    if name in ("run_id", "status", "error", "skipped", "engine", "device", "measure"):
        return types.is_string(kind) or types.is_large_string(kind)
    return types.is_floating(kind) or types.is_integer(kind)


def _readable(table: pa.Table, path: Path) -> pa.Table:
    """Return results with all columns that readers need; an earlier version did not write some of them.

    Raises: ConfigError for results without seeds, or without a row.
    """
    if "config.seed" not in table.column_names:
        raise ConfigError(f"{path} lacks the column config.seed. Restore it from a copy, or move it away.")
    if table.num_rows == 0:
        raise ConfigError(f"{path} has no rows. Restore it from a copy, or run the sweep's command again.")
    for name in ("error", "skipped", "engine", "device"):
        if name not in table.column_names:
            table = table.append_column(name, pa.nulls(table.num_rows, pa.string()))
    return table


def _shape(schema: pa.Schema, rows: int) -> bytes:
    """Return a hash of what no page's checksum covers: names and types of columns, and the number of rows."""
    columns = [(field.name, str(field.type)) for field in schema]
    return hashlib.sha256(repr((columns, rows)).encode()).hexdigest().encode()


def _write(path: Path, table: pa.Table) -> None:
    with replacing(path) as beside:
        pq.write_table(
            table.replace_schema_metadata(
                {_FORMAT_KEY: str(FORMAT_VERSION), _SHAPE_KEY: _shape(table.schema, table.num_rows)}
            ),
            beside,
            write_page_checksum=True,
        )
