import itertools
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from modulab.config.composing import (
    Plan,
    compose_checked,
    hydra_composer,
    plan_run,
    plan_sweep,
)
from modulab.config.identity import run_id
from modulab.config.overrides import GROUPS, leaf_keys, replace_grid
from modulab.config.settings import read_run
from modulab.errors import ConfigError
from tests.command_line import SMALL, Command


def plan(*overrides: str) -> Plan:
    given = replace_grid(overrides)
    with hydra_composer() as compose:
        return plan_run(compose_checked(compose, given), given, compose)


def alone(*overrides: str) -> dict[str, Any]:
    [run] = plan(*overrides).runs
    return run.config


def members_of(*overrides: str) -> list[dict[str, Any]]:
    return [run.config for run in plan(*overrides).runs]


@pytest.mark.parametrize(
    "base",
    [
        pytest.param([], marks=pytest.mark.slow),
        ["task=classification", "architecture.width=24"],
        ["regulariser=l1", "+regulariser.strength=${noise.scale}"[1:], "task.mixing_seed=${seed}"],
        pytest.param(["experiment=classification"], marks=pytest.mark.slow),
    ],
)
def test_a_grid_gives_what_hydra_composes_point_by_point(base: list[str]) -> None:
    grid = {
        "architecture": ["premodular", "partial"],
        "noise.scale": [0, 0.1],
        "data.num_samples": [32, None],
    }
    text = "{architecture: [premodular, partial], noise.scale: [0, 0.1], data.num_samples: [32, null]}"
    members = members_of(*base, f"population.grid={text}", "population.seeds=2", "seed=5")
    single = ["population.grid=[]", "population.seeds=1"]
    expected = [
        alone(
            *base,
            *single,
            f"seed={seed}",
            *(f"{key}={'null' if value is None else value}" for key, value in zip(grid, values, strict=True)),
        )
        for values in itertools.product(*grid.values())
        for seed in (5, 6)
    ]
    assert members == expected


def test_interpolations_in_a_grid_are_resolved_in_each_member() -> None:
    members = members_of(
        "population.grid={task.modules: [2, 4], architecture.width: ['${task.modules}', 48]}"
    )
    widths = [(member["task"]["modules"], member["architecture"]["width"]) for member in members]
    assert widths == [(2, 2), (2, 48), (4, 4), (4, 48)]


def test_a_leaf_that_is_set_no_longer_interpolates() -> None:
    members = members_of("regulariser.strength=${noise.scale}", "population.grid=[{noise.scale: [0.1]}, {}]")
    assert [member["regulariser"]["strength"] for member in members] == [0.1, 0.0]
    members = members_of(
        "regulariser.strength=${noise.scale}", "population.grid=[{regulariser.strength: [0.5]}, {}]"
    )
    assert [member["regulariser"]["strength"] for member in members] == [0.5, 0.0]


def test_an_interpolation_of_an_interpolation_follows_the_grid() -> None:
    members = members_of(
        "regulariser.strength=${training.weight_decay}",
        "training.weight_decay=${noise.scale}",
        "population.grid={noise.scale: [0.1, 0.2]}",
    )
    assert [member["regulariser"]["strength"] for member in members] == [0.1, 0.2]
    assert [member["training"]["weight_decay"] for member in members] == [0.1, 0.2]


def test_a_list_of_grids_trains_their_union_once() -> None:
    made = plan("population.grid=[{noise.scale: [0, 0.1]}, {noise.scale: [0.1, 0.2]}, {seed: [0, 7]}]")
    found = [(member["noise"]["scale"], member["seed"]) for member in (run.config for run in made.runs)]
    assert found == [(0.0, 0), (0.1, 0), (0.2, 0), (0.0, 7)]
    assert len(set(made.run_ids)) == 4


def test_seeds_are_consecutive_at_every_point() -> None:
    members = members_of("seed=10", "population.seeds=3", "population.grid={noise.scale: [0, 1]}")
    assert [member["seed"] for member in members] == [10, 11, 12, 10, 11, 12]


def test_a_grid_on_the_command_line_replaces_an_experiments_grid() -> None:
    members = members_of(
        "experiment=regression", "population.grid={noise.scale: [0.3]}", "population.seeds=1"
    )
    assert [member["noise"]["scale"] for member in members] == [0.3]


def test_overrides_apply_to_every_group_of_a_grid() -> None:
    members = members_of("noise.scale=0.7", "population.grid={noise: [gaussian, poisson]}")
    assert [(member["noise"]["name"], member["noise"]["scale"]) for member in members] == [
        ("gaussian", 0.7),
        ("poisson", 0.7),
    ]


def test_an_override_that_every_grid_point_would_undo_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"has no effect, because population\.grid sets noise\.scale"):
        plan("noise.scale=0.7", "population.grid={noise.scale: [0, 1]}")
    with pytest.raises(ConfigError, match="has no effect"):
        plan("architecture=dense", "population.grid={architecture: [premodular]}")
    assert len(members_of("noise.scale=0.7", "population.grid=[{noise.scale: [0, 1]}, {}]")) == 3


