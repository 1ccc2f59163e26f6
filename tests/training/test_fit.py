from __future__ import annotations

import gc
import math
import shutil
import signal
from contextlib import suppress
from pathlib import Path

import pytest
import torch

from modulab.config.settings import Member, Trainer
from modulab.errors import ConfigError
from modulab.progress import ProgressReport
from modulab.text import say_once
from modulab.training.checkpoints import read_checkpoint
from modulab.training.data import PopulationData
from modulab.training.engine import ENGINES
from modulab.training.execution import choose_execution
from modulab.training.fit import fit_population
from modulab.training.learner import PopulationLearner
from modulab.training.recorder import Interrupted
from modulab.training.schedule import schedule_rows
from tests.members import EAGER, EAGERLY, make_member
from tests.training.fitting import CPU, train_learner, trained_parameters

QUICK = {
    "training__steps": 50, "training__curve_every": 10, "training__batch_size": 16, "architecture__width": 8,
    "probes__num_samples": 64, "probes__repeats": 1,
}  # fmt: skip


def quick_members() -> list[Member]:
    return [
        make_member({"noise": "poisson"}, seed=1, **QUICK),
        make_member(seed=2, data__num_samples=None, **QUICK),
        make_member({"regulariser": "l1"}, seed=3, architecture__cross_connections=0.0, **QUICK),
    ]


class CtrlC(ProgressReport):
    """Presses Ctrl-C once, when the given number of network-steps is done."""

    def __init__(self, after: int) -> None:
        super().__init__("off", 1, 1)
        self._left = after

    def advance(self, steps: int, resumed: bool = False) -> None:
        self._left -= 0 if resumed else steps
        if self._left <= 0 < self._left + steps and not resumed:
            signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("chunks", [1, 3])
def test_fit_stopped_by_ctrl_c_and_resumed_equals_one_that_was_not(tmp_path: Path, chunks: int) -> None:
    members = quick_members()
    whole = fit_population(members, EAGERLY, tmp_path / "whole.ckpt", ProgressReport("off", 3, 150))
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(Interrupted):
        fit_population(members, EAGERLY, tmp_path / "broken.ckpt", CtrlC(after=chunks * 30))
    assert signal.getsignal(signal.SIGINT) is handler
    assert read_checkpoint(tmp_path / "broken.ckpt")["modulab"]["curve_steps"][-1] < 50
    resumed = fit_population(members, EAGERLY, tmp_path / "broken.ckpt", ProgressReport("off", 3, 150))
    assert resumed.curve_steps == whole.curve_steps == [10, 20, 30, 40, 50]
    assert resumed.curves == whole.curves
    assert repr(resumed.measures) == repr(whole.measures)
    states = [read_checkpoint(tmp_path / name)["state_dict"] for name in ("whole.ckpt", "broken.ckpt")]
    assert states[0].keys() == states[1].keys()
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name]), name


def test_finished_population_is_measured_again_from_its_checkpoint(tmp_path: Path) -> None:
    members = quick_members()
    first = fit_population(members, EAGERLY, tmp_path / "p.ckpt", ProgressReport("off", 3, 150))
    again = fit_population(members, EAGERLY, tmp_path / "p.ckpt", ProgressReport("off", 3, 150))
    assert repr(again.measures) == repr(first.measures)
    assert again.curves == first.curves


@pytest.mark.parametrize(
    "progress", [ProgressReport("off", 3, 150), CtrlC(after=30)], ids=["ended", "stopped"]
)
def test_nothing_of_a_population_stays_in_memory_once_its_fit_has_ended(progress: ProgressReport) -> None:
    members = quick_members()
    gc.collect()
    gc.disable()
    try:
        with suppress(Interrupted):
            fit_population(members, EAGERLY, None, progress)
        left = [each for each in gc.get_objects() if type(each) in (PopulationLearner, PopulationData)]
    finally:
        gc.enable()
    assert left == []


def test_length_of_chunks_does_not_change_training() -> None:
    for num_samples in (40, None):
        coarse, fine = (
            make_member(data__num_samples=num_samples, **(QUICK | {"training__curve_every": every}))
            for every in (50, 7)
        )
        assert torch.equal(trained_parameters([coarse]), trained_parameters([fine]))


def test_diverging_member_is_recorded_and_leaves_its_neighbours_as_they_were() -> None:
    healthy = [make_member(seed=seed, **QUICK) for seed in (1, 2)]
    diverging = make_member(seed=3, training__learning_rate=1e30, training__optimiser="adam", **QUICK)
    learner = train_learner([healthy[0], diverging, healthy[1]])
    first, broken, second = learner.member_divergence().tolist()
    assert first == second == -1
    assert 0 <= broken < 50
    assert torch.equal(learner.member_parameters()[[0, 2]], trained_parameters(healthy))


