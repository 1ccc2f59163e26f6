"""The command line, run as users run it, and in this process where that is enough."""

from __future__ import annotations

import contextlib
import re
import shlex
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import hydra
import pandas as pd
import pytest
from hydra import version
from hydra.core.global_hydra import GlobalHydra
from hydra.core.utils import JobRuntime
from omegaconf import OmegaConf

import modulab
from modulab.cli import main
from modulab.config.composing import OTHER_GROUPS, config_folder, hydra_composer
from modulab.config.hydra_private import compatibility
from modulab.config.overrides import leaf_keys
from modulab.help import train_help
from modulab.results import store
from modulab.results.store import load_curves, load_results
from modulab.text import say_once
from modulab.training.checkpoints import read_checkpoint
from tests.command_line import (
    MODULAB,
    SMALL,
    Command,
    WholeCommand,
    interrupted_after_a_checkpoint,
    terminal_closed_after_a_checkpoint,
)

Help = Callable[..., str]


@pytest.fixture
def help_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Help:
    """Give a function that returns the help of a command."""
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> str:
        with contextlib.suppress(SystemExit):  # argparse leaves so
            assert main([*words[:1], "--help", *words[1:]]) == 0
        return capfd.readouterr().out

    return run


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


def test_train_help_names_every_group_option_and_key_with_its_default() -> None:
    text = train_help(width=100)
    keys = text.partition("Below are the groups")[2]
    shown = dict(re.findall(r"^  ([\w.]+)=(\S*)", text, re.MULTILINE))
    for file in config_folder().rglob("*.yaml"):
        if file.parent != config_folder():
            group, *option = file.relative_to(config_folder()).with_suffix("").parts
            if group in OTHER_GROUPS:
                continue
            assert re.search(rf"^  {'/'.join(option)}( |$)", text, re.MULTILINE), file
            assert f"\n{group}=OPTION\n" in text, file
    with hydra_composer() as compose:
        for task in ("regression", "classification", "digits"):
            config = OmegaConf.to_container(compose([f"task={task}", "logger=[csv,tensorboard,wandb]"]))
            assert isinstance(config, dict)
            config["probes"]["measures"] = "a mapping, shown as such"
            for key in leaf_keys(config):
                if key.endswith("._target_"):
                    continue
                assert re.search(rf"^  {re.escape(key)}(=| |$)", text, re.MULTILINE), key
                value = OmegaConf.select(OmegaConf.create(config), key)
                if task == "regression" and isinstance(value, int | float) and not key.startswith("task."):
                    line = re.compile(rf"^  {re.escape(key)}=(\S+)", re.MULTILINE)
                    own = line.findall(keys) or line.findall(text)  # the seed is of no group
                    assert own, key
                    assert own[0].lower() == str(value).lower() or float(own[0]) == value, key
    assert shown["training.gradient_clip"] == "null"


