"""What can be said of `hydra/launcher=population_slurm` without a cluster."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from modulab.errors import ConfigError
from modulab.results.store import load_results
from modulab.sweep.shards import NoAnswer, Shard
from modulab.sweep.slurm_array import SlurmSettings, refresh
from modulab.sweep.slurm_node import node_python
from tests.command_line import SMALL, Command, last_given

SLURM = ["train", "-m", *SMALL, "hydra/launcher=population_slurm", "hydra.launcher.poll_seconds=0.01"]


SETTINGS: dict[str, Any] = {
    "shards": None, "array_parallelism": 8, "partition": None, "time_minutes": 240, "memory_gib": 8.0, "cpus": 2,
    "gpus": 0, "signal_seconds": 90, "max_requeues": 100, "setup": [], "sbatch": None, "poll_seconds": 5.0,
}  # fmt: skip


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("shards", 0), ("array_parallelism", 0), ("time_minutes", 0), ("cpus", 0), ("gpus", -1),
        ("signal_seconds", 0), ("max_requeues", -1), ("memory_gib", 0.0), ("memory_gib", float("nan")),
        ("poll_seconds", -1.0), ("signal_seconds", 240 * 60),
    ],
)  # fmt: skip
def test_a_setting_out_of_range_is_an_error_that_names_its_key(key: str, value: object) -> None:
    SlurmSettings(**SETTINGS)
    with pytest.raises(ConfigError, match=rf"^hydra\.launcher\.{key}={value} should be "):
        SlurmSettings(**SETTINGS | {key: value})


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("hydra.launcher.shrds=1", "hydra.launcher.shrds: there is no such key. Did you mean 'hydra.launcher.shards'?"),
        ("++hydra.launcher.shrds=1", "hydra.launcher.shrds: there is no such key. Did you mean 'shards'?"),
        ("hydra.launcher.shards=0", "hydra.launcher.shards=0 should be 1 or more, or null."),
        (
            "hydra.launcher.sbatch=x",
            "hydra.launcher.sbatch=x should be sbatch's long options, as in {account: brains}.",
        ),
        (
            "trainer.accelerator=cuda",
            "trainer.accelerator=cuda needs one GPU per task, and hydra.launcher.gpus=0. Set hydra.launcher.gpus=1.",
        ),
    ],
)  # fmt: skip
def test_a_mistake_on_the_command_line_is_one_sentence_that_names_the_key(
    command: Command, override: str, message: str
) -> None:
    code, out, err = command(*last_given(*SLURM, "seed=0,1", override))
    assert (code, out, err) == (2, "", f"error: {message}\n")
    assert not list(Path("outputs").rglob("results.parquet"))


def test_a_key_of_this_launcher_without_it_is_an_error_that_names_the_launcher(command: Command) -> None:
    code, _, err = command("train", "-m", *SMALL, "hydra.launcher.shards=2")
    assert code == 2
    assert err.count("\n") == 1
    assert "hydra/launcher=population_slurm" in err


def test_a_dry_run_tells_of_the_shards_and_needs_no_slurm(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    launcher = ["shards=3", "array_parallelism=2", "cpus=4", "memory_gib=1.5", "time_minutes=30"]
    code, out, err = command(
        *SLURM, "seed=range(7)", "sweep.dry_run=true", "hydra.sweep.dir=sweep",
        *(f"hydra.launcher.{each}" for each in launcher), "hydra.launcher.sbatch={account: x}",
    )  # fmt: skip
    assert code == 0, err
    told = dict(line.split(maxsplit=1) for line in out.splitlines()[1:])
    assert told["jobs"] == "7"
    assert told["networks"] == "7, of which 0 have results and 7 will be trained"
    assert told["shards"] == "3 tasks of one array job, 2 at once, the largest of 3 networks"
    assert told["each"] == "4 CPUs, 0 GPUs and 1.5 GiB for 30 min at a time"
    assert told["in"].startswith("all       about ")
    assert not list(Path("sweep").rglob("*.parquet"))


def fake(name: str, script: str) -> None:
    """Put a command of this name on the PATH."""
    path = Path("bin") / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    if str(path.parent.absolute()) not in os.environ["PATH"]:
        os.environ["PATH"] = f"{path.parent.absolute()}:{os.environ['PATH']}"


def test_a_machine_without_slurm_is_an_error_that_says_what_is_not_there(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    code, _, err = command(*SLURM, "seed=0,1", "hydra.sweep.dir=sweep")
    assert code == 2
    assert err == (
        "error: hydra/launcher=population_slurm: sbatch is not on the PATH. Run this where SLURM's commands are, as "
        "on a cluster's login node, or leave hydra/launcher out to train on this machine.\n"
    )


def test_a_refusal_is_told_once_and_leaves_no_files_of_what_was_not_submitted(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", os.environ["PATH"])
    fake("srun", "")
    fake("squeue", "")
    fake(
        "sbatch",
        "echo 'sbatch: error: no such account' >&2; echo 'sbatch: error: Submission failed' >&2; exit 1",
    )
    for sweep in ("seed=0,1", "seed=0"):
        code, _, err = command(*SLURM, sweep, "hydra.sweep.dir=sweep")
        assert code == 2
        assert err == (
            "error: hydra/launcher=population_slurm: SLURM rejected the job: no such account; Submission failed. "
            "Check hydra.launcher.partition and the other keys of hydra.launcher against `sinfo`.\n"
        )
        assert not Path("sweep/slurm").exists()


def test_a_squeue_that_fails_is_an_error_in_one_line_and_is_not_asked_without_need(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", os.environ["PATH"])
    fake("squeue", "echo 'squeue: error: one' >&2; echo 'squeue: fatal: two' >&2; exit 1")
    refresh([])
    with pytest.raises(NoAnswer, match=r"^SLURM does not answer: one; two\. Try: squeue --me$"):
        refresh([Shard("7_0", ["a"])])


def test_waiting_outlasts_a_squeue_that_is_away_and_tells_of_it_once(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", os.environ["PATH"])
    fake("srun", "")
    fake("sbatch", "echo Submitted batch job 7")
    fake("squeue", "echo >>asked; [ $(wc -l <asked) -gt 3 ] || { echo 'squeue: error: away' >&2; exit 1; }")
    code, out, err = command(*SLURM, "seed=0,1", "hydra.sweep.dir=sweep", "trainer.progress=lines")
    assert Path("asked").read_text() == "\n" * 4
    assert err.count("SLURM does not answer: away. Try: squeue --me; its shards continue meanwhile\n") == 1
    # By then the array has gone from the queue, and nothing has been trained.
    assert code == 1
    table = load_results("sweep")
    assert table["status"].tolist() == ["missing", "missing"]
    for place, error in enumerate(table["error"]):
        log = Path(f"sweep/slurm/7_{place}/7_{place}_0_log.out").absolute()
        assert error == f"shard 7_{place} ended without it; its log: {log}"
        assert f"shard 7_{place} ended without 1 of its runs; its log: {log}\n" in err
    assert f"1 missing: {table['error'][0]}" in out


def test_a_warning_that_comes_while_python_starts_waits_until_it_can_be_heeded() -> None:
    code = (
        "import os, signal\n"
        "for number in (signal.SIGUSR2, signal.SIGTERM): os.kill(os.getpid(), number)\n"
        "signal.signal(signal.SIGUSR2, lambda *_: print('heeded'))\n"
        "signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGUSR2])\n"
        "print(signal.sigpending())"
    )
    command = ["sh", "-c", f'{node_python()} -c "$CODE"']
    ended = subprocess.run(
        command, env=os.environ | {"CODE": code}, capture_output=True, text=True, check=True
    )
    assert ended.stdout.splitlines() == ["heeded", str({signal.SIGTERM})], ended.stderr
