"""What can be said of `hydra/launcher=population_slurm` without a cluster."""

from __future__ import annotations

import functools
import os
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from modulab.config.settings import Run, read_run
from modulab.errors import ConfigError
from modulab.results import store
from modulab.results.store import PARTS, gather, load_curves, load_results, save_part
from modulab.results.tables import curve_table, result_table
from modulab.sweep.run import Work, packed_seconds
from modulab.sweep.slurm import cut_shards, describe_tasks
from modulab.sweep.slurm_array import ArrayTask, SlurmSettings, refresh
from modulab.sweep.slurm_node import node_python
from modulab.training.cost import RATES
from tests.command_line import SMALL, Command
from tests.members import EAGER, EAGERLY, member_config

SLURM = ["train", "-m", *SMALL, "hydra/launcher=population_slurm", "hydra.launcher.poll_seconds=0.01"]


@functools.cache
def run(steps: int) -> Run:
    return read_run(member_config(training__steps=steps, training__curve_every=1))


def make_work(populations: Sequence[Sequence[int]], unfinished: int) -> Work:
    """Return work whose members, named by population and place, train for given numbers of steps."""
    made = [
        [replace(run(steps), run_id=f"{first}.{second}") for second, steps in enumerate(population)]
        for first, population in enumerate(populations)
    ]
    runs = [run for population in made for run in population]
    return Work(runs, made, min(unfinished, len(made)), EAGER, EAGERLY)


def steps_of(runs: Sequence[Run]) -> int:
    return sum(run.member.training.steps for run in runs)


def level(loads: Sequence[int], amount: float) -> float:
    """Return how high an amount fills vessels that hold something already, found by bisection."""
    low, high = 0.0, max(loads) + amount
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (
            (middle, high) if sum(max(0.0, middle - load) for load in loads) < amount else (low, middle)
        )
    return high


@given(
    st.lists(st.lists(st.sampled_from([1, 2, 3, 5, 10]), min_size=1, max_size=9), max_size=5),
    st.integers(0, 3),
    st.sets(st.integers(0, 40)),
    st.integers(1, 7),
)
@example([[1] * 7], 0, set(), 5)  # where rounding each shard by itself leaves 3 to the last
@example([[5] * 4, [1] * 3], 1, set(), 3)  # where one shard holds more than its part from the start
def test_shards_have_every_free_member_once_in_equal_parts_and_unfinished_populations_whole(
    populations: list[list[int]], unfinished: int, taken_places: set[int], most: int
) -> None:
    work = make_work(populations, unfinished)
    taken = {run.run_id for place, run in enumerate(work.runs) if place in taken_places}
    shards = cut_shards(work, taken, most)
    free = [run.run_id for run in work.runs if run.run_id not in taken]
    assert sorted(run.run_id for shard in shards for run in shard) == sorted(free)
    assert len(shards) <= most
    assert all(shards)
    for population in work.populations[: work.unfinished]:
        left = {run.run_id for run in population} - taken
        assert sum(not left.isdisjoint(run.run_id for run in shard) for shard in shards) == bool(left)
    new = {run.run_id for population in work.populations[work.unfinished :] for run in population} - taken
    given_new = [[run for run in shard if run.run_id in new] for shard in shards]
    # In order, so that the members of a population meet again in a shard.
    cut = sorted((runs for runs in given_new if runs), key=lambda runs: free.index(runs[0].run_id))
    assert [run.run_id for runs in cut for run in runs] == [name for name in free if name in new]
    if new:
        count = min(most, len(free))
        old = [steps_of(shard) - steps_of(runs) for shard, runs in zip(shards, given_new, strict=True)]
        ideal = level(old + [0] * (count - len(shards)), sum(map(steps_of, given_new)))
        longest = max(run.member.training.steps for runs in given_new for run in runs)
        for shard, runs in zip(shards, given_new, strict=True):
            load = steps_of(shard)
            assert load > ideal - longest
            assert load < ideal + longest or not runs


def test_equal_members_are_spread_to_within_one() -> None:
    for members in (*range(1, 14), 25, 39):
        for most in range(1, 12):
            sizes = [len(shard) for shard in cut_shards(make_work([[1] * members], 0), set(), most)]
            assert len(sizes) == min(most, members)
            assert max(sizes) - min(sizes) <= 1


