"""Settings drawn from a Sobol sequence, as points of a run."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from modulab.config.composing import Plan, compose_checked, hydra_composer, plan_run
from modulab.config.overrides import replace_grid
from modulab.config.sobol import Sobol, sobol_points
from modulab.errors import ConfigError
from modulab.schema import read_settings


def drawn(settings: int, **axes: Any) -> list[dict[str, Any]]:
    return read_settings({"settings": settings, "axes": axes}, "population.sobol", Sobol).draw()


def plan(*given: str) -> Plan:
    overrides = replace_grid(given)
    with hydra_composer() as compose:
        return plan_run(compose_checked(compose, overrides), overrides, compose)


@pytest.mark.parametrize("number", [16, 64, 256])
def test_sobol_points_fill_every_equal_part_of_every_axis_once(number: int) -> None:
    points = sobol_points(number, 6).numpy()
    assert points.min() >= 0
    assert points.max() < 1
    for column in points.T:
        assert sorted((column * number).astype(int)) == list(range(number))


def test_sobol_points_fill_a_plane_as_a_net() -> None:
    # Every box of area 1/64 with sides that are powers of 1/2 holds one of 64 points of a (0, 6, 2)-net in base 2.
    points = sobol_points(64, 2).numpy()
    for power in range(7):
        boxes = np.floor(points * [2**power, 2 ** (6 - power)]).astype(int)
        assert len({tuple(box) for box in boxes}) == 64


def test_later_settings_and_axes_leave_the_earlier_ones_as_they_are() -> None:
    few, many = sobol_points(20, 3), sobol_points(300, 5)
    assert few.equal(many[:20, :3])


def test_axes_are_spread_evenly_on_their_scale() -> None:
    settings = drawn(
        256,
        linear={"low": -1.0, "high": 3.0},
        log={"low": 0.01, "high": 100.0, "scale": "log"},
        whole={"low": 1, "high": 1000, "scale": "log", "integer": True},
        listed={"values": ["a", "b", None, False]},
    )
    of = {key: [each[key] for each in settings] for key in settings[0]}
    assert [sum(-1 + k <= value < k for value in of["linear"]) for k in range(4)] == [64] * 4
    assert [sum(10 ** (k - 2) <= value < 10 ** (k - 1) for value in of["log"]) for k in range(4)] == [64] * 4
    assert all(isinstance(value, int) for value in of["whole"])
    assert np.median(of["whole"]) == pytest.approx(1000**0.5, rel=0.05)
    assert [of["listed"].count(value) for value in ("a", "b", None, False)] == [64] * 4


def test_a_tied_axis_follows_the_others() -> None:
    settings = drawn(
        32,
        modules={"values": [2, 3, 8]},
        width={"values": [8, 24], "times": {"modules": 1}},
        strength={"values": [0.06], "times": {"modules": -1}},
    )
    assert {each["width"] / each["modules"] for each in settings} == {8, 24}
    assert {round(each["strength"] * each["modules"], 9) for each in settings} == {0.06}
    assert all(isinstance(each["width"], int) for each in settings)


@pytest.mark.parametrize(
    ("axis", "complaint"),
    [
        ({}, "give either values, or low and high"),
        ({"values": [1], "low": 1.0, "high": 2.0}, "give either values, or low and high"),
        ({"values": []}, "give at least one"),
        ({"low": 2.0, "high": 1.0}, "low below high"),
        ({"low": 0.0, "high": 1.0, "scale": "log"}, "begins above 0"),
        ({"low": 0.0, "hihg": 1.0}, "there is no such key. Did you mean 'high'"),
        ({"values": [1], "times": {"b": 1}}, "b is not another axis"),
    ],
)
def test_an_axis_that_cannot_be_is_refused_with_its_key(axis: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigError, match="population.sobol.*" + complaint):
        drawn(4, a=axis)


AXES = (
    "population.sobol.axes={noise.scale: {low: 0.1, high: 1.0}, architecture: {values: [dense, premodular]}}"
)


def test_every_setting_has_every_arm_at_seeds_of_its_own() -> None:
    made = plan(
        AXES, "population.sobol.settings=8", "population.seeds=2", "seed=5",
        "population.grid={regulariser.strength: [0.0, 0.1]}",
    )  # fmt: skip
    assert len(made.runs) == 8 * 2 * 2
    seeds = [run.member.seed for run in made.runs]
    assert sorted(seeds) == sorted([*range(5, 21)] * 2)
    by_setting: dict[int, set[tuple[Any, ...]]] = {}
    for run in made.runs:
        arm = run.member.noise.scale, run.member.architecture.name
        by_setting.setdefault((run.member.seed - 5) // 2, set()).add(arm)
    assert all(len(arms) == 1 for arms in by_setting.values())
    assert len(set.union(*by_setting.values())) == 8
    assert {run.member.architecture.name for run in made.runs} == {"dense", "premodular"}


def test_a_grid_overrides_an_axis_and_more_settings_keep_the_runs_of_fewer() -> None:
    grid = "population.grid=[{}, {noise.scale: [0.0]}]"
    few = plan(AXES, "population.sobol.settings=4", grid)
    assert sorted(run.member.noise.scale == 0 for run in few.runs) == [False] * 4 + [True] * 4
    assert set(few.run_ids) < set(plan(AXES, "population.sobol.settings=16", grid).run_ids)


def test_runs_without_axes_are_what_they_were() -> None:
    assert (
        plan("population.seeds=3").run_ids
        == plan("population.seeds=3", "population.sobol.settings=1").run_ids
    )
    assert [run.member.seed for run in plan("population.seeds=3").runs] == [0, 1, 2]


@pytest.mark.parametrize(
    ("overrides", "complaint"),
    [
        (["population.sobol.settings=4"], "has no effect without axes"),
        ([AXES, "noise.scale=0.2"], "noise.scale=0.2 has no effect, because population.sobol.axes draws"),
        (
            ["population.sobol.axes={noise.scal: {low: 0.1, high: 1.0}}"],
            "population.sobol.axes: there is no key noise.scal. Did you mean",
        ),
    ],
)
def test_what_has_no_effect_or_no_key_is_refused(overrides: list[str], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        plan(*overrides)
