import itertools
import time
from typing import Any

import pytest

from modulab.composing import (
    Plan,
    check_member,
    compose_checked,
    hydra_composer,
    plan_run,
    run_id,
)
from modulab.errors import ConfigError
from modulab.overrides import leaf_keys, replace_grid


def plan(*overrides: str) -> Plan:
    given = replace_grid(overrides)
    with hydra_composer() as compose:
        return plan_run(compose_checked(compose, given), given, compose)


def alone(*overrides: str) -> dict[str, Any]:
    [member] = plan(*overrides).members
    return member


@pytest.mark.parametrize(
    "base",
    [
        [],
        ["task=classification", "architecture.width=24"],
        ["regulariser=l1", "+regulariser.strength=${noise.scale}"[1:], "task.mixing_seed=${seed}"],
        ["experiment=classification"],
    ],
)
def test_a_grid_gives_what_hydra_composes_point_by_point(base: list[str]) -> None:
    grid = {
        "architecture": ["premodular", "partial"],
        "noise.scale": [0, 0.1],
        "data.num_samples": [32, None],
    }
    text = "{architecture: [premodular, partial], noise.scale: [0, 0.1], data.num_samples: [32, null]}"
    members = plan(*base, f"population.grid={text}", "population.seeds=2", "seed=5").members
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
    members = plan(
        "population.grid={task.modules: [2, 4], architecture.width: ['${task.modules}', 48]}"
    ).members
    widths = [(member["task"]["modules"], member["architecture"]["width"]) for member in members]
    assert widths == [(2, 2), (2, 48), (4, 4), (4, 48)]


def test_a_leaf_that_is_set_no_longer_interpolates() -> None:
    members = plan(
        "regulariser.strength=${noise.scale}", "population.grid=[{noise.scale: [0.1]}, {}]"
    ).members
    assert [member["regulariser"]["strength"] for member in members] == [0.1, 0.0]
    members = plan(
        "regulariser.strength=${noise.scale}", "population.grid=[{regulariser.strength: [0.5]}, {}]"
    ).members
    assert [member["regulariser"]["strength"] for member in members] == [0.5, 0.0]


def test_an_interpolation_of_an_interpolation_follows_the_grid() -> None:
    members = plan(
        "regulariser.strength=${training.weight_decay}",
        "training.weight_decay=${noise.scale}",
        "population.grid={noise.scale: [0.1, 0.2]}",
    ).members
    assert [member["regulariser"]["strength"] for member in members] == [0.1, 0.2]
    assert [member["training"]["weight_decay"] for member in members] == [0.1, 0.2]


def test_a_list_of_grids_trains_their_union_once() -> None:
    made = plan("population.grid=[{noise.scale: [0, 0.1]}, {noise.scale: [0.1, 0.2]}, {seed: [0, 7]}]")
    found = [(member["noise"]["scale"], member["seed"]) for member in made.members]
    assert found == [(0.0, 0), (0.1, 0), (0.2, 0), (0.0, 7)]
    assert len(set(made.run_ids)) == 4


def test_seeds_are_consecutive_at_every_point() -> None:
    members = plan("seed=10", "population.seeds=3", "population.grid={noise.scale: [0, 1]}").members
    assert [member["seed"] for member in members] == [10, 11, 12, 10, 11, 12]


def test_a_grid_on_the_command_line_replaces_an_experiments_grid() -> None:
    members = plan(
        "experiment=regression", "population.grid={noise.scale: [0.3]}", "population.seeds=1"
    ).members
    assert [member["noise"]["scale"] for member in members] == [0.3]


def test_overrides_apply_to_every_group_of_a_grid() -> None:
    members = plan("noise.scale=0.7", "population.grid={noise: [gaussian, poisson]}").members
    assert [(member["noise"]["name"], member["noise"]["scale"]) for member in members] == [
        ("gaussian", 0.7),
        ("poisson", 0.7),
    ]


def test_an_override_that_every_grid_point_would_undo_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"has no effect, because population\.grid sets noise\.scale"):
        plan("noise.scale=0.7", "population.grid={noise.scale: [0, 1]}")
    with pytest.raises(ConfigError, match="has no effect"):
        plan("architecture=dense", "population.grid={architecture: [premodular]}")
    assert len(plan("noise.scale=0.7", "population.grid=[{noise.scale: [0, 1]}, {}]").members) == 3


def test_members_do_not_share_what_a_neighbour_sets() -> None:
    one, other = plan("population.grid={noise.scale: [0.1, 0.2]}").members
    one["noise"]["name"] = "changed"
    assert other["noise"]["name"] == "poisson"


def test_run_id_is_fixed_for_ever() -> None:
    assert run_id({"seed": 0, "noise": {"scale": 0.1, "name": "poisson"}}) == "d40fbda3d0b3c3b7"


def test_run_id_ignores_how_a_setting_was_written() -> None:
    member = alone()
    assert run_id(alone("noise.scale=0")) == run_id(alone("noise.scale=0.0")) == run_id(member)
    assert run_id(alone("training.learning_rate=3e-3")) == run_id(alone("training.learning_rate=0.003"))
    assert run_id(dict(reversed(member.items()))) == run_id(member)
    assert run_id(check_member(member)) == run_id(member)


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
def test_ten_thousand_members_are_planned_in_under_ten_seconds() -> None:
    grid = (
        "{architecture: [dense, premodular], noise.scale: [0, 0.1, 0.2, 0.4], "
        "data.num_samples: [8, 16, 32, 64, 128]}"
    )
    for extra in ([], ["regulariser.strength=${noise.scale}"]):
        start = time.process_time()
        made = plan(f"population.grid={grid}", "population.seeds=250", *extra)
        assert len(made.members) == 10_000
        assert time.process_time() - start < 10
