from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from modulab.config.settings import Run, Trainer, read_run
from modulab.errors import describe
from modulab.metrics.probe import Probe
from modulab.results.store import RESULTS, completed, load_curves, load_results
from modulab.results.summary import lost_measures, metric_names
from modulab.results.tables import failed_measures
from modulab.streams import member_keys
from modulab.sweep.pack import population_bytes
from modulab.sweep.run import plan_populations, plan_work
from modulab.sweep.this_machine import run_work
from modulab.sweep.trained import load_members
from modulab.tasks.base import Region, Samples, Split
from modulab.tasks.regression import RegressionTask
from tests.members import EAGER, EAGERLY, make_member, member_config

QUICK = {
    "training__steps": 6, "training__curve_every": 3, "training__batch_size": 8, "architecture__width": 4,
    "probes__num_samples": 64, "probes__repeats": 1, "data__num_samples": 16,
}  # fmt: skip


class BrittleTask(RegressionTask):
    """A task that cannot draw its points for one of its function seeds."""

    def draw(
        self, keys: torch.Tensor, counters: torch.Tensor, region: Region, split: Split, scales: Any = None
    ) -> Samples:
        if self.function_seed == 13:
            raise RuntimeError("no such function")
        return super().draw(keys, counters, region, split, scales)


class Foreign(BaseException):
    """A kind of error that no framework knows."""


KINDS: dict[int, type[BaseException]] = {
    100: TypeError, 101: KeyError, 102: AssertionError, 103: StopIteration, 104: SystemExit, 105: GeneratorExit,
    106: Foreign, 107: OSError,
}  # fmt: skip
STAGES = ("set-up", "later chunk", "measuring")


