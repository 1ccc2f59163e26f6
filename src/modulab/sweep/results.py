"""Results on disk: results.parquet, a row a member, and curves.parquet, a row a member, step and measure.

Every write is atomic (written beside, then renamed) and merges: a member's new row replaces its old one, and
rows of other members stay. A file that cannot be read is never overwritten.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq

from modulab.errors import ConfigError

Status = Literal["completed", "failed", "diverged"]

FORMAT_VERSION = 1
"""Goes up when a column changes its meaning; files of another version are refused."""

RESULTS = "results.parquet"
CURVES = "curves.parquet"
_FORMAT_KEY = b"modulab.format"
_compute: Any = pyarrow.compute  # Its functions are made at run time, so type checkers do not know them.
_CURVE_COLUMNS = (
    ("run_id", pa.string()),
    ("step", pa.int64()),
    ("measure", pa.string()),
    ("value", pa.float64()),
)
_FIXED_COLUMNS = ("run_id", "status", "error", "seconds")


def result_table(
    configs: Sequence[Mapping[str, Any]],
    run_ids: Sequence[str],
    statuses: Sequence[Status],
    errors: Sequence[str | None],
    seconds: Sequence[float],
    measures: Mapping[str, Sequence[float | None]],
) -> pa.Table:
    """Return a row a member, in the columns of results.parquet.

    `configs` are plain configs of members, `errors` says why a member failed or diverged, `seconds` is a
    member's share of the time, and `measures` holds each measure's value a member, None or NaN for none.
    """
    leaves = [_flat(config) for config in configs]
    keys = list(dict.fromkeys(key for row in leaves for key in row))
    columns: dict[str, list[Any]] = {
        "run_id": list(run_ids),
        "status": list(statuses),
        "error": list(errors),
        "seconds": [float(each) for each in seconds],
        **{f"config.{key}": [row.get(key) for row in leaves] for key in keys},
        **{name: [None if value is None else float(value) for value in measures[name]] for name in measures},
        **{f"version.{name}": [value] * len(configs) for name, value in versions().items()},
    }
    floats = {"seconds", *measures}
    return pa.table(
        {name: _array(values, pa.float64() if name in floats else None) for name, values in columns.items()}
    )


def curve_table(
    run_ids: Sequence[str],
    steps: Sequence[int],
    curves: Mapping[str, Sequence[Sequence[float]]],
) -> pa.Table:
    """Return (run_id, step, measure, value) from each measure's values as [member][step]."""
    columns: dict[str, list[pa.Array]] = {name: [] for name, _ in _CURVE_COLUMNS}
    for measure, members in curves.items():
        values = np.array(members, dtype=np.float64).reshape(len(run_ids), len(steps))
        columns["run_id"].append(
            pa.array(run_ids, pa.string()).take(np.arange(len(run_ids)).repeat(len(steps)))
        )
        columns["step"].append(pa.array(np.tile(np.array(steps, dtype=np.int64), len(run_ids))))
        columns["measure"].append(pa.array([measure]).take(np.zeros(values.size, dtype=np.int64)))
        columns["value"].append(pa.array(values.ravel()))
    return pa.table({name: pa.chunked_array(columns[name], type=kind) for name, kind in _CURVE_COLUMNS})


def save(folder: Path, results: pa.Table | None = None, curves: pa.Table | None = None) -> None:
    """Write rows into a folder's files: those of the same members are replaced, all others kept.

    Curves go first, so that a row of results.parquet is never without its curves.

    Raises: ConfigError where the present file is damaged or of another version; it is left as it is.
    """
    for name, table in ((CURVES, curves), (RESULTS, results)):
        if table is not None:
            path = folder / name
            _write(path, _merge(_read(path), table) if path.exists() else table)


