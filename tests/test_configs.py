import functools
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import modulab
from modulab.config.composing import (
    OTHER_GROUPS,
    Plan,
    compose_checked,
    config_folder,
    hydra_composer,
    plan_run,
)
from modulab.config.described import option_meaning
from modulab.config.settings import Trainer
from modulab.project import STARTER
from modulab.results.store import load_results
from tests.command_line import SMALL

FILES = sorted(path.relative_to(config_folder()).as_posix() for path in config_folder().rglob("*.yaml"))
OPTIONS = [
    file.removesuffix(".yaml") for file in FILES if "/" in file and file.split("/")[0] not in OTHER_GROUPS
]

NEEDED = {"architecture/gated_mixture": ["task=domains"], "architecture/conditionals": ["task=causal"]}
"""What an option cannot be read without."""


def plan(*overrides: str) -> Plan:
    with hydra_composer() as compose:
        return plan_run(compose_checked(compose, overrides), overrides, compose)


def members_of(*overrides: str) -> list[dict[str, Any]]:
    return [run.config for run in plan(*overrides).runs]


def choice(option: str) -> str:
    group, _, name = option.partition("/")
    return f"{group}={name}"


@functools.cache
def planned(option: str) -> Plan:
    """Return the plan of a file, or of none: all points of its grid, at two seeds.

    Members at further seeds differ in the seed alone, and there are 22,000 in one file.
    """
    given = [choice(option), *NEEDED.get(option, [])] if option else []
    with hydra_composer() as compose:
        config = compose_checked(compose, given)
        assert isinstance(config.population.seeds, int)
        config.population.seeds = min(config.population.seeds, 2)
        return plan_run(config, given, compose)


@pytest.mark.parametrize("option", ["", *OPTIONS])
def test_every_file_composes_to_members_that_read(option: str) -> None:
    made = planned(option)
    assert made.runs
    assert len(set(made.run_ids)) == len(made.runs)
    assert isinstance(made.trainer, Trainer)
    if option.startswith("logger/"):
        chosen = made.logger.model_dump(exclude_none=True)
        assert list(chosen) == ([] if option == "logger/none" else [option.removeprefix("logger/")])


@pytest.mark.parametrize("file", FILES)
def test_every_file_says_first_what_it_means(file: str) -> None:
    assert option_meaning(config_folder() / file).endswith((".", "?"))


@pytest.mark.parametrize(
    "option", [o for o in OPTIONS if o.split("/")[0] in ("task", "architecture", "noise", "regulariser")]
)
def test_every_named_option_names_itself(option: str) -> None:
    group, name = option.split("/")
    [run] = planned(option).runs
    assert run.config[group]["name"] == name or name == "default"


@pytest.mark.parametrize("name", ["regression", "classification", "digits"])
def test_every_experiment_overrides_what_its_task_needs_to_withhold_or_vary(name: str) -> None:
    members = members_of(f"experiment={name}")
    assert {member["task"]["name"] for member in members} == {name}
    assert {member["architecture"]["name"] for member in members} == {"dense", "premodular"}
    assert len({member["seed"] for member in members}) >= 3


EXPERIMENTS = [
    option
    for option in OPTIONS
    # Those of the claims have hundreds of members: tests/claims trains them.
    if option.startswith("experiment/")
    and not option.startswith("experiment/claims/")
    # Searches for modules take longer than all the rest: tests/report/test_communities.py trains such networks.
    and option != "experiment/communities"
]


FRESH = ("experiment/retina", "experiment/locality")
"""Experiments that need fresh points at every step."""
TRAINED = ("experiment/demo_regression", "experiment/demo_digits", "experiment/retina")
"""Experiments that the default tests train. They compose all."""


@pytest.mark.parametrize(
    "option",
    [*TRAINED, *(pytest.param(each, marks=pytest.mark.slow) for each in EXPERIMENTS if each not in TRAINED)],
)
def test_every_experiment_trains_two_steps(option: str, tmp_path: Path) -> None:
    results = modulab.train(
        [
            choice(option),
            "population.seeds=1",
            "training.steps=2",
            "training.curve_every=1",
            f"data.num_samples={'null' if option in FRESH else 64}",
            "probes.num_samples=16",
            "probes.repeats=1",
            "probes.levels=[0.3]",
            "trainer.accelerator=cpu",
            "trainer.engine=eager",
            "trainer.threads=1",
        ],
        folder=tmp_path,
    )
    assert set(results.table["status"]) == {"completed"}
    assert results.table["error/test"].notna().all()


