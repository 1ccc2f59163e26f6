"""`modulab analyse` on folders of results: nothing is lost, nothing is done twice, and what is wrong is said."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pandas as pd
import pytest

import modulab
from modulab.analysis import run
from modulab.analysis.cut import Cut
from modulab.results.analyses import Analysed, analysed, analysis_path, save_analysed
from modulab.results.lock import LOCK, FolderLock
from tests.command_line import SMALL, Command

POPULATIONS = ["trainer.largest_population=2", "trainer.progress=off"]
SWEEP = ["train", "-m", *SMALL, *POPULATIONS, "architecture=dense,premodular"]
FAST = ["cut.partitions=3"]
OWN = '''
import torch
from pydantic import Field
from modulab.analysis.analysis import Analysis
from modulab.metrics.measure import Column

class Power(Analysis):
    """The sum of |w|^p of each network."""

    power: float = Field(gt=0, description="p")

    @property
    def columns(self):
        return (Column("sum", "Sum of powers"),)

    def take(self, trained):
        return {"sum": trained.probe.seen_network.parameters.abs().pow(self.power).sum(dim=1)}
'''


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a dense and a premodular network at two seeds, each pair a population of its own."""
    folder = tmp_path_factory.mktemp("trained") / "sweep"
    grid = "population.grid={architecture: [dense, premodular]}"
    modulab.train([*SMALL, *POPULATIONS, grid, "population.seeds=2"], folder)
    return folder


@pytest.fixture
def sweep(trained: Path, command: Command) -> Path:
    """Return a copy of that folder in the current one."""
    del command
    shutil.copytree(trained, "sweep")
    return Path("sweep")


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != LOCK)
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_columns_are_added_to_rows_and_nothing_that_was_there_is_changed(
    command: Command, sweep: Path
) -> None:
    before, results = contents(sweep), modulab.load_results(sweep)
    code, out, err = command("analyse", "sweep", "--with", "cut,interaction", *FAST, "interaction.pairs=16")
    assert code == 0, err
    assert "cut/rise" in out
    assert "interaction/share" in out
    after = contents(sweep)
    assert {name: after[name] for name in before} == before
    assert after.keys() - before.keys() == {
        "analyses/cut.analysis.parquet",
        "analyses/interaction.analysis.parquet",
    }
    found = modulab.load_results(sweep).set_index("config.architecture.name")
    assert found.loc["premodular", "cut/rise"].tolist() == [0, 0]
    assert (found.loc["dense", "interaction/share"] > 0).all()
    pd.testing.assert_frame_equal(modulab.load_results(sweep)[list(results)], results)
    code, out, err = command("table", "sweep", "--by", "architecture", "--metric", "cut/*")
    assert code == 0, err
    assert "cut/z_module_2" in out
    assert command("rerun", "sweep", "--member", "0")[0] == 0


