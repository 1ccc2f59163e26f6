"""Run ids stay what the first version with such a result computed."""

from pathlib import Path
from typing import Any

import pytest

from modulab.config.identity import ADDED_KEYS, ADDED_MEASURES, group_in_current_form, run_id
from modulab.config.trust import check_named_code
from modulab.errors import ConfigError
from modulab.metrics.forgetting import measure_forgetting
from modulab.schema import MOVED_CODE, import_target
from tests.config.test_composing import alone, plan

# Computed by the version of commit 9e99a1d, in which no code had moved yet.
FIRST_IDS = {
    (): "5a14baabf69c3f2a",
    ("task=digits", "regulariser=jacobian", "architecture=premodular"): "3eae5bff631a1ecd",
    ("task=classification", "probes=forgetting", "noise=dropout"): "25b8e78680f85fab",
    # By that of commit 7c99661, in which tasks had no codes.
    ("task=digits", "task.code=mixed"): "7cd5b7fef87203e6",
    ("task.functions=[fourier]", "task.modules=3"): "628536e221b66f87",
    ("task=parity", "data.num_samples=null"): "ed88748965cadc11",
    ("task=modular_arithmetic",): "5f311b64b097a5c8",
}


def in_current_form(config: dict[str, Any]) -> dict[str, Any]:
    return {key: group_in_current_form(key, node) for key, node in config.items()}


@pytest.mark.parametrize("overrides", FIRST_IDS)
def test_run_id_is_that_of_the_first_version(overrides: tuple[str, ...]) -> None:
    assert run_id(alone(*overrides)) == FIRST_IDS[overrides]


def test_config_of_an_earlier_version_gives_the_same_run_id_and_is_understood() -> None:
    now = alone("probes=forgetting")
    paths = {now: first for first, now in MOVED_CODE.items()}
    measures = {key: paths.get(str(path), path) for key, path in now["probes"]["measures"].items()}
    assert measures != now["probes"]["measures"]
    earlier = now | {"probes": now["probes"] | {"measures": measures}}
    assert run_id(earlier) == run_id(now)
    assert in_current_form(earlier) == now
    check_named_code(earlier, Path("manifest"))


def test_moved_code_is_found_by_its_first_path() -> None:
    assert import_target("modulab.training.forgetting.measure_forgetting", "key") is measure_forgetting
    for first, now in MOVED_CODE.items():
        assert import_target(first, "key") is import_target(now, "key")


@pytest.mark.parametrize(
    ("earlier", "now", "first_id"),
    [
        ("task.mixing=true", "task.code=mixed", "a6b0d89a1931c5da"),
        ("task.mixing=false", "task.code=coordinate", FIRST_IDS[()]),
    ],
)
def test_renamed_key_keeps_its_old_name_and_its_run_ids(earlier: str, now: str, first_id: str) -> None:
    assert alone(earlier) == alone(now)
    assert run_id(alone(now)) == first_id
    key, _, value = earlier.partition("=")
    [grid] = plan(f"population.grid={{{key}: [{value}]}}").runs
    assert (grid.config, grid.run_id) == (alone(now), first_id)


def test_renamed_key_is_refused_with_values_that_it_never_had_or_beside_its_new_name() -> None:
    with pytest.raises(ConfigError, match=r"task\.mixing=1 should be true or false.*task\.code"):
        alone("task.mixing=1")
    with pytest.raises(ConfigError, match=r"task\.mixing=true and task\.code=bump contradict each other"):
        alone("task.mixing=true", "task.code=bump")


def test_keys_that_were_added_to_one_class_count_in_others_of_the_same_name() -> None:
    own = alone()["task"] | {"_target_": "modulab.tasks.parity.ParityTask", "degree": 1}
    config = {"seed": 0, "task": own}
    without = {"seed": 0, "task": {key: value for key, value in own.items() if key != "degree"}}
    assert run_id(config) != run_id(without)
    assert "degree" not in in_current_form(without)["task"]


@pytest.mark.parametrize("overrides", [(), ("regulariser=wiring",)])
def test_keys_that_were_added_since_count_only_where_they_are_not_what_they_stood_for(
    overrides: tuple[str, ...],
) -> None:
    now = alone(*overrides)
    earlier = {name: dict(node) if isinstance(node, dict) else node for name, node in now.items()}
    own = [(group, key) for group, key in ADDED_KEYS if group != "regulariser" or overrides]
    for group, key in own:
        assert earlier[group].pop(key) == ADDED_KEYS[group, key]
    assert run_id(earlier) == run_id(now)
    assert in_current_form(earlier) == now
    assert run_id(alone(*overrides, "probes.curves=[error/test]")) != run_id(now)


def without(config: dict, *names: str) -> dict:
    """Return a config as written before it could take some measures."""
    measures = {key: value for key, value in config["probes"]["measures"].items() if key not in names}
    return config | {"probes": config["probes"] | {"measures": measures}}


@pytest.mark.parametrize("probes", ["default", "forgetting"])
def test_measures_that_were_added_since_count_only_where_they_are_not_the_shipped_ones(probes: str) -> None:
    now = alone(f"probes={probes}")
    assert set(ADDED_MEASURES) <= set(now["probes"]["measures"])
    earlier = without(now, *ADDED_MEASURES)
    assert run_id(earlier) == run_id(now)
    # An earlier version did not take them, and to verify its results is not to take them either.
    assert in_current_form(earlier) == earlier
    other = [
        alone(f"probes={probes}", f"probes.measures.{name}=null") for name in ("frame_null", "poisson_energy")
    ]
    more = alone(f"probes={probes}", "probes.measures.frame_null.rotations=65")
    assert len({run_id(config) for config in (now, more, *other)}) == 4


def test_measure_added_to_the_probes_of_forgetting_is_told_from_one_that_a_user_adds() -> None:
    forgetting, default = alone("probes=forgetting"), alone()
    taken = forgetting["probes"]["measures"]["cross_tangent"]
    measures = default["probes"]["measures"]
    asked = default | {"probes": default["probes"] | {"measures": measures | {"cross_tangent": taken}}}
    assert measures["cross_tangent"] is None
    assert len({run_id(config) for config in (forgetting, default, asked)}) == 3
    left_out = alone("probes=forgetting", "probes.measures.cross_tangent=null")
    assert run_id(left_out) != run_id(forgetting)
