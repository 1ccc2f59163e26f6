"""Modules behind projections against plain torch, planted projections, and the exact risk of a linear readout."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.linalg import subspace_angles
from torch import Tensor, nn

from modulab.config.settings import Member
from modulab.errors import ConfigError
from modulab.metrics.projections import squared_cosines
from modulab.metrics.taking import measure_population
from modulab.networks.base import NetworkPopulation
from modulab.networks.kernel_alignment import KernelRule, align, kernel_objective, orthonormal_rows
from modulab.networks.projected_modules import PROJECTION, ProjectedModules
from modulab.streams import member_keys, normals
from modulab.training.learner import initialise
from modulab.training.points import training_points
from modulab.training.program import network_of
from tests.members import make_member
from tests.networks.kinds import check_measures, check_packing, check_taps
from tests.training.fitting import trained_parameters
from tests.training.plain_torch import check_follows_plain_torch

MEASURES = {
    "errors": "modulab.metrics.errors.measure_errors",
    "alignment": "modulab.metrics.projections.ProjectionAlignment",
}
RULE = KernelRule(bandwidth=1.0, ridge=1.0, steps=60, step_size=0.1)


class PlainModules(nn.Module):
    """The same network, module by module."""

    def __init__(self, member: Member) -> None:
        super().__init__()
        network = network_of(member)
        assert isinstance(network, ProjectedModules)
        self.width, self.rows, self.modules = network.width, network.module_features, network.num_modules
        self.projection = nn.Linear(network.in_features, self.modules * self.rows, bias=False)
        self.projection.requires_grad_(network.trains_projections)
        self.read = nn.Linear(self.rows, self.modules * self.width)
        self.write = nn.Linear(self.modules * self.width, network.out_features)

    def forward(self, inputs: Tensor) -> Tensor:
        outputs = self.write.bias
        for module in range(self.modules):
            units = slice(module * self.width, (module + 1) * self.width)
            read = inputs @ self.projection.weight[module * self.rows : (module + 1) * self.rows].T
            hidden = torch.relu(nn.functional.linear(read, self.read.weight[units], self.read.bias[units]))
            outputs = outputs + nn.functional.linear(hidden, self.write.weight[:, units])
        return outputs


def make(seed: int = 0, noise: str = "none", **overrides: Any) -> Member:
    """Return a small member with four modules that read two of nine inputs."""
    small: dict[str, Any] = {
        "task__features": 9, "task__module_features": 2, "architecture__num_modules": 4, "architecture__width": 5,
        "architecture__module_features": 2, "training__steps": 5, "training__batch_size": 13,
        "training__curve_every": 5, "data__num_samples": 64, "probes__num_samples": 48, "probes__repeats": 2,
        "probes__levels": [0.3], "probes__ablated_fractions": [0.4], "architecture__kernel_steps": 5,
        "probes__measures": MEASURES,
    }  # fmt: skip
    return make_member(
        {"task": "projected", "architecture": "projected_modules", "noise": noise},
        seed=seed,
        **(small | overrides),
    )


def planted(features: int, points: int, modules: int = 3) -> tuple[Tensor, Tensor]:
    """Return normal inputs, and a sum of sines of the first of them, one each."""
    drawn = normals(member_keys([features]), points, features)[0].double()
    return drawn, torch.sin(2.0 * drawn[:, :modules]).sum(dim=1, keepdim=True)


def test_members_that_begin_differently_end_in_the_same_bits_alone_and_in_company() -> None:
    check_packing(
        [
            make(0, "poisson", architecture__projections="random", noise__scale=0.1),
            make(1, "poisson", architecture__projections="kernel", architecture__ridge=0.5),
            make(2, "poisson", architecture__projections="kernel", data__num_samples=40, noise__scale=0.2),
            make(3, "poisson", architecture__projections="known", task__mixing_seed=0),
        ]
    )
    check_taps(make())


@pytest.mark.parametrize("trains", [True, False])
def test_a_member_follows_plain_torch(trains: bool) -> None:
    member = make(
        4, training__steps=60, training__curve_every=60, architecture__train_projections=trains,
        architecture__projections="kernel",
    )  # fmt: skip
    check_follows_plain_torch(member, PlainModules(member))


@pytest.mark.parametrize("projections", ["random", "kernel", "known"])
def test_projections_begin_with_orthonormal_rows_and_the_rest_is_the_same(projections: str) -> None:
    member = make(3, architecture__projections=projections)
    network = network_of(member)
    parts = network.split(initialise([member], network)[1])
    rows = parts[PROJECTION][0].unflatten(0, (4, 2))
    torch.testing.assert_close(rows @ rows.transpose(1, 2), torch.eye(2).expand(4, 2, 2), atol=1e-5, rtol=0)
    others = network.split(initialise([make(3)], network)[1])
    assert all(torch.equal(parts[name], others[name]) for name in parts if name != PROJECTION)
    assert torch.equal(parts[PROJECTION], others[PROJECTION]) is (projections == "random")


def test_the_kernel_looks_at_the_first_training_points_and_at_no_others() -> None:
    def start(**overrides: Any) -> Tensor:
        member = make(architecture__projections="kernel", **overrides)
        return initialise([member], network_of(member))[1]

    first = start(architecture__kernel_points=40, data__num_samples=200)
    assert torch.equal(first, start(architecture__kernel_points=40, data__num_samples=None))
    assert torch.equal(first, start(architecture__kernel_points=200, data__num_samples=40))
    assert not torch.equal(first, start(architecture__kernel_points=200, data__num_samples=200))


def test_with_known_projections_training_does_not_depend_on_the_number_of_inputs() -> None:
    ends: list[dict[str, Tensor]] = []
    for features in (6, 32):
        member = make(
            task__features=features, task__code="coordinate", architecture__projections="known",
            architecture__train_projections=False, training__steps=50, training__curve_every=50,
        )  # fmt: skip
        ends.append(network_of(member).split(trained_parameters([member])))
    for name in ends[0]:
        if name != PROJECTION:
            assert torch.equal(ends[0][name], ends[1][name]), name


def test_the_kernel_objective_is_that_of_solved_equations_and_its_slope_that_of_autograd() -> None:
    inputs = normals(member_keys([1]), 30, 5)[0].double()
    targets = normals(member_keys([2]), 30, 2)[0].double()
    rows = normals(member_keys([3]), 3 * 2, 5)[0].double().view(3, 2, 5).requires_grad_()
    rule = KernelRule(bandwidth=1.3, ridge=0.2, steps=1, step_size=0.1)
    expected: list[Tensor] = []
    for projection in rows:
        distances = torch.cdist(
            inputs @ projection.T, inputs @ projection.T, compute_mode="donot_use_mm_for_euclid_dist"
        )
        kernel = torch.exp(-distances.square() / (2 * 1.3**2)) + 0.2 * torch.eye(30)
        expected.append((targets * torch.linalg.solve(kernel, targets)).sum())
    torch.stack(expected).sum().backward()
    objective, slope = kernel_objective(rule, rows.detach(), inputs, targets)
    torch.testing.assert_close(objective, torch.stack(expected).detach())
    assert rows.grad is not None
    torch.testing.assert_close(slope, rows.grad, rtol=1e-6, atol=1e-8)


def test_the_kernel_objective_depends_on_spans_alone_and_not_on_the_order_of_points_or_axes_of_inputs() -> (
    None
):
    inputs, targets = planted(6, 40)
    rows = orthonormal_rows(normals(member_keys([3]), 4, 6)[0].double().view(2, 2, 6))
    objective, _ = kernel_objective(RULE, rows, inputs, targets)
    turn = torch.linalg.qr(normals(member_keys([5]), 2, 2)[0].double()).Q
    torch.testing.assert_close(kernel_objective(RULE, turn @ rows, inputs, targets)[0], objective)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(kernel_objective(RULE, rows, inputs[order], targets[order])[0], objective)
    rotation = torch.linalg.qr(normals(member_keys([6]), 6, 6)[0].double()).Q
    turned = kernel_objective(RULE, rows @ rotation.T, inputs @ rotation.T, targets)[0]
    torch.testing.assert_close(turned, objective)


def test_alignment_finds_planted_directions_wherever_they_point() -> None:
    inputs, targets = planted(6, 128)
    start = normals(member_keys([7]), 8, 6)[0].double()[:, None]
    found = align(RULE, start, inputs, targets)
    agreement = found[:, 0, :3].square().amax(dim=0)
    assert (agreement > 0.93).all()
    assert (orthonormal_rows(start)[:, 0, :3].square().amax(dim=0) < 0.8).all()
    rotation = torch.linalg.qr(normals(member_keys([8]), 6, 6)[0].double()).Q
    turned = align(RULE, start @ rotation.T, inputs @ rotation.T, targets)
    torch.testing.assert_close(turned, found @ rotation.T, rtol=0, atol=1e-6)


def test_squared_cosines_are_those_of_scipys_principal_angles() -> None:
    rows = normals(member_keys([1, 2]), 3 * 2, 7).double().view(2, 3, 2, 7)
    for size in (1, 2, 4):
        other = torch.linalg.qr(normals(member_keys([9]), 7, size)[0].double()).Q.T.contiguous()
        found = squared_cosines(rows, other)
        for member in range(2):
            for module in range(3):
                angles = subspace_angles(rows[member, module].T.numpy(), other.T.numpy())
                expected = (np.cos(angles) ** 2).sum() / min(2, size)
                assert float(found[member, module]) == pytest.approx(expected)


@pytest.mark.parametrize("code", ["coordinate", "mixed"])
def test_known_projections_are_measured_as_found_and_random_ones_as_not(code: str) -> None:
    found: dict[str, Tensor] = {}
    for projections in ("known", "random"):
        member = make(architecture__projections=projections, task__features=40, task__code=code)
        network = network_of(member)
        population = NetworkPopulation(network, initialise([member] * 2, network)[1])
        values = measure_population(member.task, population, member_keys([0, 0]), member.probes)
        found[projections] = values["projections/alignment"]
        assert (values["projections/found"] == float(projections == "known")).all()
    torch.testing.assert_close(found["known"], torch.ones(2).double(), atol=1e-5, rtol=0)
    assert (found["random"] < 0.3).all()
    check_measures(make(task__code=code))


def test_a_linear_readout_that_interpolates_has_the_exact_risk_of_least_norm() -> None:
    """It finds the projection of the true weights to the span of n points: of P features, 1 - n / P on average."""
    features, points, seeds = 24, 12, 16
    members = [
        make_member(
            {"task": "projected"}, seed=seed, task__features=features, task__frequency=1e-3,
            architecture__depth=0, architecture__initial_scale=1e-6, data__num_samples=points, training__steps=250,
            training__batch_size=points, training__curve_every=250, training__optimiser="sgd",
            training__learning_rate=0.05, training__schedule="constant",
        )
        for seed in range(seeds)
    ]  # fmt: skip
    network = network_of(members[0])
    weights = network.split(trained_parameters(members))["weight.0"][:, 0]
    assert weights.shape == (seeds, features)
    risks: list[float] = []
    for member, own in zip(members, weights.double(), strict=True):
        drawn = training_points(member.task, member_keys([member.seed]), 0, points)[0].double()
        inputs, targets = drawn[:, :features], drawn[:, features]
        torch.testing.assert_close(own, torch.linalg.pinv(inputs) @ targets, rtol=0, atol=0.15)
        fresh = training_points(member.task, member_keys([member.seed]), points, 2000)[0].double()
        risks.append(float((fresh[:, :features] @ own - fresh[:, features]).square().mean()))
    assert np.mean(risks) == pytest.approx(1 - points / features, abs=0.08)


def test_settings_that_do_not_go_together_are_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"architecture\.projections=known: .*module_features=1 inputs each"
    ):
        make(architecture__projections="known", architecture__module_features=1)
    with pytest.raises(ConfigError, match=r"architecture\.projections=kernel fits numbers"):
        make_member(
            {"task": "parity", "architecture": "projected_modules"}, architecture__projections="kernel"
        )