def test_members_do_not_share_what_a_neighbour_sets() -> None:
    one, other = members_of("population.grid={noise.scale: [0.1, 0.2]}")
    one["noise"]["name"] = "changed"
    assert other["noise"]["name"] == "poisson"


def test_run_id_is_fixed_for_ever() -> None:
    assert run_id({"seed": 0, "noise": {"scale": 0.1, "name": "poisson"}}) == "d40fbda3d0b3c3b7"


def test_run_id_ignores_how_a_setting_was_written() -> None:
    member = alone()
    assert run_id(alone("noise.scale=0")) == run_id(alone("noise.scale=0.0")) == run_id(member)
    assert run_id(alone("training.learning_rate=3e-3")) == run_id(alone("training.learning_rate=0.003"))
    assert run_id(dict(reversed(member.items()))) == run_id(member)
    again = read_run(member)
    assert again.run_id == run_id(member)
    assert again.config == member
    assert again.member == read_run(again.config).member


def test_run_id_does_not_depend_on_folders_devices_or_company() -> None:
    made = plan("trainer.threads=1", "trainer.engine=eager", "population.seeds=2")
    assert made.run_ids[0] == run_id(alone())


def test_run_id_depends_on_every_leaf() -> None:
    member = alone()
    seen = {run_id(member)}
    for key in leaf_keys(member):
        changed = {name: dict(node) if isinstance(node, dict) else node for name, node in member.items()}
        *path, leaf = key.split(".")
        node: Any = changed
        for part in path:
            node[part] = dict(node[part])
            node = node[part]
        node[leaf] = "changed"
        seen.add(run_id(changed))
    assert len(seen) == 1 + len(leaf_keys(member))


@pytest.mark.slow
def test_ten_thousand_members_are_planned() -> None:
    grid = (
        "{architecture: [dense, premodular], noise.scale: [0, 0.1, 0.2, 0.4], "
        "data.num_samples: [8, 16, 32, 64, 128]}"
    )
    for extra in ([], ["regulariser.strength=${noise.scale}"]):
        made = plan(f"population.grid={grid}", "population.seeds=250", *extra)
        assert len(made.runs) == 10_000


def plan_jobs(jobs: list[list[str]]) -> Plan:
    with hydra_composer() as compose:
        return plan_sweep(jobs, lambda overrides, number: compose(overrides))


SWEEPS = {
    "leaves and choices": [
        [
            f"architecture={architecture}",
            f"noise.scale={scale}",
            f"data.num_samples={samples}",
            "training.steps=9",
        ]
        for architecture in ("dense", "premodular")
        for scale in ("0", "0.1", "1e-3")
        for samples in ("32", "null")
    ],
    "interpolations between leaves": [
        [
            f"noise.scale={scale}",
            "regulariser.strength=${noise.scale}",
            f"seed={seed}",
            "task.mixing_seed=${seed}",
        ]
        for scale in ("0.1", "0.2")
        for seed in ("1", "2")
    ],
    "an interpolation that varies": [
        ["task=classification", f"architecture.width={width}", "noise.scale=0.1"]
        for width in ("24", "${training.batch_size}", "32")
    ],
    "lists, quotes and booleans": [
        [f"task.mixing={mixing}", f"probes.levels={levels}", "noise.name='my law'"]
        for mixing in ("true", "false")
        for levels in ("[0.1,0.2]", "[0.3]")
    ],
    "additions and deletions": [
        [f"seed={seed}", "+probes.measures.again=modulab.metrics.errors.measure_errors", deletion]
        for seed in ("0", "1")
        for deletion in ("~probes.measures.ranges", "probes.measures.ranges=null")
    ],
    "a leaf below a nested value": [
        ["probes.measures={errors:null}", f"probes.measures.ranges={path}", f"seed={seed}"]
        for path in ("null", "modulab.metrics.errors.measure_errors")
        for seed in ("3", "4")
    ],
    "experiments": [
        [f"experiment={name}", f"noise.scale={scale}", "population.seeds=1", "population.grid=none"]
        for name in ("regression", "digits")
        for scale in ("0.1", "0.3")
    ],
    "jobs with different keys": [["noise.scale=0.1"], ["seed=4"], [], ["noise=gaussian", "noise.scale=0.1"]],
}


@pytest.mark.parametrize("name", SWEEPS)
def test_jobs_of_a_sweep_are_what_hydra_composes_one_by_one(name: str) -> None:
    jobs = [replace_grid(job) for job in SWEEPS[name]]
    with hydra_composer() as compose:
        alone = []
        for job in jobs:
            config = OmegaConf.to_container(compose(job), resolve=True)
            assert isinstance(config, dict)
            alone.append(read_run({key: config[key] for key in ("seed", *GROUPS)}).config)
    made = plan_jobs(jobs)
    by_id = {run.run_id: run.config for run in made.runs}
    assert [by_id[job[0]] for job in made.jobs] == alone
    assert all(len(job) == 1 for job in made.jobs)


