"""The dashboard's definition, and that each of its panels refers to what runs really log."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import modulab
from modulab.logger.charts import CHARTS, chart_table
from modulab.logger.keys import TABLE
from modulab.measure_names import current_measure
from tests.command_line import SMALL, Command
from tests.logger.offline_runs import OfflineRun, members_of, offline_runs

GOLDEN = Path(__file__).parents[1] / "golden" / "dashboard.json"
"""Made anew by `modulab dashboard` of the sweep below, where a change of it is meant."""
SWEEP = [
    *[word for word in SMALL if not word.startswith("probes.levels")],
    "probes.levels=[0.3,0.5]",
    "logger=wandb",
    "logger.wandb.mode=offline",
    "logger.wandb.group=everything",
    "population.grid=[{architecture: [dense, premodular], noise.scale: [0, 0.2], task.support: [band]},"
    " {regulariser: [l1, activity_weight], data.num_samples: [16, 32], task.support: [band]}]",
]


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sweep")
    modulab.train(SWEEP, folder=folder)
    return folder


def panels(definition: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for section in definition["spec"]["section"]["panelBankConfig"]["sections"]:
        yield from section["panels"]


def referred(value: Any) -> Iterator[str]:
    """Yield the keys that a panel's settings refer to, as kind:name."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key == "metrics":
                yield from (each if each.startswith("summary") else f"history:{each}" for each in inner)
            elif key == "groupBy":
                yield f"config:{inner}"
            elif key == "name" and inner == "tableKey":
                yield f"table:{value['value']}"
            elif key in ("mediaKeys",):
                yield from (f"table:{each}" for each in inner)
            elif key in ("xAxis", "yAxis", "accessor"):
                yield inner if ":" in inner else f"history:{inner}"
            else:
                yield from referred(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from referred(inner)


def logged(run: OfflineRun, reference: str) -> bool:
    kind, _, name = re.sub(r"^summary_metrics\.", "summary:", reference).partition(":")
    if kind == "config":
        node: Any = run.config
        for part in name.replace(".value", "", 1).split("."):
            node = node.get(part, {}) if isinstance(node, dict) else {}
        return node != {}
    if kind == "history":
        return any(measure == name for measure, _ in run.curves)
    return name in run.summary or f"{name}.nrows" in run.summary  # the size of a table


def test_every_panel_refers_to_keys_that_runs_log(sweep: Path, command: Command) -> None:
    code, out, err = command("dashboard", str(sweep), "--json")
    assert code == 0, err
    runs = offline_runs(sweep)
    [whole] = [run for run in runs.values() if run.facts["job_type"] == "sweep"]
    members = list(members_of(runs).values())
    seen = 0
    for panel in panels(json.loads(out)):
        references = set(referred(panel["config"]))
        if panel["viewType"] == "Weave":
            assert f'"{TABLE}"' in json.dumps(panel["config"])
            references = {f"table:{TABLE}"}
        assert references, panel
        for reference in references:
            holders = [whole] if reference.startswith("table:") else members
            assert all(logged(run, reference) for run in holders), (panel["viewType"], reference)
            seen += 1
    assert seen > 30
    definition = json.loads(out)
    [runset] = definition["spec"]["section"]["runSets"]
    assert runset["filters"]["filters"][0]["value"] == "everything"
    assert {run.facts["run_group"] for run in runs.values()} == {"everything"}


def test_the_definition_is_the_one_that_was_agreed_on(sweep: Path, command: Command) -> None:
    _, out, _ = command("dashboard", str(sweep), "--json")
    names = re.compile(r"\b(?:robustness|extrapolation)/[\w@.]+")
    assert out == names.sub(lambda found: current_measure(found[0]), GOLDEN.read_text())


def test_charts_are_means_over_completed_members(sweep: Path) -> None:
    results = modulab.load_results(sweep)
    [chart] = [chart for chart in CHARTS if chart.key == "chart/modularity_against_noise"]
    table = chart_table(chart, results)
    assert len(table) == 4
    for row in table.to_dict("records"):
        own = results[
            (results["config.architecture.name"] == row["line"]) & (results["config.noise.scale"] == row["x"])
        ]
        assert row["value"] == pytest.approx(own["modularity/structural"].mean())
        assert row["runs"] == len(own)
    assert chart_table(chart, results.assign(status="failed")).empty


def test_a_dashboard_without_a_network_is_explained(sweep: Path, command: Command, monkeypatch: Any) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "")
    code, _, err = command("dashboard", str(sweep), "--entity", "me")
    assert code == 2
    assert "print the definition with --json" in err
    assert "Traceback" not in err
