"""What a training step adds to the plain loss."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from modulab.networks.base import NetworkPopulation
from modulab.streams import member_keys
from modulab.training.data import training_points
from modulab.training.learner import PopulationLearner
from modulab.training.program import program_of, stack_coefficients
from modulab.training.step import population_losses
from tests.members import make_member
from tests.perceptrons import perceptrons, trace
from tests.training.fitting import CPU

FIRST = torch.zeros((), dtype=torch.int32)
DRAWS = 4000


def losses_under_noise(sites: str, depth: int, scale: float) -> tuple[Tensor, Tensor]:
    """Return the losses of many noise draws in equal networks on equal points, and the readout's R_21."""
    member = make_member(
        {"noise": "poisson"}, noise__sites=sites, noise__scale=scale, architecture__depth=depth,
        architecture__width=8, training__batch_size=16,
    )  # fmt: skip
    program = program_of(member)
    parameters = PopulationLearner([member], "eager", CPU).member_parameters().expand(DRAWS, -1)
    samples = training_points(member.task, member_keys([0]), 0, 16)[0].expand(DRAWS, -1, -1)
    coefficients = dict(
        zip(program.coefficient_names, stack_coefficients([member]).expand(-1, DRAWS), strict=True)
    )
    mask = torch.ones_like(parameters)
    keys = member_keys(range(DRAWS))
    _, losses = population_losses(parameters, program, samples, mask, coefficients, keys, FIRST)
    network = perceptrons(NetworkPopulation(program.network, parameters[:1]))
    inputs = samples[:1, :, : program.network.in_features]
    last = trace(network, inputs).activities[-1].abs().mean(dim=2)
    readout = (network.weights[-1].square().sum(dim=1) * last).sum(dim=1)
    return losses, readout


@pytest.mark.parametrize("depth", [1, 2])
def test_noise_on_the_last_layer_costs_what_the_readout_passes_on(depth: int) -> None:
    scale = 0.3
    noisy, readout = losses_under_noise("last", depth, scale)
    quiet, _ = losses_under_noise("last", depth, 0.0)
    expected = (
        quiet[0] + scale**2 / 2 * readout[0]
    )  # science: E[loss] = loss + sigma^2 / K R_21, K = 2 outputs
    error = noisy.std() / DRAWS**0.5
    assert abs(noisy.mean() - expected) < 4 * error
    assert scale**2 / 2 * readout[0] > 20 * error


def test_all_sites_are_the_first_and_the_last_together() -> None:
    first, last, both = (losses_under_noise(sites, 2, 0.3)[0] for sites in ("first", "last", "all"))
    quiet, _ = losses_under_noise("all", 2, 0.0)
    added = (first.mean() - quiet[0]) + (last.mean() - quiet[0])
    assert both.mean() - quiet[0] == pytest.approx(added.item(), rel=0.15)
    assert first.mean() - quiet[0] > 0.1 * added


def test_one_hidden_layer_is_trained_alike_wherever_the_noise_is_said_to_be() -> None:
    programs = {
        program_of(make_member({"noise": "poisson"}, noise__sites=sites))
        for sites in ("all", "first", "last")
    }
    assert len(programs) == 1
