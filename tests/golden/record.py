"""Trains the golden runs and writes down every bit of what they give: python -m tests.golden.record [NAME ...]."""

from __future__ import annotations

import json
import math
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
import yaml

import modulab
from modulab.results.summary import metric_names
from modulab.training.processor import processor_fact

HERE = Path(__file__).parent
VALUES = HERE / "values.json"


def golden_commands() -> dict[str, list[str]]:
    """Return the overrides of every golden run, by name."""
    content = yaml.safe_load((HERE / "runs.yaml").read_text())
    return {name: [*own.split(), *content["shared"].split()] for name, own in content["runs"].items()}


def machine() -> str:
    """Return what results depend on to the bit."""
    capability = torch.backends.cpu.get_cpu_capability()
    family, model = (
        processor_fact("cpu family"),
        processor_fact("model\t"),
    )  # names may stand for several kinds
    torch_version = torch.__version__.partition("+")[0]
    return (
        f"{processor_fact('model name')}, family {family}, model {model}, {capability}, torch {torch_version}"
    )


def taken(name: str) -> dict[str, list[str]]:
    """Return what a golden run gives: measures and curves by name, as hexadecimal floats, member after member."""
    with tempfile.TemporaryDirectory() as folder:
        results = modulab.train(golden_commands()[name], folder=Path(folder, "run"))
    table = results.table.sort_values("config.seed", ignore_index=True)
    assert (table["status"] == "completed").all(), table["error"].tolist()
    found = {measure: hexadecimal(table[measure].tolist()) for measure in metric_names(table)}
    seeds = table.set_index("run_id")["config.seed"]
    curves = results.curves.assign(seed=results.curves["run_id"].map(seeds))
    for measure, points in curves.sort_values(["seed", "step"]).groupby("measure"):
        found[f"curve {measure}"] = hexadecimal(points["value"].tolist())
    return found


def hexadecimal(values: list[float]) -> list[str]:
    """Return floats with all of their bits."""
    return [float(value).hex() if value is not None else math.nan.hex() for value in values]


def main() -> None:
    """Record the runs named, or all."""
    names = sys.argv[1:] or list(golden_commands())
    content: dict[str, Any] = (
        json.loads(VALUES.read_text()) if VALUES.exists() and sys.argv[1:] else {"runs": {}}
    )
    content["machine"] = machine()
    for name in names:
        content["runs"][name] = taken(name)
        print(name, len(content["runs"][name]))
    VALUES.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
