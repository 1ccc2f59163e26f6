"""A command that is refused, that another process keeps out, or that is dry changes no folder."""

from __future__ import annotations

import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import modulab
from modulab.results.commands import COMMANDS, recorded_commands
from modulab.results.lock import LOCK, FolderLock
from tests.command_line import SMALL, Command, last_given

REFUSED = {
    "a value": ["noise.scale=-1"],
    "a device": ["trainer.accelerator=cuda", "trainer.threads=1"],
    "a size": ["architecture.width=100000000"],
    "a logger": ["logger=wandb", "logger.wandb.mode=sometimes"],
    "a class": ["task._target_=nowhere.Task"],
    "a measure": ["probes.measures={mine: nowhere.measure}"],
}
WRITTEN_BY_HYDRA = {
    "a description": (False, ["hydra.output_subdir=described"]),
    "a log in another working folder": (False, ["hydra/job_logging=default", "hydra.job.chdir=true"]),
    "a sweep": (True, ["hydra/sweeper=basic"]),
    "a sweep one by one": (True, ["hydra/sweeper=basic", "hydra/launcher=basic"]),
    "a log of a job": (True, ["hydra/launcher=basic", "hydra/job_logging=default"]),
    "a search": (
        True,
        [
            "hydra/sweeper=optuna",
            "sweep.objective=error/test",
            "noise.linear=interval(0,1)",
            "hydra.sweeper.n_trials=2",
        ],
    ),
}
FOLDER_KEYS = {False: "hydra.run.dir", True: "hydra.sweep.dir"}


