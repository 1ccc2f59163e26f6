"""The command line, run as users run it, and in this process where that is enough."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import warnings
from pathlib import Path

import hydra
import pandas as pd
import pytest
from hydra import version
from hydra.core.global_hydra import GlobalHydra
from hydra.core.utils import JobRuntime

import modulab
from modulab.cli import train_help
from modulab.config.composing import OTHER_GROUPS, config_folder, hydra_composer
from modulab.config.hydra_private import compatibility
from modulab.config.overrides import leaf_keys
from modulab.results import store
from modulab.results.store import load_curves, load_results
from modulab.text import say_once
from tests.command_line import MODULAB, SMALL, Command, interrupted_after_a_checkpoint


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        *([name] for name in ("train", "table", "report", "analyse", "rerun", "log", "dashboard", "claims")),
    ],
    ids=" ".join,
)
def test_help_imports_nothing_that_is_slow_to_import(arguments: list[str]) -> None:
    code = (
        "import sys; from modulab.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "finally: print('\\nimported:', *{name.partition('.')[0] for name in sys.modules})"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, *arguments, "--help"], check=True, capture_output=True, text=True
    )
    help_text, _, imported = ran.stdout.rpartition("\nimported:")
    assert "usage" in help_text.lower()
    slow = {"torch", "lightning", "pandas", "numpy", "matplotlib", "pyarrow", "sklearn", "scipy", "wandb"}
    assert slow & set(imported.split()) == set()


def test_importing_modulab_does_not_import_torch() -> None:
    code = "import sys, modulab; assert 'torch' not in sys.modules; assert modulab.ConfigError"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_train_help_names_every_group_option_and_key() -> None:
    text = train_help()
    for file in config_folder().rglob("*.yaml"):
        if file.parent != config_folder():
            group, *option = file.relative_to(config_folder()).with_suffix("").parts
            if group in OTHER_GROUPS:
                continue
            assert re.search(rf"^    {'/'.join(option)} ", text, re.MULTILINE), file
            assert re.search(rf"^  {group}$", text, re.MULTILINE), file
    with hydra_composer() as compose:
        from omegaconf import OmegaConf

        for task in ("regression", "classification", "digits"):
            config = OmegaConf.to_container(compose([f"task={task}", "logger=[csv,tensorboard,wandb]"]))
            assert isinstance(config, dict)
            config["probes"]["measures"] = 0
            for key in leaf_keys(config):
                leaf = key.rsplit(".", 1)[-1]
                assert leaf == "_target_" or re.search(rf"^    {leaf} +\w", text, re.MULTILINE), key


def test_train_writes_results_and_prints_the_measures_of_one_member(command: Command) -> None:
    code, out, err = command("train", *SMALL, "hydra.run.dir=run", "seed=3")
    assert code == 0, err
    assert re.search(r"^error/test +[\d.e-]+$", out, re.MULTILINE)
    assert out.endswith("Results: run/results.parquet\n")
    results = load_results("run")
    assert results["status"].tolist() == ["completed"]
    assert results["config.seed"].tolist() == [3]
    assert load_curves("run")["step"].max() == 4


def test_train_prints_the_table_of_a_population_and_table_prints_it_again(command: Command) -> None:
    grid = "population.grid={architecture: [dense, premodular], noise.scale: [0, 0.1]}"
    code, out, err = command("train", *SMALL, "hydra.run.dir=run", "population.seeds=2", grid)
    assert code == 0, err
    lines = out.splitlines()
    assert re.match(r"architecture.name +noise.scale +n +error/test", lines[0])
    assert [line.split()[:3] for line in lines[1:5]] == [
        ["dense", "0", "2"],
        ["dense", "0.1", "2"],
        ["premodular", "0", "2"],
        ["premodular", "0.1", "2"],
    ]
    code, again, err = command("table", "run")
    assert code == 0
    assert again.splitlines() == lines[:5]
    code, out, err = command("table", "run", "--by", "architecture", "--metric", "error/*", "--csv", "x.csv")
    assert code == 0
    assert pd.read_csv("x.csv")["architecture.name"].tolist() == ["dense", "premodular"]


def test_an_override_may_interpolate_what_a_grid_sets(command: Command) -> None:
    grid = "population.grid={noise.scale: [0, 0.1], architecture: [dense]}"
    code, _, err = command("train", *SMALL, "regulariser.strength=${noise.scale}", grid, "hydra.run.dir=run")
    assert code == 0, err
    assert sorted(load_results("run")["config.regulariser.strength"]) == [0, 0.1]


def test_a_task_of_ones_own_in_the_current_folder_can_be_trained(command: Command, tmp_path: Path) -> None:
    Path("my_task.py").write_text(
        "from modulab.tasks.regression import RegressionTask\nclass MyTask(RegressionTask): pass\n"
    )
    Path("conf/task").mkdir(parents=True)
    shipped = (config_folder() / "task" / "regression.yaml").read_text()
    own = shipped.replace("modulab.tasks.regression.RegressionTask", "my_task.MyTask")
    Path("conf/task/mine.yaml").write_text(own.replace("name: regression", "name: mine"))
    code, _, err = command("train", "--config-dir", "conf", "task=mine", *SMALL, "hydra.run.dir=run")
    sys.modules.pop("my_task", None)
    assert code == 0, err
    assert load_results("run")["config.task._target_"].tolist() == ["my_task.MyTask"]


def test_the_same_command_again_trains_nothing_twice(command: Command) -> None:
    command("train", *SMALL, "hydra.run.dir=run", "population.seeds=2")
    first = load_results("run")
    code, _, err = command("train", *SMALL, "hydra.run.dir=run", "population.seeds=3")
    assert code == 0, err
    second = load_results("run")
    assert second["config.seed"].tolist() == [0, 1, 2]
    pd.testing.assert_frame_equal(second.iloc[:2], first)


def test_the_python_interface_gives_what_the_command_line_gives(command: Command, tmp_path: Path) -> None:
    overrides = [*SMALL, "population.grid={noise.scale: [0, 0.1]}"]
    code, _, err = command("train", *overrides, "hydra.run.dir=run")
    assert code == 0, err
    results = modulab.train(overrides, folder=tmp_path / "api")
    assert results.folder == tmp_path / "api"
    settled = [name for name in results.table if not name.startswith("version.") and name != "seconds"]
    pd.testing.assert_frame_equal(results.table[settled], load_results("run")[settled])
    pd.testing.assert_frame_equal(results.curves, load_curves("run"))
    assert sum(len(group.configs) for group in modulab.load_members(results.folder)) == 2


def test_a_reader_that_stops_early_is_no_error(command: Command) -> None:
    command("train", *SMALL, "hydra.run.dir=run")
    process = subprocess.Popen(
        [*MODULAB, "table", "run"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    process.stdout.close()
    _, err = process.communicate()
    assert err == ""
    assert process.returncode == 0


@pytest.mark.slow
def test_ctrl_c_says_how_to_go_on_and_going_on_gives_the_whole_result(tmp_path: Path) -> None:
    dropped = ("training.steps", "training.curve_every")
    overrides = [word for word in SMALL if not word.startswith(dropped)]
    overrides += ["training.steps=2000", "training.curve_every=50", "trainer.checkpoint_seconds=0"]
    command = ["train", *overrides]
    err = interrupted_after_a_checkpoint([*command, "hydra.run.dir=run"], tmp_path, "run")
    assert "Interrupted" in err
    assert load_results(tmp_path / "run")["status"].tolist() == ["missing"]
    to_go_on = shlex.split(err.rstrip().splitlines()[-1])
    assert to_go_on[:2] == ["modulab", "train"]
    subprocess.run([*MODULAB, *to_go_on[1:]], cwd=tmp_path, check=True, capture_output=True)
    subprocess.run([*MODULAB, *command, "hydra.run.dir=whole"], cwd=tmp_path, check=True, capture_output=True)
    resumed, whole = (load_results(tmp_path / name).drop(columns="seconds") for name in ("run", "whole"))
    results = [name for name in whole if not name.startswith("version.")]
    pd.testing.assert_frame_equal(resumed[results], whole[results])
    pd.testing.assert_frame_equal(load_curves(tmp_path / "run"), load_curves(tmp_path / "whole"))


def test_training_from_python_leaves_the_callers_hydra_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "theirs.yaml").write_text("answer: 42")
    # Hydra 1.4 takes no older one.
    theirs = "1.2" if compatibility() else "1.4"
    with (
        warnings.catch_warnings(action="ignore"),
        hydra.initialize_config_dir(str(tmp_path), version_base=theirs, job_name="theirs"),
    ):
        before = GlobalHydra.instance().hydra
        modulab.train(SMALL, folder=tmp_path / "run")
        assert GlobalHydra.instance().hydra is before
        assert str(version.getbase()) == theirs
        assert JobRuntime.instance().get("name") == "theirs"
        assert hydra.compose("theirs").answer == 42
    assert not GlobalHydra.instance().is_initialized()


def test_ctrl_c_during_any_command_is_one_line(
    command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def interrupt(path: str, analyses: bool) -> None:
        raise KeyboardInterrupt(path)

    monkeypatch.setattr(store, "load_results", interrupt)
    assert command("table", str(tmp_path)) == (130, "", "Interrupted.\n")


def test_rows_that_vanish_during_a_run_end_it_with_exit_code_1(command: Command, tmp_path: Path) -> None:
    (tmp_path / "vanishing.py").write_text(
        """
