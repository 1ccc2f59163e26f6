"""In float64 a network follows a loop of torch in float64 to 1e-12, and one in float32 to 1e-5."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import modulab
from modulab.errors import ConfigError
from modulab.sweep.trained import load_members
from tests.members import CONFIGS, make_member
from tests.training.cases import CASES, SLOW, members
from tests.training.fitting import train_learner
from tests.training.plain_torch import check_follows_plain_torch
from tests.training.test_against_plain_torch import module_of

FEW = {"training__steps": 6, "training__curve_every": 3}
DOUBLE = {"training__precision": "float64"}


@pytest.mark.parametrize(("optimiser", "learning_rate"), [("adam", 0.01), ("adamw", 0.01), ("sgd", 0.1)])
def test_float64_follows_a_plain_loop_to_1e_12(optimiser: str, learning_rate: float) -> None:
    member = make_member(
        training__steps=50, training__curve_every=20, training__optimiser=optimiser, training__gradient_clip=0.5,
        training__learning_rate=learning_rate, training__weight_decay=0.01, architecture__activation="tanh", **DOUBLE,
    )  # fmt: skip
    check_follows_plain_torch(member, module_of(member))


@pytest.mark.parametrize(
    "case",
    [
        *(pytest.param(case, id=name) for name, case in CASES.items()),
        *(pytest.param(case, id=name, marks=pytest.mark.slow) for name, case in SLOW.items()),
    ],
)
def test_every_setting_of_a_step_trains_in_float64_and_agrees_with_float32(case: Any) -> None:
    choices, overrides = case
    few = dict(FEW)
    if "regulariser__swap_every" in overrides:
        few["regulariser__swap_every"] = (
            9  # after the last step: by rounding, either of two units may gain more
        )
    single, double = (
        train_learner(members(3, choices, **{**overrides, **few, **more})) for more in ({}, DOUBLE)
    )
    assert double.member_parameters().dtype == torch.float64
    assert double.first_moments.dtype == torch.float64
    torch.testing.assert_close(
        double.member_parameters().float(), single.member_parameters(), rtol=0, atol=1e-5
    )
    assert not torch.equal(double.member_parameters().float(), single.member_parameters())


@pytest.mark.parametrize("group", ["task", "regulariser"])
def test_every_task_and_penalty_trains_in_float64(group: str) -> None:
    for option in sorted({path.stem for path in (CONFIGS / group).glob("*.yaml")} - {"default"}):
        learner = train_learner([make_member({group: option}, **FEW, **DOUBLE)])
        assert learner.member_parameters().isfinite().all(), option
        assert learner.chunk_losses.dtype == torch.float64, option


def test_results_of_float64_are_measured_and_kept_and_name_the_eager_engine(tmp_path: Path) -> None:
    asked = ["architecture.width=8", "training.steps=4", "training.curve_every=2", "probes.num_samples=32"]
    results = modulab.train(
        [*asked, "population.grid={training.precision: [float32, float64]}"], folder=tmp_path
    )
    table = results.table.set_index("config.training.precision")
    assert set(table["status"]) == {"completed"}
    assert table.loc["float64", "engine"] == "eager"
    one, other = (table.loc[name, "error/test"] for name in ("float32", "float64"))
    assert one != other
    assert one == pytest.approx(other, rel=1e-5)
    assert all(group.parameters.dtype == torch.float32 for group in load_members(tmp_path))
    assert table["run_id"].nunique() == 2


@pytest.mark.parametrize("engine", ["compiled", "native"])
def test_an_engine_that_cannot_train_in_float64_is_refused(engine: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"training\.precision=float64 needs the eager engine"):
        modulab.train(["training.precision=float64", f"trainer.engine={engine}"], folder=tmp_path)
