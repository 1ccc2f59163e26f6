"""Reads the files of offline W&B runs back with W&B's own reader."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from wandb.util import get_core_path


@dataclass
class OfflineRun:
    """What a file of an offline run says."""

    run_id: str = ""
    facts: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    metrics: list[dict[str, Any]] = field(default_factory=list)
    curves: dict[tuple[str, int], float] = field(default_factory=dict)
    times: list[float] = field(default_factory=list)
    exit_code: int | None = None


def read_offline_run(folder: Path) -> OfflineRun:
    [file] = folder.glob("*.wandb")
    # What `wandb leet inspect --json` runs, without a Python for each file.
    command = [
        get_core_path(),
        "leet",
        "inspect",
        "--no-observability",
        "--json",
        "--run-file",
        str(file),
        str(folder.parent),
    ]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    run = OfflineRun()
    for record in map(json.loads, lines):
        content = record.get(record["type"], {})
        if record["type"] == "run":
            run.run_id, run.facts = content["run_id"], content
            run.config |= content["config"]["update"]
        elif record["type"] == "summary":
            run.summary |= content["update"]
        elif record["type"] == "metric":
            run.metrics.append(content)
        elif record["type"] == "history":
            item = content["item"]
            step = item.pop("_step")
            run.times.append(item["_timestamp"])
            values = item if run.facts["job_type"] == "member" else {}  # the others log tables
            run.curves |= {(name, step): float(value) for name, value in values.items() if name[0] != "_"}
        elif record["type"] == "exit":
            run.exit_code = content.get("exit_code", 0)
    return run


def offline_runs(folder: Path) -> dict[str, OfflineRun]:
    """Return the runs below a sweep's folder by id; that no two files are of one run is checked."""
    runs = [read_offline_run(path) for path in sorted((folder / "wandb").glob("offline-run-*"))]
    found = {run.run_id: run for run in runs}
    assert len(found) == len(runs)
    return found


def members_of(runs: dict[str, OfflineRun]) -> dict[str, OfflineRun]:
    """Return the runs of members by the member's run_id."""
    return {name.partition("-")[0]: run for name, run in runs.items() if run.facts["job_type"] == "member"}


def differences(members: dict[str, OfflineRun], results: pd.DataFrame, curves: pd.DataFrame) -> list[str]:
    """Return whatever is not the same in W&B's files and in ours: every setting, final measure and curve point."""
    found = [] if sorted(members) == sorted(results["run_id"]) else ["the members"]
    points = {
        run_id: {(row.measure, row.step): row.value for row in group.itertuples()}
        for run_id, group in curves.groupby("run_id")
    }
    for row in results.to_dict("records"):
        run = members[row["run_id"]]
        settings = {name.removeprefix("config."): row[name] for name in row if name.startswith("config.")}
        logged = _leaves(run.config)
        found += [
            f"{row['run_id']} {name}" for name in settings if not _same(settings[name], logged.get(name))
        ]
        found += [f"{row['run_id']} {name}" for name in set(logged) - set(settings)]
        others = [name for name in row if not name.startswith("config.") and name != "run_id"]
        found += [f"{row['run_id']} {name}" for name in others if not _same(row[name], run.summary.get(name))]
        own = {key: value for key, value in run.curves.items() if key[0] != "training/step"}
        expected = points.get(row["run_id"], {})
        found += [f"{row['run_id']} curves"] if own.keys() != expected.keys() else []
        found += [f"{row['run_id']} {key}" for key in own if not _same(own[key], expected.get(key))]
        found += [
            f"{row['run_id']} axis at {step}"
            for (name, step), value in run.curves.items()
            if name == "training/step" and value != step
        ]
    return found


def _leaves(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    leaves: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, dict) and key != "_wandb" and not key.startswith("_wandb."):
            leaves |= _leaves(value, f"{prefix}{key}.")
        elif not key.startswith("_wandb"):
            leaves[f"{prefix}{key}"] = value
    return leaves


def _same(one: Any, other: Any) -> bool:
    if isinstance(other, list):  # which tables hold as JSON
        return json.loads(one) == other
    if one is None or other is None or pd.isna(one) or pd.isna(other):
        return (one is None or pd.isna(one)) and (other is None or pd.isna(other))
    return one == other and isinstance(one, str) == isinstance(other, str)
