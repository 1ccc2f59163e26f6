from __future__ import annotations

import pytest
import torch

from modulab.networks.perceptron import Perceptron, initial_parameters
from modulab.noise import Distribution, NoiseLaw, add_activity_noise
from modulab.regularisers import PowerRegulariser
from modulab.streams import fold_in, member_keys
from tests.perceptrons import Perceptrons, passed, trace

LAWS = {"gaussian": (1.0, 0.0, 0.0), "poisson": (0.0, 1.0, 0.0), "multiplicative": (0.0, 0.0, 1.0)}


def law(scale: float, coefficients: tuple[float, float, float], members: int) -> NoiseLaw:
    return NoiseLaw(*(torch.full((members,), value) for value in (scale, *coefficients)))


DISTRIBUTIONS: tuple[Distribution, ...] = ("normal", "bernoulli")


@pytest.mark.parametrize("kind", LAWS)
@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_noise_variance_follows_its_law(kind: str, distribution: Distribution) -> None:
    constant, linear, quadratic = LAWS[kind]
    levels = torch.tensor([-2.0, -0.5, 0.0, 0.3, 1.0, 4.0])
    activity = levels[None, :, None].expand(1, 6, 100_000)
    noisy = add_activity_noise(activity, law(0.3, LAWS[kind], 1), member_keys([1]), distribution)
    expected = 0.09 * (constant + linear * levels.abs() + quadratic * levels.square())
    found = (noisy - activity)[0].var(dim=1)
    # The variance of a sample variance of n draws is (kurtosis - 1) v^2 / n. A Bernoulli draw's kurtosis is
    # (1 - 3 q (1 - q)) / (q (1 - q)), with q (1 - q) = sigma^2 / (1 + sigma^2)^2.
    spread = 0.09 / 1.09**2
    kurtosis = 3.0 if distribution == "normal" else (1 - 3 * spread) / spread
    assert ((found - expected).abs() <= 5 * expected * ((kurtosis - 1) / 100_000) ** 0.5 + 1e-12).all()
    assert ((noisy - activity)[0].mean(dim=1).abs() <= 5 * (expected / 100_000).sqrt() + 1e-12).all()


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_silent_units_are_noiseless_and_receive_a_finite_gradient(distribution: Distribution) -> None:
    activity = torch.zeros(1, 4, 8, requires_grad=True)
    noisy = add_activity_noise(activity, law(5.0, LAWS["poisson"], 1), member_keys([3]), distribution)
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
    activity = torch.rand(3, 5, 7, generator=torch.Generator().manual_seed(0)) + 0.5
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


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_dropout_is_torchs_of_the_same_share(share: float) -> None:
    kept_share = 1 - share
    sigma = (share / kept_share) ** 0.5
    torch.manual_seed(0)  # torch's own dropout draws from the global stream
    activity = torch.randn(1, 100, 5000)
    ours = add_activity_noise(activity, law(sigma, LAWS["multiplicative"], 1), member_keys([7]), "bernoulli")
    silenced = ours.abs() <= 2**-22 * activity.abs()  # torch's float root can be out by a last bit
    torch.testing.assert_close(ours[~silenced], activity[~silenced] / kept_share)
    torchs = torch.nn.functional.dropout(activity, share)
    torch.testing.assert_close(torchs[torchs != 0], activity[torchs != 0] / kept_share)
    for found in (silenced, torchs == 0):
        error = (share * kept_share / found.numel()) ** 0.5
        assert abs(found.double().mean().item() - share) < 4 * error
        # Pairs of units, and of points: silenced together no more often than independence has it.
        for columns in (found[:, 1:] & found[:, :-1], found[:, :, 1:] & found[:, :, :-1]):
            assert abs(columns.double().mean().item() - share**2) < 8 * error


def test_dropout_passes_a_gradient_through_the_units_it_keeps_and_none_through_others() -> None:
    activity = torch.randn(
        1, 20, 50, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    ).requires_grad_()
    noise = NoiseLaw(*(value.double() for value in (law(0.5, LAWS["multiplicative"], 1).__dict__.values())))
    noisy = add_activity_noise(activity, noise, member_keys([7]), "bernoulli")
    noisy.sum().backward()
    torch.testing.assert_close(activity.grad, torch.where(noisy == 0, 0.0, 1.25).double())


@pytest.mark.parametrize("kind", LAWS)
def test_bernoulli_noise_of_scale_0_changes_nothing_and_of_any_scale_stays_finite(kind: str) -> None:
    activity = torch.randn(4, 30, 40, generator=torch.Generator().manual_seed(0))
    scales = torch.tensor([0.0, 1e-6, 30.0, 1e4])
    noise = NoiseLaw(scales, *(torch.full((4,), value) for value in LAWS[kind]))
    noisy = add_activity_noise(activity, noise, member_keys(range(4)), "bernoulli")
    assert torch.equal(noisy[0], activity[0])
    torch.testing.assert_close(noisy[1], activity[1])
    assert noisy.isfinite().all()
    if kind == "multiplicative":
        assert (noisy[3] == 0).all()


@pytest.mark.parametrize("kind", [*LAWS, "dropout"])
def test_expected_loss_under_noise_is_loss_plus_matched_regulariser(kind: str) -> None:
    """E[loss] = loss + (sigma^2 / K) (c0 R_20 + c1 R_21 + c2 R_22), R over the readout, whatever xi is drawn from."""
    distribution: Distribution = "bernoulli" if kind == "dropout" else "normal"
    kind = "multiplicative" if kind == "dropout" else kind
    members, outputs, sigma, copies, calls = 2, 3, 0.3, 100, 40
    shape = Perceptron(2, (16,), outputs, "tanh")
    keys = member_keys(range(members))
    mask = torch.ones(members, shape.num_parameters)
    network = Perceptrons(shape, initial_parameters(shape, mask, torch.full((members,), 2.0), keys))
    generator = torch.Generator().manual_seed(0)
    inputs = torch.rand(members, 32, 2, generator=generator) * 2 - 1
    targets = torch.rand(members, 32, outputs, generator=generator)
    clean = trace(network, inputs)
    loss = (clean.outputs - targets).square().mean(dim=(1, 2))
    coefficients = {
        "weight_power": torch.full((members,), 2.0),
        "activity_power": torch.full(
            (members,), {"gaussian": 0.0, "poisson": 1.0, "multiplicative": 2.0}[kind]
        ),
        "first_layer": torch.zeros(members),
    }
    penalty = PowerRegulariser.penalty(passed(network, mask, inputs), coefficients, "whole")
    noise = law(sigma, LAWS[kind], members)

    def noisy_losses(step: int) -> torch.Tensor:
        step_keys = fold_in(keys, step)

        def add(place: str, a: torch.Tensor) -> torch.Tensor:
            return add_activity_noise(a, noise, step_keys, distribution) if place == "hidden.0" else a

        outputs = network.forward(inputs.repeat(1, copies, 1), add).unflatten(1, (copies, -1))
        return (outputs - targets[:, None]).square().mean(dim=(2, 3)).T

    noisy = torch.cat([noisy_losses(step) for step in range(calls)])
    error = noisy.std(dim=0) / len(noisy) ** 0.5
    difference = noisy.mean(dim=0) - loss
    expected = sigma**2 / outputs * penalty
    assert ((difference - expected).abs() < 4 * error).all()
    assert (expected > 20 * error).all(), "the test could not tell the penalty from nothing"
