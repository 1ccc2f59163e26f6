"""Sweeps through the command line: what they leave behind, what each job returns, and what users see."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from modulab.config.composing import Plan
from modulab.config.settings import Sweep
from modulab.errors import ConfigError
from modulab.results.lock import FolderLock
from modulab.results.store import load_curves, load_results, save_part
from modulab.results.tables import result_table
from modulab.sweep.jobs import MembersFailed, return_values
from modulab.tasks.regression import RegressionTask
from tests.command_line import SMALL, Command, WholeCommand, interrupted_after_a_checkpoint, last_given
from tests.members import EAGER

GRID = ["noise.scale=0,0.2", "architecture=dense,premodular", "seed=range(3)", "architecture.width=6,7"]


class BrittleTask(RegressionTask):
    """A task that cannot draw its points for one of its function seeds."""

    def draw(self, keys: torch.Tensor, *arguments: Any, **named: Any) -> Any:
        if self.function_seed == 13:
            raise RuntimeError("no such function")
        return super().draw(keys, *arguments, **named)


def numbers(folder: str) -> pd.DataFrame:
    """Return what must not depend on how jobs were launched."""
    return load_results(folder).drop(columns="seconds").sort_values("run_id", ignore_index=True)


@pytest.mark.slow
def test_a_packed_sweep_gives_bit_for_bit_what_jobs_give_one_by_one(command: Command) -> None:
    for launcher in ("population", "basic"):
        code, _, err = command(
            "train",
            "-m",
            *last_given(*SMALL, *GRID),
            f"hydra/launcher={launcher}",
            f"hydra.sweep.dir={launcher}",
        )
        assert code == 0, err
    packed, alone = numbers("population"), numbers("basic")
    assert len(packed) == 24
    pd.testing.assert_frame_equal(packed, alone[packed.columns], check_exact=True)
    curves = [
        load_curves(folder).sort_values(["run_id", "measure", "step"], ignore_index=True)
        for folder in ("population", "basic")
    ]
    pd.testing.assert_frame_equal(*curves, check_exact=True)
    assert len(list(Path("population/populations").glob("*.ckpt"))) == 2
    assert not list(Path("population").glob("[0-9]*"))


def test_a_sweep_prints_one_table_and_says_where_results_are(command: Command) -> None:
    code, out, err = command("train", "-m", *SMALL, "noise.scale=0,0.1", "hydra.sweep.dir=sweep")
    assert code == 0, err
    assert out.startswith("noise.scale  n  error/test")
    assert out.endswith("Results: sweep/results.parquet\n")
    assert sorted(load_results("sweep")["config.noise.scale"]) == [0, 0.1]


def test_jobs_may_refer_to_their_own_number(command: Command) -> None:
    code, _, err = command(
        "train", "-m", *SMALL, "noise.scale=0,0.1", "seed=${hydra:job.num}", "hydra.sweep.dir=sweep"
    )
    assert code == 0, err
    found = load_results("sweep")
    assert dict(zip(found["config.noise.scale"], found["config.seed"], strict=True)) == {0.0: 0, 0.1: 1}


def test_a_dry_run_counts_and_trains_nothing(command: Command) -> None:
    sweep = ["train", "-m", *last_given(*SMALL, *GRID), "hydra.sweep.dir=sweep"]
    code, out, err = command(*sweep, "sweep.dry_run=true")
    assert code == 0, err
    for line in (
        r"jobs +24", r"networks +24, of which 0 have", r"groups +2 ", r"populations +2, the largest of 12",
        r"memory +about 0\.\d GiB",
        r"engine +eager", r"shards +none: this process trains them, about \d+ s",
    ):  # fmt: skip
        assert re.search(f"^{line}", out, re.MULTILINE), line
    assert not list(Path("sweep").rglob("*.parquet"))
    assert command(*sweep)[0] == 0
    code, out, _ = command(*sweep, "sweep.dry_run=true")
    assert "networks     24, of which 24 have results and 0 will be trained" in out
    code, out, err = command("train", *SMALL, "sweep.dry_run=true", "hydra.run.dir=run")
    assert (code, "networks     1" in out) == (0, True)
    assert not list(Path("run").rglob("*.parquet"))


def test_job_folders_hold_each_jobs_config_and_rows(command: Command) -> None:
    code, _, err = command(
        "train", "-m", *SMALL, "noise.scale=0,0.1", "sweep.job_folders=true", "hydra.sweep.dir=sweep"
    )
    assert code == 0, err
    for number, scale in enumerate((0.0, 0.1)):
        assert load_results(f"sweep/{number}")["config.noise.scale"].tolist() == [scale]
        assert len(load_curves(f"sweep/{number}")) == 6
        assert f"noise.scale={scale:g}" in Path(f"sweep/{number}/.hydra/overrides.yaml").read_text()
        assert Path(f"sweep/{number}/.hydra/config.yaml").read_text().startswith("task:")
    assert len(load_results("sweep")) == 2


def test_a_failing_member_is_a_row_and_stops_no_other(command: Command) -> None:
    code, out, err = command(
        "train", "-m", *SMALL, f"task._target_={__name__}.BrittleTask", "task.function_seed=12,13,14",
        "hydra.sweep.dir=sweep",
    )  # fmt: skip
    assert code == 1
    assert "Traceback" not in err
    assert "1 failed: RuntimeError: no such function" in out
    found = load_results("sweep").set_index("config.task.function_seed")["status"].to_dict()
    assert found == {12: "completed", 13: "failed", 14: "completed"}


def test_new_points_are_added_and_finished_rows_kept(command: Command) -> None:
    command("train", "-m", *SMALL, "noise.scale=0,0.1", "hydra.sweep.dir=sweep")
    first = load_results("sweep").set_index("run_id")
    code, _, err = command("train", "-m", *SMALL, "noise.scale=0,0.1,0.2", "hydra.sweep.dir=sweep")
    assert code == 0, err
    second = load_results("sweep").set_index("run_id")
    assert len(second) == 3
    pd.testing.assert_frame_equal(second.loc[first.index], first)


@pytest.mark.slow
def test_a_sweep_stopped_by_ctrl_c_has_missing_rows_and_goes_on_with_new_points(
    tmp_path: Path, whole_command: WholeCommand
) -> None:
    words = [word for word in SMALL if not word.startswith("training.")]
    words += ["training.steps=600", "training.curve_every=20", "training.batch_size=8"]
    words += ["trainer.checkpoint_seconds=0", "trainer.largest_population=2"]
    begun = ["train", "-m", *words, "seed=range(4)", "hydra.sweep.dir=sweep"]
    err = interrupted_after_a_checkpoint(begun, tmp_path, "sweep")
    assert "hydra.sweep.dir=sweep" in err.splitlines()[-1]
    missing = load_results(tmp_path / "sweep")
    assert len(missing) == 4
    assert "missing" in missing["status"].tolist()
    shown = whole_command(["table", "sweep"], tmp_path).stdout
    assert re.search(r"^[2-4] missing$", shown, re.MULTILINE)
    for folder in ("sweep", "whole"):
        ended = whole_command(["train", "-m", *words, "seed=range(6)", f"hydra.sweep.dir={folder}"], tmp_path)
        assert ended.returncode == 0, ended.stderr
    one, other = numbers(str(tmp_path / "sweep")), numbers(str(tmp_path / "whole"))
    pd.testing.assert_frame_equal(one[other.columns], other, check_exact=True)


def test_a_second_process_in_the_same_folder_says_so_and_stops(command: Command, tmp_path: Path) -> None:
    (tmp_path / "sweep").mkdir()
    with FolderLock(tmp_path / "sweep"):
        code, _, err = command("train", "-m", *SMALL, "noise.scale=0,0.1", "hydra.sweep.dir=sweep")
    assert code == 2
    assert re.search(r"error: sweep: process \d+ on .* is using this folder", err)
    assert command("train", "-m", *SMALL, "noise.scale=0,0.1", "hydra.sweep.dir=sweep")[0] == 0


@pytest.fixture
def searched(tmp_path: Path) -> Path:
    """Give a folder with two completed members, one that failed and one that diverged."""
    table = result_table(
        configs=[{"seed": seed} for seed in range(4)],
        run_ids=list("abcd"),
        statuses=["completed", "completed", "failed", "diverged"],
        errors=[None, None, "RuntimeError: no luck", "the loss ceased to be finite"],
        seconds=[1.0] * 4,
        measures={"error/test": [0.5, 0.25, None, None], "modularity/structural": [0.75, 0.5, None, None]},
    )
    save_part(tmp_path, "part", table)
    return tmp_path


def values(folder: Path, jobs: list[list[str]], objective: str | list[str] | None) -> list[Any]:
    sweep = Sweep(dry_run=False, objective=objective, job_folders=False)
    return list(return_values(Plan([], jobs, EAGER, sweep), folder))


def test_a_job_returns_the_mean_of_its_objective_over_its_members(searched: Path) -> None:
    assert values(searched, [["a"], ["a", "b"]], "error/test") == [0.5, 0.375]
    assert values(searched, [["b"]], ["error/test", "modularity/structural"]) == [[0.25, 0.5]]
    assert values(searched, [["a"]], None) == [{"error/test": 0.5, "modularity/structural": 0.75}]


@pytest.mark.parametrize("objective", [None, "error/test", ["error/test"]])
def test_a_job_without_a_result_returns_why(searched: Path, objective: str | list[str] | None) -> None:
    failed, diverged, unknown = values(searched, [["a", "c"], ["d"], ["z"]], objective)
    assert str(failed) == "1 failed: RuntimeError: no luck"
    assert str(diverged) == "1 diverged: the loss ceased to be finite"
    assert all(isinstance(value, MembersFailed) for value in (failed, diverged, unknown))


def test_an_objective_that_is_no_measure_is_an_error(searched: Path) -> None:
    with pytest.raises(ConfigError, match=r"sweep\.objective=error/tes: .* Did you mean 'error/test'"):
        values(searched, [["a"]], "error/tes")
