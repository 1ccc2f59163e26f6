"""Exchanges as in the published code are those of a plain loop that moves weights between places, and no moments."""

from __future__ import annotations

import dataclasses
import itertools
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from modulab.config.settings import Member
from modulab.networks.base import INPUT, OUTPUT
from modulab.networks.placed import PlacedPerceptron
from modulab.streams import member_keys
from modulab.training.data import training_points
from modulab.training.program import initialise, network_of
from modulab.wiring import WiringCost
from tests.members import make_member
from tests.training.fitting import prepared_learner, trained_parameters

CHOICES = list(itertools.product(("units", "places"), repeat=2))
"""Of swap_moments and swap_turns."""
STEPS, EVERY, CANDIDATES = 60, 20, 5


def placed_member(moments: str, turns: str, seed: int = 0) -> Member:
    return make_member(
        {"task": "formulas", "architecture": "placed", "regulariser": "wiring"}, seed=seed, task__full_batch=20,
        architecture__width=8, data__num_samples=None, training__batch_size=20, training__steps=STEPS,
        training__curve_every=10, training__learning_rate=5e-3, training__schedule="constant",
        regulariser__strength=0.02, regulariser__swap_every=EVERY, regulariser__swap_candidates=CANDIDATES,
        regulariser__swap_moments=moments, regulariser__swap_turns=turns,
    )  # fmt: skip


@dataclass
class Line:
    """A network whose weights and biases stand in the order of places; `units` says which unit stands where."""

    weights: list[Tensor]
    biases: list[Tensor]
    units: list[list[int]]

    def outputs(self, inputs: Tensor) -> Tensor:
        """Return outputs in the order of the task, of inputs in that order."""
        hidden = inputs[:, self.units[0]]
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            hidden = nn.functional.linear(hidden, weight, bias)
            hidden = nn.functional.silu(hidden) if layer < len(self.weights) - 1 else hidden
        return hidden[:, [self.units[-1].index(unit) for unit in range(hidden.shape[1])]]

    def cost(self) -> Tensor:
        """Return the sum of |w| (d + .1) and .1 |b|."""
        total = sum((0.1 * bias.abs().sum() for bias in self.biases), torch.zeros(()))
        for weight in self.weights:
            ends = [torch.linspace(1 / (2 * size), 1 - 1 / (2 * size), size) for size in weight.shape]
            total = total + (weight.abs() * ((ends[0][:, None] - ends[1]).abs() + 0.1)).sum()
        return total

    def exchange(self, layer: int, one: int, other: int) -> None:
        """Exchange the units at two places, with their weights and biases."""
        pair, flipped = [one, other], [other, one]
        if layer > 0:
            self.weights[layer - 1][pair] = self.weights[layer - 1][flipped]
            self.biases[layer - 1][pair] = self.biases[layer - 1][flipped]
        if layer < len(self.weights):
            self.weights[layer][:, pair] = self.weights[layer][:, flipped]
        units = self.units[layer]
        units[one], units[other] = units[other], units[one]

    def relocate(self, layer: int, place: int) -> None:
        """Take the unit at a place to the best of all."""
        costs: list[float] = []
        for other in range(len(self.units[layer])):
            self.exchange(layer, place, other)
            costs.append(float(self.cost()))
            self.exchange(layer, place, other)
        best = min(range(len(costs)), key=costs.__getitem__)
        if costs[best] < costs[place] - 1e-5:
            self.exchange(layer, place, best)

    @torch.no_grad()
    def round(self, turns: str) -> None:
        """Relocate what stands at the strongest places of each layer, or the units that stood there."""
        for layer, units in enumerate(self.units):
            strengths = torch.zeros(len(units))
            if layer > 0:
                strengths += self.weights[layer - 1].abs().sum(dim=1)
            if layer < len(self.weights):
                strengths += self.weights[layer].abs().sum(dim=0)
            strongest = strengths.argsort(descending=True)[:CANDIDATES].tolist()
            chosen = [units[place] for place in strongest]
            for place, unit in zip(strongest, chosen, strict=True):
                self.relocate(layer, place if turns == "places" else units.index(unit))


def plain_loop(member: Member, turns: str) -> Line:
    """Train with torch's Adam, which knows of no exchange, so that its moments stay at places."""
    network = network_of(member)
    points = training_points(member.task, member_keys([member.seed]), 0, 20)[0]
    inputs, targets = points[:, :4], points[:, 4:]
    parts = [part[0].clone() for part in network.split(initialise([member], network)[1]).values()]
    line = Line(parts[0:6:2], parts[1:6:2], [list(range(len(place))) for place in parts[6:]])
    optimiser = torch.optim.Adam([each.requires_grad_() for each in (*line.weights, *line.biases)], lr=5e-3)
    for step in range(STEPS):
        loss = (line.outputs(inputs) - targets).square().mean() + 0.02 * line.cost()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if (step + 1) % EVERY == 0:
            line.round(turns)
    return line


@pytest.mark.parametrize("turns", ["units", "places"])
def test_moments_at_places_are_those_of_an_optimiser_that_no_one_tells_of_exchanges(turns: str) -> None:
    member = placed_member("places", turns)
    line = plain_loop(member, turns)
    assert any(units != sorted(units) for units in line.units)
    found = network_of(member).split(trained_parameters([member]))
    for name, units in zip((INPUT, "hidden.0", "hidden.1", OUTPUT), line.units, strict=True):
        assert torch.equal(found[f"place.{name}"][0][units], torch.sort(found[f"place.{name}"][0]).values)
    for layer, (sources, targets) in enumerate(itertools.pairwise(line.units)):
        weights = found[f"weight.{layer}"][0][targets][:, sources]
        torch.testing.assert_close(weights, line.weights[layer].detach(), rtol=0, atol=1e-4)
        biases = found[f"bias.{layer}"][0][targets]
        torch.testing.assert_close(biases, line.biases[layer].detach(), rtol=0, atol=1e-4)


def test_each_choice_leads_to_another_network() -> None:
    ends = trained_parameters([placed_member(*choice) for choice in CHOICES])
    for one, other in itertools.combinations(ends, 2):
        assert float((one - other).abs().max()) > 0.01


def test_exchanges_are_kept_when_others_of_a_block_stop() -> None:
    """Once some members stop, blocks hold copies of the rest, which are cut anew when the next stops."""
    members = [placed_member("places", "places", seed=seed) for seed in range(3)]
    learner, data = prepared_learner(members)
    going_on: list[Member | None] = [*members]
    for index in range(data.num_chunks):
        if index in (1, 2):
            going_on[index - 1] = None
            learner.go_on_with(going_on)
        learner.training_step(data.chunk(index))
    assert torch.equal(learner.member_parameters()[2], trained_parameters([members[2]])[0])


class Unlayered(PlacedPerceptron):
    """One that does not say that its connections lead from layer to layer, and so not where biases are."""

    @property
    def is_layered(self) -> bool:
        return False


def test_moments_do_not_stay_at_places_where_no_one_knows_whose_they_are() -> None:
    member = placed_member("places", "units")
    network = network_of(member)
    unlayered = Unlayered(**{each.name: getattr(network, each.name) for each in dataclasses.fields(network)})
    assert isinstance(member.regulariser, WiringCost)
    assert member.regulariser.lacking(network) is None
    assert "regulariser.swap_moments=units" in str(member.regulariser.lacking(unlayered))
    by_units = placed_member("units", "units").regulariser
    assert by_units.lacking(unlayered) is None
