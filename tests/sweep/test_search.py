"""Searches with Optuna: what is drawn, what Optuna is told, and how a search goes on."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import optuna
import pandas as pd
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState

from modulab.errors import ConfigError
from modulab.results.lock import FolderLock
from modulab.results.store import load_results
from modulab.sweep import jobs
from modulab.sweep.search_space import Dimension, Value, dimension_of, split_search
from tests.command_line import SMALL, Command, killed_when_it_says, last_given

LEARNABLE = [
    "training.steps=800", "training.batch_size=64", "training.curve_every=400", "training.learning_rate=0.01",
    "architecture.width=16", "data.num_samples=256", "probes.num_samples=256", "probes.repeats=1",
    "trainer.accelerator=cpu", "trainer.engine=native", "trainer.threads=1",
]  # fmt: skip
SEARCH = ["train", "-m", "hydra/sweeper=optuna", "sweep.objective=error/test", *SMALL]
STORAGE = "sqlite:///study.db"
STORED_SEARCH = [
    *SEARCH, "noise.scale=interval(0,1)", f"hydra.sweeper.storage={STORAGE}", "hydra.sweep.dir=search",
]  # fmt: skip
DIVERGING = ["training.learning_rate=choice(0.001,1e30)", "training.optimiser=sgd", "training.steps=20"]


def parsed(line: str) -> Dimension:
    return dimension_of(OverridesParser.create().parse_override(line))


def values(results: pd.DataFrame, key: str) -> list[float]:
    return sorted(results[f"config.{key}"].unique())


def stored() -> optuna.Study:
    return optuna.load_study(study_name="modulab", storage=STORAGE)


@pytest.mark.parametrize(
    ("line", "distribution"),
    [
        ("a=interval(0,3)", FloatDistribution(0, 3)),
        ("a=tag(log,interval(1e-4,1))", FloatDistribution(1e-4, 1, log=True)),
        ("a=int(interval(4,16))", IntDistribution(4, 16)),
        ("a=tag(log,int(interval(1,64)))", IntDistribution(1, 64, log=True)),
        ("a=range(1,8,3)", IntDistribution(1, 7, step=3)),
        ("a=range(8,1,-3)", IntDistribution(2, 8, step=3)),
        ("a=tag(log,range(1,9))", IntDistribution(1, 8, log=True)),
        ("a=range(5,6)", IntDistribution(5, 5)),
        ("a=x,y", CategoricalDistribution(["x", "y"])),
        ("a=2.5,false,null,1", CategoricalDistribution([2.5, False, None, 1])),
        ("a=true,1,x", CategoricalDistribution(["True", "1", "x"])),
        ("a=range(0.5,3)", FloatDistribution(0.5, 2.5, step=1)),
        ("a=choice([1,2],{b:3})", CategoricalDistribution(["[1,2]", "{b:3}"])),
        ("a='1','b c'", CategoricalDistribution(["1", "b c"])),
        ("a=int(range(0,2,0.5))", IntDistribution(0, 1)),
    ],
)
def test_sweep_is_drawn_from_as_its_values_are(line: str, distribution: object) -> None:
    assert parsed(line).distribution == distribution


def test_range_of_floats_is_drawn_as_the_decimals_that_a_sweep_has() -> None:
    dimension = parsed("a=range(0,0.7,0.1)")
    distribution = dimension.distribution
    assert isinstance(distribution, FloatDistribution)
    assert (distribution.low, distribution.high) == (0, 0.6)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    drawn = {study.ask({"a": distribution}).params["a"] for _ in range(100)}
    assert {dimension.override(value) for value in drawn} == {
        "a=0.0", "a=0.1", "a=0.2", "a=0.3", "a=0.4", "a=0.5", "a=0.6"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("line", "drawn", "written"),
    [
        ("a=choice([1,2],{b:3})", "{b:3}", "a={b:3}"),
        ("a='1','b c'", "1", "a='1'"),
        ("a=null,1", None, "a=null"),
        ("a=true,2", True, "a=True"),
        ("a=range(1,8,3)", 4, "a=4"),
        ("a=shuffle(4,6,8)", 4, "a=4"),
        ("a=shuffle(4,6,8)", 8, "a=8"),
        ("a=sort(8,4,6)", 6, "a=6"),
        ("a=interval(0,1)", 1e-05, "a=1e-05"),
    ],
)
def test_draw_is_written_as_the_command_has_it(line: str, drawn: Value, written: str) -> None:
    assert parsed(line).override(drawn) == written


@pytest.mark.parametrize(
    "line",
    [
        "a=interval(1,0)", "a=interval(0,inf)", "a=tag(log,interval(0,1))", "a=tag(log,range(0,4))",
        "a=tag(log,range(0.1,1,0.1))", "a=tag(log,choice(1,2))", "a=tag(square,interval(0,1))", "a=range(3,3)",
    ],
)  # fmt: skip
def test_what_cannot_be_drawn_from_is_refused_by_name(line: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(line)):
        parsed(line)


def test_of_a_key_given_twice_the_last_values_are_searched() -> None:
    overrides = OverridesParser.create().parse_overrides(["a=1,2", "b=3", "a=interval(0,1)", "b=4"])
    dimensions, fixed = split_search(overrides)
    assert [(each.key, each.distribution) for each in dimensions] == [("a", FloatDistribution(0, 1))]
    assert fixed == ["b=4"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["seed=0"], "there is nothing to search"),
        (["noise.scale=interval(0,1)", "sweep.objective=null"], "sweep.objective=error/test"),
        (["noise.scale=interval(0,1)", "hydra.sweeper.direction=up"], "give minimize or maximize"),
        (
            ["noise.scale=interval(0,1)", "hydra.sweeper.direction=[minimize,maximize]"],
            "a direction for each",
        ),
        (["noise.scale=interval(0,1)", "hydra.sweeper.n_trials=0"], "hydra.sweeper.n_trials=0"),
        (["noise.scale=interval(0,1)", "hydra.sweeper.rungs=[3,2]"], "numbers of steps that grow"),
        (["noise.scale=interval(0,1)", "hydra.sweeper.rungs=[4]"], "fewer steps than training.steps"),
        (["training.steps=range(4,8)", "hydra.sweeper.rungs=[2]"], "fewer steps than training.steps"),
        (["noise.scale=interval(0,1)", "hydra.sweeper.sampler._target_=nowhere.S"], "hydra.sweeper.sampler"),
        (["noise.scale=interval(0,1)", "+hydra.sweeper.sampler.rows=2"], "hydra.sweeper.sampler"),
        (["noise.scale=interval(0,1)", "hydra.sweeper.storage=sqlite:////nowhere/a.db"], "hydra.sweeper"),
        (["noise.scal=interval(0,1)", "hydra.sweeper.n_trials=3"], "noise.scal"),
        (["noise.scale=interval(-3,-1)", "hydra.sweeper.n_trials=3"], "noise.scale"),
    ],
)
def test_search_that_cannot_be_ends_in_one_message_and_leaves_nothing(
    command: Command, words: list[str], message: str
) -> None:
    code, out, err = command(*last_given(*SEARCH, *words))
    assert (code, out) == (2, "")
    errors = [line for line in err.splitlines() if not re.match(r"trials? \d", line)]
    assert errors[0].startswith("error: ")
    assert message in errors[0]
    assert list(Path().iterdir()) == []


def test_a_key_that_no_trial_can_have_is_refused_without_looking_at_every_trial(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    composed: list[int] = []
    compose = jobs._compose_job
    monkeypatch.setattr(jobs, "_compose_job", lambda *given: (composed.append(1), compose(*given))[1])
    code, _, err = command(*last_given(*SEARCH, "noise.scal=interval(0,1)", "hydra.sweeper.n_jobs=20"))
    assert (code, "noise.scal: there is no such key. Did you mean 'noise.scale'?" in err) == (2, True)
    assert len(composed) < 5


def test_dry_run_describes_the_first_batch_and_leaves_nothing(command: Command) -> None:
    code, out, _ = command(
        *SEARCH, "noise.scale=interval(0,1)", "hydra.sweeper.n_jobs=3", "hydra.sweeper.storage=study.journal",
        "sweep.dry_run=true",
    )  # fmt: skip
    assert code == 0
    assert out.startswith("the first 3 of 20 trials, a batch:\ndry run: nothing is trained\njobs         3\n")
    assert list(Path().iterdir()) == []


def test_a_trial_that_fails_is_told_and_does_not_end_a_search(command: Command) -> None:
    where = ["hydra.sweep.dir=search", "hydra.sweeper.storage=study.journal"]
    count = ["hydra.sweeper.n_trials=8", "hydra.sweeper.n_jobs=4", "hydra/sweeper/sampler=random"]
    code, out, err = command(*last_given(*SEARCH, *DIVERGING, *count, *where))
    assert code == 0, err
    assert re.search(r"diverged: the loss or a weight ceased to be finite at step", out)
    best = OmegaConf.load("search/optimization_results.yaml")["best_params"]
    assert best["training.learning_rate"] == 0.001
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend("study.journal"))
    trials = optuna.load_study(study_name="modulab", storage=storage).trials
    assert len(trials) == 8
    for trial in trials:
        diverges = trial.params["training.learning_rate"] == 1e30
        assert trial.state == (TrialState.FAIL if diverges else TrialState.COMPLETE)
    assert len(re.findall(r"^trial \d+ has failed: 1 diverged", err, re.MULTILINE)) == sum(
        trial.state == TrialState.FAIL for trial in trials
    )


def test_search_in_which_every_trial_fails_says_so(command: Command) -> None:
    code, _, err = command(
        *last_given(*SEARCH, "training.learning_rate=choice(1e30,1e31)", *DIVERGING[1:]),
        "hydra.sweeper.n_trials=2",
    )
    assert code == 1
    assert err.endswith("No trial of this search has a result.\n")


def test_trial_that_asks_for_what_cannot_be_fails_alone(command: Command) -> None:
    code, out, err = command(
        *SEARCH, "noise.scale=interval(-1,1)", "hydra.sweeper.n_trials=8", "hydra/sweeper/sampler=random",
        "hydra.sweep.dir=search",
    )  # fmt: skip
    assert code == 0, err
    failed = err.count("has failed: noise.scale=-")
    assert 0 < failed < 8
    assert len(load_results("search")) == 8 - failed
    assert "Best trials:" in out


def test_same_command_with_more_trials_goes_on_to_the_same_bits(command: Command) -> None:
    search = [
        *SEARCH,
        "noise.scale=interval(0,1)",
        "hydra.sweeper.n_jobs=2",
        "hydra.sweeper.sampler.n_startup_trials=2",
    ]
    assert command(*search, "hydra.sweeper.n_trials=6", "hydra.sweep.dir=whole")[0] == 0
    assert command(*search, "hydra.sweeper.n_trials=4", "hydra.sweep.dir=parts")[0] == 0
    before = load_results("parts")
    assert command(*search, "hydra.sweeper.n_trials=6", "hydra.sweep.dir=parts")[0] == 0
    whole, parts = load_results("whole"), load_results("parts")
    assert len(whole) == 6
    kept = parts[parts["run_id"].isin(before["run_id"])]
    assert kept["seconds"].tolist() == before["seconds"].tolist()  # not trained again
    columns = [name for name in whole if name != "seconds"]
    pd.testing.assert_frame_equal(
        whole[columns].sort_values("run_id", ignore_index=True),
        parts[columns].sort_values("run_id", ignore_index=True),
        check_exact=True,
    )
    found = [Path(folder, "optimization_results.yaml").read_text() for folder in ("whole", "parts")]
    assert found[0] == found[1]


@pytest.mark.parametrize(
    "sampler",
    # Other default tests use the last two.
    ["cmaes", "gp", "qmc", *(pytest.param(name, marks=pytest.mark.slow) for name in ("random", "nsgaii"))],
)
def test_every_sampler_searches_in_batches(command: Command, sampler: str) -> None:
    code, _, err = command(
        *SEARCH, f"hydra/sweeper/sampler={sampler}", "hydra.sweeper.n_trials=12", "hydra.sweeper.n_jobs=6",
        "noise.scale=interval(0,1)", "training.learning_rate=tag(log,interval(1e-4,1e-2))", "hydra.sweep.dir=search",
    )  # fmt: skip
    assert code == 0, err
    results = load_results("search")
    assert len(values(results, "noise.scale")) == len(values(results, "training.learning_rate")) == 12
    best = OmegaConf.load("search/optimization_results.yaml")["best_value"]
    assert best == results["error/test"].min()


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_best_trials_are_printed_the_best_first(command: Command, direction: str) -> None:
    code, out, _ = command(
        *SEARCH, "noise.scale=interval(0,1)", f"hydra.sweeper.direction={direction}", "hydra.sweep.dir=search",
        "hydra.sweeper.n_trials=11",
    )  # fmt: skip
    assert code == 0
    table = out.partition("Best trials:\n")[2].splitlines()
    assert table[0].split() == ["trial", "noise.scale", "error/test"]
    shown = [float(line.split()[2]) for line in table[1:]]
    wanted = sorted(load_results("search")["error/test"], reverse=direction == "maximize")
    assert shown == pytest.approx(wanted[:10], rel=1e-3)


def test_of_several_objectives_the_trials_that_none_beats_are_kept(command: Command) -> None:
    names = ["modularity/structural", "error/test"]
    code, out, err = command(
        *last_given(*SEARCH, f"sweep.objective=[{','.join(names)}]"), "hydra.sweeper.direction=[maximize,minimize]",
        "hydra/sweeper/sampler=nsgaii", "seed=range(16)", "noise.scale=interval(0,1)", "hydra.sweep.dir=search",
        "hydra.sweeper.n_trials=8",
    )  # fmt: skip
    assert code == 0, err
    rows = load_results("search")[names].to_numpy() * [-1, 1]
    front = {
        tuple(row) for row in rows if not any((other <= row).all() and (other < row).any() for other in rows)
    }
    solutions = OmegaConf.load("search/optimization_results.yaml")["solutions"]
    assert {(-each["values"][0], each["values"][1]) for each in solutions} == front
    assert len(out.partition("Best trials:\n")[2].splitlines()) == 1 + len(front)


def test_stored_study_goes_on_and_is_asked_again_what_was_cut_off(command: Command) -> None:
    search = [*STORED_SEARCH, "hydra.sweeper.n_jobs=3"]
    code, _, err = command(*search, "hydra.sweeper.n_trials=3")
    assert code == 0, err
    study = stored()
    cut_off = study.ask({"noise.scale": FloatDistribution(0, 1)})
    cut_off.set_user_attr("modulab:folder", str(Path("search").resolve()))
    elsewhere = study.ask({"noise.scale": FloatDistribution(0, 1)})
    elsewhere.set_user_attr("modulab:folder", "/another/folder")
    code, _, err = command(*search, "hydra.sweeper.n_trials=6")
    assert code == 0, err
    trials = stored().trials
    states = [trial.state for trial in trials]
    assert states[3:5] == [TrialState.FAIL, TrialState.RUNNING]
    assert states.count(TrialState.COMPLETE) == 5  # the sixth is at work elsewhere
    assert trials[5].params == cut_off.params
    assert len(load_results("search")) == 5
    code, _, err = command(*search, "hydra.sweeper.n_trials=6", "hydra.sweeper.direction=maximize")
    assert code == 2
    assert "holds a study modulab to minimize" in err


def test_start_killed_while_it_asked_again_asks_no_trial_twice(command: Command) -> None:
    assert command(*STORED_SEARCH, "hydra.sweeper.n_trials=2")[0] == 0
    study = stored()
    cut_off = study.ask({"noise.scale": FloatDistribution(0, 1)})
    cut_off.set_user_attr("modulab:folder", str(Path("search").resolve()))
    study.enqueue_trial(cut_off.params, user_attrs={"modulab:replaces": cut_off.number})
    code, _, err = command(*STORED_SEARCH, "hydra.sweeper.n_trials=4")
    assert code == 0, err
    trials = stored().trials
    assert [trial.params == cut_off.params for trial in trials] == [False, False, True, True, False]
    assert [trial.state for trial in trials].count(TrialState.COMPLETE) == 4
    assert trials[cut_off.number].state == TrialState.FAIL


@pytest.mark.parametrize("launcher", ["population", pytest.param("basic", marks=pytest.mark.slow)])
def test_options_that_do_not_exist_fail_their_own_trials_only(command: Command, launcher: str) -> None:
    code, out, err = command(
        *SEARCH, "architecture=choice(dense,nosuch)", "noise.scale=interval(0,1)", "hydra.sweeper.n_trials=8",
        "hydra/sweeper/sampler=random", f"hydra/launcher={launcher}", "hydra.sweep.dir=search",
    )  # fmt: skip
    assert code == 0, err
    failed = len(re.findall(r"^trial \d+ has failed: ", err, re.MULTILINE))
    assert 0 < failed < 8
    assert len(out.partition("Best trials:\n")[2].splitlines()) == 1 + 8 - failed


def test_refused_search_uses_up_no_trials_of_a_stored_study(command: Command) -> None:
    search = [*SEARCH, "noise.scale=interval(0,1)", "hydra.sweeper.storage=sqlite:///study.db"]
    count = ["hydra.sweeper.n_trials=4", "hydra.sweep.dir=search"]
    assert command(*search, *count, "training.learning_rate=-1")[0] == 2
    assert not Path("search").exists()
    code, _, err = command(*search, *count)
    assert code == 0, err
    assert len(load_results("search")) == 4


def test_second_start_in_a_folder_leaves_the_search_at_work_there_alone(command: Command) -> None:
    assert command(*STORED_SEARCH, "hydra.sweeper.n_trials=2")[0] == 0
    at_work = stored().ask({"noise.scale": FloatDistribution(0, 1)})
    at_work.set_user_attr("modulab:folder", str(Path("search").resolve()))
    with FolderLock(Path("search")):
        code, _, err = command(*STORED_SEARCH, "hydra.sweeper.n_trials=4")
    assert code == 2
    assert "is using this folder" in err
    assert stored().trials[at_work.number].state == TrialState.RUNNING


def test_study_of_another_search_is_not_mixed_with(command: Command) -> None:
    search = [*SEARCH, "hydra.sweeper.storage=sqlite:///study.db", "hydra.sweeper.n_trials=2"]
    assert command(*search, "noise.scale=interval(0,1)", "hydra.sweep.dir=a")[0] == 0
    for changed in (
        ["seed=range(9)"],
        ["noise.scale=interval(0,1)", "sweep.objective=modularity/structural"],
    ):
        code, _, err = command(*last_given(*search, *changed), "hydra.sweep.dir=b")
        assert code == 2
        assert "holds a study modulab of error/test over noise.scale" in err
        assert not Path("b").exists()


def test_stored_search_that_is_over_shows_its_best_trials(command: Command) -> None:
    search = [
        *SEARCH, "noise.scale=interval(0,1)", "hydra.sweeper.storage=study.journal", "hydra.sweeper.n_trials=3"
    ]  # fmt: skip
    code, first, _ = command(*search, "hydra.sweep.dir=a")
    assert code == 0
    for folder in ("a", "b"):
        code, again, err = command(*search, f"hydra.sweep.dir={folder}")
        assert code == 0, err
        assert again == first[first.index("Best trials:") :]
        assert Path(folder, "optimization_results.yaml").exists()


def test_a_search_that_goes_on_numbers_its_jobs_on(command: Command) -> None:
    search = [
        *SEARCH, "noise.scale=interval(0,1)", "hydra.sweeper.storage=study.journal", "sweep.job_folders=true",
        "hydra.sweep.dir=search",
    ]  # fmt: skip
    assert command(*search, "hydra.sweeper.n_trials=2")[0] == 0
    before = Path("search/0/.hydra/overrides.yaml").read_text()
    assert command(*search, "hydra.sweeper.n_trials=3")[0] == 0
    assert Path("search/0/.hydra/overrides.yaml").read_text() == before
    assert Path("search/2/results.parquet").exists()


def test_values_may_stand_among_the_sweepers_own_settings(command: Command) -> None:
    for sweeper in ("optuna", "grid"):
        code, _, err = command(
            "train", "-m", f"hydra/sweeper={sweeper}", "sweep.objective=error/test", *SMALL,
            '+hydra.sweeper.params.architecture="dense,premodular"', f"hydra.sweep.dir={sweeper}",
        )  # fmt: skip
        assert code == 0, err
        assert set(load_results(sweeper)["config.architecture.name"]) == {"dense", "premodular"}
    code, _, err = command("train", "-m", "hydra.sweeper.params={architecture: dense}")
    assert code == 2
    assert err.startswith("error: hydra.sweeper.params: its keys are set one by one")


@pytest.mark.slow
def test_trials_that_look_bad_at_a_rung_are_not_trained_to_the_end(command: Command) -> None:
    code, _, err = command(
        *last_given(*SEARCH, "training.steps=40"), "training.learning_rate=tag(log,interval(1e-6,1e-1))",
        "hydra.sweeper.rungs=[10,20]", "hydra.sweeper.n_trials=16", "hydra.sweeper.n_jobs=4",
        "hydra/sweeper/sampler=random", "hydra.sweeper.storage=sqlite:///study.db", "hydra.sweep.dir=search",
    )  # fmt: skip
    assert code == 0, err
    trials = optuna.load_study(study_name="modulab", storage="sqlite:///study.db").trials
    pruned = [trial for trial in trials if trial.state == TrialState.PRUNED]
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    assert len(pruned) + len(complete) == 16
    assert pruned
    steps = load_results("search").groupby("config.training.learning_rate")["config.training.steps"].max()
    for trial in trials:
        reached = steps[trial.params["training.learning_rate"]]
        assert reached == (40 if trial in complete else max(trial.intermediate_values))
    # A trial that is dropped was worse, when it was, than the median of those that had come to the end.
    for trial in pruned:
        rung = max(trial.intermediate_values)
        others = [
            each.intermediate_values[rung]
            for each in complete
            if each.number < trial.number - trial.number % 4
        ]
        assert trial.intermediate_values[rung] > pd.Series(others).median()


def test_optuna_is_asked_for_where_it_is_missing(tmp_path: Path) -> None:
    script = (
        f"import sys; sys.modules['optuna'] = None; from modulab.cli import main; sys.exit(main({SEARCH!r}))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 2
    assert ended.stderr == (
        "error: A search (hydra/sweeper=optuna or evolve) needs Optuna 4.2 or newer. "
        "Install it with: pip install 'modulab[search]'\n"
    )


@pytest.mark.slow
@pytest.mark.usefixtures("unchecked")
def test_killed_search_goes_on_to_the_same_bits(command: Command, tmp_path: Path) -> None:
    search = [
        *last_given(*SEARCH, "training.steps=500"), "noise.scale=interval(0,1)", "hydra.sweeper.n_trials=6",
        "hydra.sweeper.n_jobs=3", "hydra.sweeper.sampler.n_startup_trials=3",
    ]  # fmt: skip
    assert command(*search, "hydra.sweep.dir=whole")[0] == 0
    killed_when_it_says("trials 4 to 6", [*search, "hydra.sweep.dir=killed"], tmp_path)
    assert command(*search, "hydra.sweep.dir=killed")[0] == 0
    whole, killed = (
        load_results(each).drop(columns="seconds").sort_values("run_id", ignore_index=True)
        for each in ("whole", "killed")
    )
    pd.testing.assert_frame_equal(whole, killed, check_exact=True)


@pytest.mark.slow
@pytest.mark.usefixtures("unchecked")
def test_optuna_finds_the_noise_that_makes_networks_robust_in_parallel_batches(command: Command) -> None:
    search = [
        "train", "-m", "hydra/sweeper=optuna", "hydra.sweeper.n_trials=16", "hydra.sweeper.n_jobs=8",
        "hydra.sweeper.sampler.seed=1", "sweep.objective=error_under/poisson@0.3",
        "noise.scale=interval(0,3)", "population.seeds=2", *LEARNABLE,
    ]  # fmt: skip
    code, _, err = command(*search, "hydra.sweep.dir=search")
    assert code == 0, err
    found = OmegaConf.load("search/optimization_results.yaml")
    results = load_results("search")
    assert len(results) == 32
    # Eight trials of two seeds train together.
    assert len(list(Path("search/populations").glob("*.ckpt"))) == 2
    by_scale = results.groupby("config.noise.scale")["error_under/poisson@0.3"].mean()
    assert found["best_value"] == pytest.approx(by_scale.min(), abs=1e-12)
    assert found["best_params"]["noise.scale"] == pytest.approx(by_scale.idxmin(), abs=1e-12)
    # Some noise beats next to none and far too much.
    assert 0.05 < found["best_params"]["noise.scale"] < 1
    code, _, err = command("train", *LEARNABLE, "population.seeds=2", "hydra.run.dir=none")
    assert code == 0, err
    assert found["best_value"] < load_results("none")["error_under/poisson@0.3"].mean()
