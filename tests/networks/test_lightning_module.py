"""A user's own LightningModule as an architecture that trains itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import modulab
from modulab.config.settings import Run, read_run
from modulab.errors import ConfigError
from modulab.progress import ProgressReport
from modulab.random_state import random_state, set_random_state
from modulab.results.manifest import checkpoint_path
from modulab.results.store import load_curves, load_results
from modulab.sweep.rerun import rerun
from modulab.sweep.run import plan_work
from modulab.sweep.slurm_node import ShardTask
from modulab.sweep.this_machine import run_work
from modulab.training.recorder import Interrupted
from modulab.training.self_trained import fit_alone, warnings_told
from tests.members import EAGER, EAGERLY, member_config
from tests.networks.lightning_modules import Equipped
from tests.training.fitting import trained_parameters

MODULES = "tests.networks.lightning_modules"


def make(
    kind: str, seed: int = 0, arguments: dict[str, Any] | None = None, architecture: dict[str, Any] | None = None,
    **overrides: Any,
) -> Run:  # fmt: skip
    quick = {
        "training__steps": 12, "training__curve_every": 4, "training__batch_size": 8, "data__num_samples": 16,
        "probes__num_samples": 32, "probes__repeats": 2, "probes__adaptation_steps": 2, "probes__levels": [0.3],
    }  # fmt: skip
    config = member_config({"architecture": "lightning"}, seed=seed, **(quick | overrides))
    config["architecture"] |= architecture or {}
    config["architecture"]["module"] = {"_target_": f"{MODULES}.{kind}"} | (arguments or {})
    return read_run(config)


def run(runs: list[Run], folder: Path) -> Any:
    run_work(plan_work(runs, EAGER, folder), folder)
    return load_results(folder).set_index("run_id")


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Run], Path]:
    """Train members of all kinds, some of which fail, in one run."""
    runs = {"plain": make("Regressor", arguments={"lr": 0.02}), "other": make("Regressor", 1)}
    runs["own loader"] = make("OwnData")
    data = {"_target_": f"{MODULES}.Points", "features": 2, "outputs": 2}
    runs["data module"] = make("Regressor", architecture={"data_module": data})
    runs["sites"] = make("Regressor", architecture={"submodule": "net", "sites": ["1"]})
    runs["equipped"], runs["recurrent"] = make("Equipped"), make("Recurrent")
    for where in (
        "constructor", "setup", "configure_optimizers", "training_step", "on_save_checkpoint", "no_optimiser",
        "killed", "diverging",
    ):  # fmt: skip
        runs[where] = make("Failing", arguments={"where": where})
    folder = tmp_path_factory.mktemp("sweep")
    run(list(runs.values()), folder)
    return runs, folder


def test_failing_modules_fail_alone_with_the_reason(sweep: tuple[dict[str, Run], Path]) -> None:
    runs, folder = sweep
    rows = load_results(folder).set_index("run_id")
    for where in ("constructor", "setup", "configure_optimizers", "training_step", "on_save_checkpoint"):
        row = rows.loc[runs[where].run_id]
        assert (row["status"], row["error"]) == ("failed", f"RuntimeError: my {where} is broken")
    assert "returns no optimiser" in rows.loc[runs["no_optimiser"].run_id, "error"]
    assert "killed" in rows.loc[runs["killed"].run_id, "error"]
    assert rows.loc[runs["diverging"].run_id, "status"] == "diverged"
    assert "step 0" in rows.loc[runs["diverging"].run_id, "error"]
    for name in ("plain", "other", "own loader", "data module", "sites"):
        assert rows.loc[runs[name].run_id, "status"] == "completed", rows.loc[runs[name].run_id, "error"]


def test_logged_values_and_measures_are_in_rows_and_curves(sweep: tuple[dict[str, Run], Path]) -> None:
    runs, folder = sweep
    rows, curves = load_results(folder).set_index("run_id"), load_curves(folder)
    for name in ("plain", "own loader", "data module", "sites"):
        row = rows.loc[runs[name].run_id]
        assert row["engine"] == "lightning"
        own = curves[curves["run_id"] == runs[name].run_id]
        logged = own[own["measure"] == "logged/loss"]
        assert logged["step"].max() == 12
        assert logged["value"].iloc[-1] == row["logged/loss"]
    assert rows.loc[runs["plain"].run_id, "error/test"] > 0
    assert rows.loc[runs["sites"].run_id, "error_under/poisson@0.3"] > 0
    for name in ("own loader", "data module"):
        row = rows.loc[runs[name].run_id]
        assert row.isna()["error/test"]
        assert "its own training data" in row["skipped"]


def test_callbacks_of_the_users_own_log_and_save(sweep: tuple[dict[str, Run], Path]) -> None:
    runs, folder = sweep
    row = load_results(folder).set_index("run_id").loc[runs["equipped"].run_id]
    assert row["status"] == "completed", row["error"]
    assert row["logged/batch"] == 3
    assert row["logged/lr-Adam"] == pytest.approx(0.01 * 0.9**2)
    checkpoint = checkpoint_path(folder, [runs["equipped"].run_id])
    [kept] = checkpoint.with_suffix("").rglob("*.ckpt")
    module = Equipped.load_from_checkpoint(kept)
    content = torch.load(checkpoint, weights_only=True)
    assert (
        sum(each.numel() for each in module.parameters())
        == content["state_dict"]["parameters_by_row"].numel()
    )
    assert len(modulab.load_members(folder)) > 1


def test_a_network_that_cannot_be_measured_is_trained_and_says_why(
    sweep: tuple[dict[str, Run], Path],
) -> None:
    runs, folder = sweep
    row = load_results(folder).set_index("run_id").loc[runs["recurrent"].run_id]
    assert (row["status"], row["engine"]) == ("completed", "lightning")
    assert "errors: the network cannot be measured" in row["skipped"]
    assert "aten::gru" in row["skipped"]


def test_a_member_has_the_same_bits_alone_rerun_and_on_a_cluster_node(
    sweep: tuple[dict[str, Run], Path], tmp_path: Path
) -> None:
    runs, folder = sweep
    rows = load_results(folder)
    place = rows["run_id"].tolist().index(runs["own loader"].run_id)
    again = rerun(folder, str(place), EAGER.model_dump(), ["tests"])
    assert again.agrees, again.deviating
    assert ShardTask([runs["plain"].config], EAGER, str(tmp_path), execution=EAGERLY)() == 1
    there = checkpoint_path(folder, [runs["plain"].run_id])
    here = checkpoint_path(tmp_path, [runs["plain"].run_id])
    rows_of = [
        torch.load(path, weights_only=True)["state_dict"]["parameters_by_row"] for path in (there, here)
    ]
    assert torch.equal(*rows_of)


@pytest.mark.parametrize(("kind", "epoch"), [("Regressor", 4), ("OwnData", 3)])
def test_a_fit_that_is_interrupted_ends_in_the_same_bits(
    kind: str, epoch: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    member = make(kind).member
    for variable in (
        "PL_GLOBAL_SEED",
        "PL_SEED_WORKERS",
    ):  # which the fit sets, in a process of its own otherwise
        monkeypatch.setenv(variable, "0")
    state, threads = random_state(), torch.get_num_threads()
    progress = ProgressReport("off", 1, 12)
    execution = replace(EAGERLY, checkpoint_seconds=0.0)
    try:
        with warnings_told(lambda text: None):
            whole = fit_alone(member, execution, tmp_path / "whole.ckpt", progress)

            def stop(step: int, values: Any) -> None:
                if step == 2 * epoch:
                    raise Interrupted

            with pytest.raises(Interrupted):
                fit_alone(member, execution, tmp_path / "part.ckpt", progress, stop)
            assert torch.load(tmp_path / "part.ckpt", weights_only=True)["state_dict"]["next_step"] == epoch
            resumed = fit_alone(member, execution, tmp_path / "part.ckpt", progress)
            ended = fit_alone(member, execution, tmp_path / "part.ckpt", progress)
    finally:
        set_random_state(state)
        torch.set_num_threads(threads)
    for other in (resumed, ended):
        assert repr(other.measures) == repr(whole.measures)
        assert (other.curve_steps, repr(other.curves)) == (whole.curve_steps, repr(whole.curves))
    paths = (tmp_path / "whole.ckpt", tmp_path / "part.ckpt")
    rows = [torch.load(path, weights_only=True)["state_dict"]["parameters_by_row"] for path in paths]
    assert torch.equal(*rows)


def test_a_module_that_does_what_a_perceptron_does_follows_it(tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "training__steps": 100, "training__curve_every": 30, "training__batch_size": 32,
        "training__learning_rate": 0.01, "training__schedule": "constant", "data__num_samples": None,
    }  # fmt: skip
    like = make("LikeModulab", 3, {"seed": 3, "lr": 0.01, "width": 12}, **settings)
    dense = read_run(member_config(seed=3, architecture__width=12, **settings)).member
    run([like], tmp_path)
    (trained,) = modulab.load_members(tmp_path)
    own = trained.parameters[0]
    torch.testing.assert_close(own, trained_parameters([dense])[0], rtol=0, atol=1e-5)


def test_settings_without_effect_are_refused(tmp_path: Path) -> None:
    noisy = member_config({"noise": "poisson"}, noise__scale=0.1)["noise"]
    config = make("Regressor").config | {"noise": noisy}
    with pytest.raises(ConfigError, match=r"noise\.scale=0\.1 has no effect"):
        read_run(config)
    with pytest.raises(ConfigError, match=r"training\.learning_rate differs.*architecture\.module\.ARGUMENT"):
        plan_work([make("Regressor"), make("Regressor", training__learning_rate=0.5)], EAGER, tmp_path)
    with pytest.raises(ConfigError, match=r"architecture\.module: a value is missing"):
        plan_work([read_run(member_config({"architecture": "lightning"}))], EAGER, tmp_path)
    with pytest.raises(ConfigError, match="is not a class derived from lightning"):
        make("Tensor")