class FaultyTask(RegressionTask):
    """A task that raises what its function seed says: at set-up, in its second chunk, or at its test split."""

    def draw(
        self, keys: torch.Tensor, counters: torch.Tensor, region: Region, split: Split, scales: Any = None
    ) -> Samples:
        if self.function_seed >= 100:
            stage = STAGES[self.function_seed // 1000]
            first = int(counters[0, 0])
            if (
                (stage == "set-up" and split == "train")
                or (stage == "later chunk" and first > 0)
                or (stage == "measuring" and split == "test")
            ):
                raise KINDS[self.function_seed % 1000]("out of order")
        return super().draw(keys, counters, region, split, scales)


class ShapelessTask(RegressionTask):
    """A task that does not know its own size for one of its function seeds."""

    @property
    def in_features(self) -> int:
        """Return the number of inputs."""
        if self.function_seed == 13:
            raise LookupError("no size")
        return super().in_features


BROKEN_SEEDS = [2]


def fails_for_seed_2(probe: Probe) -> dict[str, torch.Tensor]:
    """Return a measure that cannot be taken of members with seed 2, until it is mended."""
    if any((probe.keys == member_keys([seed])).all(dim=1).any() for seed in BROKEN_SEEDS):
        raise SystemExit(3)
    return {"my/measure": probe.network.edges()[0].weights.sum(dim=(1, 2))}


def configs(seeds: range = range(4), **overrides: Any) -> list[dict[str, Any]]:
    return [member_config(seed=seed, **(QUICK | overrides)) for seed in seeds]


def runs_of(members: list[dict[str, Any]]) -> list[Run]:
    return [read_run(config) for config in members]


def train(members: list[dict[str, Any]], trainer: Trainer, folder: Path) -> None:
    run_work(plan_work(runs_of(members), trainer, folder), folder)


def numbers(folder: Path) -> pd.DataFrame:
    """Return what must not depend on how members were grouped."""
    table = load_results(folder).drop(columns=["seconds"])
    return table.sort_values("run_id").reset_index(drop=True)


def test_population_that_would_not_fit_is_split_and_gives_the_same_results(tmp_path: Path) -> None:
    members = configs(range(6))
    train(members, EAGER, _made(tmp_path / "whole"))
    three = population_bytes([run.member for run in runs_of(members[:3])], EAGERLY)
    tight = Trainer.model_validate(EAGER.model_dump() | {"memory_gib": three / 2**30})
    train(members, tight, _made(tmp_path / "split"))
    files = [len(list((tmp_path / name / "populations").glob("*.ckpt"))) for name in ("whole", "split")]
    assert files == [1, 2]
    pd.testing.assert_frame_equal(numbers(tmp_path / "whole"), numbers(tmp_path / "split"))


def planned_sizes(members: list[dict[str, Any]], memory_bytes: float) -> list[int]:
    trainer = Trainer.model_validate(EAGER.model_dump() | {"memory_gib": memory_bytes / 2**30})
    return [len(each) for each in plan_populations(runs_of(members), trainer, EAGERLY)]


def test_populations_are_cut_by_the_data_sets_in_them_and_not_by_their_members() -> None:
    large = {"data__num_samples": 10**6, "training__curve_every": 2}
    by_seed = [
        member
        for seed in range(4)
        for rate in (0.1, 0.2, 0.3)
        for member in configs(range(seed, seed + 1), training__learning_rate=rate, **large)
    ]
    members = [run.member for run in runs_of(by_seed)]
    # Three networks read each data set: two data sets, and the networks that read them, fit.
    memory = population_bytes(members[:6], EAGERLY)
    assert memory < 1.5 * population_bytes(members[:3], EAGERLY)
    assert planned_sizes(by_seed, memory) == [6, 6]
    assert planned_sizes(by_seed, memory - 1) == [5, 4, 3]
    # In the other order each network brings its own until all four are there.
    by_rate = [by_seed[place] for place in (0, 3, 6, 9, 1, 4, 7, 10, 2, 5, 8, 11)]
    assert planned_sizes(by_rate, memory) == [2, 2, 2, 2, 2, 2]


def test_smaller_data_sets_cost_no_memory_beside_larger_ones_of_their_seed() -> None:
    large, small = (
        runs_of(configs(range(1), data__num_samples=samples))[0].member for samples in (10**6, 10**5)
    )
    one, two, same = (
        population_bytes(members, EAGERLY) for members in ([large], [small, large], [large, large])
    )
    assert two == same
    assert two - one < 100_000


def test_structural_settings_split_a_run_into_populations(tmp_path: Path) -> None:
    members = configs(range(2)) + configs(range(2), architecture__width=5)
    train(members, EAGER, _made(tmp_path))
    assert len(list((tmp_path / "populations").glob("*.ckpt"))) == 2
    assert (load_results(tmp_path)["status"] == "completed").all()


def test_member_that_cannot_begin_is_a_failed_row_and_stops_no_other(tmp_path: Path) -> None:
    members = configs(range(5))
    for member in members:
        member["task"]["_target_"] = f"{__name__}.BrittleTask"
    members[2]["task"]["function_seed"] = 13
    train(members, EAGER, _made(tmp_path))
    table = load_results(tmp_path).set_index("config.seed")
    assert table["status"].to_dict() == {
        0: "completed", 1: "completed", 2: "failed", 3: "completed", 4: "completed",
    }  # fmt: skip
    assert table.loc[2, "error"] == "RuntimeError: no such function"
    assert table.loc[[0, 1, 3, 4], "error/test"].notna().all()


def _check_failed(folder: Path, failed: dict[int, str], members: list[dict[str, Any]]) -> None:
    """Check which members failed and why, by seed, and that the others have the numbers that they have apart."""
    table = load_results(folder / RESULTS)
    bad = table[table["status"] != "completed"]
    assert dict(zip(bad["config.seed"], bad["error"], strict=True)) == failed
    assert (bad["status"] == "failed").all()
    apart = _made(folder / "apart")
    train([member for member in members if member["seed"] not in failed], EAGER, apart)
    columns = ["config.seed", *metric_names(table)]
    pd.testing.assert_frame_equal(
        table[table["status"] == "completed"][columns].sort_values("config.seed").reset_index(drop=True),
        load_results(apart)[columns].sort_values("config.seed").reset_index(drop=True),
    )


@pytest.mark.parametrize("stage", STAGES)
def test_whatever_a_task_raises_fails_its_own_members_only(stage: str, tmp_path: Path) -> None:
    members = configs(range(len(KINDS) + 2), data__num_samples=None if stage == "later chunk" else 16)
    for member in members:
        member["task"]["_target_"] = f"{__name__}.FaultyTask"
    for member, kind in zip(members[1:], KINDS, strict=False):
        member["task"]["function_seed"] = 1000 * STAGES.index(stage) + kind
    train(members, EAGER, _made(tmp_path))
    failed = {place: describe(kind("out of order")) for place, kind in enumerate(KINDS.values(), start=1)}
    _check_failed(tmp_path, failed, members)


def test_a_task_that_cannot_say_its_size_fails_its_own_members_only(tmp_path: Path) -> None:
    members = configs(range(3))
    for member in members:
        member["task"]["_target_"] = f"{__name__}.ShapelessTask"
    members[1]["task"]["function_seed"] = 13
    train(members, EAGER, _made(tmp_path))
    _check_failed(tmp_path, {1: "LookupError: no size"}, members)


def test_a_network_that_diverged_has_no_measures_and_its_neighbours_have_theirs(tmp_path: Path) -> None:
    members = configs(range(3))
    members[1]["training"] |= {"learning_rate": 1e30, "optimiser": "adam"}
    train(members, EAGER, _made(tmp_path))
    table = load_results(tmp_path / RESULTS).set_index("config.seed").sort_index()
    assert table["status"].tolist() == ["completed", "diverged", "completed"]
    names = metric_names(table)
    assert "activity/active_units" in names
    assert table.loc[1, names].isna().all()
    assert table.loc[[0, 2], names].notna().all(axis=None)


def test_a_measure_that_fails_costs_its_members_that_measure_alone_until_it_is_mended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measures = member_config()["probes"]["measures"] | {"mine": f"{__name__}.fails_for_seed_2"}
    members = configs(range(5), probes__measures=measures)
    train(members, EAGER, _made(tmp_path))
    assert len(list((tmp_path / "populations").glob("*.ckpt"))) == 1
    table = load_results(tmp_path / RESULTS).set_index("config.seed").sort_index()
    assert table["status"].tolist() == ["completed"] * 5
    assert failed_measures(table.loc[2, "skipped"]) == ["mine: failed with SystemExit: 3"]
    assert lost_measures(table) == ["1 without a measure: probes.measures.mine: failed with SystemExit: 3"]
    assert np.isnan(table["my/measure"]).tolist() == [False, False, True, False, False]
    # The other measures are those that they are without it.
    others = {key: value for key, value in measures.items() if key != "mine"}
    train(configs(range(5), probes__measures=others), EAGER, _made(tmp_path / "without"))
    names = [name for name in metric_names(table) if name != "my/measure"]
    without = load_results(tmp_path / "without").set_index("config.seed").sort_index()
    pd.testing.assert_frame_equal(table[names], without[names])
    assert len(completed(tmp_path)) == 4
    monkeypatch.setattr(sys.modules[__name__], "BROKEN_SEEDS", [])
    train(members, EAGER, tmp_path)
    mended = load_results(tmp_path / RESULTS).set_index("config.seed").sort_index()
    assert not lost_measures(mended)
    assert mended["my/measure"].notna().all()
    pd.testing.assert_frame_equal(mended[names], table[names])


def test_same_folder_again_keeps_rows_and_adds_new_members(tmp_path: Path) -> None:
    train(configs(range(2)), EAGER, _made(tmp_path))
    before = load_results(tmp_path).set_index("run_id")
    train(configs(range(4)), EAGER, tmp_path)
    after = load_results(tmp_path).set_index("run_id")
    assert len(after) == 4
    pd.testing.assert_frame_equal(after.loc[before.index], before)
    assert set(load_curves(tmp_path)["run_id"]) == set(after.index)


def test_loaded_members_compute_the_error_that_their_row_states(tmp_path: Path) -> None:
    train(configs(range(3), training__steps=30, probes__num_samples=4096), EAGER, _made(tmp_path))
    table = load_results(tmp_path).set_index("config.seed")
    (population,) = load_members(tmp_path)
    assert [config["seed"] for config in population.configs] == [0, 1, 2]
    inputs = (torch.rand(3, 20_000, 2, generator=torch.Generator().manual_seed(0)) * 2 - 1).float()
    member = make_member(architecture__width=4)
    network = member.architecture.network(member.task)
    assert population.layout == network.layout
    outputs = network.forward(population.parameters, inputs)
    targets = torch.stack([torch.sin(torch.pi * inputs[..., 0]), 2 * inputs[..., 1].square() - 1], dim=2)
    errors = (outputs - targets).square().mean(dim=(1, 2))
    assert errors.tolist() == pytest.approx(table.loc[[0, 1, 2], "error/test"].tolist(), rel=0.1)


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder
