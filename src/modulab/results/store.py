"""Results on disk: results.parquet, one row per member, and curves.parquet, one row per member, step and measure.

During a run, each population that ends leaves its rows in files of its own below parts/, so the
cost of storing a result does not grow with the number of stored results, and processes on different machines do
not write to one file. `gather` then joins them to the two files. Readers read both, and see every row at any
time. Results of analyses have separate files (see `analyses`). Files are replaced
whole; a member's new row replaces its old one. A file that cannot be read is never overwritten.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq
from numpy.typing import NDArray

from modulab.errors import ConfigError
from modulab.measure_names import chosen_measures, stands_for
from modulab.results.analyses import with_analyses
from modulab.results.files import check_links
from modulab.results.parquet import (
    CURVES,
    RESULTS,
    ROWS_AT_ONCE,
    Keep,
    columns_kept,
    constants,
    count_rows,
    read_batches,
    read_table,
    write_batches,
    write_table,
)
from modulab.results.tables import Status, aligned, common_schema, concatenate, failed_measures
from modulab.schema import current_name, suggest

PARTS = "parts"
FOLDER = "config.folder"
"""The column of the results of several folders that says which one a row is from: it is grouped by like a setting."""
_compute: Any = pyarrow.compute  # Its functions are made at run time, so type checkers do not know them.
_DONE = ("completed", "diverged")
_OF_EACH_ROW = ("run_id", "status", "skipped", "config.seed")
"""What reading results needs, whichever columns are asked for."""


def save_part(folder: Path, part: str, results: pa.Table, curves: pa.Table | None = None) -> None:
    """Store the rows of one population in their own files, replacing those that it left before.

    Curves go first, so no row is ever without its curves.
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


@dataclass(frozen=True)
class Planned:
    """Rows of members that are to be trained, which need not all be in memory."""

    run_ids: Sequence[str]
    columns: pa.Schema
    """The columns of all rows."""
    rows: Callable[[Sequence[int]], pa.Table]
    """Returns the rows at some places among `run_ids`."""


def gather(folder: Path, planned: Planned | None = None) -> None:
    """Join the parts to a folder's two files, and remove them. Of each file some rows at a time are in memory.

    With `planned`, rows of members that are to be trained, those of them that have no row yet are added, and
    members that are missing and no longer planned are dropped.

    Raises: ConfigError if a present file is damaged or of another version; it is left as it is.
    """
    for name in (CURVES, RESULTS):
        files = _files(folder, name)
        parts = files[1:] if (folder / name).exists() else files
        new = planned if name == RESULTS else None
        if parts or new is not None:
            _write_joined(folder / name, files, name, new)
        for part in parts:
            part.unlink()
    with suppress(OSError):  # not there, or holds something else
        (folder / PARTS).rmdir()


def _write_joined(path: Path, files: Sequence[Path], name: str, planned: Planned | None) -> None:
    """Write the rows of files, and of planned members that have none there, to one file."""
    owned = _owned(files, name)

    def kept(columns: list[str] | None = None) -> Iterator[pa.Table]:
        for file, own in zip(files, owned, strict=True):
            for table in read_batches(file, columns):
                rows = _own_rows(table, own)
                is_missing = None if planned is None else _compute.equal(rows["status"], "missing")
                yield rows if is_missing is None else rows.filter(_compute.invert(is_missing))

    found = [table["run_id"] for table in kept(["run_id", "status"] if name == RESULTS else ["run_id"])]
    count = sum(map(len, found))
    schemas = [next(read_batches(file)).schema for file in files]
    places: list[int] = []
    if planned is not None:
        schemas.append(planned.columns)
        present = {run_id for column in found for run_id in column.to_pylist()}
        places = [place for place, run_id in enumerate(planned.run_ids) if run_id not in present]
    schema = common_schema(schemas)

    def tables() -> Iterator[pa.Table]:
        yield from kept()
        for first in range(0, len(places), ROWS_AT_ONCE):
            assert planned is not None
            yield planned.rows(places[first : first + ROWS_AT_ONCE])

    write_batches(path, schema, count + len(places), (aligned(table, schema) for table in tables()))


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


