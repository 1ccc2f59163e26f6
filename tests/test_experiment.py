from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from modulab.experiment import load_members, run_members
from modulab.networks import forward
from modulab.settings import Trainer
from modulab.sweep.results import load_curves, load_results
from modulab.tasks.base import Region, Samples, Split
from modulab.tasks.regression import RegressionTask
from tests.members import EAGER, member_config

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


def configs(seeds: range = range(4), **overrides: Any) -> list[dict[str, Any]]:
    return [member_config(seed=seed, **(QUICK | overrides)) for seed in seeds]


def numbers(folder: Path) -> pd.DataFrame:
    """Return what must not depend on how members were grouped."""
    table = load_results(folder).drop(columns=["seconds"])
    return table.sort_values("run_id").reset_index(drop=True)


def test_population_that_would_not_fit_is_split_and_gives_the_same_results(tmp_path: Path) -> None:
    members = configs(range(6))
    run_members(members, EAGER, _made(tmp_path / "whole"))
    tight = Trainer.model_validate(EAGER.model_dump() | {"memory_gib": 5e-6})
    run_members(members, tight, _made(tmp_path / "split"))
    files = [len(list((tmp_path / name / "populations").glob("*.ckpt"))) for name in ("whole", "split")]
    assert files[0] == 1 < files[1]
    pd.testing.assert_frame_equal(numbers(tmp_path / "whole"), numbers(tmp_path / "split"))


def test_structural_settings_split_a_run_into_populations(tmp_path: Path) -> None:
    members = configs(range(2)) + configs(range(2), architecture__width=5)
    run_members(members, EAGER, _made(tmp_path))
    assert len(list((tmp_path / "populations").glob("*.ckpt"))) == 2
    assert (load_results(tmp_path)["status"] == "completed").all()


def test_member_that_cannot_begin_is_a_failed_row_and_stops_no_other(tmp_path: Path) -> None:
    members = configs(range(5))
    for member in members:
        member["task"]["_target_"] = f"{__name__}.BrittleTask"
    members[2]["task"]["function_seed"] = 13
    run_members(members, EAGER, _made(tmp_path))
    table = load_results(tmp_path).set_index("config.seed")
    assert table["status"].to_dict() == {
        0: "completed", 1: "completed", 2: "failed", 3: "completed", 4: "completed",
    }  # fmt: skip
    assert table.loc[2, "error"] == "RuntimeError: no such function"
    assert table.loc[[0, 1, 3, 4], "error/test"].notna().all()


def test_same_folder_again_keeps_rows_and_adds_new_members(tmp_path: Path) -> None:
    run_members(configs(range(2)), EAGER, _made(tmp_path))
    before = load_results(tmp_path).set_index("run_id")
    run_members(configs(range(4)), EAGER, tmp_path)
    after = load_results(tmp_path).set_index("run_id")
    assert len(after) == 4
    pd.testing.assert_frame_equal(after.loc[before.index], before)
    assert set(load_curves(tmp_path)["run_id"]) == set(after.index)


def test_loaded_members_compute_the_error_that_their_row_states(tmp_path: Path) -> None:
    run_members(configs(range(3), training__steps=30, probes__num_samples=4096), EAGER, _made(tmp_path))
    table = load_results(tmp_path).set_index("config.seed")
    (population,) = load_members(tmp_path)
    assert [config["seed"] for config in population.configs] == [0, 1, 2]
    inputs = (torch.rand(3, 20_000, 2, generator=torch.Generator().manual_seed(0)) * 2 - 1).float()
    outputs = forward(population.weights, inputs).outputs
    targets = torch.stack([torch.sin(torch.pi * inputs[..., 0]), 2 * inputs[..., 1].square() - 1], dim=2)
    errors = (outputs - targets).square().mean(dim=(1, 2))
    assert errors.tolist() == pytest.approx(table.loc[[0, 1, 2], "error/test"].tolist(), rel=0.1)


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder
