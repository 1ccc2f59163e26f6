"""Work shared among processes of one machine: the same bits, nothing lost, and only where it saves time."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from modulab.config.settings import Run, Trainer, read_run
from modulab.logger.run_log import RunLog
from modulab.progress import ProgressReport
from modulab.results.store import gather, load_curves, load_results
from modulab.sweep import this_machine
from modulab.sweep.run import Work, begin, plan_work
from modulab.sweep.this_machine import run_work, shares_of, train_in_processes
from tests.members import EAGER, member_config

AUTO_THREADS = Trainer.model_validate(EAGER.model_dump() | {"threads": None})
LETHAL = """
import os
import signal
from pathlib import Path

from modulab.tasks.regression import RegressionTask


class LethalTask(RegressionTask):
    def draw(self, keys, *others, **named):
        if self.function_seed == 13 and Path(os.environ["LETHAL"]).exists():
            os.kill(os.getpid(), signal.SIGKILL)
        return super().draw(keys, *others, **named)
"""


def runs(widths: Sequence[int], seeds: int, **overrides: Any) -> list[Run]:
    small = {
        "training__steps": 6, "training__curve_every": 3, "training__batch_size": 8, "data__num_samples": 16,
        "probes__num_samples": 64, "probes__repeats": 1,
    } | overrides  # fmt: skip
    return [
        read_run(member_config(seed=seed, architecture__width=width, **small))
        for width in widths
        for seed in range(seeds)
    ]


def folder(path: Path) -> Path:
    path.mkdir()
    return path


def in_processes(
    work: Work, shares: Sequence[Sequence[Run]], place: Path, devices: Sequence[int] | None = None
) -> None:
    begin(work, place)
    try:
        with ProgressReport("off", work.pending, 1.0) as progress:
            train_in_processes(work, shares, place, progress, RunLog(place), devices)
    finally:
        gather(place)


def numbers(place: Path) -> pd.DataFrame:
    return load_results(place).drop(columns="seconds").sort_values("run_id").reset_index(drop=True)


def curves(place: Path) -> pd.DataFrame:
    return load_curves(place).sort_values(["run_id", "measure", "step"], ignore_index=True)


@pytest.mark.slow
def test_processes_give_the_bits_of_one(tmp_path: Path) -> None:
    members = runs([4, 5], 3)
    alone = folder(tmp_path / "alone")
    run_work(plan_work(members, EAGER, alone), alone)
    shared = folder(tmp_path / "shared")
    # The second width is cut between the two.
    in_processes(plan_work(members, AUTO_THREADS, shared), [members[:4], members[4:]], shared)
    pd.testing.assert_frame_equal(numbers(shared), numbers(alone))
    pd.testing.assert_frame_equal(curves(shared), curves(alone))


@pytest.mark.slow
def test_what_a_process_that_dies_leaves_is_named_and_trained_by_the_same_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "lethal_task.py").write_text(LETHAL)
    monkeypatch.syspath_prepend(str(tmp_path))
    flag = tmp_path / "flag"
    flag.touch()
    monkeypatch.setenv("LETHAL", str(flag))
    lethal = {"task___target_": "lethal_task.LethalTask"}
    members = [
        *runs([4], 2, **lethal, task__function_seed=1),
        *runs([5], 2, **lethal, task__function_seed=13),
    ]
    place = folder(tmp_path / "results")
    in_processes(plan_work(members, AUTO_THREADS, place), [members[:2], members[2:]], place)
    found = load_results(place).set_index("run_id").loc[[run.run_id for run in members]]
    assert found["status"].tolist() == ["completed"] * 2 + ["missing"] * 2
    reason = "process 2: its process was killed, most likely for lack of memory."
    assert found["error"].fillna("").tolist() == ["", "", reason, reason]
    assert f"{reason} 2 of its runs are missing; the same command trains them." in capfd.readouterr().err
    flag.unlink()
    work = plan_work(members, AUTO_THREADS, place)
    assert work.pending == 2
    run_work(work, place)
    assert set(load_results(place)["status"]) == {"completed"}


@pytest.mark.slow
def test_ctrl_c_is_passed_on_once_and_what_was_trained_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    members = runs([4, 5], 2, training__steps=40_000, training__curve_every=20)
    place = folder(tmp_path / "results")
    work = plan_work(members, AUTO_THREADS, place)
    shown = this_machine.show_sent
    begun: set[str] = set()

    def press_when_both_train(message: Any, *others: Any) -> bool:
        if message.kind == "advance" and message.worker not in begun:
            begun.add(message.worker)
            if len(begun) == 2:
                signal.raise_signal(signal.SIGINT)
        return shown(message, *others)

    monkeypatch.setattr(this_machine, "show_sent", press_when_both_train)
    with pytest.raises(KeyboardInterrupt):
        in_processes(work, [members[:2], members[2:]], place)
    left = plan_work(members, AUTO_THREADS, place)
    assert left.unfinished == 2
    assert {len(population) for population in left.populations} == {2}


@pytest.fixture
def four_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(this_machine, "cpu_count", lambda: 4)


def shares(members: list[Run], trainer: Trainer, place: Path) -> list[int]:
    return [len(share) for share in shares_of(plan_work(members, trainer, place))]


@pytest.mark.usefixtures("four_cores")
def test_work_is_shared_where_that_saves_more_than_processes_take_to_start(tmp_path: Path) -> None:
    # Eager steps, on one core, of which each takes 3 ms and more.
    assert shares(runs([4], 8), AUTO_THREADS, tmp_path) == [8]
    assert shares(runs([4, 5, 6, 7], 2, training__steps=10_000), AUTO_THREADS, tmp_path) == [2, 2, 2, 2]
    assert shares(runs([4], 8, training__steps=100_000), AUTO_THREADS, tmp_path) == [
        8
    ]  # 3 ms a step, however few
    limited = Trainer.model_validate(EAGER.model_dump() | {"threads": 1})
    assert shares(runs([4, 5, 6, 7], 2, training__steps=10_000), limited, tmp_path) == [8]


@pytest.mark.usefixtures("four_cores")
def test_native_steps_of_one_population_use_all_cores_by_themselves(tmp_path: Path) -> None:
    native = Trainer.model_validate(AUTO_THREADS.model_dump() | {"engine": "native"})
    long = {"training__steps": 10_000, "training__batch_size": 256}
    assert shares(runs([48], 64, **long), native, tmp_path) == [64]
    # As many programs as networks: each would be compiled and trained on one core.
    assert shares(runs(range(4, 44), 1, **long), native, tmp_path) == [10, 10, 10, 10]


@pytest.mark.cuda
@pytest.mark.slow
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_processes_on_cuda_devices_give_what_one_gives(tmp_path: Path) -> None:
    trainer = Trainer.model_validate(AUTO_THREADS.model_dump() | {"accelerator": "cuda"})
    members = runs([4, 5], 3)
    alone, shared = folder(tmp_path / "alone"), folder(tmp_path / "shared")
    last = torch.cuda.device_count() - 1
    in_processes(plan_work(members, trainer, alone), [members], alone, [0])
    in_processes(plan_work(members, trainer, shared), [members[:3], members[3:]], shared, [0, last])
    pd.testing.assert_frame_equal(numbers(shared), numbers(alone), rtol=1e-4)