def missing(folder: Path, run_ids: Collection[str]) -> list[str]:
    """Return those of some members that have no row in a folder, or one that says `missing`."""
    found = statuses(folder)
    return [run_id for run_id in run_ids if found.get(run_id, "missing") == "missing"]


def completed(folder: Path) -> set[str]:
    """Return the run_ids that a folder holds as completed or diverged: training again changes neither.

    Those of which a measure raised an error are left out: the measure may have been fixed.
    """
    files = _files(folder, RESULTS)
    try:
        known = files and all("skipped" in pq.read_schema(file).names for file in files)
        table = _join(files, RESULTS, ["run_id", "status", "skipped"]) if known else None
    except FileNotFoundError:  # another process has joined the parts meanwhile
        return completed(folder)
    except (OSError, pa.ArrowInvalid):  # reported when the statuses are read
        table = None
    if table is None:
        return {run_id for run_id, status in statuses(folder).items() if status in _DONE}
    table = table.filter(_compute.is_in(table["status"], value_set=pa.array(_DONE)))
    columns = (table[name].to_pylist() for name in ("run_id", "skipped"))
    return {run_id for run_id, skipped in zip(*columns, strict=True) if not failed_measures(skipped)}


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
            f"{folder}: cannot write there ({error.strerror}). Choose another folder for results."
        ) from error
    check_links(folder)
    for name in (RESULTS, CURVES):
        for file in _files(folder, name):
            for _ in read_batches(file):
                pass


LARGE = 1 << 17
"""Results of more members are read in part: what a table needs of them, or a sample for a report."""


def load_results(path: str | Path, analyses: bool = False, keep: Keep | None = None) -> pd.DataFrame:
    """Return the results under a path: a run's or sweep's folder, a folder of such folders, or a file.

    A member that stands in several folders appears once, completed rather than failed, else the latest. With
    `analyses`, what `modulab analyse` found there is in further columns. `keep` says which columns to read, by name.

    Raises: ConfigError if there are none, or if a file is damaged or of another version.
    """
    return _as_frame(_read(Path(path), RESULTS, analyses, keep))


def load_columns(path: str | Path, columns: Sequence[str], analyses: bool = False) -> pd.DataFrame:
    """Return some columns of the results under a path, in this order; a pattern such as error/* stands for several.

    No others are read, beside the few that say which row of a member counts.

    Raises: ConfigError as `load_results` does, and for a name or pattern that no column has.
    """
    path = Path(path)
    wanted = [_current_column(name) for name in columns]

    def keep(name: str) -> bool:
        return name in _OF_EACH_ROW or any(stands_for(pattern, name) for pattern in wanted)

    table = _read(path, RESULTS, analyses, keep)
    chosen: dict[str, None] = {}
    for pattern in wanted:
        found = chosen_measures(pattern, table.column_names)
        if not found:
            known = {name for file in _found(path, RESULTS) for name in columns_kept(file, lambda _: True)}
            raise ConfigError(f"columns={pattern}: {path} has no such column. {suggest(pattern, known)}")
        chosen |= dict.fromkeys(found)
    return _as_frame(table.select(list(chosen)))


def _current_column(name: str) -> str:
    """Return the present name of a column that a user named."""
    return f"config.{current_name(name.removeprefix('config.'))}" if name.startswith("config.") else name


def load_sample(path: str | Path, most: int, analyses: bool = False) -> tuple[pd.DataFrame, int]:
    """Return the results under a path as `load_results` does, and the number of members there.

    Of more than `LARGE` it is a sample of about `most`: run_ids are hashes, and so those below a bound are a random
    share of all, the same on every occasion.
    """
    table, count = _sample(Path(path), most, analyses)
    return _as_frame(table), count


def _sample(path: Path, most: int, analyses: bool) -> tuple[pa.Table, int]:
    count = count_results(path)
    below = f"{int(most / count * 16**16):016x}" if count > LARGE else None
    return _read(path, RESULTS, analyses, below=below), count


