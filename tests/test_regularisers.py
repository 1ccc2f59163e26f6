from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modulab.networks.base import Network, Recording
from modulab.networks.perceptron import ACTIVATIONS, Perceptron, initial_parameters
from modulab.noise import NoiseLaw, add_activity_noise
from modulab.regularisers import JacobianRegulariser, Pass, PowerRegulariser, mean_activity_power
from modulab.streams import fold_in, member_keys
from tests.members import make_member
from tests.perceptrons import Perceptrons, passed, planted, trace

MEMBERS = 3


def example(depth: int, activation: str = "relu", outputs: int = 2):
    shape = Perceptron(3, (6,) * depth, outputs, activation)
    keys = member_keys(range(MEMBERS))
    mask = (
        torch.rand(MEMBERS, shape.num_parameters, generator=torch.Generator().manual_seed(0)) < 0.8
    ).float()
    parameters = initial_parameters(shape, mask, torch.full((MEMBERS,), 1.5), keys)
    network = Perceptrons(shape, parameters)
    inputs = torch.rand(MEMBERS, 11, 3, generator=torch.Generator().manual_seed(1)) * 2 - 1
    return shape, network, Perceptrons(shape, mask), inputs


def values(**columns: object) -> dict[str, torch.Tensor]:
    return {
        name: torch.as_tensor(value).float().expand(MEMBERS).contiguous() for name, value in columns.items()
    }


@pytest.mark.parametrize("depth", [0, 1, 3])
@pytest.mark.parametrize("first_layer", [0.0, 1.0])
@pytest.mark.parametrize(
    ("weight_power", "activity_power", "variant"),
    [(2, 1, "whole"), (1, 1, "whole"), (2, 2, "whole"), (1, 0, "whole"), (2, 0, "whole"), (0, 1, "whole"),
     (0, 2, "whole"), (1.5, 2.5, "real"), (3, 1, "real")],
)  # fmt: skip
def test_penalty_is_the_double_sum_of_its_definition(
    depth: int, first_layer: float, weight_power: float, activity_power: float, variant: str
) -> None:
    _, network, mask, inputs = example(depth)
    reads_of = trace(network, inputs).activities
    coefficients = values(weight_power=weight_power, activity_power=activity_power, first_layer=first_layer)
    found = PowerRegulariser.penalty(passed(network, mask.parameters, inputs), coefficients, variant)
    for member in range(MEMBERS):
        total = 0.0
        reads = [inputs[member].T, *(activity[member] for activity in reads_of)]
        for layer, weight in enumerate(network.weights):
            if layer == 0 and first_layer == 0:
                continue
            for i in range(weight.shape[1]):
                for j in range(weight.shape[2]):
                    if mask.weights[layer][member, i, j] == 0:
                        continue
                    strength = abs(float(weight[member, i, j])) ** weight_power
                    total += strength * float((reads[layer][j].abs() ** activity_power).mean())
        assert float(found[member]) == pytest.approx(total, rel=1e-5, abs=1e-7)


def test_variants_agree_on_whole_powers() -> None:
    activity = torch.relu(torch.randn(4, 5, 100, generator=torch.Generator().manual_seed(0)))
    exponents = torch.tensor([0.0, 1.0, 2.0, 1.0])
    whole = mean_activity_power(activity, exponents, "whole")
    torch.testing.assert_close(whole, mean_activity_power(activity, exponents, "real"))


def test_penalty_gradient_is_finite_where_weights_and_activity_are_zero() -> None:
    for power, variant in ((1.0, "whole"), (1.5, "real")):
        weight = torch.zeros(1, 2, 3, requires_grad=True)
        activity = torch.zeros(1, 3, 4, requires_grad=True)
        first = torch.ones(1, 3, 2)
        network = planted((first, weight), (torch.zeros(1, 3), torch.zeros(1, 2)), "relu")
        recording = Recording(torch.zeros(1, 4, 2), {"hidden.0": activity})
        ones = torch.ones_like(network.parameters)
        coefficients = {
            "weight_power": torch.tensor([power]), "activity_power": torch.tensor([power]),
            "first_layer": torch.zeros(1),
        }  # fmt: skip
        PowerRegulariser.penalty(
            Pass(network.network, network.parameters, ones, torch.zeros(1, 4, 2), recording),
            coefficients,
            variant,
        ).sum().backward()
        assert torch.isfinite(weight.grad).all()
        assert torch.isfinite(activity.grad).all()


def test_jacobian_of_one_hidden_layer_is_a_sum_of_three_powers() -> None:
    _, network, mask, inputs = example(1, "tanh")
    found = JacobianRegulariser.penalty(
        passed(network, mask.parameters, inputs),
        values(strength=1.0, constant=0.5, linear=1.5, quadratic=0.25),
        "",
    )
    expected = sum(
        factor
        * PowerRegulariser.penalty(
            passed(network, mask.parameters, inputs),
            values(weight_power=2, activity_power=power, first_layer=0),
            "whole",
        )
        for power, factor in ((0, 0.5), (1, 1.5), (2, 0.25))
    )
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("depth", [1, 3])
def test_jacobian_by_backpropagation_equals_that_by_the_chain_rule(depth: int) -> None:
    _, network, mask, inputs = example(depth, "tanh")
    run = passed(network, mask.parameters, inputs)
    given = (network.parameters, inputs, run.recording)
    for (site, found), (same_site, expected) in zip(
        Network.output_jacobians(network.network, *given),
        network.network.output_jacobians(*given),
        strict=True,
    ):
        assert site == same_site
        torch.testing.assert_close(found, expected.expand_as(found))


