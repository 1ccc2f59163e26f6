from __future__ import annotations

import pytest
import torch
from torch import nn

from modulab.networks.base import Network
from modulab.networks.perceptron import (
    ACTIVATIONS,
    Perceptron,
    architecture_mask,
    contract,
    flatten,
    initial_parameters,
)
from modulab.partition import Partition, even_shares
from modulab.streams import member_keys
from tests.perceptrons import Perceptrons

MODULES: dict[str, nn.Module] = {
    "relu": nn.ReLU(), "tanh": nn.Tanh(), "sigmoid": nn.Sigmoid(), "softplus": nn.Softplus(),
    "silu": nn.SiLU(), "linear": nn.Identity(),
}  # fmt: skip


def population(shape: Perceptron, members: int, scale: float = 1.0) -> torch.Tensor:
    mask = torch.ones(members, shape.num_parameters)
    return initial_parameters(shape, mask, torch.full((members,), scale), member_keys(range(members)))


def test_a_pass_taken_up_at_any_stage_ends_as_the_whole_one() -> None:
    shape = Perceptron(3, (7, 5), 2, "tanh")
    parameters = population(shape, 2)
    inputs = torch.linspace(-1, 1, 24).view(2, 4, 3)

    def double(place: str, values: torch.Tensor) -> torch.Tensor:
        return values * 2 if place in ("hidden.0", "hidden.1") else values

    whole = shape.record(parameters, inputs, double)
    assert list(whole.values) == [
        "hidden.0.pre_activation", "hidden.0", "hidden.1.pre_activation", "hidden.1"
    ]  # fmt: skip
    for stage in range(shape.num_stages):
        sums = shape.recorded_sums(whole, stage, inputs)
        assert torch.equal(shape.run_from(parameters, stage, sums, double), whole.outputs)
    reads = [inputs.transpose(1, 2), 2 * whole.values["hidden.0"], 2 * whole.values["hidden.1"]]
    for stage, read in enumerate(reads):
        sums = shape.stage_sums(parameters, stage, read)
        torch.testing.assert_close(sums, shape.recorded_sums(whole, stage, inputs))
        zeros = torch.zeros_like(read)
        linear = shape.stage_sums(parameters, stage, read, biased=False)
        torch.testing.assert_close(linear + shape.stage_sums(parameters, stage, zeros), sums)


def test_a_network_that_cannot_be_cut_is_one_stage_that_reads_the_inputs() -> None:
    shape = Perceptron(3, (7,), 2, "tanh")
    parameters = population(shape, 2)
    inputs = torch.linspace(-1, 1, 24).view(2, 4, 3)
    sums = Network.stage_sums(shape, parameters, 0, inputs.transpose(1, 2))
    assert torch.equal(Network.recorded_sums(shape, shape.record(parameters, inputs), 0, inputs), sums)
    assert torch.equal(Network.run_from(shape, parameters, 0, sums), shape.forward(parameters, inputs))


def test_edges_are_the_weight_matrices_from_inputs_to_outputs() -> None:
    shape = Perceptron(3, (7, 5), 2, "tanh")
    parameters = population(shape, 2)
    edges = shape.edges(parameters)
    assert [(each.source, each.target) for each in edges] == [
        ("input", "hidden.0"), ("hidden.0", "hidden.1"), ("hidden.1", "output")
    ]  # fmt: skip
    assert shape.is_layered
    parts = shape.split(parameters)
    assert all(torch.equal(each.weights, parts[f"weight.{layer}"]) for layer, each in enumerate(edges))
    assert sum(part.size for part in shape.layout) == shape.num_parameters == parameters.shape[1]


def test_input_jacobian_by_backpropagation_is_the_product_of_weights_and_gates() -> None:
    shape = Perceptron(3, (7,), 2, "tanh")
    parameters = population(shape, 2)
    inputs = torch.linspace(-1, 1, 24).view(2, 4, 3)
    gates = shape.gates(shape.record(parameters, inputs))["hidden.0"]
    first, second = (edges.weights for edges in shape.edges(parameters))
    expected = torch.einsum("moh,mhb,mhi->mboi", second, gates, first)
    torch.testing.assert_close(shape.input_jacobian(parameters, inputs), expected)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("hidden", [(), (7,), (5, 6, 4)])
