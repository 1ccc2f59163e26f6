"""What planning and keeping a member costs does not grow with the number of members."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pyarrow as pa
import pytest

from modulab.config.composing import Plan, compose_checked, hydra_composer, plan_run, plan_sweep
from modulab.config.overrides import replace_grid
from modulab.results import parquet, store, table_command
from modulab.results.store import (
    RESULTS,
    Planned,
    count_results,
    gather,
    load_results,
    load_sample,
    save_part,
    statuses,
    varying_settings,
)
from modulab.results.summary import summarise, to_csv
from modulab.sweep.run import begin, plan_work
from tests.command_line import Command
from tests.results.test_store import rows


def plan(*overrides: str) -> Plan:
    given = replace_grid([*overrides, "trainer.engine=eager", "trainer.memory_gib=2"])
    with hydra_composer() as compose:
        return plan_run(compose_checked(compose, given), given, compose)


def peak_of_planning(seeds: int, folder: Path) -> int:
    """Return the largest memory that Python objects take while 20 settings are planned at so many seeds, in bytes."""
    axes = "architecture: [dense, premodular], noise.scale: [0,0.1,0.2,0.3,0.4], data.num_samples: [8, 16]"
    grid = f"population.grid={{{axes}}}"
    tracemalloc.start()
    try:
        work = plan_work(
            (made := plan(grid, "noise=poisson", f"population.seeds={seeds}")).runs, made.trainer, folder
        )
        assert work.pending == 20 * seeds
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_planned_member_takes_less_than_a_kilobyte(tmp_path: Path) -> None:
    peak_of_planning(1, tmp_path)  # imports and caches
    few, many = (peak_of_planning(seeds, tmp_path) for seeds in (20, 110))
    assert (many - few) / 1800 < 1000


def test_a_plan_has_one_condition_for_all_seeds_of_a_setting_and_one_object_for_each_value_of_a_group() -> (
    None
):
    made = plan(
        "population.grid={noise.scale: [0, 0.1], data.num_samples: [8, 16]}",
        "population.seeds=50",
        "noise=poisson",
    )
    conditions = {run.condition for run in made.runs}
    assert len(conditions) == 4
    assert len({id(condition.example.noise) for condition in conditions}) == 2
    assert len({id(condition.example.task) for condition in conditions}) == 1
    assert (
        [run.member.seed for run in made.runs]
        == [run.config["seed"] for run in made.runs]
        == [*range(50)] * 4
    )


def test_jobs_that_differ_in_the_seed_alone_are_what_each_is_by_itself() -> None:
    settings = ["noise=poisson", "noise.scale=0.1", "population.seeds=2"]
    jobs = [
        replace_grid([*settings, f"seed={seed}", "population.grid={data.num_samples: [8, 16]}"])
        for seed in (3, 7, 4)
    ]
    with hydra_composer() as compose:
        alone = [plan_run(compose(job), job, compose) for job in jobs]
        together = plan_sweep(jobs, lambda overrides, number: compose(overrides))
    assert list(map(list, together.jobs)) == [each.run_ids for each in alone]
    by_id = {run.run_id: run.config for run in together.runs}
    assert all(by_id[run.run_id] == run.config for each in alone for run in each.runs)


def test_files_are_joined_in_parts_to_the_rows_that_they_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "ROWS_AT_ONCE", 3)
    monkeypatch.setattr(parquet, "ROWS_AT_ONCE", 3)
    names = [f"{place:x}" for place in range(10)]
    whole = rows(names, ["missing"] * 10, size=[1, 2.5, None, "x", *[4] * 6])
    asked: list[int] = []

    def at(places: list[int]) -> pa.Table:
        asked.append(len(places))
        return whole.take(places)

    save_part(tmp_path, "one", rows(["2", "5"], size=[None, None]))
    gather(tmp_path, Planned(names, whole.schema, at))
    assert asked == [3, 3, 2]
    assert statuses(tmp_path) == {name: "completed" if name in "25" else "missing" for name in names}
    assert load_results(tmp_path)["config.task.size"].isna().tolist() == [
        True,
        True,
        False,
        False,
        False,
        *[False] * 5,
    ]


def test_a_plan_writes_its_rows_in_parts_as_it_does_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = plan(
        "population.grid={architecture: [dense, experts], noise.scale: [0, 0.1]}",
        "noise=poisson",
        "population.seeds=2",
    )
    for name, size in (("whole", 100), ("parts", 3)):
        monkeypatch.setattr(store, "ROWS_AT_ONCE", size)
        (tmp_path / name).mkdir()
        begin(plan_work(made.runs, made.trainer, tmp_path / name), tmp_path / name)
    whole, parts = (load_results(tmp_path / name) for name in ("whole", "parts"))
    assert whole.equals(parts)
    assert whole["config.noise.scale"].tolist() == [0, 0, 0.1, 0.1] * 2
    assert varying_settings(tmp_path / "whole") > {
        "config.seed",
        "config.noise.scale",
        "config.architecture.name",
    }
    assert "config.training.steps" not in varying_settings(tmp_path / "whole")


@pytest.mark.parametrize(
    "options",
    [
        [], ["--by", "noise.scale"], ["--by", "training.steps"], ["--metric", "error*"],
        ["--sort", "modularity/structural"],
        ["--baseline", "noise.scale=0", "--metric", "error/test"], ["--csv", "-"], ["--json"],
    ],
)  # fmt: skip
def test_the_table_of_large_results_is_that_of_all_their_columns(
    options: list[str], tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = plan(
        "population.grid={architecture: [dense, premodular], noise.scale: [0, 0.1]}",
        "noise=poisson",
        "population.seeds=3",
    )
    finished(made, tmp_path)
    before = command("table", str(tmp_path), *options)
    monkeypatch.setattr(store, "LARGE", 3)
    read = [table_command.needed_columns(tmp_path)]
    assert read[0] is not None
    assert not read[0]("config.training.steps")
    assert command("table", str(tmp_path), *options) == before
    assert before[0] == 0


def finished(made: Plan, folder: Path) -> None:
    from modulab.results.tables import result_table

    count = len(made.runs)
    measures = {
        name: [float((7 * place + shift) % 11) for place in range(count)]
        for shift, name in enumerate(("error/test", "modularity/structural", "activity/mean"))
    }
    table = result_table(
        [run.config for run in made.runs],
        made.run_ids,
        ["completed"] * count,
        [None] * count,
        [0.1] * count,
        measures,
    )
    save_part(folder, "part", table)
    gather(folder)


def test_a_sample_of_large_results_is_a_share_of_their_members(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finished(plan("population.seeds=400"), tmp_path)
    whole, count = load_sample(tmp_path, 100)
    assert (len(whole), count, count_results(tmp_path)) == (400, 400, 400)
    monkeypatch.setattr(store, "LARGE", 300)
    sample, count = load_sample(tmp_path, 100)
    assert count == 400
    assert 60 < len(sample) < 140
    assert set(sample["run_id"]) == {name for name in whole["run_id"] if name < f"{16**16 // 4:016x}"}
    assert to_csv(summarise(sample, [], ["error/test"]))
    assert (tmp_path / RESULTS).exists()