def test_jacobian_of_three_layers_is_output_variance_under_small_noise() -> None:
    _, network, mask, inputs = example(3, "tanh")
    sigma, copies, calls = 1e-2, 50, 40
    law = NoiseLaw(*(torch.full((MEMBERS,), value) for value in (sigma, 0.3, 1.0, 0.2)))
    keys = member_keys(range(MEMBERS))
    numbers = {site.name: number for number, site in enumerate(network.network.sites)}

    def noisy(step: int) -> torch.Tensor:
        def add(place: str, a: torch.Tensor) -> torch.Tensor:
            if place not in numbers:
                return a
            return add_activity_noise(a, law, fold_in(fold_in(keys, step), numbers[place]))

        return network.forward(inputs.repeat(1, copies, 1), add).unflatten(1, (copies, -1))

    outputs = torch.cat([noisy(step) for step in range(calls)], dim=1)
    variance = outputs.var(dim=1).sum(dim=2).mean(dim=1)
    penalty = JacobianRegulariser.penalty(
        passed(network, mask.parameters, inputs),
        values(strength=1.0, constant=0.3, linear=1.0, quadratic=0.2),
        "",
    )
    torch.testing.assert_close(sigma**2 * penalty, variance, rtol=0.05, atol=0)


def test_penalties_of_equal_powers_alone_survive_rescaling_of_relu_units() -> None:
    shape, network, mask, inputs = example(1)
    scaled = planted(
        (network.weights[0] * 10, network.weights[1] / 10),
        (network.biases[0] * 10, network.biases[1]),
        "relu",
    )
    assert shape.activation == "relu"
    torch.testing.assert_close(trace(scaled, inputs).outputs, trace(network, inputs).outputs)
    for powers, factor in (((1, 1), 1.0), ((2, 1), 0.1), ((2, 2), 1.0)):
        coefficients = values(weight_power=powers[0], activity_power=powers[1], first_layer=0)
        penalties = [
            PowerRegulariser.penalty(passed(each, mask.parameters, inputs), coefficients, "whole")
            for each in (network, scaled)
        ]
        torch.testing.assert_close(penalties[1], factor * penalties[0])


def test_sites_default_to_hidden_with_activity_and_to_all_without() -> None:
    assert make_member({"regulariser": "activity_weight"}).regulariser.coefficients()["first_layer"] == 0
    assert make_member({"regulariser": "l1"}).regulariser.coefficients()["first_layer"] == 1
    explicit = make_member({"regulariser": "l1"}, regulariser__sites="hidden")
    assert explicit.regulariser.coefficients()["first_layer"] == 0


@settings(max_examples=30)
@given(
    copies=st.integers(1, 6),
    units=st.integers(1, 7),
    activation=st.sampled_from(["relu", "tanh", "softplus", "linear"]),
    law=st.sampled_from([(1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0), (0.3, 0.2, 0.5)]),
    seed=st.integers(0, 1000),
)
def test_copying_units_leaves_the_function_and_divides_the_variance_of_noise(
    copies: int, units: int, activation: str, law: tuple[float, float, float], seed: int
) -> None:
    """n copies of every unit, each with 1/n of its readout: V = sum_j |W_:j|^2 E v(a_j) falls to V / n exactly."""
    generator = torch.Generator().manual_seed(seed)
    read, bias, write = (
        torch.randn(1, *shape, generator=generator, dtype=torch.float64)
        for shape in ((units, 3), (units,), (2, units))
    )
    end = torch.randn(1, 2, generator=generator, dtype=torch.float64)
    inputs = torch.randn(1, 20, 3, generator=generator, dtype=torch.float64)
    one = planted([read, write], [bias, end], activation)
    many = planted(
        [read.repeat(1, copies, 1), write.repeat(1, 1, copies) / copies],
        [bias.repeat(1, copies), end], activation,
    )  # fmt: skip
    torch.testing.assert_close(many.forward(inputs), one.forward(inputs))
    constant, linear, quadratic = (torch.tensor([value], dtype=torch.float64) for value in law)
    coefficients = {
        "strength": torch.ones_like(constant), "constant": constant, "linear": linear, "quadratic": quadratic,
    }  # fmt: skip
    variances = [
        JacobianRegulariser.penalty(
            passed(network, torch.ones_like(network.parameters), inputs), coefficients, ""
        )
        for network in (one, many)
    ]
    activity = ACTIVATIONS[activation].function(inputs[0] @ read[0].T + bias[0])
    law_at = constant + linear * activity.abs() + quadratic * activity.square()
    torch.testing.assert_close(variances[0][0], (write[0].square().sum(dim=0) * law_at.mean(dim=0)).sum())
    torch.testing.assert_close(variances[1], variances[0] / copies)
