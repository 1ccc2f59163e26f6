"""Native measures are those of torch to rounding, and company and threads leave their bits."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jaxtyping
import pytest
import torch
from benchmark_contenders.measuring import KINDS
from torch import Tensor

from modulab.config.composing import compose_checked, hydra_composer, plan_run
from modulab.config.settings import Member
from modulab.losses import SquaredLoss
from modulab.metrics.native import NO_KERNELS
from modulab.metrics.native_robustness import count_windows
from modulab.metrics.probe import make_probe
from modulab.metrics.robustness import poisson_count_rates
from modulab.metrics.row_functions import ModuleErrors, Normals
from modulab.metrics.taking import measure_population
from modulab.metrics.without_units import ablation_loss_rises
from modulab.networks.base import NetworkPopulation
from modulab.partition import Partition
from modulab.streams import drawn_normals, member_keys
from modulab.training.execution import choose_execution
from modulab.training.libraries import CannotCompile
from modulab.training.measuring import measure_each
from modulab.training.native import building, kernels
from modulab.training.native.kernels import NativeKernels, kernels_of
from tests.members import EAGER, make_member
from tests.training.fitting import CPU, prepared_learner

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="compiling needs a C++ compiler")


@pytest.fixture(autouse=True)
def _unchecked_shapes(monkeypatch: pytest.MonkeyPatch) -> None:
    # Shape checks look at random parts of what they check, and would be traced.
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


def composed(kind: str, number: int) -> list[Member]:
    small = ["probes.num_samples=96", "probes.repeats=8", "probes.levels=[0.2,1]", "data.num_samples=64"]
    overrides = [*KINDS[kind], *small, f"population.seeds={number}"]
    with hydra_composer() as compose:
        plan = plan_run(compose_checked(compose, overrides), overrides, compose)
    return [run.member for run in plan.runs]


def measured(members: Sequence[Member], engine: str, threads: int = 1) -> dict[str, Tensor]:
    """Return the measures of networks that are as they begin."""
    learner, _ = prepared_learner(members)
    with torch.no_grad():
        found = measure_each(
            members, learner.member_networks(), learner.member_masks(), members[0].probes, threads, narrow=False,
            engines=[engine] * len(members),
        )  # fmt: skip
    assert not found.failures
    return {name: torch.tensor(values, dtype=torch.float64) for name, values in found.measures.items()}


class Counted(NativeKernels):
    """Native kernels that keep which functions ran as native code, and which did not."""

    def __init__(self) -> None:
        super().__init__()
        self.found: dict[str, bool] = {}

    def compiled(self, function: Any, *tensors: Tensor) -> Any:
        run = super().compiled(function, *tensors)
        self.found[type(function).__name__] = run is not None
        return run


RELATIVE_ERRORS = {"modularity/ablation": 1e-4}
"""Of measures in which rounding is large: a unit of a wide network raises the loss by a 200th of it, and less."""

FAST = ("dense",)


@pytest.mark.parametrize(
    "kind", [*FAST, *(pytest.param(each, marks=pytest.mark.slow) for each in KINDS if each not in FAST)]
)
def test_native_measures_are_those_of_torch_to_rounding(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    members = composed(kind, 3)
    counted = Counted()
    monkeypatch.setattr("modulab.training.measuring.kernels_of", lambda _: counted)
    native = measured(members, "native_measures")
    monkeypatch.undo()
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    torchs = measured(members, "native")
    assert native.keys() == torchs.keys()
    for name, values in torchs.items():
        rtol = RELATIVE_ERRORS.get(name, 2e-5)
        torch.testing.assert_close(native[name], values, rtol=rtol, atol=2e-6, equal_nan=True, msg=name)
    assert {"Outputs", "ModuleErrors", "Normals"} <= counted.found.keys()
    assert all(counted.found.values()), counted.found


@pytest.mark.parametrize("kind", ["3 hidden layers", "dense, classification", "experts"])
def test_units_that_are_never_active_raise_no_loss_by_rounding(kind: str) -> None:
    members = composed(kind, 2)
    learner, _ = prepared_learner(members)
    network = learner.member_networks().network
    silent = NetworkPopulation(network, torch.zeros(2, network.num_parameters))
    probe = make_probe(
        members[0].task, silent, member_keys([0, 1]), members[0].probes, kernels=NativeKernels()
    )
    assert all(activity.abs().max() == 0 for activity in probe.activities())
    rises = ablation_loss_rises(probe)
    assert torch.equal(rises, torch.zeros_like(rises))


def test_company_and_threads_leave_the_bits_of_native_measures(monkeypatch: pytest.MonkeyPatch) -> None:
    members = composed("dense", 7)
    alone = [measured(members[place : place + 1], "native_measures") for place in (0, 6)]
    monkeypatch.setattr("modulab.metrics.probe.bytes_per_member", lambda *_: 48 << 20)  # blocks of two
    packed, threaded = (measured(members, "native_measures", threads) for threads in (1, 3))
    for name, values in packed.items():
        assert torch.equal(threaded[name].nan_to_num(-1), values.nan_to_num(-1))
        for own, place in zip(alone, (0, 6), strict=True):
            assert torch.equal(own[name].nan_to_num(-1), values[place : place + 1].nan_to_num(-1))


def test_native_draws_are_normals_to_rounding() -> None:
    keys = member_keys(range(3))
    run = NativeKernels().compiled(Normals(5, 33), keys)
    assert run is not None
    torch.testing.assert_close(run(keys), drawn_normals(keys, 5, 33), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("silent", [0, 3, 1])
def test_native_poisson_counts_are_the_same_bits(silent: int) -> None:
    generator = torch.Generator().manual_seed(1)
    activity, scores = 2 * torch.randn(40_000, generator=generator), torch.randn(40_000, generator=generator)
    if silent:
        activity[::silent] = 0.0
    activity[:6] = torch.tensor([float("inf"), -float("inf"), float("nan"), 1e-30, -1e-30, 1e6])
    scores[6:8] = torch.tensor([5.77, -5.77])
    levels = [0.02, 0.1, 0.35, 1.0, 4.0]
    rows = [each.view(5, 16, 500) for each in (activity, scores)]
    windows = count_windows(levels)
    native = NativeKernels().count_rates(rows[0], windows[None], rows[1])
    assert native is not None
    many, own = rows[0].repeat_interleave(len(levels), dim=0), windows.repeat(len(rows[0]))[:, None]
    by_row = NativeKernels().count_rates(many, own, rows[1])
    assert by_row is not None
    assert torch.equal(by_row.view_as(native).nan_to_num(-7), native.nan_to_num(-7))
    for place, level in enumerate(levels):
        expected = poisson_count_rates(rows[0], level, rows[1])
        assert torch.equal(native[:, place].nan_to_num(-7), expected.nan_to_num(-7))
    assert native[0, :, 0, :3].isnan().all()


@dataclass(frozen=True)
class InPlace:
    """Operations that change a tensor that is nobody else's, and sums with a factor."""

    def __call__(self, values: Tensor, others: Tensor) -> Tensor:
        changed = (values * 2).clamp_(min=-1.0).add_(others, alpha=-0.5).abs_().sqrt_()
        return torch.rsub(others, changed, alpha=3.0) + torch.sub(values, others, alpha=0.25)


