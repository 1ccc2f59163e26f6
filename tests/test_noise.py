from __future__ import annotations

import pytest
import torch

from modulab.networks import NetworkShape, forward, initial_parameters, population_weights
from modulab.noise import NoiseLaw, add_activity_noise
from modulab.regularisers import Pass, PowerRegulariser
from modulab.streams import fold_in, member_keys

LAWS = {"gaussian": (1.0, 0.0, 0.0), "poisson": (0.0, 1.0, 0.0), "multiplicative": (0.0, 0.0, 1.0)}


def law(scale: float, coefficients: tuple[float, float, float], members: int) -> NoiseLaw:
    return NoiseLaw(*(torch.full((members,), value) for value in (scale, *coefficients)))


@pytest.mark.parametrize("kind", LAWS)
def test_noise_variance_follows_its_law(kind: str) -> None:
    constant, linear, quadratic = LAWS[kind]
    levels = torch.tensor([-2.0, -0.5, 0.0, 0.3, 1.0, 4.0])
    activity = levels[None, :, None].expand(1, 6, 100_000)
    noisy = add_activity_noise(activity, law(0.3, LAWS[kind], 1), member_keys([1]))
    expected = 0.09 * (constant + linear * levels.abs() + quadratic * levels.square())
    found = (noisy - activity)[0].var(dim=1)
    # The variance of a sample variance of n normals is 2 v^2 / n.
    assert ((found - expected).abs() <= 5 * expected * (2 / 100_000) ** 0.5 + 1e-12).all()
    assert ((noisy - activity)[0].mean(dim=1).abs() <= 5 * (expected / 100_000).sqrt() + 1e-12).all()


def test_silent_units_are_noiseless_and_receive_a_finite_gradient() -> None:
    activity = torch.zeros(1, 4, 8, requires_grad=True)
    noisy = add_activity_noise(activity, law(5.0, LAWS["poisson"], 1), member_keys([3]))
    assert torch.equal(noisy, torch.zeros_like(noisy))
    noisy.sum().backward()
    assert torch.equal(activity.grad, torch.ones_like(activity))


def test_noise_gradient_is_that_of_its_formula() -> None:
    activity = torch.linspace(0.2, 3, 32).view(1, 4, 8).double().requires_grad_()
    keys = member_keys([3])
    noise = NoiseLaw(*(torch.tensor([value]).double() for value in (0.4, 0.1, 1.0, 0.5)))
    draws = (add_activity_noise(activity, noise, keys) - activity).detach() / (
        0.4 * (0.1 + activity + 0.5 * activity.square()).sqrt()
    )
    add_activity_noise(activity, noise, keys).sum().backward()
    variance = 0.1 + activity + 0.5 * activity.square()
    expected = 1 + 0.4 * draws * (1 + activity) / (2 * variance.sqrt())
    torch.testing.assert_close(activity.grad, expected.detach(), rtol=1e-5, atol=1e-6)


def test_each_member_has_its_own_scale_and_law() -> None:
    activity = torch.rand(3, 5, 7) + 0.5
    keys = member_keys([1, 2, 3])
    mixed = NoiseLaw(
        torch.tensor([0.0, 0.5, 0.5]), torch.tensor([1.0, 1.0, 0.0]),
        torch.tensor([0.0, 0.0, 1.0]), torch.tensor([0.0, 0.0, 0.0]),
    )  # fmt: skip
    together = add_activity_noise(activity, mixed, keys)
    assert torch.equal(together[0], activity[0])
    for member, coefficients in ((1, LAWS["gaussian"]), (2, LAWS["poisson"])):
        rows = slice(member, member + 1)
        alone = add_activity_noise(activity[rows], law(0.5, coefficients, 1), keys[rows])
        assert torch.equal(alone[0], together[member])


@pytest.mark.parametrize("kind", LAWS)
def test_expected_loss_under_noise_is_loss_plus_matched_regulariser(kind: str) -> None:
    """science.md, section 5: E[loss] = loss + (sigma^2 / K) (c0 R_20 + c1 R_21 + c2 R_22), R over the readout."""
    members, outputs, sigma, repeats = 2, 3, 0.3, 4000
    shape = NetworkShape(2, (16,), outputs, "tanh")
    keys = member_keys(range(members))
    mask = torch.ones(members, shape.num_parameters)
    network = population_weights(initial_parameters(shape, mask, torch.full((members,), 2.0), keys), shape)
    inputs = torch.rand(members, 32, 2) * 2 - 1
    targets = torch.rand(members, 32, outputs)
    clean = forward(network, inputs)
    loss = (clean.outputs - targets).square().mean(dim=(1, 2))
    coefficients = {
        "weight_power": torch.full((members,), 2.0),
        "activity_power": torch.full(
            (members,), {"gaussian": 0.0, "poisson": 1.0, "multiplicative": 2.0}[kind]
        ),
        "first_layer": torch.zeros(members),
    }
    masks = population_weights(mask, shape)
    penalty = PowerRegulariser.penalty(Pass(network, masks, inputs, clean), coefficients, "whole")
    noise = law(sigma, LAWS[kind], members)

    def noisy_losses(step: int) -> torch.Tensor:
        step_keys = fold_in(keys, step)
        outputs = forward(network, inputs, lambda _, a: add_activity_noise(a, noise, step_keys)).outputs
        return (outputs - targets).square().mean(dim=(1, 2))

    noisy = torch.stack([noisy_losses(step) for step in range(repeats)])
    error = noisy.std(dim=0) / repeats**0.5
    difference = noisy.mean(dim=0) - loss
    expected = sigma**2 / outputs * penalty
    assert ((difference - expected).abs() < 4 * error).all()
    assert (expected > 20 * error).all(), "the test could not tell the penalty from nothing"