def contents(folder: Path) -> dict[str, bytes | None]:
    """Return every file below a folder with its content, and every folder, but for the lock."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
        if path.name != LOCK
    }


def words(sweep: bool, *given: str) -> list[str]:
    return ["train", *(["-m", "seed=0,1"] if sweep else []), *last_given(*SMALL, *given)]


@pytest.mark.parametrize("sweep", [False, True])
@pytest.mark.parametrize("what", REFUSED)
def test_refused_command_leaves_nothing_behind(command: Command, sweep: bool, what: str) -> None:
    code, out, err = command(*words(sweep, *REFUSED[what]))
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize("what", WRITTEN_BY_HYDRA)
def test_what_hydra_writes_of_a_refused_command_is_put_back(command: Command, what: str) -> None:
    sweep, given = WRITTEN_BY_HYDRA[what]
    code, _, err = command(*words(sweep, *given, "noise.scale=-1"))
    assert code == 2
    assert err.count("error: ") == 1
    assert list(Path().iterdir()) == []
    Path("kept/described").mkdir(parents=True)
    for name in ("multirun.yaml", "train.log", "described/config.yaml", "described/hydra.yaml"):
        Path("kept", name).write_text("as it was")
    before = contents(Path("kept"))
    assert command(*words(sweep, *given, "noise.scale=-1", f"{FOLDER_KEYS[sweep]}=kept"))[0] == 2
    assert contents(Path("kept")) == before


@pytest.mark.parametrize("sweep", [False, True])
def test_refused_locked_and_dry_commands_leave_a_finished_folder_as_it_was(
    command: Command, sweep: bool
) -> None:
    folder = Path("done")
    where = f"{FOLDER_KEYS[sweep]}={folder}"
    code, _, err = command(*words(sweep, where))
    assert code == 0, err
    before = contents(folder)
    for given in REFUSED.values():
        assert command(*words(sweep, where, *given))[0] == 2
    code, out, _ = command(*words(sweep, where, "sweep.dry_run=true", "noise.scale=0.3"))
    assert code == 0
    assert out.startswith("dry run: nothing is trained")
    with FolderLock(folder):
        code, _, err = command(*words(sweep, where, "noise.scale=0.3"))
        assert code == 2
        assert "is using this folder" in err
    assert contents(folder) == before
    (repeat,) = recorded_commands(folder)
    assert "noise.scale" not in repeat


def test_dry_run_leaves_nothing_behind(command: Command) -> None:
    for sweep in (False, True):
        assert command(*words(sweep, "sweep.dry_run=true", f"{FOLDER_KEYS[sweep]}=a/b/c"))[0] == 0
    for by in (["hydra/launcher=basic", "hydra/job_logging=default"], ["hydra/sweeper=basic"]):
        assert command(*words(True, "sweep.dry_run=true", "hydra.sweep.dir=a", *by))[0] == 0
    assert list(Path().iterdir()) == []


def test_refused_jobs_one_by_one_leave_a_finished_sweep_as_it_was(command: Command) -> None:
    sweep = words(True, "hydra/launcher=basic", "hydra.sweep.dir=done")
    assert command(*sweep)[0] == 0
    before = contents(Path("done"))
    for given in ("noise.scale=-1", "sweep.dry_run=true", "noise.scal=1"):
        command(*sweep, given)
        assert contents(Path("done")) == before


def test_refused_command_spares_the_lock_of_another_process(command: Command) -> None:
    Path("busy").mkdir()
    with FolderLock(Path("busy")):
        assert command(*words(False, "hydra.run.dir=busy"))[0] == 2
        assert command(*words(False, "hydra.run.dir=busy", "noise.scale=-1"))[0] == 2
        assert [path.name for path in Path("busy").iterdir()] == [LOCK]


@pytest.mark.parametrize("launcher", ["population", "basic"])
def test_accepted_commands_are_written_down(command: Command, launcher: str) -> None:
    code, _, err = command(*words(True, "hydra.sweep.dir=sweep", f"hydra/launcher={launcher}"))
    assert code == 0, err
    (repeat,) = recorded_commands(Path("sweep"))
    given = ["modulab", *words(True, "hydra.sweep.dir=sweep", f"hydra/launcher={launcher}")]
    assert sorted(shlex.split(repeat)) == sorted(given)


def test_folder_of_the_other_kind_of_command_is_refused(command: Command) -> None:
    for sweep, used in FOLDER_KEYS.items():
        code, _, err = command(*words(sweep, f"{FOLDER_KEYS[not sweep]}=here"))
        assert code == 2
        assert err.endswith(f"give {used}=here.\n")


def test_every_command_that_gave_rows_is_kept_once_and_printed(command: Command) -> None:
    grid = "population.grid={noise.scale: [0, 0.1]}"
    given = [
        ["train", *SMALL, "hydra.run.dir=run", "seed=1"],
        ["train", *SMALL, "hydra.run.dir=run", "seed=2", "noise=none"],
        ["train", "-m", *SMALL, "hydra.sweep.dir=run", "seed=3,4", grid],
    ]
    outputs: list[str] = []
    for each in [*given, given[1], ["train", *SMALL, "hydra.run.dir=run", "seed=1", "sweep.dry_run=true"]]:
        code, out, err = command(*each)
        assert code == 0, err
        outputs.append(out + err)
    kept = recorded_commands(Path("run"))
    assert [sorted(shlex.split(line)) for line in kept] == [sorted(["modulab", *each]) for each in given]
    _, table, _ = command("table", "run")
    assert table.splitlines()[-4:] == ["Trained by:", *(f"  {line}" for line in kept)]
    assert "other settings" not in outputs[0]
    assert "notice: run contains 1 network with other settings, and this command adds to them." in outputs[1]
    assert "1 of these 2 networks has other settings; run contained them before." in outputs[1]
    assert "2 of these 6 networks have other settings" in outputs[2]
    assert "notice" not in outputs[3]  # it trains nothing
    assert "5 of these 6 networks have other settings" in outputs[3]


def test_commands_of_python_of_searches_and_of_inner_folders_are_kept(command: Command) -> None:
    modulab.train([*SMALL, "seed=5"], folder="all/python")
    assert recorded_commands(Path("all/python")) == [
        shlex.join(["modulab", "train", *SMALL, "seed=5", "hydra.run.dir=all/python"])
    ]
    search = ["train", "-m", *SMALL, "hydra/sweeper=optuna", "sweep.objective=error/test"]
    search += ["noise.scale=interval(0,1)", "hydra.sweeper.n_trials=2", "hydra.sweep.dir=all/search"]
    one_by_one = words(True, "hydra/launcher=basic", "hydra.sweep.dir=all/one_by_one")
    for each in (search, one_by_one):
        code, _, err = command(*each)
        assert code == 0, err
    kept = recorded_commands(Path("all"))
    assert len(kept) == 3
    assert sorted(shlex.split(kept[0])) == sorted(["modulab", *one_by_one])
    assert sorted(shlex.split(kept[2])) == sorted(["modulab", *search])
    assert "seed=1" in recorded_commands(Path("all/one_by_one/1"))[0]


def test_the_command_of_an_earlier_version_is_kept_beside_a_new_one(command: Command) -> None:
    for seed in (1, 2):
        assert command("train", *SMALL, "hydra.run.dir=run", f"seed={seed}")[0] == 0
        if seed == 1:
            Path("run", COMMANDS).unlink()
    assert [line.count(f"seed={seed}") for seed, line in enumerate(recorded_commands(Path("run")), 1)] == [
        1,
        1,
    ]


def test_an_empty_log_is_removed_and_one_with_words_stays(command: Command) -> None:
    Path("noisy.py").write_text("import logging\ndef told(probe):\n    logging.info('hello'); return {}\n")
    log = ["hydra/job_logging=default"]
    assert command("train", *SMALL, "hydra.run.dir=quiet", *log)[0] == 0
    assert not Path("quiet", "train.log").exists()
    assert command("train", *SMALL, "hydra.run.dir=loud", *log, "+probes.measures.told=noisy.told")[0] == 0
    assert "hello" in Path("loud", "train.log").read_text()


def test_second_command_in_a_process_is_as_the_first(command: Command) -> None:
    arguments = list(sys.argv)
    for _ in range(2):
        code, _, err = command("train", "nois.scale=1")
        assert code == 2
        assert err.startswith("error: nois.scale: there is no such key.")
    assert sys.argv == arguments


@pytest.mark.slow
@pytest.mark.parametrize("presses", [1, 2])
def test_ctrl_c_in_a_chunk_tells_how_to_go_on(tmp_path: Path, presses: int) -> None:
    chunk = ["trainer.engine=eager", "training.steps=200000", "trainer.progress=lines", "hydra.run.dir=run"]
    process = subprocess.Popen(
        [sys.executable, "-m", "modulab.cli", "train", *chunk],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stderr is not None
        assert process.stdout is not None
        for line in process.stderr:
            if "% of the work" in line:
                break
        for _ in range(presses):
            process.send_signal(signal.SIGINT)
        out, err = process.stdout.read(), process.stderr.read()
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert err.count("To resume:") == 1
    assert out == ""