def count_results(path: Path) -> int:
    """Return how many rows the files of results under a path have. Raises: ConfigError as `load_results` does."""
    try:
        return sum(map(count_rows, _found(path, RESULTS)))
    except FileNotFoundError:  # a run in progress has joined its parts meanwhile
        return count_results(path)


def varying_settings(path: Path) -> set[str]:
    """Return the settings that may have several values under a path, as far as its files say so themselves."""
    try:
        files = [
            (columns_kept(file, lambda name: name.startswith("config.")), constants(file))
            for file in _found(path, RESULTS)
        ]
    except FileNotFoundError:  # a run in progress has joined its parts meanwhile
        return varying_settings(path)
    names = dict.fromkeys(name for columns, _ in files for name in columns)
    missing = object()
    return {
        name
        for name in names
        if any(name in columns and name not in fixed for columns, fixed in files)
        or len({repr(fixed.get(name, missing)) for _, fixed in files}) > 1
    }


def load_folders(paths: Sequence[Path]) -> pd.DataFrame:
    """Return the results under several paths, with the path that each row is from in the column `FOLDER`.

    Raises: ConfigError as `load_results` does, and for a path that is given twice.
    """
    _check_distinct(paths)
    return _joined([_read(path, RESULTS, analyses=True) for path in paths], list(map(str, paths)))


