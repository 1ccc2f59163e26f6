"""README and docs are true: their files, written as they say, and their commands, run in their order, work."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pandas as pd
import pytest

from modulab.metrics.graphs.division import SCORES
from modulab.metrics.graphs.kinds import KINDS
from modulab.metrics.graphs.nulls import ShuffleKind
from modulab.metrics.measure import find_measure, shipped_measures
from tests.command_line import WholeCommand

ROOT = Path(__file__).parents[1]
PAGES = {path.stem: path.read_text() for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))}
LOOKED_AT = {
    "README",
    "sweeps",
    "loggers",
    "python",
    "extending",
    "networks",
    "maps",
    "graphs",
    "communities",
}
"""Pages whose results are looked at, each by a test of its own."""
FENCE = re.compile(r"(?:`(?P<file>[\w/]+\.\w+)`:\n\n)?```(?P<kind>\w+)\n(?P<text>.*?)```", re.DOTALL)


def run(command: list[str], folder: Path) -> None:
    """Run a command in a folder with this environment on PATH, and check that it succeeds."""
    ran = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False,
        env=os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
    )  # fmt: skip
    assert ran.returncode == 0, f"{command}\n{ran.stdout}\n{ran.stderr}"


def run_script(name: str, words: list[str], whole_command: WholeCommand) -> None:
    """Run the program that a script starts with what it is given, and check that it succeeds."""
    last = (ROOT / "scripts" / name).read_text().splitlines()[-1]
    program = last.removeprefix("exec .venv/bin/python ").removesuffix(' "$@"')
    assert last == f'exec .venv/bin/python {program} "$@"'
    ran = whole_command(["python", str(ROOT / program), *words], ROOT)
    assert ran.returncode == 0, f"{program}\n{ran.stdout}\n{ran.stderr}"


def run_together(commands: list[str], folder: Path, whole_command: WholeCommand) -> None:
    """Run commands of modulab in a folder, one after the other, and check that all succeed."""
    for command in commands:
        program, *words = shlex.split(command)
        assert program == "modulab", command
        ran = whole_command(words, folder)
        assert ran.returncode == 0, f"{command}\n{ran.stdout}\n{ran.stderr}"


def write_files(page: str, folder: Path) -> None:
    """Write the files that a page shows."""
    for block in FENCE.finditer(page):
        if block["file"]:
            path = folder / block["file"]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block["text"])


def commands_of(page: str) -> list[str]:
    """Return the lines of a page's blocks of kind bash. Those of kind sh need a cluster, and are run by its tests."""
    blocks = [block for block in FENCE.finditer(page) if not block["file"]]
    assert all(block["kind"] in ("bash", "python", "sh") for block in blocks)
    return [
        line for block in blocks if block["kind"] == "bash" for line in block["text"].strip().splitlines()
    ]


def run_page(name: str, folder: Path, whole_command: WholeCommand) -> None:
    """Write the files of a page, and run its commands and then its Python, in the order of the page."""
    page = PAGES[name]
    write_files(page, folder)
    run_together(commands_of(page), folder, whole_command)
    for block in FENCE.finditer(page):
        if block["kind"] == "python" and not block["file"]:
            ran = whole_command(["python", "-c", block["text"]], folder)
            assert ran.returncode == 0, f"{block['text']}\n{ran.stdout}\n{ran.stderr}"


def table_of(folder: Path) -> pd.DataFrame:
    """Return a folder's rows."""
    return pd.read_parquet(folder / "results.parquet")


@pytest.mark.slow
def test_readme_runs_as_written(tmp_path: Path, whole_command: WholeCommand) -> None:
    run_page("README", tmp_path, whole_command)
    assert len(table_of(tmp_path / "outputs/grid")) == 2 * 3 * 4
    assert (tmp_path / "outputs/grid/report/report.html").is_file()
    assert table_of(tmp_path / "outputs/sweep")["status"].tolist() == ["completed"] * (2 * 2 * 4)
    assert len(table_of(tmp_path / "outputs/api")) == 2


