"""A cost of wiring: every connection costs its weight times its length, and units may exchange places to lower it.

Z. Liu, E. Gan and M. Tegmark, "Seeing is believing: brain-inspired modular training for mechanistic interpretability"
(BIMT), arXiv 2305.08746, 2023. Each layer of units is a line from 0 to 1, and the cost of a network is

    sum over connections of |w_ij| (A d_ij + l0) + l0 sum |b_i|

with d_ij the distance along the line between the units that a weight connects, and l0 that between layers. A descent by
gradients shortens connections by making long ones weak. It cannot move a unit to where it would cost less, past units
that cost more there, so from time to time units exchange places where that lowers the cost.

Here an exchange moves places, and weights stay with their units. The published code moves weights between places, which
is the same network but for what training remembers. Its optimiser is not told, so moments stay at places
(`swap_moments`), and a round visits places, whose units an earlier exchange may have moved on (`swap_turns`). Either is
a choice here. By default moments stay with weights: they are averages of their gradients, of which an exchange changes
the part of length alone.

In a recurrent network, where the units of one line are connected to each other, the cost makes the reach of a unit fall
with distance.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from jaxtyping import Bool, Float, Float64, Int64
from pydantic import Field
from torch import Tensor

from modulab.errors import ConfigError
from modulab.networks.base import Edges, Network
from modulab.networks.parameter_places import bias_places, weight_places
from modulab.networks.placed import evenly_spaced, has_places, unit_places
from modulab.regularisers import Pass, Rearrangement, Regulariser

_LEAST_GAIN = 1e-9
"""Smaller gains are ignored: they may be rounding alone."""


class WiringCost(Regulariser):
    """lambda (sum |w| (A d + l0) + l0 sum |b|), with a factor on lambda from one step to another, and exchanges."""

    name: str = Field(description="name in tables and figures")
    distance_cost: float = Field(ge=0, description="A, the cost of a weight of 1 per unit of length")
    base_cost: float = Field(
        ge=0, description="l0, the cost of a weight of 1 between units at the same place, and of a bias of 1"
    )
    raised_by: float = Field(ge=0, description="factor of the cost from raised_from to raised_until")
    raised_from: int = Field(ge=0, description="first step at which the factor applies")
    raised_until: int = Field(ge=0, description="first step at which it no longer applies")
    biases_from: int = Field(ge=0, description="first step at which biases have a cost")
    swap_every: int = Field(
        ge=0,
        description="steps between rounds of exchanges, a multiple of training.curve_every; 0 for no "
        "exchanges",
    )
    swap_candidates: int = Field(
        ge=1,
        description="number of strongest units of each layer for which better places are sought in a round",
    )
    swap_moments: Literal["units", "places"] = Field(
        description="whether moments of the optimiser stay with the units that exchange places, or at the "
        "places as in the published code, so that each unit continues with the moments of the other"
    )
    swap_turns: Literal["units", "places"] = Field(
        description="whether a round visits the strongest units, or, as in the published code, the places at "
        "which they stood when the round reached their layer, whichever unit is there now"
    )

    def coefficients(self) -> dict[str, float]:
        """Return the numbers, and 1 or 0 for whether moments stay at places and whether places take turns."""
        return {
            **super().coefficients(),
            "moments_at_places": float(self.swap_moments == "places"),
            "turns_of_places": float(self.swap_turns == "places"),
        }

    def lacking(self, network: Network) -> str | None:
        """Return that a network states no edges, has no places to exchange, or no separate weights."""
        if not network.connections:
            return "weighted connections (edges)"
        if self.swap_every and not has_places(network):
            return (
                f"places, which its units could exchange every regulariser.swap_every={self.swap_every} steps "
                "(architecture=placed has them; regulariser.swap_every=0 needs none)"
            )
        if self.swap_every and self.swap_moments == "places" and bias_places(network) is None:
            return (
                "layers whose weights and biases are parameters of their own, whose moments could stay at places "
                "(regulariser.swap_moments=units needs none)"
            )
        return None

    def check_training(self, curve_every: int) -> None:
        """Raise ConfigError if a round of exchanges would fall between two points of the curves."""
        if self.swap_every % curve_every:
            raise ConfigError(
                f"regulariser.swap_every={self.swap_every} is not a multiple of training.curve_every={curve_every}, "
                "and units exchange places at points of curves only. Set training.curve_every to a divisor of it."
            )

    @staticmethod
    def penalty(run: Pass, coefficients: Mapping[str, Tensor], variant: str) -> Float[Tensor, " member"]:
        """Return the cost at the step of the pass. Units without their own places stand evenly, in order."""
        del variant
        places = {name: place.detach() for name, place in unit_places(run.network, run.parameters).items()}
        by_length, base = (coefficients[name][:, None, None] for name in ("distance_cost", "base_cost"))
        total = torch.zeros_like(coefficients["strength"])
        for edges in run.edges():
            lengths = _lengths(edges, places)
            total = total + (edges.weights.abs() * (by_length * lengths + base)).sum(dim=(1, 2))
        biases = torch.zeros_like(total)
        for part in run.network.layout:
            if part.trained and not part.is_weight:
                biases = biases + run.network.split(run.parameters)[part.name].flatten(1).abs().sum(dim=1)
        biases = torch.where(run.step >= coefficients["biases_from"], coefficients["base_cost"] * biases, 0.0)
        raised = (run.step >= coefficients["raised_from"]) & (run.step < coefficients["raised_until"])
        return torch.where(raised, coefficients["raised_by"], 1.0) * (total + biases)

    @staticmethod
    def rearranged(
        network: Network,
        parameters: Float[Tensor, "member parameter"],
        coefficients: Mapping[str, Tensor],
        step: int,
    ) -> Rearrangement | None:
        """Return the parameters after a round of exchanges in members that are due for one, None if none is.

        In each layer, inputs and outputs included, the strongest units or their places take turns, and the unit whose
        turn it is exchanges its place with the unit of the layer with which that lowers the wiring most, if it does.
        """
        every = coefficients["swap_every"].long()
        due = (every > 0) & (step % every.clamp(min=1) == 0)
        if not bool(due.any()):
            return None
        moved = parameters.clone()
        places = unit_places(network, moved)
        before = unit_places(network, parameters)
        edges = [
            Edges(each.source, each.target, each.weights.abs().double()) for each in network.edges(parameters)
        ]
        candidates = coefficients["swap_candidates"].long()
        by_place = coefficients["turns_of_places"] > 0
        for name, place in places.items():
            strongest = _strengths(edges, name).argsort(dim=1, descending=True, stable=True)
            for rank in range(min(int(candidates.max()), place.shape[1])):
                exact = {other: each.double() for other, each in places.items()}
                chosen = strongest[:, rank]
                stands_there = place == before[name].gather(1, chosen[:, None])
                unit = torch.where(by_place, stands_there.long().argmax(dim=1), chosen)
                gains = swap_gains(edges, exact, name)[torch.arange(len(unit), device=unit.device), unit]
                gain, partner = gains.max(dim=1)
                worth = due & (rank < candidates) & (gain > _LEAST_GAIN)
                _exchange(place, unit, torch.where(worth, partner, unit))
        at_places = coefficients["moments_at_places"] > 0
        if not bool(at_places.any()):
            return Rearrangement(moved)
        return Rearrangement(moved, _moments_at_places(network, before, places, at_places))


def wiring_length(
    edges: Sequence[Edges], places: Mapping[str, Float[Tensor, "member _unit"]]
) -> Float[Tensor, " member"]:
    """Return sum |w_ij| d_ij: how much length of wire a network has, each connection counted by its weight."""
    terms = [(each.weights.abs() * _lengths(each, places)).sum(dim=(1, 2)) for each in edges]
    return torch.stack(terms).sum(dim=0)


def swap_gains(
    edges: Sequence[Edges], places: Mapping[str, Float64[Tensor, "member _unit"]], name: str
) -> Float64[Tensor, "member unit unit"]:
    """Return how much `wiring_length` falls if two units of a layer exchange places, for each pair.

    Let C_jk = sum_i |w_ij| |p_k - q_i| be the wire of unit j at the place p_k of unit k, over the units i, at q_i, that
    it is connected with: one product of matrices. Exchanging j and k gains C_jj + C_kk - C_jk - C_kj. Between units of
    one line, with s_jk the summed weights both ways, the wire from j to k keeps its length, which counts twice in
    C_jj + C_kk and not at all in the rest: 2 s_jk |p_j - p_k| is taken off.
    """
    own = places[name]
    among = _distances(own, own)
    wire = torch.zeros_like(among)
    kept = torch.zeros_like(among)
    for each in edges:
        weights = each.weights.abs()
        if each.source == each.target == name:
            both_ways = weights + weights.transpose(1, 2)
            both_ways = both_ways - torch.diag_embed(both_ways.diagonal(dim1=1, dim2=2))
            wire = wire + torch.bmm(both_ways, among)
            kept = kept + 2 * both_ways * among
        elif each.target == name:
            wire = wire + torch.bmm(weights, _distances(places[each.source], own))
        elif each.source == name:
            wire = wire + torch.bmm(weights.transpose(1, 2), _distances(places[each.target], own))
    now = wire.diagonal(dim1=1, dim2=2)
    return now[:, :, None] + now[:, None, :] - wire - wire.transpose(1, 2) - kept


def _lengths(edges: Edges, places: Mapping[str, Tensor]) -> Float[Tensor, "_member target_unit source_unit"]:
    """Return the length of each connection, where units without places stand evenly, in order."""
    targets, sources = edges.weights.shape[1:]
    ends = [
        places[name] if name in places else evenly_spaced(units).to(edges.weights.device)[None]
        for name, units in ((edges.target, targets), (edges.source, sources))
    ]
    return _distances(*ends)


def _distances(rows: Tensor, columns: Tensor) -> Float[Tensor, "_member row column"]:
    return (rows[:, :, None] - columns[:, None, :]).abs()


def _strengths(edges: Sequence[Edges], name: str) -> Float64[Tensor, "member unit"]:
    """Return the summed magnitude of the weights to and from each unit of a layer."""
    sums = [
        each.weights.abs().sum(dim=axis)
        for each in edges
        for axis, end in ((2, each.target), (1, each.source))
        if end == name
    ]
    return torch.stack(sums).sum(dim=0)


def _exchange(
    place: Float[Tensor, "member unit"], unit: Int64[Tensor, " member"], partner: Int64[Tensor, " member"]
) -> None:
    """Exchange the places of two units of each member, in place."""
    pair = torch.stack([unit, partner], dim=1)
    place.scatter_(1, pair, place.gather(1, pair.flip(1)))


def _moments_at_places(
    network: Network,
    before: Mapping[str, Float[Tensor, "member _unit"]],
    after: Mapping[str, Float[Tensor, "member _unit"]],
    at_places: Bool[Tensor, " member"],
) -> Int64[Tensor, "member parameter"]:
    """Return the parameter that stood where each stands after a round; in members not `at_places`, each itself.

    A weight stands between the places of two units, a bias at that of one.
    """
    device = at_places.device
    stood = {  # unit of each layer that stood where each stands now
        name: before[name].argsort(dim=1).gather(1, place.argsort(dim=1).argsort(dim=1))
        for name, place in after.items()
    }
    itself = torch.arange(network.num_parameters, device=device).expand(len(at_places), -1)
    taken = itself.clone()
    for numbers, (source, target) in zip(weight_places(network) or (), network.connections, strict=True):
        own = numbers.to(device)
        taken[:, own] = own[stood[target][:, :, None], stood[source][:, None, :]]
    for numbers, (_, target) in zip(bias_places(network) or (), network.connections, strict=True):
        own = numbers.to(device)
        taken[:, own] = own[stood[target]]
    return torch.where(at_places[:, None], taken, itself)
