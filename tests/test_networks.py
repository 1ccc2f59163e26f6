from __future__ import annotations

import pytest
import torch
from torch import nn

from modulab.networks import (
    ACTIVATIONS,
    NetworkShape,
    architecture_mask,
    contract,
    flatten,
    forward,
    forward_from,
    initial_parameters,
    module_of_feature,
    population_weights,
    unflatten,
)
from modulab.streams import member_keys

MODULES: dict[str, nn.Module] = {
    "relu": nn.ReLU(), "tanh": nn.Tanh(), "sigmoid": nn.Sigmoid(), "softplus": nn.Softplus(), "linear": nn.Identity(),
}  # fmt: skip


def population(shape: NetworkShape, members: int, scale: float = 1.0) -> torch.Tensor:
    mask = torch.ones(members, shape.num_parameters)
    return initial_parameters(shape, mask, torch.full((members,), scale), member_keys(range(members)))


def test_a_pass_taken_up_at_any_layer_ends_as_the_whole_one() -> None:
    shape = NetworkShape(3, (7, 5), 2, "tanh")
    keys = member_keys([1, 2])
    mask = torch.ones(2, shape.num_parameters)
    network = population_weights(initial_parameters(shape, mask, torch.ones(2), keys), shape)

    def double(layer: int, activity: torch.Tensor) -> torch.Tensor:
        return activity * (2 + layer)

    whole = forward(network, torch.linspace(-1, 1, 24).view(2, 4, 3), double)
    for layer, values in enumerate((*whole.pre_activations, whole.outputs.transpose(1, 2))):
        rest = forward_from(network, layer, values, double)
        assert torch.equal(rest.outputs, whole.outputs)
        assert len(rest.activities) == len(whole.activities) - layer


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("hidden", [(), (7,), (5, 6, 4)])
def test_forward_is_that_of_torch_layers_for_every_member(activation: str, hidden: tuple[int, ...]) -> None:
    shape = NetworkShape(3, hidden, 2, activation)
    parameters = population(shape, 4) + 0.1
    inputs = torch.randn(4, 9, 3, generator=torch.Generator().manual_seed(0))
    outputs = forward(population_weights(parameters, shape), inputs).outputs
    weights, biases = unflatten(parameters, shape)
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
    shape = NetworkShape(4, (6, 3), 2, "relu")
    parameters = population(shape, 5)
    weights, biases = unflatten(parameters, shape)
    assert torch.equal(flatten(weights, biases), parameters)
    assert parameters.shape[1] == shape.num_parameters == 4 * 6 + 6 + 6 * 3 + 3 + 3 * 2 + 2


def test_initial_weights_are_normal_with_variance_over_masked_fan_in_and_biases_zero() -> None:
    shape = NetworkShape(4, (400,), 2, "relu")
    members = 60
    keys = member_keys(range(members))
    shares = [1.0] * (members // 2) + [0.0] * (members // 2)
    mask = architecture_mask(shape, 2, shares, keys)
    parameters = initial_parameters(shape, mask, torch.full((members,), 0.7), keys)
    weights, biases = unflatten(parameters, shape)
    for bias in biases:
        assert not bias.any()
    dense, premodular = weights[0][: members // 2], weights[0][members // 2 :]
    assert float(dense.var()) == pytest.approx(0.49 / 4, rel=0.02)
    assert float(premodular[premodular != 0].var()) == pytest.approx(0.49 / 2, rel=0.03)
    readout = weights[1][: members // 2]
    assert float(readout.var()) == pytest.approx(0.49 / 400, rel=0.03)
    assert float((dense**4).mean() / dense.var() ** 2) == pytest.approx(3, rel=0.05)


def test_premodular_mask_keeps_exactly_the_connections_within_modules() -> None:
    shape = NetworkShape(6, (7, 5), 3, "relu")
    mask = architecture_mask(shape, 3, [0.0, 1.0], member_keys([0, 1]))
    weights, biases = unflatten(mask, shape)
    for weight in weights:
        rows, columns = (module_of_feature(size, 3) for size in weight.shape[1:])
        assert torch.equal(weight[0].bool(), rows[:, None] == columns[None, :])
        assert weight[1].all()
    assert all(bias.all() for bias in biases)


def test_hidden_units_are_shared_out_evenly_and_in_order() -> None:
    owners = module_of_feature(11, 4)
    assert owners.tolist() == sorted(owners.tolist())
    counts = torch.bincount(owners, minlength=4)
    assert int(counts.max() - counts.min()) <= 1


def test_partial_masks_keep_their_share_and_nest() -> None:
    shape = NetworkShape(20, (50,), 20, "relu")
    shares = [0.0, 0.1, 0.3, 1.0]
    mask = architecture_mask(shape, 2, shares, member_keys([9] * 4))
    kept = unflatten(mask - mask[:1], shape)[0][0].sum(dim=(1, 2)) / 500
    assert kept.tolist() == pytest.approx(shares, abs=0.06)
    assert all((mask[low] <= mask[low + 1]).all() for low in range(3))


def test_a_network_in_blocks_keeps_other_modules_out() -> None:
    shape = NetworkShape(4, (8, 8), 2, "tanh")
    keys = member_keys([0])
    mask = architecture_mask(shape, 2, [0.0], keys)
    network = population_weights(initial_parameters(shape, mask, torch.ones(1), keys), shape)
    inputs = torch.randn(1, 6, 4, generator=torch.Generator().manual_seed(0))
    moved = inputs.clone()
    moved[:, :, 2:] += 1
    before, after = forward(network, inputs).outputs, forward(network, moved).outputs
    assert torch.equal(before[..., 0], after[..., 0])
    assert not torch.equal(before[..., 1], after[..., 1])