@pytest.mark.slow
def test_page_on_sweeps_runs_as_written(tmp_path: Path, whole_command: WholeCommand) -> None:
    run_page("sweeps", tmp_path, whole_command)
    assert len(table_of(tmp_path / "outputs/noisy")) == 16
    assert table_of(tmp_path / "outputs/sweep")["status"].tolist() == ["completed"] * (3 * 2 * 4)
    assert len(table_of(tmp_path / "outputs/search")) == 8 * 2


@pytest.mark.slow
def test_page_on_loggers_runs_as_written(tmp_path: Path, whole_command: WholeCommand) -> None:
    run_page("loggers", tmp_path, whole_command)
    sweep = table_of(tmp_path / "outputs/sweep")
    assert len(list((tmp_path / "outputs/sweep/wandb").glob("offline-run-*"))) == len(sweep) + 1
    assert len(list((tmp_path / "outputs/sweep/csv").iterdir())) == len(sweep)


@pytest.mark.slow
def test_page_on_python_runs_as_written(tmp_path: Path, whole_command: WholeCommand) -> None:
    run_page("python", tmp_path, whole_command)
    assert len(table_of(tmp_path / "outputs/api")) == 4


@pytest.mark.slow
def test_page_on_extending_runs_as_written(tmp_path: Path, whole_command: WholeCommand) -> None:
    run_page("extending", tmp_path, whole_command)
    assert (table_of(tmp_path / "outputs/product")["error/test"] < 0.02).all()
    assert (table_of(tmp_path / "outputs/norms")["weights/norm"] > 0).all()
    gated = table_of(tmp_path / "outputs/gated")
    assert (gated["error/test"] < 0.5).all()
    assert gated["modularity/functional"].notna().all()
    assert "modularity/structural" not in gated


@pytest.mark.slow
def test_page_on_networks_runs_as_written(tmp_path: Path, whole_command: WholeCommand) -> None:
    write_files(PAGES["networks"], tmp_path)
    commands = commands_of(PAGES["networks"])
    placed = [f"{command} hydra.run.dir={number}" for number, command in enumerate(commands)]
    run_together(placed, tmp_path, whole_command)
    for number, command in enumerate(commands):
        measure = "projections/found" if "probes=projections" in command else "modularity/functional"
        assert table_of(tmp_path / f"{number}")[measure].notna().all()


@pytest.mark.slow
def test_page_on_maps_runs_as_written(tmp_path: Path, whole_command: WholeCommand) -> None:
    run_page("maps", tmp_path, whole_command)
    assert (tmp_path / "outputs/map/map.html").is_file()
    assert len(table_of(tmp_path / "outputs/settings")) == 16


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [name for name in PAGES if name not in LOOKED_AT and commands_of(PAGES[name])]
)
def test_other_page_runs_as_written(name: str, tmp_path: Path, whole_command: WholeCommand) -> None:
    run_page(name, tmp_path, whole_command)


def known_values() -> set[str]:
    """Return the names of the values of all measures that a config names."""
    measures = [find_measure(value, name) for name, value in shipped_measures().items()]
    return {column.name for measure in measures for column in measure.columns}


def test_page_on_measures_names_every_value_of_every_measure() -> None:
    named = set(re.findall(r"`([a-z_]+/[^`]+)`", PAGES["measures"])) - {"src/modulab/metrics/"}
    perturbations = {
        name.split("/")[1].split("@")[0] for name in known_values() if name.startswith("error_under/")
    }
    for perturbation in perturbations:
        assert f"`{perturbation}`" in PAGES["measures"], perturbation
    # Those of graphs have pages of their own, which name the parts that their names are made of.
    others = {
        name
        for name in known_values()
        if not name.startswith(("graph/", "communities/", "units/", "similarity/"))
    }
    values = {re.sub(r"(error_under|robustness)/\w+", r"\1/X", name) for name in others}
    assert named == values | {"error_under/poisson_energy@s"}


