"""Routers: for each input, which experts of a network's hidden units should be kept.

A router is a function of what a site shows at points of the training support while all experts are kept. It returns the
function that scores experts at a visit to that site, so a router may be fitted. The experts with the highest
scores are kept.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from modulab.networks.base import NetworkPopulation


@dataclass(frozen=True)
class Visit:
    """What a site of a network of layers reads and does in a pass, and the experts of its units."""

    network: NetworkPopulation
    stage: int
    """The stage of the network that leads to the site; the one after it reads the site."""
    read: Float[Tensor, "member source_unit batch"]
    activity: Float[Tensor, "member unit batch"]
    experts: Float[Tensor, "member expert unit"]
    """1 for the units of an expert, 0 for others."""

    def of_each(self, values: Float[Tensor, "member unit batch"]) -> list[Float[Tensor, "member unit batch"]]:
        """Return values with 0 for the units of other experts, expert after expert."""
        return [values * own[:, :, None] for own in self.experts.unbind(1)]


Scores = Callable[[Visit], Float[Tensor, "member expert batch"]]
Router = Callable[[Visit], Scores]


def oracle(seen: Visit) -> Scores:
    """Return a router that scores experts by the length of what they add to the sums of the next stage.

    It saves no work, since all experts must be run for it: a bound for what routers of an input could do.
    """
    del seen
    return contributions


def input_norm(seen: Visit) -> Scores:
    """Return a router that scores experts by the length of what their units read, |W_e x + b_e|, which each expert can
    compute alone (A. Lv et al., "Autonomy-of-experts models", arXiv 2501.13074)."""
    del seen
    return _norms_of_sums


def mean_row(seen: Visit) -> Scores:
    """Return a router by the mean of what an expert's units read: the product of their mean row with the input.

    It is the gate of emergent mixtures of experts (Z. Qiu et al., arXiv 2310.10908), which needs no training.
    """
    del seen
    return _means_of_sums


def trained(seen: Visit) -> Scores:
    """Return a router of the same form that is trained: scores W x + c with the least squares to the oracle's."""
    fitted = torch.linalg.pinv(_with_constant(seen.read).double().transpose(1, 2))
    # One product for each expert: how many there are must not change how it is rounded.
    weights = [
        torch.bmm(fitted, own[:, :, None].double()).transpose(1, 2).float()
        for own in contributions(seen).unbind(1)
    ]

    def scores(visit: Visit) -> Tensor:
        read = _with_constant(visit.read)
        return torch.cat([torch.bmm(own, read) for own in weights], dim=1)

    return scores


def contributions(visit: Visit) -> Float[Tensor, "member expert batch"]:
    """Return the length of what each expert adds to the sums of the next stage."""
    network, parameters = visit.network.network, visit.network.parameters
    added = [
        network.stage_sums(parameters, visit.stage + 1, own, biased=False)
        for own in visit.of_each(visit.activity)
    ]
    return torch.stack([own.square().sum(dim=1).sqrt() for own in added], dim=1)


def _norms_of_sums(visit: Visit) -> Tensor:
    return torch.stack([own.square().sum(dim=1).sqrt() for own in visit.of_each(_sums(visit))], dim=1)


def _means_of_sums(visit: Visit) -> Tensor:
    totals = torch.stack([own.sum(dim=1) for own in visit.of_each(_sums(visit))], dim=1)
    return totals / visit.experts.sum(dim=2).clamp(min=1)[:, :, None]


def _sums(visit: Visit) -> Tensor:
    return visit.network.network.stage_sums(visit.network.parameters, visit.stage, visit.read)


def _with_constant(read: Tensor) -> Tensor:
    return torch.cat([read, torch.ones_like(read[:, :1])], dim=1)