def test_members_whose_network_fails_are_in_a_shard_all_the_same() -> None:
    config = member_config({"architecture": "torch"})
    config["architecture"]["module"] = {"_target_": "tests.networks.modules.Unbuildable", "width": 7}
    broken = read_run(config)
    work = make_work([[1, 1]], 0)
    work = replace(work, runs=[*work.runs, broken], populations=[*work.populations, [broken]])
    assert sorted(map(len, cut_shards(work, set(), 2))) == [1, 2]


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
            "trainer.accelerator=cuda needs a GPU a task, and hydra.launcher.gpus=0. Set hydra.launcher.gpus=1.",
        ),
    ],
)  # fmt: skip
def test_a_mistake_on_the_command_line_is_one_sentence_that_names_the_key(
    command: Command, override: str, message: str
) -> None:
    code, out, err = command(*SLURM, "seed=0,1", override)
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
    assert told["networks"] == "7, of which 0 have their results and 7 are to be trained"
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
            "error: hydra/launcher=population_slurm: SLURM did not take the job: no such account; Submission failed. "
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
    with pytest.raises(ConfigError, match=r"^SLURM does not answer: one; two\. Try: squeue --me$"):
        refresh([ArrayTask("7_0", ["a"])])


def test_waiting_outlasts_a_squeue_that_is_away_and_tells_of_it_once(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", os.environ["PATH"])
    fake("srun", "")
    fake("sbatch", "echo Submitted batch job 7")
    fake("squeue", "echo >>asked; [ $(wc -l <asked) -gt 3 ] || { echo 'squeue: error: away' >&2; exit 1; }")
    code, out, err = command(*SLURM, "seed=0,1", "hydra.sweep.dir=sweep", "trainer.progress=lines")
    assert Path("asked").read_text() == "\n" * 4
    assert err.count("SLURM does not answer: away. Try: squeue --me; the array goes on meanwhile\n") == 1
    # By then the array has gone from the queue, and nothing has been trained.
    assert code == 1
    table = load_results("sweep")
    assert table["status"].tolist() == ["missing", "missing"]
    for place, error in enumerate(table["error"]):
        log = Path(f"sweep/slurm/7_{place}/7_{place}_0_log.out").absolute()
        assert error == f"shard 7_{place} ended without it; its log: {log}"
        assert f"shard 7_{place} ended without 1 of its runs; its log: {log}\n" in err
    assert f"1 missing: {table['error'][0]}" in out


def test_tasks_are_counted_by_state_with_reasons_to_wait() -> None:
    states = [("RUNNING", ""), ("COMPLETING", ""), ("PENDING", "Resources"), ("PENDING", "None"), ("", "")]
    tasks = [ArrayTask(f"7_{place}", [], "", *state) for place, state in enumerate(states)]
    assert describe_tasks(tasks) == "shards: 2 at work, 2 waiting (Resources), 1 ended"


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


@pytest.mark.parametrize("strike", [1, 2])
def test_a_shard_that_saves_while_another_process_joins_the_parts_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, strike: int
) -> None:
    """`gather` removes the folder of parts where it is empty: before a shard's curves, or between them and rows."""
    opened = 0
    real = Path.open

    def open_late(path: Path, *arguments: Any, **options: Any) -> Any:
        nonlocal opened
        if path.parent.name == PARTS:
            opened += 1
            if opened == strike:
                gather(tmp_path)
                assert not path.parent.exists()
        return real(path, *arguments, **options)

    monkeypatch.setattr(store.Path, "open", open_late)
    rows = result_table([{"seed": 1}], ["a"], ["completed"], [None], [0.5], {"error/test": [1.0]})
    save_part(tmp_path, "part", rows, curve_table(["a"], [2], {"error/test": [[1.0]]}))
    gather(tmp_path)
    assert load_results(tmp_path)["run_id"].tolist() == ["a"]
    assert load_curves(tmp_path)["value"].tolist() == [1.0]


def test_shards_weigh_networks_by_the_rates_that_plans_and_the_time_left_are_made_with() -> None:
    quiet = read_run(member_config(training__steps=4)).member
    noisy = read_run(member_config({"noise": "poisson"}, training__steps=4, noise__scale=0.1)).member
    for engine, rates in RATES.items():
        seconds = [packed_seconds(each, engine) for each in (quiet, noisy)]
        assert seconds[1] / seconds[0] == pytest.approx(rates.noisy / rates.noiseless)
        units = quiet.training.batch_size * quiet.architecture.network(quiet.task).step_units
        assert seconds[0] == pytest.approx(4 * units * rates.noiseless)
