"""How alike two sets of units represent the same inputs: linear centred kernel alignment.

With activities X and Y (sample by unit), each unit's mean taken off,

    CKA = |Y^T X|_F^2 / (|X^T X|_F |Y^T Y|_F)

(S. Kornblith et al., "Similarity of neural network representations revisited", 2019). It is 1 for equal activities, and
rotating the units of either set, or scaling all of them, does not change it; scaling some of them does. It needs more
samples than units: with few, unrelated sets score above 0.
"""

from __future__ import annotations

from itertools import combinations

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from modulab.metrics.measure import Column, Measure
from modulab.metrics.probe import Probe
from modulab.networks.base import Network, Site
from modulab.tasks.base import Task


class LayerSimilarity(Measure):
    """`similarity/cka@i-j`: linear CKA of sites i and j of a network, counted from 1 in the order of a pass."""

    @property
    def needs(self) -> tuple[str, ...]:
        """Return sites, whose activities are compared."""
        return ("sites",)

    @property
    def columns(self) -> tuple[Column, ...]:
        """Return the words for its values."""
        return (Column("similarity/cka@{pair}", "Linear CKA of sites {pair}", ends_at_one=True),)

    def lacking(self, network: Network, task: Task) -> str | None:
        """Return that there are no two sites with as many values of a sample for each unit."""
        if len(network.sites) > 1 and not _pairs(network):
            return "no two of its sites have units with the same number of values per sample"
        return super().lacking(network, task) or (
            "the network has no two sites to compare" if len(network.sites) < 2 else None
        )

    def take(self, probe: Probe) -> dict[str, Float64[Tensor, " member"]]:
        """Return one value for each pair of sites."""
        activities = probe.activities()
        return {
            f"similarity/cka@{one + 1}-{other + 1}": linear_cka(activities[one], activities[other])
            for one, other in _pairs(probe.network.network)
        }


def values_per_unit(site: Site) -> int:
    """Return how many values a unit has in a sample: at positions, over visits."""
    return site.positions * site.visits


def _pairs(network: Network) -> list[tuple[int, int]]:
    sites = network.sites
    return [
        (one, other)
        for one, other in combinations(range(len(sites)), 2)
        if values_per_unit(sites[one]) == values_per_unit(sites[other])
    ]


def linear_cka(
    one: Float[Tensor, "member unit_a batch"], other: Float[Tensor, "member unit_b batch"]
) -> Float64[Tensor, " member"]:
    """Return the linear CKA of activities at the same samples; NaN where no unit of one of them varies."""
    first, second = _centred(one), _centred(other)
    shared = _squares(torch.bmm(first, second.transpose(1, 2)))
    own = [_squares(torch.bmm(each, each.transpose(1, 2))).sqrt() for each in (first, second)]
    return shared / (own[0] * own[1])


def _centred(activity: Tensor) -> Float64[Tensor, "member unit batch"]:
    activity = activity.double()
    return activity - activity.mean(dim=2, keepdim=True)


def _squares(matrices: Tensor) -> Tensor:
    return matrices.square().flatten(1).sum(dim=1)