def test_forward_is_that_of_torch_layers_for_every_member(activation: str, hidden: tuple[int, ...]) -> None:
    shape = Perceptron(3, hidden, 2, activation)
    parameters = population(shape, 4) + 0.1
    inputs = torch.randn(4, 9, 3, generator=torch.Generator().manual_seed(0))
    outputs = shape.forward(parameters, inputs)
    weights, biases = shape.unflatten(parameters)
    for member in range(4):
        layers: list[nn.Module] = []
        for weight, bias in zip(weights, biases, strict=True):
            linear = nn.Linear(weight.shape[2], weight.shape[1])
            with torch.no_grad():
                linear.weight.copy_(weight[member])
                linear.bias.copy_(bias[member])
            layers += [linear, MODULES[activation]]
        torch.testing.assert_close(outputs[member], nn.Sequential(*layers[:-1])(inputs[member]))


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activation_derivatives_are_those_of_autograd(activation: str) -> None:
    values = torch.linspace(-4, 4, 50).double().requires_grad_()
    functions = ACTIVATIONS[activation]
    functions.function(values).sum().backward()
    torch.testing.assert_close(functions.derivative(values).detach(), values.grad)


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (48, 2), (2, 48), (5, 4), (4, 5), (20, 64)])
def test_contraction_is_a_matrix_product_whatever_its_sides(rows: int, columns: int) -> None:
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(3, rows, columns, generator=generator).double()
    activity = torch.randn(3, columns, 8, generator=generator).double()
    torch.testing.assert_close(contract(weights, activity), weights @ activity)


def test_flat_parameters_round_trip() -> None:
    shape = Perceptron(4, (6, 3), 2, "relu")
    parameters = population(shape, 5)
    weights, biases = shape.unflatten(parameters)
    assert torch.equal(flatten(weights, biases), parameters)
    assert parameters.shape[1] == shape.num_parameters == 4 * 6 + 6 + 6 * 3 + 3 + 3 * 2 + 2


def test_initial_weights_are_normal_with_variance_over_masked_fan_in_and_biases_zero() -> None:
    shape = Perceptron(4, (400,), 2, "relu")
    members = 60
    keys = member_keys(range(members))
    shares = [1.0] * (members // 2) + [0.0] * (members // 2)
    mask = architecture_mask(shape, Partition.of_equal_shares(2, 2, 1), shares, keys)
    parameters = initial_parameters(shape, mask, torch.full((members,), 0.7), keys)
    weights, biases = shape.unflatten(parameters)
    for bias in biases:
        assert not bias.any()
    dense, premodular = weights[0][: members // 2], weights[0][members // 2 :]
    assert float(dense.var()) == pytest.approx(0.49 / 4, rel=0.02)
    assert float(premodular[premodular != 0].var()) == pytest.approx(0.49 / 2, rel=0.03)
    readout = weights[1][: members // 2]
    assert float(readout.var()) == pytest.approx(0.49 / 400, rel=0.03)
    assert float((dense**4).mean() / dense.var() ** 2) == pytest.approx(3, rel=0.05)


def test_premodular_mask_keeps_exactly_the_connections_within_modules() -> None:
    shape = Perceptron(6, (7, 5), 3, "relu")
    mask = architecture_mask(shape, Partition.of_equal_shares(3, 2, 1), [0.0, 1.0], member_keys([0, 1]))
    weights, biases = shape.unflatten(mask)
    for weight in weights:
        rows, columns = (torch.tensor(even_shares(size, 3)) for size in weight.shape[1:])
        assert torch.equal(weight[0].bool(), rows[:, None] == columns[None, :])
        assert weight[1].all()
    assert all(bias.all() for bias in biases)


def test_hidden_units_are_shared_out_evenly_and_in_order() -> None:
    owners = torch.tensor(even_shares(11, 4))
    assert owners.tolist() == sorted(owners.tolist())
    counts = torch.bincount(owners, minlength=4)
    assert int(counts.max() - counts.min()) <= 1


def test_partial_masks_keep_their_share_and_nest() -> None:
    shape = Perceptron(20, (50,), 20, "relu")
    shares = [0.0, 0.1, 0.3, 1.0]
    mask = architecture_mask(shape, Partition.of_equal_shares(2, 10, 10), shares, member_keys([9] * 4))
    kept = shape.unflatten(mask - mask[:1])[0][0].sum(dim=(1, 2)) / 500
    assert kept.tolist() == pytest.approx(shares, abs=0.06)
    assert all((mask[low] <= mask[low + 1]).all() for low in range(3))


def test_a_network_in_blocks_keeps_other_modules_out() -> None:
    shape = Perceptron(4, (8, 8), 2, "tanh")
    keys = member_keys([0])
    mask = architecture_mask(shape, Partition.of_equal_shares(2, 2, 1), [0.0], keys)
    network = Perceptrons(shape, initial_parameters(shape, mask, torch.ones(1), keys))
    inputs = torch.randn(1, 6, 4, generator=torch.Generator().manual_seed(0))
    moved = inputs.clone()
    moved[:, :, 2:] += 1
    before, after = network.forward(inputs), network.forward(moved)
    assert torch.equal(before[..., 0], after[..., 0])
    assert not torch.equal(before[..., 1], after[..., 1])
