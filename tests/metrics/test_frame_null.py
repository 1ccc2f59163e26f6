"""Structural modularity of rotated axes, against closed forms, quadrature, brute force and invariance."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from populations import make_network, make_task, probe_of
from torch import Tensor

from modulab.metrics.frame_null import FrameNull, module_rotations, rotated_modularity
from modulab.metrics.modularity import diagonal_modularity, path_strength, structural_modularity
from modulab.networks.base import NetworkPopulation
from modulab.partition import SHARED, Partition
from modulab.streams import member_keys, orthogonal_matrices
from tests.perceptrons import Perceptrons, planted

NULL, EXCESS = "modularity/structural_frame_null", "modularity/structural_excess"
SCALED = "modularity/structural_excess_scaled"


def aligned(modules: int, units: int, members: int = 2) -> Perceptrons:
    """Return linear networks whose units write in the direction in which they read, isotropic in module space."""
    directions = torch.randn(members, units, modules, generator=torch.Generator().manual_seed(modules))
    biases = (torch.zeros(members, units), torch.zeros(members, modules))
    return planted((directions, directions.transpose(1, 2)), biases, "linear")


def equal_modules(members: int = 2) -> Perceptrons:
    """Return two modules of one unit each, alike."""
    eye = torch.eye(2).expand(members, 2, 2)
    return planted((eye, eye), (torch.zeros(members, 2), torch.zeros(members, 2)), "linear")


def on_axes(task: Any, network: NetworkPopulation, rotations: Tensor) -> Tensor:
    """Return S after both ends of each network are rotated for real, by Kronecker products, one by one."""
    partition = task.partition
    inputs = torch.rand(network.num_members, 50, task.in_features, generator=torch.Generator().manual_seed(0))
    found: list[Tensor] = []
    for rotation in rotations.unbind(dim=1):
        expanded = [
            torch.stack(
                [torch.kron(one.contiguous(), torch.eye(size, dtype=one.dtype)) for one in rotation]
            ).float()
            for size in (task.outputs_per_module, task.inputs_per_module)
        ]
        assert isinstance(network, Perceptrons)
        weights = list(network.weights)
        weights[0] = weights[0] @ expanded[1].transpose(1, 2)
        weights[-1] = expanded[0] @ weights[-1]
        turned = planted(weights, network.biases, network.activation)
        # The rotated network sees rotated inputs, and so has the gates of the network as it is.
        seen = torch.bmm(inputs, expanded[1].transpose(1, 2))
        found.append(diagonal_modularity(path_strength(turned, seen), partition))
    own = rotated_modularity(network, inputs, partition, rotations)
    torch.testing.assert_close(own, torch.stack(found, dim=1), rtol=1e-4, atol=1e-5)
    return own


@pytest.mark.parametrize("name", ["regression", "classification"])
@pytest.mark.parametrize("hidden", [(), (6,), (5, 4), (4, 3, 5), (3, 4, 3, 4)])
@pytest.mark.parametrize("modules", [2, 3])
def test_rotated_modularity_equals_that_of_a_network_rotated_at_both_ends(
    name: str, hidden: tuple[int, ...], modules: int
) -> None:
    task = make_task(name, modules=modules)
    network = make_network(task, *hidden, activation="tanh", members=2)
    if not hidden:
        network = Perceptrons(network.network, network.parameters)
    values = on_axes(task, network, module_rotations(member_keys([0, 1]), modules, 3))
    assert values.std(dim=1).min() > 1e-3  # rotations make a difference


@pytest.mark.parametrize(("modules", "golden"), [(2, 0.22203), (3, 0.15985), (4, 0.12488), (8, 0.06660)])
def test_aligned_isotropic_units_have_the_closed_form_on_every_axis_and_no_excess(
    modules: int, golden: float
) -> None:
    expected = (1 - 2 / math.pi) / (1 + (modules - 1) * 2 / math.pi)
    assert expected == pytest.approx(golden, abs=1e-5)
    probe = probe_of(make_task(modules=modules), aligned(modules, 20_000), num_samples=2)
    found = FrameNull(rotations=8).take(probe)
    # A share of 20,000 units has a standard error of less than .005; the excess, of the same units, less than that.
    assert structural_modularity(probe).tolist() == pytest.approx([expected] * 2, abs=0.015)
    assert found[NULL].tolist() == pytest.approx([expected] * 2, abs=0.015)
    assert found[EXCESS].tolist() == pytest.approx([0.0] * 2, abs=0.015)


def test_two_equal_modules_have_the_golden_null() -> None:
    # The mean of (1 - |sin 2t|) / (1 + |sin 2t|) over t is 4 / pi - 1. The trapezoid rule over n even steps of a
    # quarter turn errs by (pi / 2n)^2 / 12 times the jump of the derivative, 4 + 4, at the kink, or less than .0005.
    expected = 4 / math.pi - 1
    found = FrameNull(rotations=64).take(probe_of(make_task(), equal_modules(5)))
    assert expected == pytest.approx(0.27324, abs=1e-5)
    assert found[NULL].tolist() == pytest.approx([expected] * 5, abs=5e-4)
    assert found[EXCESS].tolist() == pytest.approx([1 - expected] * 5, abs=5e-4)
    assert found[SCALED].tolist() == pytest.approx([1.0] * 5)


def test_independent_rotations_agree_with_even_ones_within_their_error() -> None:
    network = make_network(make_task(), 9, members=1)
    inputs = torch.rand(1, 20, 2, generator=torch.Generator().manual_seed(1))
    drawn = orthogonal_matrices(member_keys(range(2000)), 2)[None]
    each = rotated_modularity(network, inputs, make_task().partition, drawn)
    even = module_rotations(member_keys([7]), 2, 64)
    mean = rotated_modularity(network, inputs, make_task().partition, even).mean()
    assert abs(float(each.mean() - mean)) < 4 * float(each.std()) / math.sqrt(2000) + 1e-3


@pytest.mark.parametrize("hidden", [(7,), (6, 5)])
@pytest.mark.parametrize("modules", [2, 3])
def test_null_does_not_depend_on_the_axes_of_the_network(modules: int, hidden: tuple[int, ...]) -> None:
    # The rotated network at O Q^T is the network at O. So the same draws, turned along, give the same values; and
    # the Haar measure makes the turned draws as likely as the draws.
    task = make_task(modules=modules)
    network = make_network(task, *hidden, members=2, activation="linear")
    turn = orthogonal_matrices(member_keys([3, 4]), modules)
    weights = list(network.weights)
    weights[0] = weights[0] @ turn.float().transpose(1, 2)
    weights[-1] = turn.float() @ weights[-1]
    turned = planted(weights, network.biases, "linear")
    inputs = torch.zeros(2, 3, modules)
    draws = module_rotations(member_keys([0, 1]), modules, 400)
    same = rotated_modularity(turned, inputs, task.partition, draws @ turn.transpose(1, 2)[:, None])
    plain = rotated_modularity(network, inputs, task.partition, draws)
    torch.testing.assert_close(same, plain, rtol=1e-5, atol=1e-6)
    fresh = rotated_modularity(turned, inputs, task.partition, draws)
    error = plain.std(dim=1) / math.sqrt(400)
    assert ((fresh.mean(dim=1) - plain.mean(dim=1)).abs() < 6 * error).all()


@pytest.mark.parametrize("size", [2, 3, 5])
def test_orthogonal_matrices_are_uniform(size: int) -> None:
    drawn = orthogonal_matrices(member_keys(range(20_000)), size)
    torch.testing.assert_close(
        drawn @ drawn.transpose(1, 2), torch.eye(size, dtype=drawn.dtype).expand_as(drawn)
    )
    # Entries have mean 0, mean square 1 / n and fourth moment 3 / (n (n + 2)); determinants are +-1 alike.
    assert drawn.mean(dim=0).abs().max() < 0.03
    assert (drawn.square().mean(dim=0) - 1 / size).abs().max() < 0.02
    assert (drawn.pow(4).mean(dim=0) - 3 / (size * (size + 2))).abs().max() < 0.02
    assert abs(float(torch.linalg.det(drawn).mean())) < 0.03
    fixed = orthogonal_matrices(member_keys([5]), size)[0]
    traces = [torch.diagonal(each, dim1=1, dim2=2).sum(dim=1).abs().mean() for each in (drawn, drawn @ fixed)]
    assert abs(float(traces[0] - traces[1])) < 0.03  # turned draws are distributed as the draws


def test_even_rotations_are_rotations_by_even_steps_of_a_quarter_turn() -> None:
    drawn = module_rotations(member_keys(range(50)), 2, 8)
    angles = torch.atan2(drawn[:, :, 1, 0], drawn[:, :, 0, 0])
    torch.testing.assert_close(angles.diff(dim=1), torch.full((50, 7), math.pi / 16, dtype=torch.float64))
    firsts = angles[:, 0] * 16 / math.pi
    assert firsts.min() > 0
    assert firsts.max() < 1
    assert firsts.std() > 0.2


def test_rotations_are_those_of_the_member_in_any_company() -> None:
    for modules in (2, 4):
        together = module_rotations(member_keys(range(9)), modules, 7)
        for member in range(9):
            alone = module_rotations(member_keys([member, member]), modules, 7)[0]
            assert torch.equal(alone, together[member])
        assert not torch.equal(together[0], together[1])


def test_labels_in_any_order_and_shared_features_are_followed() -> None:
    network = make_network(make_task(), 6, members=1)
    plain = rotated_modularity(network, torch.ones(1, 4, 2), make_task().partition, drawn := module_rotations(
        member_keys([0]), 2, 5))  # fmt: skip
    wider = planted(
        (
            torch.cat([network.weights[0].flip(2), torch.ones(1, 6, 1)], dim=2),
            torch.cat([torch.ones(1, 1, 6), network.weights[1].flip(1)], dim=1),
        ),
        (network.biases[0] - 5.0, torch.zeros(1, 3)),
        "relu",
    )
    labels = Partition(2, (1, 0, SHARED), (SHARED, 1, 0))
    # The shared input, 5, makes up for the lower biases, so that gates are the same.
    inputs = torch.cat([torch.ones(1, 4, 2), torch.full((1, 4, 1), 5.0)], dim=2)
    torch.testing.assert_close(rotated_modularity(wider, inputs, labels, drawn), plain)


def test_frame_null_is_skipped_with_a_reason_where_axes_cannot_be_rotated() -> None:
    measure = FrameNull(rotations=4)
    one, two = make_task(modules=1), make_task()

    class Unequal(type(two)):
        @property
        def partition(self) -> Partition:
            return Partition(2, (0, 1, 1), (0, 1))

    shape = make_network(two, 4).network
    assert measure.lacking(shape, two) is None
    assert measure.lacking(make_network(one, 4).network, one) == "the task has one module"
    unequal = Unequal(**two.model_dump())
    assert measure.lacking(shape, unequal) == "its modules differ in their numbers of inputs or outputs"


def test_network_of_dead_units_has_no_null() -> None:
    network = make_network(make_task(), 4)
    dead = planted(network.weights, (torch.full((3, 4), -50.0), network.biases[1]), "relu")
    assert FrameNull(rotations=4).take(probe_of(make_task(), dead))[NULL].isnan().all()