@pytest.mark.slow
def test_page_on_graphs_runs_as_written(tmp_path: Path, whole_command: WholeCommand) -> None:
    run_page("graphs", tmp_path, whole_command)
    table = table_of(tmp_path / "outputs/graphs")
    columns = [name for name in table if name.startswith("graph/") and name.endswith("_p")]
    assert len(columns) == 7 * 2 + 7 + 3 * 2
    assert table[columns].notna().all().all()


def test_the_page_on_graphs_names_every_graph_score_and_null() -> None:
    page = PAGES["graphs"]
    rows = {line.split("|")[1].strip(" `") for line in page.splitlines() if line.startswith("| `")}
    parts = [part for part in rows if not part.endswith(":")]
    assert sorted(parts) == sorted([*KINDS, *SCORES, *get_args(ShuffleKind), "frame", "partition"])


@pytest.mark.slow
def test_page_on_communities_runs_as_written(tmp_path: Path, whole_command: WholeCommand) -> None:
    run_page("communities", tmp_path, whole_command)
    assert (tmp_path / "outputs/found/report/modules.png").is_file()
    [row] = table_of(tmp_path / "outputs/found").to_dict("records")
    assert row["communities/louvain_modules"] >= 1


def test_the_page_on_networks_names_every_architecture() -> None:
    page = PAGES["networks"]
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


@pytest.mark.slow
def test_the_script_of_sources_chooses_trains_and_draws(tmp_path: Path, whole_command: WholeCommand) -> None:
    small = [
        "--sets",
        "200",
        "--per-stratum",
        "2",
        "training.steps=4",
        "training.curve_every=4",
        "trainer.engine=eager",
    ]
    run_script("range", [str(tmp_path), *small], whole_command)
    assert table_of(tmp_path)["config.task.corners"].value_counts().to_dict() == {0: 12, 4: 12}
    assert len(pd.read_csv(tmp_path / "range.csv")) == 24


@pytest.mark.slow
def test_the_script_of_gates_trains_compares_and_draws(tmp_path: Path, whole_command: WholeCommand) -> None:
    small = ["--channels", "2", "training.steps=4", "training.curve_every=4", "trainer.engine=eager"]
    run_script("gates", [str(tmp_path), *small], whole_command)
    assert table_of(tmp_path)["config.task.symbols"].value_counts().to_dict() == {16: 18, 2: 8}
    assert len(pd.read_csv(tmp_path / "gates.csv")) == 26


@pytest.mark.slow
def test_the_script_of_adaptation_trains_compares_and_draws(
    tmp_path: Path, whole_command: WholeCommand
) -> None:
    small = ["population.seeds=1", "training.steps=4", "training.curve_every=4", "trainer.engine=eager"]
    run_script("adaptation", [str(tmp_path), *small], whole_command)
    assert table_of(tmp_path)["config.task.order"].value_counts().to_dict() == {"causal": 32, "reversed": 32}
    assert len(pd.read_csv(tmp_path / "adaptation.csv")) == 64


@pytest.mark.slow
def test_the_script_of_varying_goals_trains_searches_and_draws(
    tmp_path: Path, whole_command: WholeCommand
) -> None:
    small = [
        "--seeds", "1", "--trials", "4", "training.steps=4", "training.curve_every=4", "trainer.engine=eager",
        "probes.num_samples=64",
    ]  # fmt: skip
    run_script("retina", [str(tmp_path), *small], whole_command)
    goals = table_of(tmp_path / "goals")["config.task.goals"]
    assert goals.value_counts().to_dict() == {"fixed": 5, "modular": 10, "random": 10}
    assert len(pd.read_csv(tmp_path / "elites" / "archive.csv")) == 160
    assert len(pd.read_csv(tmp_path / "retina.csv")) == 25


