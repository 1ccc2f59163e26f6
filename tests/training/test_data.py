"""Members whose training points are equal read the same rows of the table."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch

from modulab.config.settings import Member, read_run
from modulab.streams import member_keys
from modulab.training import data
from modulab.training.data import PopulationData, training_points
from tests.members import make_member, member_config
from tests.training.fitting import CPU, trained_parameters
from tests.wide_task import DRAWN, WideTask

SIZES = (1, 2, 3, 7, 64)


def wide_member(**overrides: Any) -> Member:
    config = member_config({"noise": "poisson"}, **overrides)
    config["task"]["_target_"] = f"{WideTask.__module__}.WideTask"
    return read_run(config).member


def points_of(population: PopulationData, place: int) -> torch.Tensor:
    start = int(population.offsets[place])
    return population.chunk(0).table[start : start + int(population.counts[place])]


def test_a_grid_of_noise_holds_one_data_set_per_seed() -> None:
    members = [
        wide_member(seed=seed, noise__scale=scale / 10, data__num_samples=50)
        for scale in range(30)
        for seed in range(4)
    ]
    DRAWN.clear()
    population = PopulationData(members, 0, CPU)
    assert len(population.chunk(0).table) == 4 * 50
    assert sum(sets for sets, _ in DRAWN) == 4
    assert population.offsets.tolist() == population.offsets.tolist()[:4] * 30


def test_members_with_fresh_points_share_them_and_draw_them_once_a_chunk() -> None:
    members = [
        wide_member(
            seed=seed, noise__scale=scale / 10, data__num_samples=samples, training__batch_size=5,
            training__steps=6, training__curve_every=3,
        )
        for samples in (None, 15)
        for scale in range(5)
        for seed in range(2)
    ]  # fmt: skip
    population = PopulationData(members, 0, CPU)
    assert len(population.chunk(0).table) == 2 * 15 + 2 * 15
    for index in range(population.num_chunks):
        DRAWN.clear()
        table = population.chunk(index).table
        assert DRAWN == [(2, 15)]
        for place in (0, 1, 8, 9):
            start = int(population.offsets[place])
            expected = training_points(members[place].task, member_keys([place % 2]), 15 * index, 15)[0]
            assert torch.equal(table[start : start + 15], expected)


def test_smaller_data_sets_are_the_first_points_of_the_largest() -> None:
    members = [wide_member(seed=1, data__num_samples=samples) for samples in (7, 64, 3)]
    population = PopulationData(members, 0, CPU)
    assert population.offsets.tolist() == [0, 0, 0]
    assert population.counts.tolist() == [7, 64, 3]
    assert len(population.chunk(0).table) == 64


@pytest.mark.parametrize("different", [{"seed": 1}, {"task__function_seed": 1}, {"data__num_samples": None}])
def test_members_with_other_points_have_rows_of_their_own(different: dict[str, Any]) -> None:
    shared = {
        "seed": 0, "data__num_samples": 12, "training__batch_size": 4, "training__steps": 3,
        "training__curve_every": 3,
    }  # fmt: skip
    population = PopulationData([make_member(**shared), make_member(**(shared | different))], 0, CPU)
    assert sorted(population.offsets.tolist()) == [0, 12]
    assert len(population.chunk(0).table) == 24


@pytest.mark.parametrize(
    ("task", "code"),
    [
        *itertools.product(["regression", "classification", "digits"], ["coordinate", "mixed"]),
        ("regression", "bump"),
    ],
)
def test_shared_points_are_those_that_each_member_has_alone_bit_for_bit(task: str, code: str) -> None:
    # With mixing the product of 1, 2 or 3 images and the rotation rounds otherwise than that of many.
    members = [
        make_member({"task": task}, seed=seed, data__num_samples=samples, task__code=code)
        for samples in SIZES
        for seed in (0, 3)
    ]
    population = PopulationData(members, 0, CPU)
    assert len(population.chunk(0).table) == 2 * (sum(SIZES) if code == "mixed" else max(SIZES))
    for place, member in enumerate(members):
        alone = points_of(PopulationData([member], 0, CPU), 0)
        assert torch.equal(points_of(population, place), alone)
        keys = member_keys([member.seed])
        assert torch.equal(alone, training_points(member.task, keys, 0, len(alone))[0])


@pytest.mark.parametrize(
    ("task", "code"),
    [*itertools.product(["regression", "digits"], ["coordinate", "mixed"]), ("regression", "bump")],
)
def test_members_that_share_points_end_with_the_weights_they_have_alone(task: str, code: str) -> None:
    torch.set_num_threads(1)
    members = [
        make_member(
            {"task": task, "noise": "poisson"}, seed=0, noise__scale=0.1 * place, task__code=code,
            data__num_samples=samples, architecture__width=6, training__batch_size=5, training__steps=6,
            training__curve_every=3,
        )
        for place, samples in enumerate((*SIZES, None, None))
    ]  # fmt: skip
    together = trained_parameters(members)
    for place, member in enumerate(members):
        assert torch.equal(trained_parameters([member])[0], together[place])


def test_large_data_sets_are_drawn_in_parts_to_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    members = [wide_member(seed=seed, data__num_samples=50) for seed in range(3)]
    whole = PopulationData(members, 0, CPU).chunk(0).table
    monkeypatch.setattr(data, "DRAWN_AT_ONCE", 8 * whole.shape[1])
    DRAWN.clear()
    parts = PopulationData(members, 0, CPU).chunk(0).table
    assert DRAWN == [(1, 8)] * 6 + [(1, 2)] + ([(1, 8)] * 6 + [(1, 2)]) * 2
    assert torch.equal(parts, whole)
    assert torch.equal(PopulationData(members, 0, CPU, threads=2).chunk(0).table, whole)


def test_table_of_a_single_point_has_two_rows_as_compiled_steps_need() -> None:
    population = PopulationData([make_member(data__num_samples=1)] * 2, 0, CPU)
    assert len(population.chunk(0).table) == 2
    assert population.offsets.tolist() == [0, 0]
