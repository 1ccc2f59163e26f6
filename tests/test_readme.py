"""The README is true: its files, written as it says, and its commands, run in its order, work."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
FENCE = re.compile(r"(?:`(?P<file>[\w/]+\.\w+)`:\n\n)?```(?P<kind>\w+)\n(?P<text>.*?)```", re.DOTALL)


def run(command: list[str] | str, folder: Path) -> None:
    """Run a command, or a line of a shell, in a folder with this environment on PATH, and check that it succeeds."""
    ran = subprocess.run(
        command, shell=isinstance(command, str), cwd=folder, capture_output=True, text=True, check=False,
        env=os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
    )  # fmt: skip
    assert ran.returncode == 0, f"{command}\n{ran.stdout}\n{ran.stderr}"


def run_together(commands: list[str], folder: Path) -> None:
    """Run commands in a folder, one after the other, and check that all succeed."""
    ran = subprocess.run(
        [sys.executable, "-m", "tests.forked_commands", str(folder)],
        input="\n".join(commands), cwd=ROOT, capture_output=True, text=True, check=False,
        env=os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
    )  # fmt: skip
    assert ran.returncode == 0, f"{ran.stdout}\n{ran.stderr}"


@pytest.mark.slow
def test_readme_commands_and_extensions_run_as_written(tmp_path: Path) -> None:
    blocks = list(FENCE.finditer(README))
    for block in blocks:
        if block["file"]:
            path = tmp_path / block["file"]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block["text"])
    # Those of kind sh need a cluster: tests/sweep/test_slurm_cluster.py runs them.
    commands = [
        command
        for block in blocks
        if block["kind"] == "bash"
        for command in block["text"].strip().splitlines()
    ]
    assert len(commands) >= 24
    run_together(commands, tmp_path)
    for block in blocks:
        if block["kind"] == "python" and not block["file"]:
            run([sys.executable, "-c", block["text"]], tmp_path)
        assert block["file"] or block["kind"] in ("bash", "python", "sh")
    grid = pd.read_parquet(tmp_path / "outputs/grid/results.parquet")
    assert len(grid) == 2 * 3 * 4
    assert (tmp_path / "outputs/grid/report/report.html").is_file()
    sweep = pd.read_parquet(tmp_path / "outputs/sweep/results.parquet")
    assert sweep["status"].tolist() == ["completed"] * (3 * 2 * 4)
    assert len(list((tmp_path / "outputs/sweep/wandb").glob("offline-run-*"))) == len(sweep) + 1
    product = pd.read_parquet(tmp_path / "outputs/product/results.parquet")
    assert (product["error/test"] < 0.02).all()
    assert (pd.read_parquet(tmp_path / "outputs/norms/results.parquet")["weights/norm"] > 0).all()
    gated = pd.read_parquet(tmp_path / "outputs/gated/results.parquet")
    assert (gated["error/test"] < 0.5).all()
    assert gated["modularity/functional"].notna().all()
    assert "modularity/structural" not in gated


@pytest.mark.slow
def test_commands_of_the_page_on_networks_run_as_written(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "networks.md").read_text()
    blocks = list(FENCE.finditer(page))
    for block in blocks:
        if block["file"]:
            (tmp_path / block["file"]).write_text(block["text"])
    commands = [line for block in blocks if not block["file"] for line in block["text"].strip().splitlines()]
    assert len(commands) == 6
    run_together([f"{command} hydra.run.dir={each}" for each, command in enumerate(commands)], tmp_path)
    for number in range(len(commands)):
        assert pd.read_parquet(tmp_path / f"{number}/results.parquet")["modularity/functional"].notna().all()


@pytest.mark.slow
def test_commands_of_the_page_on_maps_run_as_written(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "maps.md").read_text()
    commands = [line for block in FENCE.finditer(page) for line in block["text"].strip().splitlines()]
    assert len(commands) == 2
    run_together(commands, tmp_path)
    assert (tmp_path / "outputs/map/map.html").is_file()
    assert len(pd.read_parquet(tmp_path / "outputs/settings/results.parquet")) == 16
    for picture in re.findall(r"!\[.*?\]\((.*?)\)", page):
        assert (ROOT / "docs" / picture).is_file(), picture


def test_the_page_on_networks_names_every_architecture() -> None:
    page = (ROOT / "docs" / "networks.md").read_text()
    rows = [line.split("|")[1] for line in page.splitlines() if line.startswith("| `")]
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert named - {"architecture"} == {path.stem for path in (ROOT / "configs/architecture").glob("*.yaml")}


@pytest.mark.slow
def test_the_script_of_five_kinds_trains_and_draws(tmp_path: Path) -> None:
    small = [
        "training.steps=4", "population.seeds=2", "training.curve_every=4", "probes.num_samples=32",
        "probes.repeats=1", "trainer.engine=eager", "data.num_samples=64",
    ]  # fmt: skip
    run([str(ROOT / "scripts/kinds"), str(tmp_path), *small], tmp_path)
    table = pd.read_parquet(tmp_path / "results.parquet")
    assert set(table["config.architecture.name"]) == {
        "dense", "experts", "recurrent", "convolution", "attention",
    }  # fmt: skip
    assert (table["status"] == "completed").all()
    assert len(table) == 5 * 5 * 2
    assert (tmp_path / "kinds.png").is_file()


def test_readme_names_scripts_that_exist_and_figures_that_are_there() -> None:
    for script in re.findall(r"\./(scripts/\w+)", README):
        assert os.access(ROOT / script, os.X_OK), script
    for picture in re.findall(r"!\[.*?\]\((.*?)\)", README):
        assert (ROOT / picture).is_file(), picture