@dataclass(frozen=True)
class RepeatedFactors:
    """Products of matrices with elements that share a place in memory, and of transposed and strided ones."""

    def __call__(self, left: Tensor, right: Tensor) -> Tensor:
        row = left[:, :1].expand(-1, 24, -1)
        column = right[:, :, :1].expand(-1, -1, 40)
        spread = right[:, :, ::2]
        turned = (left.transpose(1, 2) @ row) @ column
        return torch.cat(
            [each.flatten(1) for each in (row @ column, left @ column, turned, left @ spread)], dim=1
        )


@dataclass(frozen=True)
class Unknown:
    """An operation for which no code is generated."""

    def __call__(self, values: Tensor) -> Tensor:
        return values.cumsum(dim=1)


def test_operations_in_place_and_repeated_factors_are_lowered_as_torch_takes_them() -> None:
    draws = torch.randn(4, 24, 40, generator=torch.Generator().manual_seed(0))
    pairs = [
        (InPlace(), (draws[:2], draws[2:])),
        (RepeatedFactors(), (draws, draws.transpose(1, 2).contiguous())),
    ]
    for function, tensors in pairs:
        run = NativeKernels().compiled(function, *tensors)
        assert run is not None
        torch.testing.assert_close(run(*tensors), function(*tensors), rtol=1e-5, atol=1e-5)


