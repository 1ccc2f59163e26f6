"""A sweep that an earlier version began is read, resumed, reported and verified by this one.

tests/golden/earlier_version was written by commit 9e99a1d: `modulab train` with `OVERRIDES`, interrupted at step 20 of
the second of two populations. Since then code has moved, architectures have a `_target_` and checkpoints a layout.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch

import modulab
from modulab.training.checkpoints import read_checkpoint
from tests.command_line import Command

BEGUN = Path(__file__).parent / "golden" / "earlier_version"
OVERRIDES = """
    training.steps=40 training.curve_every=10 training.batch_size=8 data.num_samples=32 probes=forgetting
    probes.num_samples=32 probes.repeats=2 probes.levels=[0.3] probes.ranges=[2.0] probes.adaptation_steps=4
    trainer.engine=eager trainer.accelerator=cpu trainer.progress=off trainer.checkpoint_seconds=0 trainer.threads=1
    noise=poisson noise.scale=0.2 population.seeds=2 population.grid={architecture.width:[4,6]}
"""


@pytest.fixture
def begun(tmp_path: Path) -> Path:
    return Path(shutil.copytree(BEGUN, tmp_path / "begun"))


def test_sweep_of_an_earlier_version_is_resumed_and_ends_as_one_that_was_never_interrupted(
    begun: Path, tmp_path: Path
) -> None:
    before = modulab.load_results(begun).set_index("run_id")
    assert before["status"].value_counts().to_dict() == {"completed": 2, "missing": 2}
    steps = {int(read_checkpoint(path)["state_dict"]["next_step"]) for path in begun.rglob("*.ckpt")}
    assert steps == {20, 40}
    resumed = modulab.train(OVERRIDES.split(), folder=begun)
    whole = modulab.train(OVERRIDES.split(), folder=tmp_path / "whole")
    table, expected = (run.table.set_index("run_id").sort_index() for run in (resumed, whole))
    assert table["status"].tolist() == ["completed"] * 4
    done = before.index[before["status"] == "completed"]
    measures = [name for name in before if "/" in name]  # those of a later version only are not compared
    assert set(measures) <= set(expected)
    pd.testing.assert_frame_equal(table.loc[done, measures], before.loc[done, measures])
    pd.testing.assert_frame_equal(table[measures], expected[measures], rtol=1e-4)
    curves = [
        run.curves.sort_values(["run_id", "measure", "step"], ignore_index=True) for run in (resumed, whole)
    ]
    pd.testing.assert_frame_equal(*curves, rtol=1e-4)


def test_weights_of_an_earlier_version_are_read_by_layer(begun: Path) -> None:
    for population in modulab.load_members(begun):
        width = population.configs[0]["architecture"]["width"]
        shapes = {name: tuple(part.shape) for name, part in population.weights.items()}
        assert shapes == {
            "weight.0": (2, width, 2), "bias.0": (2, width), "weight.1": (2, 2, width), "bias.1": (2, 2)
        }  # fmt: skip
        assert torch.isfinite(population.parameters).all()


def test_commands_read_results_of_an_earlier_version(begun: Path, command: Command) -> None:
    code, out, _ = command("table", str(begun), "--metric", "error/test")
    assert (code, "2 missing" in out) == (0, True)
    done = modulab.load_results(begun)["status"].tolist().index("completed")
    code, out, errors = command("rerun", str(begun), "--member", str(done))
    assert code == 0, out + errors
    code, out, errors = command("report", str(begun))
    assert code in (0, 1), out + errors
    assert list(begun.rglob("*.html"))