from pathlib import Path

def remove_rows(probe):
    Path("run/results.parquet").unlink(missing_ok=True)
    for part in Path("run").glob("*/*.results.parquet"):
        part.unlink()
    return {}
"""
    )
    code, _, err = command(
        "train", *SMALL, "population.seeds=2", "trainer.largest_population=1", "hydra.run.dir=run",
        "+probes.measures.removing=vanishing.remove_rows",
    )  # fmt: skip
    assert code == 1
    assert "1 of 2 planned members have no row in run" in err


def test_a_renamed_key_works_in_commands_sweeps_and_tables_with_a_notice(command: Command) -> None:
    say_once.cache_clear()
    code, out, errors = command("train", "-m", *SMALL, "task.mixing=true,false", "hydra.sweep.dir=sweep")
    assert code == 0, out + errors
    notice = "notice: task.mixing is called task.code now, where false is coordinate and true is mixed."
    assert errors.count(notice) == 1
    assert sorted(load_results("sweep")["config.task.code"]) == ["coordinate", "mixed"]
    _, out, _ = command("table", "sweep", "--by", "task.mixing", "--metric", "error/test")
    assert out.splitlines()[0].split()[0] == "task.code"
    code, _, errors = command("train", *SMALL, "task.mixing=1", "hydra.run.dir=run")
    assert code == 2
    assert "task.mixing=1 should be true or false. It is called task.code now" in errors
