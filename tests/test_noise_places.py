"""Noise on inputs and pre-activations: closed forms, equal draws, and kinds that do not offer it."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from modulab.config.settings import Member
from modulab.errors import ConfigError
from modulab.networks.base import Network
from modulab.networks.perceptron import Perceptron, pre_activation
from modulab.streams import fold_in, member_keys, normals
from modulab.training.program import program_of, stack_coefficients
from modulab.training.step import population_losses
from tests.members import make_member
from tests.training.fitting import trained_parameters

QUICK: dict[str, Any] = {
    "training__steps": 20, "training__curve_every": 10, "training__batch_size": 16, "data__num_samples": 64,
    "architecture__width": 6, "architecture__activation": "tanh",
}  # fmt: skip


def losses(member: Member, parameters: torch.Tensor, samples: torch.Tensor, repeat: int) -> torch.Tensor:
    """Return each member's loss in a training step, of members that differ in their keys alone."""
    members = len(parameters)
    program = program_of(member)
    coefficients = dict(zip(program.coefficient_names, stack_coefficients([member] * members), strict=True))
    keys = fold_in(member_keys(range(members)), repeat)
    mask, step = torch.ones_like(parameters), torch.zeros((), dtype=torch.int32)
    return population_losses(parameters, program, samples, mask, coefficients, keys, step)[1]


@pytest.mark.parametrize("law", ["gaussian", "poisson", "multiplicative", "dropout"])
def test_expected_loss_of_a_linear_map_under_input_noise_is_that_of_the_closed_form(law: str) -> None:
    """E[loss] = loss + (sigma^2 / K) sum_i |W_:i|^2 E_x (c0 + c1 |x_i| + c2 x_i^2)."""
    sigma, members, points = 0.4, 40, 500
    changes: dict[str, Any] = {"architecture__depth": 0, "noise__sites": "input"}
    member = make_member({"noise": law}, noise__scale=sigma, **changes)
    task, noise = member.task, member.noise
    generator = torch.Generator().manual_seed(0)
    network = program_of(member).network
    assert isinstance(network, Perceptron)
    parameters = torch.randn(1, network.num_parameters, generator=generator).expand(members, -1)
    samples = torch.randn(1, points, task.in_features + task.num_targets, generator=generator)
    found = torch.stack(
        [losses(member, parameters, samples.expand(members, -1, -1), repeat) for repeat in range(5)]
    ).flatten()
    [weights], _ = network.unflatten(parameters[:1])
    inputs = samples[0, :, : task.in_features]
    variance = noise.constant + noise.linear * inputs.abs() + noise.quadratic * inputs.square()
    added = sigma**2 / task.out_features * (weights[0].square().sum(dim=0) * variance.mean(dim=0)).sum()
    quiet = make_member({"noise": law}, noise__scale=0.0, **changes)
    clean = losses(quiet, parameters[:1], samples, 0)[0]
    error = found.std() / len(found) ** 0.5
    assert abs(found.mean() - clean - added) < 4 * error
    assert added > 20 * error, "the test could not tell the noise from nothing"


def test_noise_on_pre_activations_follows_their_own_size_also_where_units_are_silent() -> None:
    """For z = -m, relu(z + |z| xi) has mean square m^2 (2 Phi(-1) - phi(1)); a silent unit has no activity noise."""
    members, points = 20, 5000
    parts: dict[str, Any] = {"architecture__width": 1, "task__modules": 1, "architecture__activation": "relu"}
    at, at_activity = (
        make_member({"noise": "multiplicative"}, noise__scale=1.0, noise__sites=sites, **parts)
        for sites in ("pre_activation", "all")
    )
    assert program_of(at).network.num_parameters == 4
    parameters = torch.tensor([0.0, -3.0, 1.0, 0.0]).expand(members, -1)
    samples = torch.zeros(members, points, 2)
    assert not losses(at_activity, parameters, samples, 0).any()
    found = losses(at, parameters, samples, 0)
    density = math.exp(-0.5) / math.sqrt(2 * math.pi)
    expected = 9 * (math.erfc(1 / math.sqrt(2)) - density)
    error = float(found.std()) / members**0.5
    assert abs(float(found.mean()) - expected) < 4 * error
    assert error < 0.05 * expected


@pytest.mark.parametrize("law", ["poisson", "dropout"])
@pytest.mark.parametrize("kind", ["dense", "experts"])
def test_noise_on_pre_activations_of_linear_units_is_that_on_their_activity(kind: str, law: str) -> None:
    changes = QUICK | {"architecture__activation": "linear", "noise__scale": 0.3}
    before, after = (
        make_member({"noise": law, "architecture": kind}, noise__sites=sites, **changes)
        for sites in ("pre_activation", "all")
    )
    assert program_of(before).noisy_sites != program_of(after).noisy_sites
    parameters = [trained_parameters([member]) for member in (before, after)]
    assert torch.equal(*parameters)
    quiet = make_member({"noise": law, "architecture": kind}, **(changes | {"noise__scale": 0.0}))
    assert not torch.equal(trained_parameters([quiet]), parameters[0])


def test_places_of_noise_train_in_company_as_they_do_alone() -> None:
    members = [
        make_member(
            {"noise": "poisson"}, seed=seed, noise__scale=0.3, noise__sites=sites, architecture__depth=2, **QUICK
        )
        for seed in range(3)
        for sites in ("all", "input", "pre_activation")
    ]  # fmt: skip
    together = trained_parameters(members)
    assert len(together.unique(dim=0)) == len(members)
    for place, member in enumerate(members):
        assert torch.equal(trained_parameters([member])[0], together[place])


@pytest.mark.parametrize("activation", ["tanh", "softplus"])
def test_jacobians_of_a_pass_with_noisy_pre_activations_are_those_of_autograd(activation: str) -> None:
    shape = Perceptron(3, (5, 4), 2, activation)
    generator = torch.Generator().manual_seed(0)
    parameters = torch.randn(2, shape.num_parameters, generator=generator)
    inputs = torch.randn(2, 6, 3, generator=generator)

    def add(place: str, values: torch.Tensor) -> torch.Tensor:
        if place not in (pre_activation(0), pre_activation(1)):
            return values
        return values + normals(member_keys([1, 2]), values.shape[1], values.shape[2])

    recording = shape.record(parameters, inputs, add)
    found = dict(shape.output_jacobians(parameters, inputs, recording))
    expected = dict(Network.output_jacobians(shape, parameters, inputs, recording))
    assert found.keys() == expected.keys()
    for site, jacobian in found.items():
        torch.testing.assert_close(jacobian.expand_as(expected[site]), expected[site])


@pytest.mark.parametrize(
    "choices",
    [{"architecture": "recurrent", "task": "parity"}, {"architecture": "dense", "depth": "0"}],
    ids=["a kind without them", "no hidden layer"],
)
def test_pre_activations_that_a_network_lacks_are_refused(choices: dict[str, str]) -> None:
    depth = {"architecture__depth": int(choices["depth"])} if "depth" in choices else {}
    picked = {key: value for key, value in choices.items() if key != "depth"} | {"noise": "poisson"}
    with pytest.raises(ConfigError, match=r"noise\.sites=pre_activation has no effect"):
        make_member(picked, noise__sites="pre_activation", **depth)
    member = make_member(picked, noise__sites="input", **depth)
    assert program_of(member).noise is not None