def test_members_are_analysed_once_and_those_of_an_extended_sweep_afterwards(
    command: Command, sweep: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[int] = []
    take = Cut.take
    monkeypatch.setattr(
        Cut, "take", lambda self, trained: taken.append(len(trained.members)) or take(self, trained)
    )
    assert command("analyse", "sweep", "--with", "cut", *FAST, "--members", "1-2")[0] == 0
    assert len(taken) == 2  # one of each architecture's members, each padded to two
    first = modulab.load_results(sweep).set_index("run_id")["cut/rise_random"].dropna()
    assert len(first) == 2
    taken.clear()
    code, out, err = command("analyse", "sweep", "--with", "cut", *FAST, "--dry-run")
    assert code == 0, err
    assert "2 are analysed and 2 will be, about " in out
    assert "(measured on a few networks)" in out
    assert len(modulab.load_results(sweep)["cut/rise_random"].dropna()) == 2  # the few are not kept
    assert command(*SWEEP, "seed=0,1,2", "hydra.sweep.dir=sweep")[0] == 0
    assert command("analyse", "sweep", "--with", "cut", *FAST)[0] == 0
    found = modulab.load_results(sweep).set_index("run_id")["cut/rise_random"]
    assert len(found) == 6
    assert found.notna().all()
    assert found[first.index].tolist() == first.tolist()
    taken.clear()
    assert command("analyse", "sweep", "--with", "cut", *FAST)[0] == 0
    assert taken == []
    # Under other settings it is another analysis; with --again it is taken once more.
    assert command("analyse", "sweep", "--with", "cut", "cut.partitions=4", "--members", "0")[0] == 0
    assert len(taken) == 1
    assert (
        command("analyse", "sweep", "--with", "cut", "cut.partitions=4", "--members", "0", "--again")[0] == 0
    )
    assert len(taken) == 2


def test_an_interrupted_analysis_keeps_what_it_found_and_goes_on_to_the_same_end(
    command: Command, sweep: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(sweep, "whole")
    assert command("analyse", "whole", "--with", "cut", *FAST)[0] == 0
    calls: list[int] = []
    take = Cut.take

    def interrupted(self: Cut, trained: object) -> object:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return take(self, trained)  # type: ignore[arg-type]

    monkeypatch.setattr(Cut, "take", interrupted)
    code, _, err = command("analyse", "sweep", "--with", "cut", *FAST)
    assert code == 130
    assert "Values found so far are in sweep. Repeat the command to resume." in err
    assert modulab.load_results(sweep)["cut/rise"].notna().sum() == 2
    assert command("analyse", "sweep", "--with", "cut", *FAST)[0] == 0
    assert len(calls) == 3
    one, other = (modulab.load_results(name).set_index("run_id").sort_index() for name in ("sweep", "whole"))
    pd.testing.assert_frame_equal(one, other)


def test_a_crash_while_writing_leaves_the_earlier_file(sweep: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    modulab.analyse(sweep, "cut", FAST, members=[0])
    before = contents(sweep)

    def full(descriptor: int) -> None:
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="disk full"):
            modulab.analyse(sweep, "cut", FAST)
    assert contents(sweep) == before


def test_an_analysis_of_ones_own_is_one_file_and_one_yaml(command: Command, sweep: Path) -> None:
    Path("own_analysis.py").write_text(OWN)
    Path("power.yaml").write_text("_target_: own_analysis.Power\npower: 1.0\n")
    code, _, err = command("analyse", "sweep", "--with", "power.yaml,squares=power.yaml", "squares.power=2.0")
    assert code == 0, err
    found = modulab.load_results(sweep).set_index("run_id")
    for group in modulab.load_members(sweep):
        for config, row in zip(group.configs, group.parameters.double(), strict=True):
            same = (found["config.seed"] == config["seed"]) & (
                found["config.architecture.name"] == config["architecture"]["name"]
            )
            assert found[same]["power/sum"].item() == pytest.approx(float(row.abs().sum()), rel=1e-5)
            assert found[same]["squares/sum"].item() == pytest.approx(float(row.square().sum()), rel=1e-5)


def test_a_measure_taken_afterwards_is_the_one_taken_after_training(command: Command, sweep: Path) -> None:
    assert command(*SWEEP, "seed=5", "probes.measures.ablation=null", "hydra.sweep.dir=without")[0] == 0
    assert command(*SWEEP, "seed=5", "hydra.sweep.dir=with")[0] == 0
    measure = "modulab.metrics.modularity.measure_ablation"
    assert "modularity/ablation" not in modulab.load_results("without")
    found = modulab.analyse("without", measure).set_index("config.architecture.name")["modularity/ablation"]
    expected = modulab.load_results("with").set_index("config.architecture.name")["modularity/ablation"]
    assert found.to_dict() == expected.to_dict()


def test_members_without_what_it_needs_are_skipped_and_the_reason_is_in_their_rows(
    command: Command, sweep: Path
) -> None:
    code, out, err = command(
        "analyse", "sweep", "--with", "modulab.metrics.extrapolation.measure_combination"
    )
    assert code == 0, err
    assert "4 skipped, as the task withholds no combinations" in out
    skipped = modulab.load_results(sweep)["skipped"]
    assert skipped.str.contains("measure_combination: the task withholds no combinations").all()
    # Those that cannot be analysed are not tried again.
    _, out, _ = command(
        "analyse", "sweep", "--with", "modulab.metrics.extrapolation.measure_combination", "--dry-run"
    )
    assert "4 are analysed and 0 will be" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere", "--with", "cut"], "nowhere: there is no such folder"),
        (["sweep/results.parquet", "--with", "cut"], "it is a file"),
        (["sweep", "--with", "cutt"], "Did you mean 'cut'?"),
        (["sweep", "--with", ","], "--with: name an analysis"),
        (["sweep", "--with", "cut", "cut.partitions=0"], "cut.partitions=0"),
        (["sweep", "--with", "cut", "--members", "9"], "--members 9: no row has that number"),
        (["sweep", "--with", "cut", "--members", "2-1"], "--members 2-1: it begins after its end"),
        (["sweep", "--with", "modularity=cut"], "these results have measures of that name"),
        (["sweep", "--with", "transplant", "transplant.parts=[wieght.0]"], "Did you mean 'weight.0'?"),
    ],
)  # fmt: skip
def test_wrong_commands_are_refused_in_one_sentence_and_write_nothing(
    arguments: list[str], message: str, command: Command, sweep: Path
) -> None:
    before = contents(sweep)
    code, out, err = command("analyse", *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert message in err
    assert err.count("\n") == 1
    assert contents(sweep) == before


def test_a_folder_that_another_process_works_in_without_networks_or_with_links_is_refused(
    command: Command, sweep: Path, tmp_path: Path
) -> None:
    with FolderLock(sweep):
        code, _, err = command("analyse", "sweep", "--with", "cut")
        assert (code, "is using this folder" in err) == (2, True)
    (sweep / "analyses").symlink_to(tmp_path)
    code, _, err = command("analyse", "sweep", "--with", "cut", *FAST)
    assert (code, "leads out of" in err) == (2, True)
    (sweep / "analyses").unlink()
    shutil.rmtree(sweep / "populations")
    code, _, err = command("analyse", "sweep", "--with", "cut")
    assert (code, "holds no finished networks" in err) == (2, True)


def test_a_network_in_two_folders_is_counted_once(command: Command, sweep: Path) -> None:
    for name in ("a", "b"):
        shutil.copytree(sweep, Path("all", name))
    code, out, err = command("analyse", "all", "--with", "cut", *FAST, "--dry-run")
    assert code == 0, err
    assert "networks     4\n" in out
    assert "0 are analysed and 4 will be" in out


def test_files_of_analyses_that_are_damaged_or_changed_are_refused(command: Command, sweep: Path) -> None:
    run_id = modulab.load_results(sweep)["run_id"][0]
    for column in ("version.own", "config.seed"):
        save_analysed(sweep, "evil", "{}", [Analysed([run_id], {column: [1.0]})])
        code, _, err = command("table", "sweep")
        assert (code, f"its column '{column}' is not one of an analysis" in err) == (2, True)
        analysis_path(sweep, "evil").unlink()
    analysis_path(sweep, "evil").write_bytes(b"PAR1")
    code, _, err = command("table", "sweep")
    assert (code, "is damaged and cannot be read" in err) == (2, True)


def test_a_value_from_training_stands_before_one_that_was_found_afterwards(sweep: Path) -> None:
    results = modulab.load_results(sweep)
    save_analysed(sweep, "again", "{}", [Analysed(results["run_id"].tolist(), {"error/test": [-1.0] * 4})])
    assert modulab.load_results(sweep)["error/test"].tolist() == results["error/test"].tolist()


def test_members_that_diverged_are_counted_and_named_and_analysed_once_they_are_completed(
    command: Command,
) -> None:
    rates = "population.grid={training.learning_rate: [0.003, 1.0e+30]}"
    modulab.train([*SMALL, *POPULATIONS, rates, "population.seeds=2"], "some")
    results = modulab.load_results("some")
    assert results["status"].tolist() == ["completed", "completed", "diverged", "diverged"]
    code, out, err = command("analyse", "some", "--with", "cut", *FAST, "--dry-run")
    assert code == 0, err
    assert "2 of 4 networks left out, as it is diverged: rows 2, 3" in out
    code, out, err = command("analyse", "some", "--with", "cut", *FAST)
    assert code == 0, err
    assert out.endswith("2 of 4 networks left out, as it is diverged: rows 2, 3\n")
    found = modulab.load_results("some")
    assert found["cut/rise"].notna().tolist() == [True, True, False, False]
    assert found["skipped"].str.contains("cut: it is diverged").tolist()[2:] == [True, True]
    # A reason is kept under no settings, so that a network that is there later is analysed.
    run_ids = results["run_id"].tolist()
    done = analysed(Path("some"), "cut")
    assert [done[run_id] == "" for run_id in run_ids] == [False, False, True, True]
    before = contents(Path("some"))
    assert command("analyse", "some", "--with", "cut", *FAST)[0] == 0
    assert contents(Path("some")) == before


def test_help_names_every_analysis(command: Command) -> None:
    code, out, _ = command("analyse", "--help")
    assert code == 0
    for name in ("cut", "transplant", "clamp", "interaction"):
        assert f"\n  {name} " in out


def test_a_member_of_two_checkpoints_is_taken_from_the_one_trained_longer(
    sweep: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [file, *_] = sorted((sweep / "populations").glob("*.ckpt"))
    manifest = run.manifest_of(file)
    other = file.with_name("0" * 16 + ".ckpt")
    shutil.copy(file, other)
    shutil.copy(manifest, run.manifest_of(other))
    read = run.read_members

    def shorter(path: Path) -> object:
        group = read(path)
        return run.TrainedMembers(
            group.configs, group.parameters, group.layout, group.file, 1 if path == other else group.steps
        )

    monkeypatch.setattr(run, "read_members", shorter)
    plan = run.plan_analyses(sweep, run_chosen())
    assert other not in {part.file for part in plan.parts}
    assert sum(len(part.run_ids) for part in plan.parts) == 4


def run_chosen() -> list[run.Chosen]:
    from modulab.analysis.choosing import choose_analyses

    return choose_analyses(["cut"], FAST)
