"""How a sweep is cut into shards and watched, whichever carrier trains them."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from modulab.config.settings import Run, read_run
from modulab.results import store
from modulab.results.store import PARTS, gather, load_curves, load_results, save_part
from modulab.results.tables import curve_table, result_table
from modulab.sweep.run import Work, packed_seconds
from modulab.sweep.shards import Shard, cut_shards, describe_states
from modulab.training.cost import RATES
from tests.members import EAGER, EAGERLY, member_config


@functools.cache
def run(steps: int) -> Run:
    return read_run(member_config(training__steps=steps, training__curve_every=1))


def make_work(populations: Sequence[Sequence[int]], unfinished: int) -> Work:
    """Return work whose members, named by population and place, train for given numbers of steps."""
    made = [
        [replace(run(steps), run_id=f"{first}.{second}") for second, steps in enumerate(population)]
        for first, population in enumerate(populations)
    ]
    runs = [run for population in made for run in population]
    return Work(runs, made, min(unfinished, len(made)), EAGER, EAGERLY)


def steps_of(runs: Sequence[Run]) -> int:
    return sum(run.member.training.steps for run in runs)


def level(loads: Sequence[int], amount: float) -> float:
    """Return how high an amount fills vessels that hold something already, found by bisection."""
    low, high = 0.0, max(loads) + amount
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (
            (middle, high) if sum(max(0.0, middle - load) for load in loads) < amount else (low, middle)
        )
    return high


@given(
    st.lists(st.lists(st.sampled_from([1, 2, 3, 5, 10]), min_size=1, max_size=9), max_size=5),
    st.integers(0, 3),
    st.sets(st.integers(0, 40)),
    st.integers(1, 7),
)
@example([[1] * 7], 0, set(), 5)  # where rounding each shard by itself leaves 3 to the last
@example([[5] * 4, [1] * 3], 1, set(), 3)  # where one shard holds more than its part from the start
def test_shards_have_every_free_member_once_in_equal_parts_and_unfinished_populations_whole(
    populations: list[list[int]], unfinished: int, taken_places: set[int], most: int
) -> None:
    work = make_work(populations, unfinished)
    taken = {run.run_id for place, run in enumerate(work.runs) if place in taken_places}
    shards = cut_shards(work, taken, most)
    free = [run.run_id for run in work.runs if run.run_id not in taken]
    assert sorted(run.run_id for shard in shards for run in shard) == sorted(free)
    assert len(shards) <= most
    assert all(shards)
    for population in work.populations[: work.unfinished]:
        left = {run.run_id for run in population} - taken
        assert sum(not left.isdisjoint(run.run_id for run in shard) for shard in shards) == bool(left)
    new = {run.run_id for population in work.populations[work.unfinished :] for run in population} - taken
    given_new = [[run for run in shard if run.run_id in new] for shard in shards]
    # In order, so that the members of a population meet again in a shard.
    cut = sorted((runs for runs in given_new if runs), key=lambda runs: free.index(runs[0].run_id))
    assert [run.run_id for runs in cut for run in runs] == [name for name in free if name in new]
    if new:
        count = min(most, len(free))
        old = [steps_of(shard) - steps_of(runs) for shard, runs in zip(shards, given_new, strict=True)]
        ideal = level(old + [0] * (count - len(shards)), sum(map(steps_of, given_new)))
        longest = max(run.member.training.steps for runs in given_new for run in runs)
        for shard, runs in zip(shards, given_new, strict=True):
            load = steps_of(shard)
            assert load > ideal - longest
            assert load < ideal + longest or not runs


def test_equal_members_are_spread_to_within_one() -> None:
    for members in (*range(1, 14), 25, 39):
        for most in range(1, 12):
            sizes = [len(shard) for shard in cut_shards(make_work([[1] * members], 0), set(), most)]
            assert len(sizes) == min(most, members)
            assert max(sizes) - min(sizes) <= 1


def test_members_whose_network_fails_are_in_a_shard_all_the_same() -> None:
    config = member_config({"architecture": "torch"})
    config["architecture"]["module"] = {"_target_": "tests.networks.modules.Unbuildable", "width": 7}
    broken = read_run(config)
    work = make_work([[1, 1]], 0)
    work = replace(work, runs=[*work.runs, broken], populations=[*work.populations, [broken]])
    assert sorted(map(len, cut_shards(work, set(), 2))) == [1, 2]


def test_shards_are_counted_by_state_with_reasons_to_wait() -> None:
    states = [("RUNNING", ""), ("COMPLETING", ""), ("PENDING", "Resources"), ("PENDING", "None"), ("", "")]
    shards = [Shard(f"7_{place}", [], "", *state) for place, state in enumerate(states)]
    assert describe_states(shards) == "shards: 2 running, 2 waiting (Resources), 1 ended"


@pytest.mark.parametrize("strike", [1, 2])
def test_a_shard_that_saves_while_another_process_joins_the_parts_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, strike: int
) -> None:
    """`gather` removes the folder of parts where it is empty: before a shard's curves, or between them and rows."""
    opened = 0
    real = Path.open

    def open_late(path: Path, *arguments: Any, **options: Any) -> Any:
        nonlocal opened
        if path.parent.name == PARTS:
            opened += 1
            if opened == strike:
                gather(tmp_path)
                assert not path.parent.exists()
        return real(path, *arguments, **options)

    monkeypatch.setattr(store.Path, "open", open_late)
    rows = result_table([{"seed": 1}], ["a"], ["completed"], [None], [0.5], {"error/test": [1.0]})
    save_part(tmp_path, "part", rows, curve_table(["a"], [2], {"error/test": [[1.0]]}))
    gather(tmp_path)
    assert load_results(tmp_path)["run_id"].tolist() == ["a"]
    assert load_curves(tmp_path)["value"].tolist() == [1.0]


def test_shards_weigh_networks_by_the_rates_that_plans_and_the_time_left_are_made_with() -> None:
    quiet = read_run(member_config(training__steps=4)).member
    noisy = read_run(member_config({"noise": "poisson"}, training__steps=4, noise__scale=0.1)).member
    for engine, rates in RATES.items():
        seconds = [packed_seconds(each, engine) for each in (quiet, noisy)]
        assert seconds[1] / seconds[0] == pytest.approx(rates.noisy / rates.noiseless)
        units = quiet.training.batch_size * quiet.architecture.network(quiet.task).step_units
        assert seconds[0] == pytest.approx(4 * units * rates.noiseless)