def test_the_default_is_the_reference_setting_without_noise_or_regulariser() -> None:
    [member] = members_of()
    architecture, training = member["architecture"], member["training"]
    assert member["task"]["functions"][:2] == ["sine", "parabola"]
    assert member["task"]["modules"] == 2
    assert (architecture["width"], architecture["depth"], architecture["activation"]) == (48, 1, "relu")
    assert architecture["cross_connections"] == 1
    assert (member["noise"]["scale"], member["regulariser"]["strength"]) == (0, 0)
    assert member["data"]["num_samples"] == 4096
    assert (training["steps"], training["batch_size"]) == (4000, 256)
    assert (training["optimiser"], training["learning_rate"], training["schedule"]) == (
        "adam",
        3e-3,
        "cosine",
    )


def test_a_noise_scale_or_strength_alone_switches_on_poisson_noise_and_its_regulariser() -> None:
    [member] = members_of("noise.scale=0.4", "regulariser.strength=0.08")
    assert member["noise"] == {
        "name": "poisson",
        "scale": 0.4,
        "constant": 0.0,
        "linear": 1.0,
        "quadratic": 0.0,
        "distribution": "normal",
        "sites": "all",
    }
    regulariser = member["regulariser"]
    assert (regulariser["weight_power"], regulariser["activity_power"]) == (2, 1)
    assert regulariser["strength"] == 0.08


@pytest.mark.parametrize(
    ("name", "law"),
    [
        ("none", (0, 0, 0)),
        ("gaussian", (1, 0, 0)),
        ("poisson", (0, 1, 0)),
        ("multiplicative", (0, 0, 1)),
        ("dropout", (0, 0, 1)),
    ],
)
def test_each_noise_has_its_law(name: str, law: tuple[float, ...]) -> None:
    [member] = members_of(f"noise={name}")
    noise = member["noise"]
    assert (noise["constant"], noise["linear"], noise["quadratic"]) == law
    assert (noise["scale"] > 0) == (name != "none")
    assert noise["distribution"] == ("bernoulli" if name == "dropout" else "normal")


@pytest.mark.parametrize(
    ("name", "powers"),
    [
        ("activity_weight", (2, 1)),
        ("scale_free", (1, 1)),
        ("multiplicative", (2, 2)),
        ("l1", (1, 0)),
        ("l2", (2, 0)),
        ("activity_l1", (0, 1)),
        ("activity_l2", (0, 2)),
    ],
)
def test_each_regulariser_has_its_powers(name: str, powers: tuple[float, float]) -> None:
    [member] = members_of(f"regulariser={name}")
    regulariser = member["regulariser"]
    assert (regulariser["weight_power"], regulariser["activity_power"]) == powers
    assert regulariser["strength"] > 0


@pytest.mark.parametrize(("name", "share"), [("dense", 1.0), ("premodular", 0.0), ("partial", 0.1)])
def test_architectures_differ_only_in_name_and_cross_connections(name: str, share: float) -> None:
    [dense] = members_of()
    [member] = members_of(f"architecture={name}")
    assert member["architecture"] == dense["architecture"] | {"name": name, "cross_connections": share}


@pytest.mark.slow
def test_the_wheel_installed_elsewhere_trains_and_has_every_config(tmp_path: Path) -> None:
    root = Path(__file__).parent.parent
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    # A copy: setuptools and its like leave folders beside the sources.
    sources = shutil.copytree(
        root, tmp_path / "sources", ignore=shutil.ignore_patterns(".*", "outputs", "tests", "__pycache__")
    )
    build = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(tmp_path)]
    subprocess.run([*build, str(sources)], check=True)
    [wheel] = tmp_path.glob("*.whl")
    place = tmp_path / "installed"
    subprocess.run(
        [*pip, "install", "--no-deps", "--no-index", "--target", str(place), str(wheel)], check=True
    )
    for ours, theirs in ((root / "configs", place / "modulab/configs"), (STARTER, place / "modulab/starter")):
        files = {path.relative_to(ours) for path in ours.rglob("*.*") if path.suffix != ".pyc"}
        assert files == {path.relative_to(theirs) for path in theirs.rglob("*.*") if path.suffix != ".pyc"}
    script = (
        "import sys, modulab\nfrom modulab.cli import main\nprint(modulab.__file__)\n"
        f"sys.exit(main(['train', '-m', 'seed=0,1', 'hydra.sweep.dir=run', *{SMALL!r}]))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(place)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith(f"{place / 'modulab' / '__init__.py'}\n")
    assert len(load_results(tmp_path / "run")) == 2
