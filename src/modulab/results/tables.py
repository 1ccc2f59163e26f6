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
"""`diverged` is a result, like `completed`; `missing` means that a member was requested and has none yet."""

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
    member's share of the time, and `measures` holds one value per member by measure, None or NaN for none. `skipped`
    says which measures a member lacks, and why (see `skipped_text`).
    `engines` and the model of `device` say what trained them, and so how closely a repeat must agree; of members that
    are still to be trained, `engines` is what is to train them.
    """
    count = len(configs)
    columns: dict[str, pa.Array] = {
        "run_id": _array(list(run_ids)),
        "status": _array(list(statuses)),
        "error": _array(list(errors)),
        "seconds": _floats(seconds),
        "skipped": _array(list(skipped or [None] * count)),
        "engine": _array(list(engines or [None] * count)),
        "device": _array([device] * count),
        **_setting_columns(configs),
        **{name: _floats(values) for name, values in measures.items()},
        **{f"version.{name}": _array([value] * count) for name, value in versions().items()},
    }
    return pa.table(columns)


def _setting_columns(configs: Sequence[Mapping[str, Any]]) -> dict[str, pa.Array]:
    """Return one column for each leaf. Groups that members share, as those of one plan do, are taken apart once."""
    columns: dict[str, pa.Array] = {}
    for group in dict.fromkeys(key for config in configs for key in config):
        nodes = [config.get(group) for config in configs]
        distinct = {id(node): node for node in nodes}
        place = {name: number for number, name in enumerate(distinct)}
        rows = [_flat({} if node is None else {group: node}) for node in distinct.values()]
        indices = np.fromiter((place[id(node)] for node in nodes), np.int64, len(nodes))
        for key in dict.fromkeys(key for row in rows for key in row):
            columns[f"config.{key}"] = _array([row.get(key) for row in rows]).take(pa.array(indices))
    return columns


FAILED_WITH = "failed with"
"""The beginning of the reason why a member lacks a measure that raised an error."""
LACK_POINTS = "curves lack points"
"""The beginning of the reason why a member lacks values of a measure that raised errors during training."""


def failed_measures(skipped: str | None) -> list[str]:
    """Return what `skipped_text` says of measures that raised errors after training, and can be taken again."""
    return _beginning_with(FAILED_WITH, skipped)


def broken_curves(skipped: str | None) -> list[str]:
    """Return what `skipped_text` says of measures that raised errors during training."""
    return _beginning_with(LACK_POINTS, skipped)


def _beginning_with(words: str, skipped: str | None) -> list[str]:
    return [f"{key}: {reason}" for key, reason in read_reasons(skipped) if reason.startswith(words)]


def skipped_text(reasons: Mapping[str, str]) -> str | None:
    """Return why a member lacks measures, by their keys under probes.measures, in one line; None if it lacks none."""
    # What `; ` separates are reasons, also where an error has one in its words.
    return "; ".join(f"{key}: {reason.replace('; ', ', ')}" for key, reason in reasons.items()) or None


def read_reasons(skipped: str | None) -> list[tuple[str, str]]:
    """Return the keys and reasons that `skipped_text` wrote, and those that analyses have added in the same form.

    The key of a text in another form is empty.
    """
    parted = [each.partition(": ") for each in (skipped or "").split("; ") if each]
    return [(key, reason) if colon else ("", key) for key, colon, reason in parted]


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


def _floats(values: Sequence[float | None]) -> pa.Array:
    return pa.array([None if value is None else float(value) for value in values], pa.float64())


def _array(values: Sequence[Any]) -> pa.Array:
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
    schema = common_schema([table.schema for table in tables])
    return pa.concat_tables([aligned(table, schema) for table in tables])


def common_schema(schemas: Sequence[pa.Schema]) -> pa.Schema:
    """Return the columns of tables that are to stand below one another: see `concatenate`."""
    kinds: dict[str, list[pa.DataType]] = {}
    for schema in schemas:
        for field in schema:
            found = kinds.setdefault(field.name, [])
            if field.type not in found:
                found.append(field.type)
    return pa.schema([(name, _common_type(kinds[name])) for name in _order(list(kinds))])


def _common_type(kinds: Sequence[pa.DataType]) -> pa.DataType:
    kinds = [kind for kind in kinds if not pa.types.is_null(kind)]
    if len(kinds) < 2:
        return kinds[0] if kinds else pa.null()
    return pa.float64() if set(kinds) == {pa.int64(), pa.float64()} else pa.string()


def aligned(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return a table with the columns of a `common_schema`; those that it lacks are null."""
    columns: list[Any] = []
    names = table.column_names
    for field in schema:
        if field.name not in names:
            columns.append(pa.nulls(table.num_rows, field.type))
            continue
        column = table.column(names.index(field.name))
        if column.type != field.type:
            is_text = pa.types.is_string(field.type) and not pa.types.is_null(column.type)
            column = (
                pa.array(_as_text(column.to_pylist()), pa.string()) if is_text else column.cast(field.type)
            )
        columns.append(column)
    return pa.table(columns, schema=schema)


def _order(names: Sequence[str]) -> list[str]:
    def place(name: str) -> int:
        if name in FIXED_COLUMNS:
            return 0
        return 1 if name.startswith("config.") else 3 if name.startswith("version.") else 2

    return sorted(names, key=place) if "status" in names else list(names)
