"""Every mistake a user can make gives one readable message and exit code 2, and loses nothing."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from modulab.cli import main
from modulab.config.composing import config_folder
from modulab.config.overrides import split_words
from modulab.errors import ConfigError
from modulab.results.store import load_curves, load_results
from tests.command_line import MODULAB, SMALL, Command

Fails = Callable[..., str]


@pytest.fixture
def fails(command: Command, capfd: pytest.CaptureFixture[str]) -> Fails:
    """Give a function that runs a command, asserts that it fails as it should, and returns the message."""

    def run(*arguments: str) -> str:
        before = {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}
        capfd.readouterr()
        try:
            code, out, err = command(*arguments)
        except SystemExit as stop:  # argparse leaves so when it cannot read a flag
            code, (out, err) = stop.code, capfd.readouterr()
        assert code == 2, (out, err)
        assert "Traceback" not in err
        assert err.count("error: ") == 1
        for path, content in before.items():
            assert ".hydra" in path.parts or path.suffix == ".log" or path.read_bytes() == content, path
        return err

    return run


TYPOS = [
    # A key that does not exist, in each place and way in which it can be written.
    ("noise.scal=0.1", "noise.scal: there is no such key. Did you mean 'noise.scale'?"),
    ("+noise.scal=0.1", "noise.scal: there is no such key. Did you mean 'scale'?"),
    ("++noise.scal=0.1", "noise.scal: there is no such key. Did you mean 'scale'?"),
    ("~noise.scal", "noise.scal: there is no such key. Did you mean 'noise.scale'?"),
    ("sed=1", "sed: there is no such key. Did you mean 'seed'?"),
    ("+sed=1", "sed: there is no such key. Did you mean 'seed'?"),
    ("++sed=1", "sed: there is no such key. Did you mean 'seed'?"),
    ("width=64", "width: there is no such key. Did you mean 'architecture.width'?"),
    ("nois=poisson", "nois: there is no such key. Did you mean 'noise'?"),
    ("+nois=poisson", "nois: there is no such key. Did you mean 'noise'?"),
    ("++nois.scale=1", "nois: there is no such key. Did you mean 'noise'?"),
    ("task.suport=band", "task.suport: there is no such key. Did you mean 'task.support'?"),
    ("++task.suport=band", "task.suport: there is no such key. Did you mean 'support'?"),
    ("++architecture.width.typo=1", "architecture.width"),
    ("training.step=10", "Did you mean 'training.steps'?"),
    ("++data.samples=10", "data.samples: there is no such key. Did you mean 'num_samples'?"),
    ("++regulariser.strenght=1", "Did you mean 'strength'?"),
    ("trainer.thread=1", "Did you mean 'trainer.threads'?"),
    ("++trainer.thread=1", "trainer.thread: there is no such key. Did you mean 'threads'?"),
    ("population.seed=2", "Did you mean 'population.seeds'?"),
    ("++population.seed=2", "population.seed: there is no such key. Did you mean 'seeds'?"),
    ("++probes.level=[0.1]", "probes.level: there is no such key. Did you mean 'levels'?"),
    ("probes.measures.structral=null", "Did you mean 'probes.measures.structural'?"),
    ("hydra.run.dri=x", "hydra.run.dri"),
    ("++hydra.run.dri=x", "hydra.run.dri: there is no such key. Did you mean 'hydra.run.dir'?"),
    ("++hydra.typo=1", "hydra.typo: there is no such key."),
    # An option that does not exist.
    ("architecture=densse", "architecture=densse: there is no such option. Did you mean 'dense'?"),
    ("experiment=regresion", "Did you mean 'regression'?"),
    ("noise=nothing", "Known: default, dropout, gaussian, multiplicative, none, poisson."),
    # Loggers, one and several.
    ("logger=wandbb", "logger=wandbb: there is no such option. Did you mean 'wandb'?"),
    ("logger=[csv,wandbb]", "logger=wandbb: there is no such option. Did you mean 'wandb'?"),
    ("logger=csv,wandb", "several loggers are a list, as in 'logger=[csv,wandb]'."),
    (
        "logger.wandb.mode=offline",
        "logger.wandb.mode: no logger is chosen. Choose one in the same command, as in logger=wandb.",
    ),
    ("+logger.wandbb={}", "logger.wandbb: there is no such logger. Did you mean 'wandb'?"),
    # The same inside a grid.
    ("population.grid={noise.scal: [0]}", "population.grid: there is no key noise.scal. Did you mean"),
    ("population.grid={nois: [poisson]}", "population.grid: there is no key nois. Did you mean 'noise'?"),
    ("population.grid={noise: [poison]}", "noise=poison: there is no such option. Did you mean 'poisson'?"),
    ("population.grid={architecture.units: [4]}", "population.grid: there is no key architecture.units."),
    ("population.grid={experiment: [digits]}", "population.grid: there is no key experiment."),
]

WRONG_TYPES = [
    ("noise.scale=loud", "noise.scale='loud': Input should be a valid number. It means: sigma"),
    ("noise.scale=true", "noise.scale=True"),
    ("noise.scale=[0.1]", "noise.scale=[0.1]"),
    ("noise.scale=null", "noise.scale=None"),
    ("noise.scale={a: 1}", "noise.scale={'a': 1}"),
    ("architecture.width=48.5", "architecture.width=48.5: Input should be a valid integer"),
    ("architecture.width='48'", "architecture.width='48'"),
    ("seed=first", "seed='first' should be a whole number"),
    ("seed=0.5", "seed=0.5 should be a whole number"),
    ("task.functions=sine", "task.functions='sine'"),
    ("task.mixing=1", "task.mixing=1"),
    ("training.optimiser=adamax", "Input should be 'adam', 'adamw' or 'sgd'"),
    ("architecture.activation=relux", "architecture.activation='relux'"),
    ("trainer.engine=fast", "trainer.engine='fast'"),
    ("population.seeds=few", "population.seeds='few'"),
    ("population.grid=3", "population.grid: 3 is not a grid."),
    ("population.grid={noise.scale: 0.1}", "noise.scale should have a list of values"),
    ("population.grid={noise.scale: []}", "noise.scale should have a list of values"),
    ("population.grid={noise.scale: [loud]}", "noise.scale='loud'"),
    ("population.grid={noise: [{scale: 1}]}", "is not the name of a file in configs/noise/"),
    ("population.grid={seed: [a]}", "seed='a' should be a whole number"),
    ("logger=null", "a group takes the name of a file"),
    ("+logger.csv=3", "logger.csv=3 should be a group of settings. Choose logger=csv."),
    ("+logger.csv={live_up_to: x}", "logger.csv.live_up_to='x': Input should be a valid integer. It means:"),
    (
        "+logger.csv={live_up_to: 1, live_upto: 1}",
        "logger.csv.live_upto: there is no such key. Did you mean 'live_up_to'?",
    ),
    ("noise=null", "a group takes the name of a file"),
    ("task._target_=modulab.tasks.regression.RegressionTsk", "Did you mean 'RegressionTask'?"),
    ("task._target_=modulab.tasks.regresion.RegressionTask", "cannot import 'modulab.tasks.regresion'"),
    ("task._target_=modulab.errors.ConfigError", "must name a class derived from modulab.tasks.base.Task"),
    ("task._target_=3", "task._target_=3 is not a dotted path"),
    ("~task._target_", "task._target_: a value is missing."),
    ("~noise.scale", "noise.scale: a value is missing. It means: sigma"),
    ("~noise", "noise: a value is missing."),
    ("noise.scale=???", "noise.scale: a value is missing."),
    ("noise.scale=${nois.scale}", "noise.scale: ${nois.scale} names a key that does not exist."),
    ("noise.scale=${typo:1}", "noise.scale: ${typo:...} names no resolver."),
    ("noise.scale=${oc.env:NO_SUCH}", "noise.scale: the environment variable NO_SUCH is not set. Set it, or"),
    ("noise.scale=[", "noise.scale=[: cannot be read as KEY=VALUE."),
    ("noise.scale=0,0.1", "noise.scale=0,0.1 is a sweep. Add -m"),
    ("+noise.scale=0.1", "noise.scale exists already."),
    ("probes.measures.structural=modulab.metrics.modularity.typo", "probes.measures.structural"),
]

IMPOSSIBLE = [
    ("noise.scale=-1", "noise.scale=-1: Input should be greater than or equal to 0"),
    ("noise.scale=inf", "noise.scale=inf"),
    ("noise.scale=nan", "noise.scale=nan"),
    ("seed=-1", "seed=-1"),
    ("seed=9223372036854775808", "seed"),
    ("architecture.width=0", "architecture.width=0: Input should be greater than or equal to 1"),
    ("architecture.cross_connections=1.5", "architecture.cross_connections=1.5"),
    ("task.modules=0", "task.modules=0"),
    ("data.num_samples=0", "data.num_samples=0"),
    ("training.learning_rate=0", "training.learning_rate=0"),
    ("training.warmup_steps=4001", "training.warmup_steps=4001 exceeds training.steps=4000"),
    ("regulariser.weight_power=0.5", "regulariser.weight_power: a power of 0.5 has an infinite slope at 0"),
    ("population.seeds=0", "population.seeds=0"),
    ("trainer.threads=0", "trainer.threads=0"),
    ("trainer.memory_gib=0", "trainer.memory_gib=0"),
    ("task.support=cells task.withheld_fraction=1", "task"),
    ("task=digits task.support=labels task.withheld_fraction=1", "task"),
    ("architecture=premodular architecture.width=1", "Set architecture.width to 2 or more."),
    ("noise=none noise.scale=0.1", "noise.scale=0.1 has no effect, because noise=none has no variance."),
    ("regulariser=none regulariser.strength=1", "regulariser.strength=1.0 has no effect"),
    ("noise.scale=1 population.grid={noise.scale:[0]}", "has no effect, because population.grid sets"),
]


OF_HYDRA = [
    ("hydra.run.dir=${oc.env:NO_SUCH}", "hydra.run.dir: the environment variable NO_SUCH is not set."),
    ("hydra.run.dir=null", "hydra.run.dir=null: this key cannot be null."),
    ("hydra.run.dir=[a]", "hydra.run.dir=[a]: a text is needed here."),
    ("hydra.run=3", "hydra.run=3: this is a group of keys."),
    ("hydra.mode=X", "hydra.mode=X: it should be one of RUN, MULTIRUN."),
    ("hydra.job.num=x", "hydra.job.num=x: a whole number is needed here."),
    ("hydra.job.chdir=maybe", "hydra.job.chdir=maybe: it should be true or false."),
    ("hydra.job.env_set=3", "hydra.job.env_set=3: a dictionary is needed here, as in {NAME: VALUE}."),
    ("hydra.job.env_copy=3", "hydra.job.env_copy=3: a list is needed here, as in [VALUE]."),
]


@pytest.mark.parametrize(("override", "message"), OF_HYDRA)
def test_a_wrong_value_of_a_key_of_hydra_is_explained(fails: Fails, override: str, message: str) -> None:
    assert fails("train", override).startswith(f"error: {message}")


@pytest.mark.parametrize(("override", "message"), TYPOS + WRONG_TYPES)
def test_a_wrong_override_is_explained(fails: Fails, override: str, message: str) -> None:
    assert message in fails("train", override, "hydra.run.dir=run")
    assert not list(Path().rglob("*.parquet"))


@pytest.mark.parametrize(("overrides", "message"), IMPOSSIBLE)
def test_an_impossible_value_or_combination_is_explained(fails: Fails, overrides: str, message: str) -> None:
    assert message in fails("train", *overrides.split(" "), "hydra.run.dir=run")
    assert not list(Path().rglob("*.parquet"))


@pytest.mark.parametrize(
    ("file", "key", "message"),
    [
        ("noise/mine", "scal: 1", "noise.scal: there is no such key. Did you mean 'scale'?"),
        ("task/mine", "suport: full", "task.suport: there is no such key. Did you mean 'support'?"),
        ("regulariser/mine", "strenght: 1", "regulariser.strenght: there is no such key."),
        ("trainer/mine", "thread: 1", "trainer.thread: there is no such key. Did you mean 'threads'?"),
        ("population/mine", "sed: 1", "population.sed: there is no such key."),
        ("experiment/mine", "nois: {scale: 1}", "nois: there is no such key. Did you mean 'noise'?"),
        ("experiment/mine", "noise: {scal: 1}", "noise.scal: there is no such key. Did you mean 'scale'?"),
        ("experiment/mine", "population: {grid: {noise.scal: [1]}}", "there is no key noise.scal."),
        ("experiment/mine", "defaults: [override /nois: poisson]", "nois"),
        ("experiment/mine", "defaults: [override /noise: poison]", "Did you mean 'poisson'?"),
        ("experiment/mine", "noise: [", 'mine.yaml", line 3'),
    ],
)
def test_a_mistake_in_a_file_is_explained(fails: Fails, file: str, key: str, message: str) -> None:
    group, name = file.split("/")
    path = Path("conf", f"{file}.yaml")
    path.parent.mkdir(parents=True)
    shipped = {"noise": "poisson", "task": "regression", "regulariser": "l1", "population": "single"}
    start = "# @package _global_\n"
    if group != "experiment":
        start = (config_folder() / group / f"{shipped.get(group, 'default')}.yaml").read_text()
    path.write_text(f"{start}{key}\n")
    assert message in fails("train", "--config-dir", "conf", f"{group}={name}", "hydra.run.dir=run")


ODD = [
    ("training=[nan]", "a group takes the name of a file"),
    ("noise=[none,1]", "a group takes the name of a file"),
    ("task=../train", "task/logger=none: there is no such option."),
    ("--config-name nope", "--config-name nope: there is no such option. Leave it out"),
    ("--config-path nope", "--config-path: modulab has its own folder of configs."),
    ("train", "train: a setting is KEY=VALUE, as in seed=1."),
    ("population.grid={noise.scale=[0]}", "population.grid: cannot be read. Write it in quotes, as in"),
    ("folder=x", "folder: there is no such key. The folder of results is hydra.run.dir"),
    ("run.dir=x", "run.dir: there is no such key. The folder of results is hydra.run.dir"),
    ("+training.weight_decay={a:1}", "training.weight_decay={'a': 1}: Input should be a valid number."),
    ("+probes.measures.x=modulab.__doc__", "probes.measures.x=modulab.__doc__ is not a function."),
    ("hydra.verbose=[1]", "cannot be composed (TypeError)"),
    ("noise.scale=0,", "noise.scale=0,: a value is missing next to a comma."),
    ("noise.scale=[range(0,3)]", "a sweep cannot stand inside a list"),
    ("seed=sort(3,a)", "seed=sort(3,a): sort(3,a) cannot be evaluated"),
]


@pytest.mark.parametrize(("words", "message"), ODD)
@pytest.mark.parametrize("flags", [[], ["-m"]])
def test_odd_input_is_explained(fails: Fails, words: str, message: str, flags: list[str]) -> None:
    found = fails("train", *flags, *words.split(" "), "hydra.run.dir=run", "hydra.sweep.dir=run")
    assert message in found or flags
    assert not list(Path().rglob("*.parquet"))


def test_the_option_that_lacks_a_key_is_named(fails: Fails) -> None:
    message = fails(
        "train", "-m", "task=classification,regression", "task.function_seed=3", "hydra.sweep.dir=run"
    )
    assert "task.function_seed: there is no such key in task=classification." in message


def test_a_job_folder_with_too_long_a_name_is_refused_before_training(fails: Fails) -> None:
    long = ["noise.name=" + 300 * "a", "sweep.job_folders=true"]
    message = fails(
        "train",
        "-m",
        *SMALL,
        *long,
        "hydra.sweep.dir=run",
        "hydra.sweep.subdir=${hydra:job.override_dirname}",
    )
    assert "a folder's name has at most 255" in message
    assert not list(Path().rglob("*.parquet"))


def test_a_module_of_ones_own_that_breaks_is_explained(fails: Fails) -> None:
    Path("broken_task.py").write_text("def (:\n")
    message = fails("train", "task._target_=broken_task.Task", "hydra.run.dir=run")
    assert "importing 'broken_task' failed with SyntaxError" in message


def test_a_missing_config_folder_is_explained(fails: Fails) -> None:
    assert "nowhere: there is no such folder." in fails("train", "--config-dir", "nowhere")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["logger=wandb", "logger.wandb.mod=offline"], "Did you mean 'logger.wandb.mode'?"),
        (["logger=wandb", "logger.wandb.mode=ofline"], "logger.wandb.mode='ofline'"),
        (
            ["logger=wandb", "++logger.wandb.mod=1"],
            "logger.wandb.mod: there is no such key. Did you mean 'mode'?",
        ),
        (["logger=none"], "no logger is chosen"),
        (["noise.scale=1"], "noise.scale=1: only loggers and their keys can be set here"),
        (["logger=csv"], "there is no such path"),
    ],
)
def test_logging_afterwards_with_mistakes_is_explained(
    fails: Fails, overrides: list[str], message: str
) -> None:
    assert message in fails("log", "nowhere", *overrides)


def test_an_unknown_command_or_flag_is_explained(fails: Fails) -> None:
    assert "Did you mean 'table'?" in fails("tabel")
    assert "Did you mean 'table'?" in fails("TABLE")
    assert "--typo" in fails("table", "--typo", "x")
    assert "--typo" in fails("train", "--typo")


NAMED_MEASURES = [
    (
        "probes.curves=[error/tset]",
        "probes.curves: no measure gives 'error/tset'. Did you mean 'error/test'?",
    ),
    (
        "probes.sparse_curves=[error/tset]",
        "probes.sparse_curves: no measure gives 'error/tset'. Did you mean",
    ),
    ("probes.curves=[foo/bar]", "probes.curves: no measure gives 'foo/bar'. Known: activity, adaptation,"),
    # Nothing monitors a curve here, nor in some of the networks there.
    (
        "training.monitor=error/tset",
        "training.monitor=error/tset: no measure gives a curve of this name. Did you mean 'error/test'?",
    ),
    ("training.monitor=typo", "training.monitor=typo: no measure gives a curve of this name."),
    ("population.grid={training.monitor: [error/test, error/tset]}", "training.monitor=error/tset"),
    (
        "probes.curves=[error/*] training.monitor=error/tset population.grid={training.patience: [null, 2]}",
        "training.monitor=error/tset: no measure gives a curve of this name. Did you mean 'error/test'?",
    ),
    (
        "training.schedule=plateau probes.curves=[error/*] training.monitor=error/tset",
        "training.monitor=error/tset",
    ),
    (
        "sweep.objective=error/tset",
        "sweep.objective=error/tset: there is no such measure. Did you mean 'error/test'?",
    ),
    ("sweep.objective=[error/test,error/tset] sweep.dry_run=true", "sweep.objective=error/tset"),
    ("-m seed=0,1 sweep.objective=error/tset", "sweep.objective=error/tset: there is no such measure."),
]


@pytest.mark.parametrize(("words", "message"), NAMED_MEASURES, ids=[words for words, _ in NAMED_MEASURES])
def test_a_name_of_a_measure_is_checked_before_training_and_where_it_is_not_used(
    fails: Fails, words: str, message: str
) -> None:
    assert message in fails("train", *SMALL, *re.split(r" (?=-m|\S+=)", words))
    assert not list(Path().rglob("*.parquet"))


def test_a_curve_that_some_networks_lack_fails_those_alone(command: Command) -> None:
    code, out, err = command(
        "train", *SMALL, "probes.curves=[error/*]", "training.monitor=error/module_3", "training.patience=2",
        "population.grid={task.modules: [2, 3]}", "hydra.run.dir=out",
    )  # fmt: skip
    assert code == 1, (out, err)
    rows = load_results(Path("out")).set_index("config.task.modules")
    assert rows["status"].to_dict() == {2: "failed", 3: "completed"}
    assert "training.monitor=error/module_3: no measure gives a curve of this name." in rows["error"][2]


def test_a_bad_job_of_a_sweep_is_explained_before_any_trains(fails: Fails) -> None:
    message = fails("train", "-m", *SMALL, "noise.scale=0,loud", "hydra.sweep.dir=sweep")
    assert "noise.scale='loud'" in message
    assert not list(Path("sweep").rglob("*.parquet"))


def test_a_bad_job_of_jobs_one_by_one_is_explained_and_the_good_one_kept(fails: Fails) -> None:
    sweep = ["train", "-m", *SMALL, "hydra/launcher=basic", "noise.scale=0,loud", "hydra.sweep.dir=sweep"]
    assert "noise.scale='loud'" in fails(*sweep)
    assert load_results("sweep")["config.noise.scale"].tolist() == [0]


def test_an_unwritable_folder_is_explained(fails: Fails) -> None:
    Path("file").touch()
    for key in ("hydra.run.dir=file", "hydra.run.dir=file/run"):
        assert re.search(r"file.*cannot write there", fails("train", *SMALL, key))
    folder = trained(fails)
    assert "file/x.csv" in fails("table", str(folder), "--csv", "file/x.csv")
    assert "--output FOLDER" in fails("report", str(folder), "--output", "file/report")
    (folder / "report").touch()
    message = fails("report", str(folder))
    assert "run/report" in message
    assert "--output FOLDER" in message


def trained(fails: Fails) -> Path:
    """Return the folder of a finished run."""
    assert main(["train", *SMALL, "hydra.run.dir=run"]) == 0
    return Path("run")


def test_a_truncated_checkpoint_is_explained_and_results_are_kept(fails: Fails) -> None:
    folder = trained(fails)
    [checkpoint] = folder.glob("populations/*.ckpt")
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    results = folder / "results.parquet"
    results.rename(folder / "kept")
    message = fails("train", *SMALL, f"hydra.run.dir={folder}")
    assert re.search(r"populations/\w+\.ckpt is damaged and cannot be read", message)
    (folder / "kept").rename(results)
    assert load_results(folder)["status"].tolist() == ["completed"]


def test_truncated_results_are_explained_by_train_and_table(fails: Fails) -> None:
    folder = trained(fails)
    results = folder / "results.parquet"
    results.write_bytes(results.read_bytes()[:1000])
    for arguments in (["table", str(folder)], ["train", *SMALL, f"hydra.run.dir={folder}", "seed=1"]):
        assert "run/results.parquet is damaged and cannot be read" in fails(*arguments)


@pytest.mark.parametrize("name", ["results.parquet", "curves.parquet"])
def test_a_results_file_of_another_version_is_explained_before_training(fails: Fails, name: str) -> None:
    folder = trained(fails)
    path = folder / name
    pq.write_table(pq.read_table(path).replace_schema_metadata({b"modulab.format": b"7"}), path)
    message = fails("train", *SMALL, f"hydra.run.dir={folder}", "seed=1")
    assert f"run/{name} was written by another version of modulab (file format 7" in message
    if name == "results.parquet":
        assert "another version of modulab" in fails("table", str(folder))


def test_a_folder_and_a_lost_link_in_place_of_a_file_are_named(fails: Fails) -> None:
    folder = trained(fails)
    Path("run/analyses").mkdir()
    Path("run/analyses/cut.analysis.parquet").symlink_to("gone")
    message = fails("table", str(folder))
    assert "run/analyses/cut.analysis.parquet: it is a link that leads nowhere." in message
    Path("run/analyses/cut.analysis.parquet").unlink()
    Path("run/results.parquet").unlink()
    Path("run/results.parquet").mkdir()
    assert "run/results.parquet was not written by modulab." in fails("table", str(folder))
    with pytest.raises(ConfigError, match="was not written by modulab"):
        load_results(folder)


def test_a_table_of_nothing_is_explained(fails: Fails) -> None:
    assert "there is no such path" in fails("table", "nowhere")
    Path("empty").mkdir()
    assert "it holds no results.parquet" in fails("table", "empty")
    Path("page.html").write_text("<html></html>")
    assert "page.html was not written by modulab." in fails("table", "page.html")
    assert "page.html was not written by modulab." in fails("rerun", "page.html", "--member", "0")


def test_a_file_of_results_stands_for_its_folder(fails: Fails, command: Command) -> None:
    folder = Path("run")
    assert command("train", *SMALL, f"hydra.run.dir={folder}")[0] == 0
    for words in (
        ["rerun", "--member", "0"],
        ["dashboard", "--json"],
        ["export"],
        ["log", "logger=csv"],
        ["table"],
    ):
        verb, *others = words
        answers = [command(verb, str(path), *others) for path in (folder, folder / "results.parquet")]
        assert answers[0] == answers[1]
        assert answers[0][0] == 0
    assert command("table", "run/curves.parquet") == command("table", "run")
    assert load_curves("run/results.parquet").equals(load_curves("run"))
    assert "run/results.parquet: it is a file" in fails("analyse", "run/results.parquet", "--with", "cut")


def test_a_folder_of_folders_is_not_logged_as_one(fails: Fails) -> None:
    trained(fails).rename("inner")
    Path("outer").mkdir()
    Path("inner").rename("outer/run")
    assert "outer only holds folders of results. Log each of them separately, such as outer/run." in fails(
        "log", "outer", "logger=csv"
    )


def test_wrong_names_for_a_table_are_explained(fails: Fails) -> None:
    folder = str(trained(fails))
    assert "Did you mean 'noise.scale'?" in fails("table", folder, "--by", "noise.scal")
    assert "Did you mean 'error/test'?" in fails("table", folder, "--metric", "eror/test")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["seed=1", "-m", "noise.scal=0,1"], "noise.scal: there is no such key"),
        (["--nope"], "unrecognized arguments: --nope"),
        (
            ["--dry-run"],
            "unrecognized arguments: --dry-run. Keys are set without dashes, as in seed=1 or, to train nothing, "
            "sweep.dry_run=true.",
        ),
        (["--config-dir"], "argument --config-dir/-cd: expected one argument"),
        (["~noise"], "noise: a value is missing. Choose one with noise=NAME."),
        (["~nois"], "nois: there is no such key. Did you mean 'noise'?"),
        (
            ["~regulariser.sites"],
            "~regulariser.sites: this key is null, and every key of a group has a value.",
        ),
        (["training.steps=4", "~training"], "~training removes the group of training.steps"),
        (["training.steps=4", "data=7"], "data=7: a group takes the name of a file"),
        (["task.modules={true: 2}"], "task.modules: True is not a name of a key"),
        (["probes.measures={1: a.b}"], "probes.measures={1: a.b}: the names in a group of settings are text"),
        (["sweep.objective=[1]"], "sweep.objective: [1]: give the name of a measure"),
    ],
)
def test_odd_command_is_answered_in_one_line(command: Command, given: list[str], message: str) -> None:
    code, out, err = command("train", *given)
    assert (code, out) == (2, "")
    assert err.startswith(f"error: {message}")
    assert len(err.splitlines()) == 1


def test_options_may_stand_between_overrides(command: Command) -> None:
    code, out, err = command("train", *SMALL, "-m", "seed=0,1", "sweep.dry_run=true")
    assert code == 0, err
    assert "jobs         2" in out


def test_options_are_told_from_overrides_by_their_places() -> None:
    given = ["seed=1", "--config-dir", "seed=1", "-m", "noise.scale=0"]
    assert split_words(given) == (["--config-dir", "seed=1", "-m"], ["seed=1", "noise.scale=0"])


TWICE = [
    (
        ["noise.scale=0.1", "noise.scale=0.2"],
        "noise.scale is given twice: noise.scale=0.1 and noise.scale=0.2.",
    ),
    (["noise=none", "seed=1", "noise=poisson"], "noise is given twice: noise=none and noise=poisson."),
    (["experiment=regression", "experiment=digits"], "experiment is given twice"),
    (["logger=csv", "logger=wandb"], "Give it once. Several loggers are a list, as in 'logger=[csv,wandb]'."),
    (["+probes.measures.a=x.y", "+probes.measures.a=x.z"], "probes.measures.a is given twice"),
    (["noise.scale=0", "++noise.scale=1"], "noise.scale is given twice: noise.scale=0 and ++noise.scale=1."),
    (
        ["hydra.run.dir=a", "hydra.run.dir=b"],
        "hydra.run.dir is given twice: hydra.run.dir=a and hydra.run.dir=b.",
    ),
    (["-m", "seed=0,1", "hydra.sweep.dir=a", "hydra.sweep.dir=b"], "hydra.sweep.dir is given twice"),
    (
        ["-m", "seed=0,1", "hydra/launcher=basic", "hydra/launcher=population"],
        "hydra/launcher is given twice",
    ),
    (["--cfg", "job", "--cfg", "hydra"], "--cfg is given twice. Give it once."),
]


@pytest.mark.parametrize(("given", "message"), TWICE, ids=[message for _, message in TWICE])
def test_a_key_or_option_that_is_given_twice_is_refused(fails: Fails, given: list[str], message: str) -> None:
    assert message in fails("train", *given)
    assert list(Path().iterdir()) == []


WITHOUT_EFFECT = [
    (
        "hydra/launcher=population_slurm",
        "hydra/launcher=population_slurm has no effect, because only sweeps use it.",
    ),
    ("hydra.launcher.partition=low", "hydra/launcher=population has none; others may, as hydra/launcher="),
    ("hydra/sweeper=optuna", "hydra/sweeper=optuna has no effect, because only sweeps use it. Add -m"),
    ("hydra.sweeper.max_batch_size=3", "hydra.sweeper.max_batch_size=3 has no effect"),
    ("hydra.sweep.subdir=x", "hydra.sweep.subdir=x has no effect"),
    ("hydra.run.dir=", "hydra.run.dir= names no folder. Give one, as in hydra.run.dir=outputs/mine."),
]


@pytest.mark.parametrize(("override", "message"), WITHOUT_EFFECT, ids=[each for each, _ in WITHOUT_EFFECT])
def test_a_key_of_hydra_that_hydra_would_ignore_is_refused(fails: Fails, override: str, message: str) -> None:
    assert message in fails("train", *SMALL, override)
    assert list(Path().iterdir()) == []


def test_the_config_of_a_launcher_is_shown_without_a_sweep(command: Command) -> None:
    code, out, err = command("train", "hydra/launcher=population_slurm", "--cfg", "hydra")
    assert code == 0, err
    assert "array_parallelism" in out


def test_a_key_given_twice_is_refused_by_all_commands_that_take_keys(fails: Fails) -> None:
    assert "logger is given twice" in fails("log", "run", "logger=csv", "logger=wandb")
    twice = ["cut.partitions=2", "cut.partitions=3"]
    assert "cut.partitions is given twice" in fails("analyse", "run", "--with", "cut", *twice)


@pytest.mark.parametrize(
    "words", [["train", "=1"], ["train", ""], ["init", ""], ["table", ""], ["export", ".", "--to", ""]]
)
def test_an_empty_key_or_path_is_refused(fails: Fails, words: list[str]) -> None:
    assert re.search("a setting is KEY=VALUE|it is empty. Name a folder or file", fails(*words))
    assert list(Path().iterdir()) == []


def test_a_key_that_is_removed_may_be_given_as_well(command: Command) -> None:
    given = ["~population.grid", "+population.grid={noise.scale: [0, 0.1]}", "sweep.dry_run=true"]
    code, out, err = command("train", *SMALL, *given)
    assert code == 0, err
    assert "networks     2" in out


LISTS = [
    ("nois", "nois: there is no such group. Did you mean 'noise'?"),
    ("experiment/claim", "experiment/claim: there is no such group. Did you mean 'experiment/claims'?"),
    (
        "premodular",
        "premodular is an option of architecture, not a group. modulab list architecture says what it is.",
    ),
    ("noise/poisson", "noise/poisson is an option of noise, not a group."),
    ("zzz", "zzz: there is no such group. Known: analysis, architecture,"),
]


@pytest.mark.parametrize(("group", "words"), LISTS, ids=[group for group, _ in LISTS])
def test_what_is_no_group_is_answered_with_what_it_may_have_been(
    group: str, words: str, fails: Fails
) -> None:
    assert words in fails("list", group)


def test_a_group_within_a_group_is_listed(command: Command) -> None:
    code, out, err = command("list", "experiment/claims")
    assert code == 0, err
    folder = config_folder() / "experiment"
    files = {str(file.relative_to(folder).with_suffix("")) for file in (folder / "claims").rglob("*.yaml")}
    assert {line.split()[0] for line in out.splitlines() if line.startswith("  claims/")} == files


def test_modules_of_ones_own_that_are_not_there_are_refused(fails: Fails, command: Command) -> None:
    assert command("train", *SMALL, "hydra.run.dir=run")[0] == 0
    for words in (["report", "run"], ["rerun", "run", "--member", "0"], ["analyse", "run", "--with", "cut"]):
        said = fails(*words, "--import", "no_such_module")
        assert "--import no_such_module: there is no module of that name here." in said
    said = fails("rerun", "run", "--member", "0", "--import", "nets.py")
    assert "--import nets.py: name the module without .py: nets." in said
    assert "--import is given twice" in fails("report", "run", "--import", "a", "--import", "b")
    assert "--with is given twice" in fails("analyse", "run", "--with", "cut", "--with", "clamp")


MISTAKES = [
    (
        "table out nope --metric error/test",
        "nope: there is no such path. Several names are one argument, with commas",
    ),
    ("table out seed --by noise.scale", "as in --by noise.scale,seed."),
    (
        "analyse out --with cut --members ,",
        "--members: name rows, as in --members 0-9, or leave it out for all.",
    ),
    ("claims --only ,", "--only: name a claim, as in --only C5."),
    ("train probes.levels=[0.1,1e300]", "probes.levels: [0.1, 1e+300]: the largest value here is 1e+30."),
    ("train trainer.memory_gib=1e-9", "and 1e-09 GiB may be used."),
    ("train hydra.run.dir=\udcfcx", "it is not text in the encoding of this terminal."),
    ("table \udcfcx", "it is not text in the encoding of this terminal."),
]


@pytest.mark.parametrize(("words", "message"), MISTAKES, ids=[ascii(words) for words, _ in MISTAKES])
def test_a_mistake_that_people_make_is_answered(fails: Fails, words: str, message: str) -> None:
    assert message in fails(*words.split())


def test_a_value_that_needs_quotes_is_shown_with_them(fails: Fails, command: Command) -> None:
    err = fails("train", *SMALL, "hydra.run.dir=ünï [x]")
    assert "Quote a text with spaces or signs: " in err
    quoted = shlex.split(err.partition("signs: ")[2].rstrip().rstrip("."))
    assert command("train", *SMALL, *quoted)[0] == 0
    assert load_results(Path("ünï [x]"))["status"].tolist() == ["completed"]
    assert "put commas between names: --metric 'error/test,error_under/*'" in fails(
        "table", "ünï [x]", "--metric", "error/test error_under/*"
    )


@pytest.mark.parametrize("target", ["nowhere", "link"], ids=["lost", "loop"])
def test_a_link_that_leads_nowhere_is_said_to_be_one(fails: Fails, target: str) -> None:
    Path("link").symlink_to(target)
    assert "it is a link that leads nowhere. Choose another folder" in fails("train", "hydra.run.dir=link/x")


def test_a_config_in_another_encoding_is_explained(fails: Fails) -> None:
    Path("mine/noise").mkdir(parents=True)
    Path("mine/noise/wide.yaml").write_bytes("name: wide\n".encode("utf-16"))
    assert "a config file is not UTF-8 text" in fails("train", "--config-dir", "mine", "noise=wide")


def test_an_output_that_is_closed_is_no_error(tmp_path: Path) -> None:
    ended = subprocess.run(f"{shlex.join(MODULAB)} list >&- 2>&-", shell=True, cwd=tmp_path, check=False)
    assert ended.returncode == 0
