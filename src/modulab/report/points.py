"""The data of figures as tidy tables: one row per number, a member's value, a mean, or an end of its interval."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from modulab.report.style import arm_text, setting_text
from modulab.results.intervals import mean_interval

KINDS = ("member", "mean", "low", "high")
"""The kinds of rows of a figure's data: one member's value, the mean over members, and the ends of its interval."""

_MEMBER = ("run_id", "seed")


def completed_members(results: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of members that completed; all of them where results have no status."""
    if "status" not in results:
        return results
    return results.loc[results["status"] == "completed"]


def join_settings(results: pd.DataFrame, columns: Sequence[str]) -> pd.Series:
    """Return for each row the text that joins several settings, such as `dense, σ = 0.1`."""
    texts = [
        ", ".join(setting_text(column, value) for column, value in zip(columns, row, strict=True))
        for row in results[list(columns)].itertuples(index=False)
    ]
    return pd.Series(texts, index=results.index, dtype=object)


def figure_data(results: pd.DataFrame, measures: Sequence[str], by: Sequence[str]) -> pd.DataFrame:
    """Return every completed member's measures, and their mean and 95% interval in each group.

    Columns: `measure`, the columns of `by` (without `config.`), `shown` (one of `KINDS`), `run_id` and `seed` of
    members, and `value`. Members without a value are left out; of a single one there is no interval.
    """
    members = completed_members(results)
    keys = [name.removeprefix("config.") for name in by]
    frame = pd.DataFrame({key: members[name].to_numpy() for key, name in zip(keys, by, strict=True)})
    frame["run_id"] = members["run_id"].to_numpy() if "run_id" in members else None
    frame["seed"] = members["config.seed"].to_numpy() if "config.seed" in members else None
    parts: list[pd.DataFrame] = []
    for measure in measures:
        values = members[measure].to_numpy(dtype=float, na_value=float("nan"))
        points = frame.assign(measure=measure, shown="member", value=values).dropna(subset=["value"])
        parts += [points, _summaries(points, keys).assign(measure=measure)]
    parts = [part for part in parts if len(part)]
    columns = ["measure", *keys, "shown", *_MEMBER, "value"]
    if not parts:
        return pd.DataFrame(columns=columns)
    return pd.concat(
        [part.reindex(columns=columns).astype({"run_id": object, "seed": object}) for part in parts],
        ignore_index=True,
    )


def _summaries(points: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
    """Return the mean and the ends of its interval of each group, in the order in which groups come."""
    grouped = points.groupby(list(keys), sort=False, dropna=False) if keys else None
    groups = [points] if grouped is None else [members for _, members in grouped]
    rows: list[dict[str, Any]] = []
    for members in groups:
        if not len(members):
            continue
        values = members["value"].to_numpy(dtype=float)
        low, high = mean_interval(values[:, None])
        place: dict[str, Any] = {key: members[key].iloc[0] for key in keys}
        for shown, value in zip(KINDS[1:], (values.mean(), low[0], high[0]), strict=True):
            rows.append({**place, "shown": shown, "value": float(value)})
    return pd.DataFrame(rows).dropna(subset=["value"]) if rows else pd.DataFrame()


def summary_columns(data: pd.DataFrame, key: str) -> pd.DataFrame:
    """Return mean, low and high beside one another, one row per value of `key`; NaN where there is no interval."""
    summaries = data.loc[data["shown"] != "member"]
    values = summaries[key].drop_duplicates()
    table = pd.DataFrame(index=pd.Index(values, name=key))
    for kind in KINDS[1:]:
        chosen = summaries.loc[summaries["shown"] == kind]
        table[kind] = pd.Series(chosen["value"].to_numpy(), index=chosen[key].to_numpy(), dtype=float)
    return table


def axis_values(data: pd.DataFrame) -> pd.Series:
    """Return the values that determine an axis: those of members and means, as intervals of few seeds may be wide."""
    return data.loc[data["shown"].isin(["member", "mean"]), "value"]


def in_order(results: pd.DataFrame, column: str | None) -> list[object]:
    """Return a column's values, numbers rising, others as they first come; one empty value without a column."""
    if column is None:
        return [""]
    values = list(dict.fromkeys(results[column].tolist()))
    numeric = pd.api.types.is_numeric_dtype(results[column]) and not pd.api.types.is_bool_dtype(
        results[column]
    )
    return sorted(values, key=lambda value: (pd.isna(value), value)) if numeric else values


def equals(values: pd.Series, value: object) -> pd.Series:
    """Return where a column has a value; one that is absent equals others that are."""
    return values.isna() if arm_text(value) == "-" and value != "-" else values == value