def test_a_tensor_of_fewer_rows_serves_several_rows_in_succession() -> None:
    draws = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
    run = NativeKernels().compiled(InPlace(), draws, draws)
    assert run is not None
    assert torch.equal(run(draws, draws[:2]), run(draws, draws[:2].repeat_interleave(3, dim=0)))


def test_what_has_no_native_code_is_measured_by_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    assert NativeKernels().compiled(Unknown(), torch.ones(2, 3)) is None
    members = composed("dense", 3)
    expected = measured(members, "native")

    def refuse(*_: object) -> Any:
        raise CannotCompile("the folder is full")

    monkeypatch.setattr(building, "_compiled", refuse)
    monkeypatch.setattr(kernels, "build", refuse)
    for cached in (kernels._run_of, kernels._count_function):
        cached.cache_clear()
    found = measured(members, "native_measures")
    for cached in (kernels._run_of, kernels._count_function):
        cached.cache_clear()
    assert all(torch.equal(found[name].nan_to_num(-1), expected[name].nan_to_num(-1)) for name in expected)


@dataclass(frozen=True)
class LeavesTorch(SquaredLoss):
    """A loss whose errors are computed by NumPy, which cannot be traced."""

    def errors(self, outputs: Tensor, targets: Tensor, partition: Partition) -> Tensor:
        return torch.from_numpy(super().errors(outputs, targets, partition).numpy().copy())


def test_a_loss_that_cannot_be_traced_is_computed_by_torch() -> None:
    partition = Partition(2, (0, 1), (0, 1))
    outputs, targets = torch.randn(2, 3, 2, 40, generator=torch.Generator().manual_seed(0)).unbind()
    function = ModuleErrors(LeavesTorch(), partition)
    assert NativeKernels().compiled(function, outputs, targets) is None
    by_torch = ModuleErrors(SquaredLoss(), partition)
    run = NativeKernels().compiled(by_torch, outputs, targets)
    assert run is not None
    torch.testing.assert_close(run(outputs, targets), function(outputs, targets))


def test_measures_of_networks_that_were_not_trained_natively_are_untouched() -> None:
    for engine in (None, "eager", "compiled", "native", "of another version"):
        assert type(kernels_of(engine)) is type(NO_KERNELS)
    members = composed("dense", 3)
    learner, _ = prepared_learner(members)
    networks: NetworkPopulation = learner.member_networks()
    keys, task, probes = member_keys([0, 1, 2]), members[0].task, members[0].probes
    by_torch = measure_population(task, networks, keys, probes, learner.member_masks())
    found = measured(members, "eager")
    assert all(torch.equal(found[name].nan_to_num(-1), by_torch[name].nan_to_num(-1)) for name in by_torch)


def test_auto_measures_natively_where_that_repays_compiling() -> None:
    trainer = EAGER.model_copy(update={"engine": "auto"})
    chosen = {}
    for number in (1, 400):
        members = [make_member()] * number
        chosen[number] = choose_execution(trainer, members, CPU).engine
    assert chosen == {1: "native", 400: "native_measures"}
    resumed = choose_execution(trainer, [make_member()], CPU, begun="native_measures")
    assert resumed.engine == "native_measures"
