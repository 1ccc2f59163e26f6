"""The exported records of a member, read from the files of its folder."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from modulab.results.manifest import read_manifests
from modulab.results.store import CURVES, RESULTS, read_rows
from modulab.results.summary import metric_names
from modulab.schema import FIXED_COLUMNS

Outcome = list[str | None]
"""A member's status and what went wrong, as JSON keeps them."""

_MEMBERS_AT_ONCE = 256


@dataclass(frozen=True)
class MemberRecord:
    """One member: its config, its curves, and its row of results."""

    run_id: str
    config: Mapping[str, Any]
    curves: Mapping[int, Mapping[str, float]]
    """Each step's values by measure, in order of steps."""
    measures: Mapping[str, float]
    """The final measures that have a value."""
    facts: Mapping[str, Any]
    """The other columns of its row: status, error, seconds, engine, device and versions."""

    @property
    def outcome(self) -> Outcome:
        """Return the outcome of the member."""
        return [self.facts["status"], self.facts["error"]]


def outcomes(folder: Path) -> dict[str, Outcome]:
    """Return the outcome of each finished member of a folder, by run_id, in the order of rows."""
    rows = read_rows(folder, RESULTS, columns=["run_id", "status", "error"])
    return {row["run_id"]: [row["status"], row["error"]] for row in rows if row["status"] != "missing"}


def member_records(folder: Path, run_ids: Sequence[str]) -> Iterator[MemberRecord]:
    """Yield the records of some members of a folder, reading a few at once so that memory does not grow with them."""
    for first in range(0, len(run_ids), _MEMBERS_AT_ONCE):
        wanted = run_ids[first : first + _MEMBERS_AT_ONCE]
        configs = _configs(folder, set(wanted))
        curves: defaultdict[str, defaultdict[int, dict[str, float]]] = defaultdict(lambda: defaultdict(dict))
        for point in read_rows(folder, CURVES, wanted):
            curves[point["run_id"]][point["step"]][point["measure"]] = point["value"]
        for row in read_rows(folder, RESULTS, wanted):
            run_id = row["run_id"]
            yield _record(row, configs.get(run_id) or config_of(row), dict(sorted(curves[run_id].items())))


def _record(
    row: Mapping[str, Any], config: Mapping[str, Any], curves: Mapping[int, Mapping[str, float]]
) -> MemberRecord:
    measures = {name: row[name] for name in metric_names(row) if _is_finite(row[name])}
    versions = {name: row[name] for name in row if name.startswith("version.")}
    facts = {name: row.get(name) for name in FIXED_COLUMNS if name != "run_id"} | versions
    return MemberRecord(row["run_id"], config, curves, measures, facts)


def _is_finite(value: Any) -> bool:
    return value is not None and math.isfinite(value)


def _configs(folder: Path, wanted: set[str]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for _, configs in read_manifests(folder):
        found |= {run_id: configs[run_id] for run_id in wanted.intersection(configs)}
    return found


def config_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a member's config from its row, for folders that were left with their tables alone.

    A key that the member does not have cannot be distinguished from one that is null, so nulls are kept.
    """
    config: dict[str, Any] = {}
    for column, value in row.items():
        if column.startswith("config."):
            *groups, leaf = column.removeprefix("config.").split(".")
            node = config
            for group in groups:
                node = cast("dict[str, Any]", node.setdefault(group, {}))
            is_list = isinstance(value, str) and value[:1] in ("[", "{")
            node[leaf] = json.loads(value) if is_list else value
    return config
