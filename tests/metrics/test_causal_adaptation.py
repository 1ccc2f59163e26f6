"""Causal conditionals against likelihoods of observations, least squares, and the closed form of their divergence."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from modulab.config.settings import Member
from modulab.errors import ConfigError
from modulab.metrics.causal_adaptation import Adaptation, expected_divergence
from modulab.metrics.probe import make_probe
from modulab.networks.base import NetworkPopulation
from modulab.streams import Stream, fold_in, member_keys, normals
from modulab.tasks.causal import CausalTask, conditionals
from modulab.training.data import training_points
from modulab.training.program import initialise, network_of
from tests.members import make_member
from tests.networks.kinds import check_packing

CHOICES = {"task": "causal", "architecture": "conditionals"}


def make(**overrides: Any) -> Member:
    small = {"data__num_samples": 1, "probes__num_samples": 1, "training__batch_size": 1}
    return make_member(CHOICES, **(small | overrides))


def task_of(member: Member) -> CausalTask:
    assert isinstance(member.task, CausalTask)
    return member.task


def fitted(member: Member, seeds: int) -> tuple[Tensor, Tensor]:
    """Return the mask, and the changes that maximise the likelihood of each seed's data set where it is 1."""
    task, size = task_of(member), member.task.modules + 1
    points = training_points(task, member_keys(range(seeds)), 0, 1)[:, 0].double()
    before = points[:, size**2 : size**2 + task.modules * (size + 1)].unflatten(1, (task.modules, size + 1))
    found = [conditionals(own[: size**2].unflatten(0, (size, size))) for own in points]
    coefficients = torch.stack([own for own, _ in found]) - before[:, :, :-1]
    log_variances = torch.stack([own for _, own in found]) - before[:, :, -1]
    changes = torch.cat([coefficients.flatten(1), log_variances], dim=1).float()
    members = [member.model_copy(update={"seed": seed}) for seed in range(seeds)]
    mask, _ = initialise(members, network_of(member))
    return mask, mask * changes


def measured(member: Member, mask: Tensor, parameters: Tensor) -> dict[str, Tensor]:
    network = NetworkPopulation(network_of(member), parameters)
    probe = make_probe(member.task, network, member_keys(range(len(parameters))), member.probes, mask)
    return Adaptation().take(probe)


@pytest.mark.parametrize(("observations", "parents"), [(8, 0), (8, 3), (20, 2)])
def test_expected_divergence_is_the_mean_over_least_squares_fits(observations: int, parents: int) -> None:
    random = np.random.default_rng(0)
    repeats = 40_000
    ones = np.ones((repeats, observations, 1))
    inputs = np.concatenate([ones, random.standard_normal((repeats, observations, parents))], axis=2)
    targets = random.standard_normal((repeats, observations, 1))
    crossed = inputs.transpose(0, 2, 1)
    found = np.linalg.solve(crossed @ inputs, crossed @ targets)
    variance = ((targets - inputs @ found) ** 2).mean(axis=(1, 2))
    divergences = (np.log(variance) + (1 + (found**2).sum(axis=(1, 2))) / variance - 1) / 2
    error = divergences.std() / math.sqrt(repeats)
    assert abs(divergences.mean() - expected_divergence(observations, parents)) < 4 * error


def test_expected_divergence_is_half_a_nat_for_each_parameter_and_observation_when_there_are_many() -> None:
    assert expected_divergence(100_000, 3) == pytest.approx(5 / 200_000, rel=1e-3)
    assert expected_divergence(6, 3) == math.inf


def test_conditionals_in_causal_order_are_the_mechanisms() -> None:
    mechanisms = task_of(make()).mechanisms(after=True)
    coefficients, log_variances = conditionals(mechanisms.moments())
    torch.testing.assert_close(coefficients[:, 0], mechanisms.intercepts)
    torch.testing.assert_close(
        coefficients[:, 1:], torch.cat([mechanisms.weights[:, :3], torch.zeros(4, 1)], 1)
    )
    torch.testing.assert_close(log_variances, 2 * mechanisms.log_deviations)