def test_gradient_clipping_is_per_member() -> None:
    free, clipped = (
        make_member(seed=1, training__gradient_clip=clip, training__optimiser="sgd", **QUICK)
        for clip in (None, 1e-3)
    )
    together = trained_parameters([free, clipped])
    assert torch.equal(together[0], trained_parameters([free])[0])
    start = trained_parameters(
        [make_member(seed=1, **(QUICK | {"training__steps": 1, "training__learning_rate": 1e-30}))]
    )
    travelled = (together[1] - start[0]).norm()
    assert travelled <= 50 * 3e-3 * 1e-3
    assert (together[0] - start[0]).norm() > 10 * travelled


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
def test_schedule_warms_up_linearly_and_falls_to_its_end(schedule: str) -> None:
    member = make_member(training__schedule=schedule, training__warmup_steps=4, training__steps=24)
    rates = schedule_rows([member], 0, 24)[:, 0, 0].tolist()
    assert rates[:4] == pytest.approx([3e-3 * (step + 1) / 5 for step in range(4)])
    falls = {
        "constant": lambda u: 1.0,
        "linear": lambda u: 1 - u,
        "cosine": lambda u: (1 + math.cos(math.pi * u)) / 2,
    }
    assert rates[4:] == pytest.approx([3e-3 * falls[schedule]((step - 4) / 20) for step in range(4, 24)])


def test_more_fresh_points_are_never_repeated_and_finite_ones_are() -> None:
    from modulab.training.data import PopulationData

    fresh = make_member(data__num_samples=None, **QUICK)
    data = PopulationData([fresh], 0, CPU)
    seen = torch.cat([data.chunk(index).table.clone() for index in range(data.num_chunks)])
    assert len(seen) == 50 * 16
    assert len(torch.unique(seen, dim=0)) == len(seen)


def test_engine_is_native_only_where_the_work_repays_it() -> None:
    auto = EAGER.model_copy(update={"engine": "auto"})
    assert choose_execution(auto, [make_member(**QUICK)]).engine == "eager"
    # TorchInductor takes so long to compile that only many uses, or many members, repay it.
    short, alone, many = (
        choose_execution(auto, members)
        for members in (
            [make_member(training__steps=1000)], [make_member()], [make_member(seed=seed) for seed in range(300)],
        )
    )  # fmt: skip
    assert (short.engine, short.instead_of_native) == ("native", "eager")
    assert (alone.engine, alone.instead_of_native) == ("native", "compiled")
    assert (many.engine, many.instead_of_native) == ("native_measures", "compiled")
    elsewhere = choose_execution(auto, [make_member()], torch.device("cuda"))
    assert elsewhere.engine == "compiled"


def test_the_chosen_engine_does_not_depend_on_the_number_of_threads() -> None:
    for steps in (50, 150, 200, 1000, 4000):
        members = [make_member(training__steps=steps)]
        chosen = [
            choose_execution(EAGER.model_copy(update={"engine": "auto", "threads": threads}), members)
            for threads in (1, 64)
        ]
        assert len({(each.engine, each.instead_of_native) for each in chosen}) == 1


def test_auto_goes_on_with_the_engine_that_began() -> None:
    auto, asked = (EAGER.model_copy(update={"engine": name}) for name in ("auto", "eager"))
    for begun in ENGINES:
        assert choose_execution(auto, [make_member()], begun=begun).engine == begun
        assert choose_execution(asked, [make_member()], begun=begun).engine == "eager"
    assert choose_execution(auto, [make_member()], torch.device("cuda"), "native").engine == "compiled"


def test_a_machine_without_a_compiler_trains_what_was_chosen_elsewhere_or_says_what_it_lacks(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    auto, asked = (EAGER.model_copy(update={"engine": each, "threads": None}) for each in ("auto", "native"))
    chosen = [choose_execution(trainer, [make_member()]) for trainer in (auto, asked)]
    assert [each.engine for each in chosen] == ["native", "native"]
    monkeypatch.setattr(shutil, "which", lambda name: None)
    say_once.cache_clear()
    there = chosen[0].on_this_machine()
    assert (there.engine, there.threads) == ("eager", 1)
    assert "no C++ compiler (g++) is installed" in capsys.readouterr().err
    with pytest.raises(ConfigError, match=r"trainer\.engine=native needs a C\+\+ compiler"):
        chosen[1].on_this_machine()


def test_cuda_without_a_device_says_so() -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    trainer = Trainer.model_validate(EAGER.model_dump() | {"accelerator": "cuda"})
    with pytest.raises(ConfigError, match=r"trainer\.accelerator=cuda"):
        choose_execution(trainer, quick_members())
    elsewhere = choose_execution(trainer, quick_members(), torch.device("cuda"))
    assert elsewhere.device.type == "cuda"
    with pytest.raises(ConfigError, match=r"trainer\.accelerator=cuda"):
        elsewhere.on_this_machine()
