"""Balanced clusters of hidden units: the experts into which a trained dense network can be cut.

Z. Qiu et al. ("Emergent mixture-of-experts: Can dense pre-trained transformers benefit from emergent modular
structures?", arXiv 2310.10908) cluster the rows of the weights that units read by, scaled to length 1, into experts of
equal size. Given the centres, units are assigned at the least sum of squared distances under which the sizes are equal
(`scipy.optimize.linear_sum_assignment`), so each step of this k-means is exact.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from pydantic import Field, field_validator
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from modulab.analysis.labels import LabelMethod, input_labels
from modulab.metrics.measure import unmet
from modulab.metrics.probe import Probe
from modulab.networks.base import INPUT, OUTPUT, Network
from modulab.partition import SHARED
from modulab.schema import import_target
from modulab.streams import Stream, fold_in, uniforms
from modulab.tasks.base import Task

_MOST_STEPS = 100
"""The maximum number of steps of k-means. The sum of squares falls in each step; a few steps are enough."""


class BalancedClusters(LabelMethod):
    """Experts of equal size, or of sizes that differ by one, at each site of a network of layers.

    Inputs and outputs belong to none of them.
    """

    experts: int = Field(ge=2, description="number of experts at each site")
    rows: str = Field(
        description="dotted path of a function that takes a probe and returns the rows to cluster"
    )
    restarts: int = Field(
        ge=1, description="number of random starts; the result with the smallest sum of squares is used"
    )

    @field_validator("rows")
    @classmethod
    def _is_function(cls, rows: str) -> str:
        if not callable(import_target(rows, "rows")):
            raise ValueError(f"{rows}: it is not a function. Name one that takes a Probe.")
        return rows

    def lacking(self, network: Network, task: Task) -> str | None:
        """Return why units cannot be clustered."""
        if reason := unmet(("layers",), network, task):
            return reason
        if not network.sites:
            return "the network has no hidden units"
        narrow = [site.units for site in network.sites if site.units < self.experts]
        return f"it has {narrow[0]} units at a site, fewer than experts" if narrow else None

    def __call__(self, probe: Probe) -> dict[str, Int64[Tensor, "member _unit"]]:
        """Return the expert of each unit."""
        network, task = probe.network.network, probe.task
        count, device = probe.network.num_members, probe.keys.device
        sizes = {INPUT: len(input_labels(network, task.partition)), OUTPUT: network.out_features}
        found = {place: torch.full((count, size), SHARED, device=device) for place, size in sizes.items()}
        rows_of: Any = import_target(self.rows, "rows")
        for number, (site, rows) in enumerate(zip(network.sites, rows_of(probe), strict=True)):
            starts = self._starts(fold_in(fold_in(probe.keys, Stream.EXPERTS), number), site.units)
            lengths = rows.double().square().sum(dim=2, keepdim=True).sqrt()
            scaled = (rows.double() / torch.where(lengths > 0, lengths, 1.0)).cpu().numpy()
            labels = [best_of_starts(own, first) for own, first in zip(scaled, starts, strict=True)]
            found[site.name] = torch.from_numpy(np.stack(labels)).to(device)
        return found

    def _starts(self, keys: Tensor, units: int) -> Int64[np.ndarray, "member start expert"]:
        """Return the units that are the first centres."""
        counters = torch.arange(units, dtype=torch.int32, device=keys.device).expand(len(keys), -1)
        orders = [
            torch.argsort(uniforms(fold_in(keys, start), counters), dim=1, stable=True)[:, : self.experts]
            for start in range(self.restarts)
        ]
        return torch.stack(orders, dim=1).cpu().numpy()


def incoming_weights(probe: Probe) -> list[Float[Tensor, "member _unit _feature"]]:
    """Return the weights and the bias that each unit of each site reads by: the bias is that of a constant input."""
    network, parameters = probe.network.network, probe.network.parameters
    rows: list[Tensor] = []
    for stage, weights in enumerate(network.edge_weights(parameters)[: len(network.sites)]):
        nothing = parameters.new_zeros(len(parameters), weights.shape[2], 1)
        rows.append(torch.cat([weights, network.stage_sums(parameters, stage, nothing)], dim=2))
    return rows


def co_activity(probe: Probe) -> list[Float[Tensor, "member _unit _feature"]]:
    """Return the activity of each unit at the evaluation points: units that are active together are alike."""
    return probe.activities()


def best_of_starts(
    rows: Float64[np.ndarray, "unit feature"], starts: Int64[np.ndarray, "start expert"]
) -> Int64[np.ndarray, " unit"]:
    """Return the balanced clusters with the least sum of squares, of those that k-means ends in from each start."""
    found = [balanced_clusters(rows, rows[start]) for start in starts]
    return min(found, key=lambda labels: sum_of_squares(rows, labels))


def balanced_clusters(
    rows: Float64[np.ndarray, "unit feature"], centres: Float64[np.ndarray, "expert feature"]
) -> Int64[np.ndarray, " unit"]:
    """Return the cluster of each unit where k-means from these centres ends, with an exact assignment in each step."""
    labels = np.full(len(rows), SHARED)
    for _ in range(_MOST_STEPS):
        distances = np.square(rows[:, None] - centres).sum(axis=2)
        before, labels = labels, balanced_assignment(distances)
        if np.array_equal(before, labels):
            break
        centres = np.stack([rows[labels == expert].mean(axis=0) for expert in range(len(centres))])
    return labels


def balanced_assignment(costs: Float64[np.ndarray, "unit expert"]) -> Int64[np.ndarray, " unit"]:
    """Return the expert of each unit at the least sum of costs, of sizes that are equal or differ by one."""
    units, experts = costs.shape
    least, left = divmod(units, experts)
    if left == 0:
        owners = np.repeat(np.arange(experts), least)
        return owners[linear_sum_assignment(costs[:, owners])[1]]
    # Each expert has one place more, and those that stay empty are taken by dummy units. Such a unit in
    # any other place would cost more than all real ones.
    owners = np.concatenate([np.repeat(np.arange(experts), least), np.arange(experts)])
    padded = np.zeros((len(owners), len(owners)))
    padded[:units] = costs[:, owners]
    padded[units:, : least * experts] = 1 + np.abs(costs).sum()
    return owners[linear_sum_assignment(padded)[1][:units]]


def sum_of_squares(rows: Float64[np.ndarray, "unit feature"], labels: Int64[np.ndarray, " unit"]) -> float:
    """Return the sum of squared distances of units from the centres of their clusters."""
    own = [rows[labels == label] for label in np.unique(labels)]
    return float(sum(np.square(each - each.mean(axis=0)).sum() for each in own))