def completed(folder: Path) -> set[str]:
    """Return the run_ids that a folder holds as completed or diverged: training again changes neither."""
    path = folder / RESULTS
    if not path.exists():
        return set()
    table = _read(path)
    done = _compute.is_in(table["status"], value_set=pa.array(["completed", "diverged"]))
    return set(cast("list[str]", table.filter(done)["run_id"].to_pylist()))


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
    for name in (RESULTS, CURVES):
        if (folder / name).exists():
            _read(folder / name)


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
    if path.is_file():
        files = [path]
    elif (path / name).exists():
        files = [path / name]
    else:
        files = sorted(path.rglob(name), key=lambda file: (file.stat().st_mtime_ns, file))
    if not files:
        reason = "it holds no" if path.exists() else "there is no such path, and so no"
        raise ConfigError(f"{path}: {reason} {name}. Give the folder that modulab train printed.")
    table = _read(files[0])
    for file in files[1:]:
        newer = _read(file)
        if name == RESULTS and newer.num_rows:
            kept = set(_completed_ids(table))
            worse = [
                row["run_id"] in kept and row["status"] != "completed"
                for row in newer.select(["run_id", "status"]).to_pylist()
            ]
            newer = newer.filter(pa.array([not each for each in worse]))
        table = _merge(table, newer)
    types = {pa.int64(): pd.Int64Dtype(), pa.bool_(): pd.BooleanDtype()}
    nullable = {field.type for field in table.schema if table[field.name].null_count}

    def pandas_type(kind: pa.DataType) -> Any:
        return types.get(kind) if kind in nullable else None

    return table.to_pandas(types_mapper=pandas_type)


def _completed_ids(table: pa.Table) -> list[str]:
    return cast("list[str]", table.filter(_compute.equal(table["status"], "completed"))["run_id"].to_pylist())


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    leaves: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, dict) and value:
            leaves |= _flat(cast("dict[str, Any]", value), f"{prefix}{key}.")
        else:
            leaves[f"{prefix}{key}"] = json.dumps(value) if isinstance(value, list | dict) else value
    return leaves


def _array(values: Sequence[Any], kind: pa.DataType | None) -> pa.Array:
    if kind is not None:
        return pa.array(values, type=kind)
    kinds = {type(value) for value in values if value is not None}
    if kinds == {int, float}:
        return pa.array([None if value is None else float(value) for value in values])
    if len(kinds) > 1:
        return pa.array(_as_text(values))
    return pa.array(values)


def _as_text(values: Iterable[Any]) -> list[str | None]:
    return [value if value is None or isinstance(value, str) else json.dumps(value) for value in values]


def _merge(old: pa.Table, new: pa.Table) -> pa.Table:
    """Return the old rows of members that `new` does not have, and then the new rows."""
    replaced = _compute.is_in(old["run_id"], value_set=new["run_id"].combine_chunks())
    kept = old.filter(_compute.invert(replaced))
    for name in set(kept.column_names) & set(new.column_names):
        kinds = {kept.schema.field(name).type, new.schema.field(name).type} - {pa.null()}
        if len(kinds) > 1 and not kinds <= {pa.int64(), pa.float64()}:
            kept = _textual(kept, name)
            new = _textual(new, name)
    merged = pa.concat_tables([kept, new], promote_options="permissive")
    return merged.select(_order(merged.column_names))


def _textual(table: pa.Table, name: str) -> pa.Table:
    column = pa.array(_as_text(table[name].to_pylist()), type=pa.string())
    return table.set_column(table.column_names.index(name), name, column)


def _order(names: Sequence[str]) -> list[str]:
    def place(name: str) -> int:
        if name in _FIXED_COLUMNS:
            return 0
        return 1 if name.startswith("config.") else 3 if name.startswith("version.") else 2

    return sorted(names, key=place) if "status" in names else list(names)


def _read(path: Path) -> pa.Table:
    try:
        table = pq.ParquetFile(path).read()
    except (pa.ArrowException, OSError) as error:
        raise ConfigError(
            f"{path} is damaged and cannot be read ({str(error).splitlines()[0]}). It is left as it is. "
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
    return table.replace_schema_metadata(None)


def _write(path: Path, table: pa.Table) -> None:
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with beside.open("wb") as file:
            pq.write_table(table.replace_schema_metadata({_FORMAT_KEY: str(FORMAT_VERSION)}), file)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


@lru_cache(maxsize=1)
def versions() -> dict[str, str | None]:
    """Return what made these results: modulab, torch, python and, from a checkout, the git commit."""
    return {
        "modulab": _installed("modulab"),
        "torch": _installed("torch"),
        "python": platform.python_version(),
        "git_commit": _git_commit(),
    }


def _installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _git_commit() -> str | None:
    """Return the commit of the checkout that this package runs from, with `-dirty` where files differ."""
    checkout = Path(__file__).resolve().parents[3]
    if not (checkout / ".git").exists() or not (checkout / "src" / "modulab").is_dir():
        return None
    try:
        described = subprocess.run(
            ["git", "-C", str(checkout), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return described.stdout.strip() or None