@given(data=st.data())
# Composing takes a second an example, and shrinking hundreds of examples.
@settings(max_examples=8, phases=(Phase.explicit, Phase.reuse, Phase.generate))
@pytest.mark.slow
def test_any_sweep_is_planned_as_hydra_composes_it(data: st.DataObject) -> None:
    pool = [
        ["noise=poisson", "noise=gaussian"],
        ["noise.scale=0.1", "noise.scale=0.5", "noise.scale=${data.num_samples}"],
        ["task=regression", "task=classification"],
        ["data.num_samples=16", "data.num_samples=64"],
        ["regulariser=l1", "regulariser=activity_weight"],
        ["regulariser.strength=0.25", "regulariser.strength=${noise.scale}"],
        ["architecture=premodular", "architecture=partial"],
        ["architecture.width=12", "architecture.width=20"],
        ["seed=3", "seed=${architecture.width}"],
    ]
    axes = [data.draw(st.lists(st.sampled_from(axis), unique=True, max_size=2)) for axis in pool]
    jobs = [list(job) for job in itertools.product(*(axis for axis in axis_order(data, axes) if axis))][:12]
    with hydra_composer() as compose:
        alone = [plan_run(compose(job), job, compose).run_ids for job in jobs]
    assert list(map(list, plan_jobs(jobs).jobs)) == alone


def axis_order(data: st.DataObject, axes: list[list[str]]) -> list[list[str]]:
    return data.draw(st.permutations(axes))


def test_jobs_of_a_sweep_may_be_populations() -> None:
    made = plan_jobs(
        [[f"noise.scale={scale}", "population.seeds=3", "seed=5"] for scale in ("0", "0.1")]
        + [["noise.scale=0.1", "population.seeds=1", "seed=6"]]
    )
    assert [len(job) for job in made.jobs] == [3, 3, 1]
    assert made.jobs[2][0] == made.jobs[1][1]
    assert len(made.runs) == 6


@pytest.mark.parametrize(
    ("jobs", "message"),
    [
        (
            [["noise.scale=0.1"], ["noise.scal=0.1"]],
            r"noise\.scal: there is no such key. Did you mean 'noise\.scale'",
        ),
        ([["noise.scale=0.1"], ["noise.scale=-1"]], r"noise\.scale=-1"),
        ([["noise.scale=0.1"], ["noise.scale=high"]], r"noise\.scale='high'"),
        ([["task=regression"], ["task=regresion"]], r"task=regresion: there is no such option"),
        ([["trainer.engine=eager"], ["trainer.engine=compiled"]], "trainer differs between the jobs"),
    ],
)
def test_one_bad_job_stops_the_sweep_before_it_begins(jobs: list[list[str]], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        plan_jobs(jobs)


@pytest.mark.parametrize("group", ["experiment", "noise"])
@pytest.mark.parametrize("given", [(), ("hydra/launcher=population", "hydra/sweeper=grid")])
def test_what_a_file_asks_of_hydra_is_done_unless_the_command_says_otherwise(
    command: Command, group: str, given: Sequence[str]
) -> None:
    file = Path("conf", group, "mine.yaml")
    file.parent.mkdir(parents=True)
    file.write_text(
        "# @package _global_\ndefaults: [override /hydra/launcher: basic, override /hydra/sweeper: basic]\n"
        "seed: 7\nhydra: {run: {dir: mine}}\n"
    )
    code, out, err = command("train", "--config-dir", "conf", f"{group}=mine", *given, "--cfg", "all")
    assert code == 0, err
    config: Any = OmegaConf.create(out)
    assert config.seed == 7
    assert config.hydra.run.dir == "mine"
    classes = ("PopulationLauncher", "GridSweeper") if given else ("BasicLauncher", "BasicSweeper")
    assert config.hydra.launcher._target_.endswith(classes[0])
    assert config.hydra.sweeper._target_.endswith(classes[1])


@pytest.mark.slow  # tests/config/test_hydra_private.py sets such a program's Hydra aside without a process of its own
def test_networks_are_trained_within_another_program_of_hydra(tmp_path: Path) -> None:
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "own.yaml").write_text("answer: 42\n")
    (tmp_path / "own.py").write_text(
        "import hydra, modulab\n"
        "from hydra.core.hydra_config import HydraConfig\n"
        "@hydra.main(version_base='1.3', config_path='conf', config_name='own')\n"
        "def main(config):\n"
        f"    results = modulab.train({SMALL!r}, folder='run')\n"
        "    print(config.answer, len(results.table), HydraConfig.get().job.name)\n"
        "main()\n"
    )
    ended = subprocess.run(
        [sys.executable, "own.py"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines()[-1] == "42 1 own"
