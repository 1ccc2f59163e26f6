"""Tables of results: one row per member, or one row per member, step and measure. All of it in memory."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute

from modulab.results.versions import versions
from modulab.schema import FIXED_COLUMNS

Status = Literal["completed", "failed", "diverged", "missing"]
"""`diverged` is a result as good as `completed`; `missing` says that a member was asked for and has none yet."""

_compute: Any = pyarrow.compute  # Its functions are made at run time, so type checkers do not know them.
_CURVE_COLUMNS = (
    ("run_id", pa.string()),
    ("step", pa.int64()),
    ("measure", pa.string()),
    ("value", pa.float64()),
)


def result_table(
    configs: Sequence[Mapping[str, Any]],
    run_ids: Sequence[str],
    statuses: Sequence[Status],
    errors: Sequence[str | None],
    seconds: Sequence[float],
    measures: Mapping[str, Sequence[float | None]],
    skipped: Sequence[str | None] | None = None,
    engines: Sequence[str | None] | None = None,
    device: str | None = None,
) -> pa.Table:
    """Return one row per member, in the columns of results.parquet.

    `configs` are plain configs of members, `errors` says why a member failed or diverged, `seconds` is a
    member's share of the time, and `measures` holds each measure's value a member, None or NaN for none. `skipped`
    says which measures a member lacks, and why (see `skipped_text`).
    `engines` and the model of `device` say what trained them, and so how closely a repeat must agree; of members that
    are still to be trained, `engines` is what is to train them.
    """
    leaves = [_flat(config) for config in configs]
    keys = list(dict.fromkeys(key for row in leaves for key in row))
    columns: dict[str, list[Any]] = {
        "run_id": list(run_ids),
        "status": list(statuses),
        "error": list(errors),
        "seconds": [float(each) for each in seconds],
        "skipped": list(skipped or [None] * len(configs)),
        "engine": list(engines or [None] * len(configs)),
        "device": [device] * len(configs),
        **{f"config.{key}": [row.get(key) for row in leaves] for key in keys},
        **{name: [None if value is None else float(value) for value in measures[name]] for name in measures},
        **{f"version.{name}": [value] * len(configs) for name, value in versions().items()},
    }
    floats = {"seconds", *measures}
    return pa.table(
        {name: _array(values, pa.float64() if name in floats else None) for name, values in columns.items()}
    )


FAILED_WITH = "failed with"
"""How the reason begins for which a member lacks a measure that raised an error."""


def failed_measures(skipped: str | None) -> list[str]:
    """Return what `skipped_text` says of measures that raised errors."""
    return [each for each in (skipped or "").split("; ") if f": {FAILED_WITH} " in each]


def skipped_text(reasons: Mapping[str, str]) -> str | None:
    """Return why a member lacks measures, by their keys under probes.measures, in one line; None if it lacks none."""
    return "; ".join(f"{key}: {reason}" for key, reason in reasons.items()) or None


def curve_table(
    run_ids: Sequence[str],
    steps: Sequence[int],
    curves: Mapping[str, Sequence[Sequence[float]]],
    ends: Sequence[int | None] | None = None,
) -> pa.Table:
    """Return (run_id, step, measure, value) from each measure's values as [member][step].

    `ends` are the steps after which members have no points, None for those that have all.
    """
    columns: dict[str, list[pa.Array]] = {name: [] for name, _ in _CURVE_COLUMNS}
    last = max(steps, default=0)
    own_ends = np.array([last if end is None else end for end in ends or [None] * len(run_ids)])
    of_member, of_step = np.nonzero(np.array(steps, dtype=np.int64)[None] <= own_ends[:, None])
    for measure, members in curves.items():
        values = np.array(members, dtype=np.float64).reshape(len(run_ids), len(steps))[of_member, of_step]
        columns["run_id"].append(pa.array(run_ids, pa.string()).take(of_member))
        columns["step"].append(pa.array(np.array(steps, dtype=np.int64)[of_step]))
        columns["measure"].append(pa.array([measure]).take(np.zeros(values.size, dtype=np.int64)))
        columns["value"].append(pa.array(values))
    return pa.table({name: pa.chunked_array(columns[name], type=kind) for name, kind in _CURVE_COLUMNS})


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


def merge(old: pa.Table, new: pa.Table) -> pa.Table:
    """Return the old rows of members that `new` does not have, and then the new rows."""
    replaced = _compute.is_in(old["run_id"], value_set=new["run_id"].combine_chunks())
    return concatenate([old.filter(_compute.invert(replaced)), new])


def concatenate(tables: Sequence[pa.Table]) -> pa.Table:
    """Return tables below one another: integers give way to floats, and all other mixed types to text."""
    tables = list(tables)
    kinds: dict[str, set[pa.DataType]] = {}
    for table in tables:
        for field in table.schema:
            kinds.setdefault(field.name, set()).add(field.type)
    for name, found in kinds.items():
        if len(found - {pa.null()}) > 1 and not found <= {pa.null(), pa.int64(), pa.float64()}:
            tables = [_textual(table, name) if name in table.column_names else table for table in tables]
    joined = pa.concat_tables(tables, promote_options="permissive")
    return joined.select(_order(joined.column_names))


def _textual(table: pa.Table, name: str) -> pa.Table:
    column = pa.array(_as_text(table[name].to_pylist()), type=pa.string())
    return table.set_column(table.column_names.index(name), name, column)


def _order(names: Sequence[str]) -> list[str]:
    def place(name: str) -> int:
        if name in FIXED_COLUMNS:
            return 0
        return 1 if name.startswith("config.") else 3 if name.startswith("version.") else 2

    return sorted(names, key=place) if "status" in names else list(names)