@pytest.mark.parametrize("width", [60, 80, 100])
def test_help_is_wrapped_to_the_terminal(width: int, help_of: Help, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    commands = re.findall(r"^    ([a-z]+)", help_of(), re.MULTILINE)
    assert len(commands) > 6
    for name in ([], *([each] for each in commands), ["train", "noise"]):
        lines = help_of(*name).splitlines()
        unbroken = [line for line in lines if len(line) >= width and not line.startswith("  modulab ")]
        assert unbroken == [], name


def test_help_speaks_of_keys_and_not_of_code(help_of: Help) -> None:
    text = help_of("train")
    sources = "".join(path.read_text() for path in Path(modulab.__file__).parent.rglob("*.py"))
    classes = re.findall(r"^class (\w+)", sources, re.MULTILINE)
    camel = {name for name in classes if re.search(r"[a-z][A-Z]", name)}
    found = {word for word in re.findall(r"\w+", re.sub(r"\w+\.\w+\.\w+\S*", "", text)) if word in camel}
    assert found == set()
    assert "supports." not in text
    assert "one of full, band, corner, cross, cells, labels" in " ".join(text.split())


def test_help_of_one_group_is_that_group(command: Command, help_of: Help) -> None:
    noise = help_of("train", "noise")
    assert noise.startswith("noise=OPTION\n")
    assert "noise.scale=0.0" in noise
    assert "training." not in noise
    assert command("train", "noise.scale=1", "--help")[1] == noise == command("help", "train", "noise")[1]
    code, _, err = command("train", "--help", "nois")
    assert (code, err) == (2, "error: --help nois: there is no such group. Did you mean 'noise'?\n")


def test_help_shows_configs_of_ones_own(help_of: Help) -> None:
    Path("conf/noise").mkdir(parents=True)
    Path("conf/noise/loud.yaml").write_text("# Very loud.\ndefaults: [poisson, _self_]\nscale: 9\n")
    assert re.search(r"^  loud +Very loud\.$", help_of("train", "noise", "--config-dir", "conf"), re.M)


def test_completion_is_not_offered(command: Command) -> None:
    code, out, _ = command("train", "--hydra-help")
    assert code == 0
    assert "--multirun,-m" in out
    assert "--config-dir,-cd" in out
    assert "completion" not in out


def test_version_is_that_of_modulab(command: Command) -> None:
    for words in (["--version"], ["train", "--version"]):
        code, out, _ = command(*words)
        assert code == 0
        assert out.startswith(f"modulab {metadata.version('modulab')}")


def test_train_writes_results_and_prints_the_measures_of_one_member(command: Command) -> None:
    code, out, err = command("train", *SMALL, "hydra.run.dir=run", "seed=3")
    assert code == 0, err
    assert re.search(r"^error/test ↓ +[\d.e-]+$", out, re.MULTILINE)
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
    assert again.splitlines()[:5] == lines[:5]
    code, out, err = command("table", "run", "--by", "architecture", "--metric", "error/*", "--csv", "x.csv")
    assert code == 0
    assert pd.read_csv("x.csv")["architecture.name"].tolist() == ["dense", "premodular"]
    # A pipe and a link stay what they are; a file is replaced as a whole, or not at all.
    Path("link.csv").symlink_to("x.csv")
    Path("x.csv").write_text("earlier")
    code, _, err = command("table", "run", "--csv", "link.csv")
    assert code == 0
    assert Path("link.csv").is_symlink()
    assert "dense" in Path("x.csv").read_text()
    code, _, err = command("table", "run", "--csv", "/dev/null")
    assert code == 0
    assert Path("/dev/null").is_char_device()


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


def saved_often(steps: int) -> list[str]:
    """Return a command that trains a small network and writes a checkpoint every 50 steps."""
    overrides = [word for word in SMALL if not word.startswith(("training.steps", "training.curve_every"))]
    often = [f"training.steps={steps}", "training.curve_every=50", "trainer.checkpoint_seconds=0"]
    return ["train", *overrides, *often]


@pytest.mark.slow
def test_ctrl_c_says_how_to_go_on_and_going_on_gives_the_whole_result(
    tmp_path: Path, whole_command: WholeCommand
) -> None:
    command = saved_often(steps=2000)
    err = interrupted_after_a_checkpoint([*command, "hydra.run.dir=run"], tmp_path, "run")
    assert "Interrupted" in err
    assert load_results(tmp_path / "run")["status"].tolist() == ["missing"]
    to_go_on = shlex.split(err.rstrip().splitlines()[-1])
    assert to_go_on[:2] == ["modulab", "train"]
    for words in (to_go_on[1:], [*command, "hydra.run.dir=whole"]):
        whole_command(words, tmp_path).check_returncode()
    resumed, whole = (load_results(tmp_path / name).drop(columns="seconds") for name in ("run", "whole"))
    results = [name for name in whole if not name.startswith("version.")]
    pd.testing.assert_frame_equal(resumed[results], whole[results])
    pd.testing.assert_frame_equal(load_curves(tmp_path / "run"), load_curves(tmp_path / "whole"))


@pytest.mark.slow
def test_a_terminal_that_is_closed_leaves_a_run_that_the_same_command_ends(
    tmp_path: Path, whole_command: WholeCommand
) -> None:
    command = [*saved_often(steps=3000), "hydra.run.dir=run"]
    assert terminal_closed_after_a_checkpoint(command, tmp_path, "run") == 130
    assert load_results(tmp_path / "run")["status"].tolist() == ["missing"]
    [checkpoint] = (tmp_path / "run" / "populations").glob("*.ckpt")
    assert 0 < int(read_checkpoint(checkpoint)["state_dict"]["next_step"]) < 3000
    whole_command(command, tmp_path).check_returncode()
    assert load_results(tmp_path / "run")["status"].tolist() == ["completed"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_signals_that_ask_to_end_are_as_ctrl_c_and_are_put_back(
    number: signal.Signals, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = signal.getsignal(number)
    monkeypatch.setattr(store, "count_results", lambda path: signal.raise_signal(number))
    code, _, err = command("table", "run")
    assert (code, err) == (130, "Interrupted.\n")
    assert signal.getsignal(number) is before


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
    def interrupt(path: Path) -> None:
        raise KeyboardInterrupt(path)

    monkeypatch.setattr(store, "count_results", interrupt)
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


def test_a_folder_in_which_every_network_failed_says_so_and_shows_its_rows(command: Command) -> None:
    Path("brittle.py").write_text(
        "from modulab.tasks.regression import RegressionTask\n"
        "class Brittle(RegressionTask):\n"
        "    def draw(self, *given, **more):\n"
        "        raise ValueError('no such [red] $x$ function')\n"
    )
    task = ["task._target_=brittle.Brittle", "population.seeds=2", "hydra.run.dir=run"]
    code, trained, _ = command("train", *SMALL, *task)
    assert code == 1
    told = (
        "None of these 2 networks has completed, so there are no measures. "
        "The first error: ValueError: no such [red] $x$ function. "
        "Fix what failed, and run the same command again"
    )
    assert told in trained
    for words in (["table"], ["table", "--metric", "error/test"], ["table", "--csv", "x.csv"], ["report"]):
        code, out, err = command(words[0], "run", *words[1:])
        assert (code, err) == (0, "")
        assert told in out
        if words[0] == "table":
            assert out.splitlines()[:2] == ["n  failed", "0  2"]
    assert told in Path("run/report/report.html").read_text()
    assert pd.read_csv("run/report/summary.csv")["failed"].tolist() == [2]


def test_a_measure_that_fails_is_named_and_the_others_are_printed(command: Command) -> None:
    Path("faulty.py").write_text("def faulty(probe):\n    raise ValueError('a [bug] of mine')\n")
    code, out, err = command(
        "train", *SMALL, "+probes.measures.mine=faulty.faulty", "population.seeds=2", "hydra.run.dir=run"
    )
    assert code == 1, err
    told = "2 without a measure: probes.measures.mine: failed with ValueError: a [bug] of mine"
    assert told in out.splitlines()
    assert load_results("run")["error/test"].notna().all()
    assert told in command("table", "run")[1].splitlines()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["experiment=claims/nois"], "experiment=claims/nois: there is no such option. Did you mean 'claims/noise'?"),
        (["experiment=nois"], "experiment=nois: there is no such option. Did you mean 'claims/noise'?"),
        (["-m", "experiment=regression,claims/maps/nois"], "Did you mean 'claims/maps/noise'?"),
        (["hydra/sweeper/sampler=tpee", "hydra/sweeper=optuna", "-m"], "Did you mean 'tpe'?"),
        (["--shell-completion", "install=bash"], "modulab has no shell completion"),
    ],
)  # fmt: skip
def test_suggestions_come_from_the_group_that_was_meant(
    command: Command, words: list[str], message: str
) -> None:
    code, out, err = command("train", *words)
    assert (code, out) == (2, "")
    assert message in err


def test_options_and_arguments_may_stand_in_any_order(command: Command) -> None:
    seeds = ["seed=0,1", "noise.scale=0,0.1"]
    for place, given in enumerate(([*seeds[:1], "-m", *seeds[1:]], [*seeds, "-m"], ["-m", *seeds])):
        dry = ["sweep.dry_run=true", f"hydra.sweep.dir={place}"]
        code, out, err = command("train", *SMALL[:6], *given, *SMALL[6:], *dry)
        assert code == 0, err
        assert "networks     4, of which 0 have results" in out
    for words in (
        ["table", "--by", "x", "nowhere", "--metric", "y"],
        ["log", "nowhere", "logger=csv", "--again", "logger.csv.live_up_to=3"],
    ):
        code, _, err = command(*words)
        assert code == 2
        assert err.startswith("error: nowhere: there is no such path")
    code, _, err = command("-m", "train", "seed=0,1")
    assert (code, err) == (
        2,
        "error: modulab -m train seed=0,1: the command comes first, as in modulab train -m seed=0,1.\n",
    )
    assert "as in modulab train noise.scale=1." in command("noise.scale=1")[2]