@pytest.mark.slow
def test_the_script_of_penalties_trains_searches_compares_and_draws(
    tmp_path: Path, whole_command: WholeCommand
) -> None:
    small = [
        "--seeds",
        "2",
        "--trials",
        "4",
        "training.steps=4",
        "training.curve_every=4",
        "trainer.engine=eager",
    ]
    run_script("penalties", [str(tmp_path), *small, "probes.num_samples=64"], whole_command)
    assert len(table_of(tmp_path / "tuning_full")) == 630
    assert len(table_of(tmp_path / "search_extrapolation")) == 8
    found = pd.read_csv(tmp_path / "penalties.csv")
    assert found["criterion"].value_counts().to_dict() == {
        "gaussian": 30, "poisson": 30, "multiplicative": 30, "extrapolation": 30,
    }  # fmt: skip
    assert (found.loc[(found["p"] == 2) & (found["q"] == 1), "ratio"] == 1).all()


@pytest.mark.slow
def test_the_script_of_experts_trains_cuts_and_draws(tmp_path: Path, whole_command: WholeCommand) -> None:
    small = ["population.seeds=1", "training.steps=4", "training.curve_every=4", "probes.num_samples=32"]
    run_script("experts", [str(tmp_path), *small, "trainer.engine=eager"], whole_command)
    assert table_of(tmp_path)["config.task.modules"].value_counts().to_dict() == {2: 4, 4: 4}
    assert len(pd.read_csv(tmp_path / "experts.csv")) == 8


@pytest.mark.slow
def test_the_script_of_scaling_trains_counts_and_draws(tmp_path: Path, whole_command: WholeCommand) -> None:
    small = [
        "population.seeds=1", "training.steps=2", "training.curve_every=2", "probes.num_samples=16",
        "trainer.engine=eager",
    ]  # fmt: skip
    run_script("scaling", [str(tmp_path), *small, "--points", "32", "64"], whole_command)
    assert table_of(tmp_path)["config.architecture.name"].value_counts().to_dict() == {
        "projected_modules": 24,
        "dense": 8,
    }
    assert len(pd.read_csv(tmp_path / "scaling.csv")) == 32


@pytest.mark.slow
def test_the_script_of_pretraining_trains_transplants_and_draws(
    tmp_path: Path, whole_command: WholeCommand
) -> None:
    small = [
        "--steps=2", "population.seeds=1", "training.steps=2", "training.curve_every=2", "probes.num_samples=16",
        "trainer.engine=eager",
    ]  # fmt: skip
    run_script("pretraining", [str(tmp_path), *small], whole_command)
    assert len(pd.read_csv(tmp_path / "pretraining.csv")) == 48


@pytest.mark.slow
def test_the_script_of_growth_trains_goes_through_stages_and_draws(
    tmp_path: Path, whole_command: WholeCommand
) -> None:
    small = [
        "--steps=2",
        "--stage-steps=2",
        "population.seeds=1",
        "training.curve_every=2",
        "probes.num_samples=16",
    ]
    run_script("growth", [str(tmp_path), *small, "trainer.engine=eager"], whole_command)
    assert table_of(tmp_path)["config.task.name"].value_counts().to_dict() == {
        "bit_memory": 16,
        "pulse_sum": 6,
    }
    assert len(pd.read_csv(tmp_path / "growth.csv")) == 22


def test_pages_name_scripts_pages_and_figures_that_are_there() -> None:
    for name, page in PAGES.items():
        here = ROOT if name == "README" else ROOT / "docs"
        for script in re.findall(r"`?\./(scripts/\w+)", page):
            assert os.access(ROOT / script, os.X_OK), (name, script)
        for target in re.findall(r"\]\(([^)]*)\)", page):
            path, _, anchor = target.partition("#")
            if path:
                assert (here / path).is_file(), (name, target)
            if anchor:
                headings = re.findall(r"^#+ (.*)$", (here / path).read_text() if path else page, re.MULTILINE)
                assert anchor in {heading.lower().replace(" ", "-") for heading in headings}, target


def test_readme_links_every_page() -> None:
    assert {f"docs/{name}.md" for name in PAGES} - {"docs/README.md"} <= set(
        re.findall(r"\((docs/\w+\.md)\)", PAGES["README"])
    )
