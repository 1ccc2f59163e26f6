"""A command that is refused, that another process keeps out, or that is dry changes no folder."""

from __future__ import annotations

import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from modulab.report.commands import recorded_commands
from modulab.results.lock import LOCK, FolderLock
from tests.command_line import SMALL, Command

REFUSED = {
    "a value": ["noise.scale=-1"],
    "a device": ["trainer.accelerator=cuda", "trainer.threads=1"],
    "a size": ["architecture.width=100000000"],
    "a logger": ["logger=wandb", "logger.wandb.mode=sometimes"],
    "a class": ["task._target_=nowhere.Task"],
    "a measure": ["probes.measures={mine: nowhere.measure}"],
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
    return ["train", *(["-m", "seed=0,1"] if sweep else []), *SMALL, *given]


@pytest.mark.parametrize("sweep", [False, True])
@pytest.mark.parametrize("what", REFUSED)
def test_refused_command_leaves_nothing_behind(command: Command, sweep: bool, what: str) -> None:
    code, out, err = command(*words(sweep, *REFUSED[what]))
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert list(Path().iterdir()) == []


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
        assert "is at work in this folder" in err
    assert contents(folder) == before
    (repeat,) = recorded_commands(folder)
    assert "noise.scale" not in repeat


def test_dry_run_leaves_nothing_behind(command: Command) -> None:
    for sweep in (False, True):
        assert command(*words(sweep, "sweep.dry_run=true", f"{FOLDER_KEYS[sweep]}=a/b/c"))[0] == 0
    assert command(*words(True, "sweep.dry_run=true", "hydra.sweep.dir=a", "hydra/launcher=basic"))[0] == 0
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
            if "step" in line:
                break
        for _ in range(presses):
            process.send_signal(signal.SIGINT)
        out, err = process.stdout.read(), process.stderr.read()
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert err.count("To go on:") == 1
    assert out == ""