def test_an_intervention_changes_one_mechanism() -> None:
    task = task_of(make(task__intervened=3))
    before, after = task.mechanisms(after=False), task.mechanisms(after=True)
    for old, new in ((before.weights, after.weights), (before.intercepts, after.intercepts)):
        changed = (old != new).reshape(4, -1).any(dim=1)
        assert changed.tolist() == [False, False, True, False]


def test_outputs_are_the_likelihood_of_the_observations_themselves() -> None:
    member = make(task__observations=11)
    task = task_of(member)
    key = fold_in(member_keys([0]), Stream.DATA)
    after = task.mechanisms(after=True)
    noise = normals(fold_in(key, 0), 11, 4)[0].double()
    observed = torch.zeros(11, 4, dtype=torch.float64)
    for variable in range(4):
        mean = after.intercepts[variable] + observed @ after.weights[variable]
        observed[:, variable] = mean + after.log_deviations[variable].exp() * noise[:, variable]
    before = task.mechanisms(after=False)
    means = before.intercepts + observed @ before.weights.T
    expected = -torch.distributions.Normal(means, before.log_deviations.exp()).log_prob(observed).mean(dim=0)
    points = training_points(task, member_keys([0]), 0, 1)[:, :, : task.in_features]
    network = network_of(member)
    found = network.forward(torch.zeros(1, network.num_parameters), points)
    torch.testing.assert_close(found[0, 0], expected.float(), rtol=1e-4, atol=1e-4)


def test_both_orders_fit_the_same_distribution_where_all_conditionals_are_updated() -> None:
    causal, reverse = (make(task__order=order) for order in ("causal", "reversed"))
    found = [measured(member, *fitted(member, 5)) for member in (causal, reverse)]
    for name in ("divergence", "before"):
        own, other = (each[f"adaptation/{name}"] for each in found)
        torch.testing.assert_close(own, other, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(found[0]["adaptation/expected"], found[1]["adaptation/expected"])


@pytest.mark.parametrize(("order", "updated"), [("causal", 2), ("causal", None), ("reversed", 3)])
def test_fits_diverge_as_much_as_is_expected(order: str, updated: int | None) -> None:
    member = make(task__order=order, task__observations=12, architecture__updated=updated)
    found = measured(member, *fitted(member, 120))
    divergence, expected = found["adaptation/divergence"], found["adaptation/expected"]
    assert abs(float(divergence.mean() - expected[0])) < 4 * float(divergence.std()) / math.sqrt(120)
    if order == "causal" and updated is not None:
        assert float(expected[0]) == pytest.approx(expected_divergence(12, 1), abs=1e-6)


def test_the_fit_is_where_the_gradient_of_the_loss_is_0() -> None:
    member = make()
    task, network = task_of(member), network_of(member)
    mask, parameters = fitted(member, 2)
    points = training_points(task, member_keys([0, 1]), 0, 1)
    leaf = parameters.requires_grad_()
    outputs = network.forward(leaf, points[:, :, : task.in_features])
    [gradient] = torch.autograd.grad(outputs.sum(), leaf)
    assert (gradient * mask).abs().max() < 1e-3


def test_company_leaves_members_as_they_are_alone() -> None:
    check_packing(
        [
            make(
                seed=seed, task__order=order, architecture__updated=updated, training__steps=5,
                training__curve_every=5,
            )
            for seed, order, updated in ((0, "causal", None), (1, "reversed", None), (2, "causal", 2))
        ]
    )  # fmt: skip


def test_variables_that_are_not_there_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"task\.intervened=5 is not one of task\.modules=4"):
        make(task__intervened=5)
    with pytest.raises(ConfigError, match=r"architecture\.updated=5 is not one of task\.modules=4"):
        make(architecture__updated=5)
    with pytest.raises(ConfigError, match=r"models variables, and task\.name=regression has none"):
        make_member({"architecture": "conditionals"})