def sample_folders(paths: Sequence[Path], names: Sequence[str], most: int) -> tuple[pd.DataFrame, int]:
    """Return the results under several paths as `load_sample` does, `most` of all; `FOLDER` has the names of the paths.

    Raises: ConfigError as `load_folders` does.
    """
    _check_distinct(paths)
    found = [_sample(path, most // len(paths), analyses=True) for path in paths]
    return _joined([table for table, _ in found], names), sum(count for _, count in found)


def _check_distinct(paths: Sequence[Path]) -> None:
    if len({path.resolve() for path in paths}) < len(paths):
        raise ConfigError(f"{' '.join(map(str, paths))}: a folder is given twice. Name each once.")


def _joined(tables: Sequence[pa.Table], names: Sequence[str]) -> pd.DataFrame:
    """Return tables below one another, with the name of each in the column `FOLDER`."""
    named = [
        table.append_column(FOLDER, pa.array([name] * table.num_rows, pa.string()))
        for name, table in zip(names, tables, strict=True)
    ]
    return _as_frame(concatenate(named))


def load_curves(
    path: str | Path, run_ids: Sequence[str] | None = None, metrics: Sequence[str] | None = None
) -> pd.DataFrame:
    """Return curves during training under a path: run_id, step, measure, value.

    Of some members, or of the measures that `metrics` names or gives patterns of, where these are given: others are not
    kept in memory.

    Raises: ConfigError as `load_results` does, and for a name or pattern that no curve has.
    """
    wanted = None if run_ids is None else pa.array(run_ids, pa.string())
    if metrics is None:
        return _as_frame(_read(Path(path), CURVES, wanted=wanted))
    known: dict[str, None] = {}

    def of_measures(table: pa.Table) -> pa.Table:
        names = _compute.unique(table["measure"]).to_pylist()
        known.update(dict.fromkeys(names))
        own = [name for name in names if any(stands_for(pattern, name) for pattern in metrics)]
        return table.filter(_compute.is_in(table["measure"], value_set=pa.array(own, pa.string())))

    curves = _as_frame(_read(Path(path), CURVES, wanted=wanted, rows=of_measures))
    for pattern in metrics:
        if not chosen_measures(pattern, list(known)):
            raise ConfigError(
                f"metrics={pattern}: {path} has no curve of this name. {suggest(pattern, known)}"
            )
    return curves


def _read(
    path: Path,
    name: str,
    analyses: bool = False,
    keep: Keep | None = None,
    below: str | None = None,
    wanted: pa.Array | None = None,
    rows: Callable[[pa.Table], pa.Table] | None = None,
) -> pa.Table:
    """Return the rows under a path: of those members, if they are given, and with a run_id below a bound, if any.

    `rows` gives the wanted ones among some.
    """
    files = _found(path, name)

    def chosen(table: pa.Table) -> pa.Table:
        if wanted is not None:
            table = table.filter(_compute.is_in(table["run_id"], value_set=wanted))
        if below is not None:
            table = table.filter(_compute.less(table["run_id"], below))
        return table if rows is None else rows(table)

    whole = wanted is None and below is None and rows is None
    try:
        table = _join(files, name, keep=keep, chosen=None if whole else chosen)
    except FileNotFoundError:  # a run in progress has joined its parts meanwhile
        return _read(path, name, analyses, keep, below, wanted, rows)
    if name == RESULTS:
        table = _readable(table, path)
        if analyses:
            table = with_analyses(table, path.parent if path.is_file() else path)
    return table


def own_folder(path: Path) -> Path:
    """Return the folder that a path names: a file of results or curves stands for its folder."""
    return path.parent if path.name in (RESULTS, CURVES) and path.is_file() else path


def _found(path: Path, name: str) -> list[Path]:
    """Return the files of a name under a path. Raises: ConfigError if there are none."""
    if path.name != name and own_folder(path) != path:
        path = path.with_name(name)
    files = [path] if path.is_file() else _files(path, name)
    if not files:
        files = sorted(
            [*path.rglob(name), *path.rglob(f"{PARTS}/*.{name}")],
            key=lambda file: (file.stat().st_mtime_ns, file),
        )
    if not files:
        reason = "it holds no" if path.exists() else "there is no such path, and so no"
        raise ConfigError(f"{path}: {reason} {name}. Give the folder that modulab train printed.")
    return files


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


def _join(
    files: Sequence[Path],
    name: str,
    columns: list[str] | None = None,
    keep: Keep | None = None,
    chosen: Callable[[pa.Table], pa.Table] | None = None,
) -> pa.Table:
    """Return the rows of files, each member once: done rather than failed or missing, else the latest.

    With `keep`, files are read without the other columns; with `chosen`, in parts, of which it gives the wanted rows.
    """
    tables: list[pa.Table] = []
    for file, own in zip(files, _owned(files, name), strict=True):
        wanted = columns if keep is None else columns_kept(file, keep)
        parts = [read_table(file, wanted)] if chosen is None else map(chosen, read_batches(file, wanted))
        tables += [_own_rows(table, own) for table in parts]
    return concatenate(tables)


def _owned(files: Sequence[Path], name: str) -> list[pa.Array | None]:
    """Return of each file the run_ids whose rows are taken from it; None for all that it has."""
    if len(files) < 2:
        return [None] * len(files)
    needed = ["run_id", "status"] if name == RESULTS else ["run_id"]
    run_ids: list[pa.Array] = []
    ranks: list[NDArray[np.int64]] = []
    for place, file in enumerate(files):
        table = read_table(file, needed)
        if name == RESULTS:
            done = _compute.is_in(table["status"], value_set=pa.array(_DONE)).to_numpy()
            run_ids.append(table["run_id"].combine_chunks())
        else:
            run_ids.append(_compute.unique(table["run_id"]))
            done = np.zeros(len(run_ids[-1]), dtype=np.bool_)
        ranks.append(done * len(files) + place)
    codes = pa.concat_arrays(run_ids).dictionary_encode().indices.to_numpy()
    rank = np.concatenate(ranks)
    best = np.zeros(codes.max(initial=-1) + 1, dtype=np.int64)
    np.maximum.at(best, codes, rank)
    is_own = np.split(rank == best[codes], np.cumsum([len(each) for each in ranks])[:-1])
    return [
        None if own.all() else ids.filter(pa.array(own)) for ids, own in zip(run_ids, is_own, strict=True)
    ]


def _own_rows(table: pa.Table, own: pa.Array | None) -> pa.Table:
    return table if own is None else table.filter(_compute.is_in(table["run_id"], value_set=own))


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
