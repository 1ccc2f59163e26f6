"""Results on disk: results.parquet, one row per member, and curves.parquet, one row per member, step and measure.

While a run goes on, each population that ends leaves its rows in files of its own below parts/, so that the
price of keeping a result does not grow with the number already kept, and processes on different machines do
not write to one file. `gather` then joins them to the two files. Readers read both, and see every row at any
time. What is found in finished networks afterwards has files of its own (see `analyses`). Files are replaced
whole; a member's new row replaces its old one. A file that cannot be read is never overwritten.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq

from modulab.errors import ConfigError
from modulab.results.analyses import with_analyses
from modulab.results.files import check_links
from modulab.results.parquet import CURVES, RESULTS, read_table, write_table
from modulab.results.tables import Status, concatenate, failed_measures, merge

PARTS = "parts"
FOLDER = "config.folder"
"""The column of the results of several folders that says which one a row is from: it is grouped by like a setting."""
_compute: Any = pyarrow.compute  # Its functions are made at run time, so type checkers do not know them.
_DONE = ("completed", "diverged")


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
        write_table(path, table)
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
            write_table(folder / name, table)
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
        known = files and all("skipped" in pq.read_schema(file).names for file in files)
        table = _join(files, RESULTS, ["run_id", "status", "skipped"]) if known else None
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


def engines(folder: Path) -> set[str]:
    """Return the engines that the rows of a folder name, those of members that are still to be trained among them."""
    files = _files(folder, RESULTS)
    try:
        named = [file for file in files if "engine" in pq.read_schema(file).names]
        columns = [_compute.unique(read_table(file, ["engine"])["engine"]) for file in named]
    except FileNotFoundError:  # another process has joined the parts meanwhile
        return engines(folder)
    return {name for column in columns for name in column.to_pylist() if name is not None}


def copy_rows(source: Path, target: Path, run_ids: Sequence[str]) -> None:
    """Write the results and curves of some members of one folder to another."""
    wanted = pa.array(run_ids, pa.string())
    for name in (CURVES, RESULTS):
        files = _files(source, name)
        if files:
            table = _join(files, name)
            write_table(target / name, table.filter(_compute.is_in(table["run_id"], value_set=wanted)))


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
            read_table(file)


def load_results(path: str | Path, analyses: bool = False) -> pd.DataFrame:
    """Return the results under a path: a run's or sweep's folder, a folder of such folders, or a file.

    A member that stands in several folders appears once, completed rather than failed, else the latest. With
    `analyses`, what `modulab analyse` found there is in further columns.

    Raises: ConfigError where there are none, or where a file is damaged or of another version.
    """
    return _as_frame(_read(Path(path), RESULTS, analyses))


def load_folders(paths: Sequence[Path]) -> pd.DataFrame:
    """Return the results under several paths, with the path that each row is from in the column `FOLDER`.

    Raises: ConfigError as `load_results` does, and for a path that is given twice.
    """
    if len({path.resolve() for path in paths}) < len(paths):
        raise ConfigError(f"{' '.join(map(str, paths))}: a folder is given twice. Name each once.")
    tables = [_read(path, RESULTS, analyses=True) for path in paths]
    return _as_frame(
        concatenate(
            [
                table.append_column(FOLDER, pa.array([str(path)] * table.num_rows, pa.string()))
                for table, path in zip(tables, paths, strict=True)
            ]
        )
    )


def load_curves(path: str | Path) -> pd.DataFrame:
    """Return curves during training under a path: run_id, step, measure, value."""
    return _as_frame(_read(Path(path), CURVES))


def _read(path: Path, name: str, analyses: bool = False) -> pa.Table:
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
        return _read(path, name, analyses)
    if name == RESULTS:
        table = _readable(table, path)
        if analyses:
            table = with_analyses(table, path.parent if path.is_file() else path)
    return table


def _as_frame(table: pa.Table) -> pd.DataFrame:
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
    tables = [read_table(file, columns) for file in files]
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
