"""Interaction: how far a network's outputs are not a sum of functions of one module's inputs each.

For two modules i and j, and two independent points x and x', the mixed second difference of an output f is

    D = f(x) - f(x with x'_i) - f(x with x'_j) + f(x with x'_i and x'_j).

It is 0 for all pairs of points if and only if f is a sum of a function without x_i and one without x_j. In an
analysis of variance over independent modules, E[D^2] / 4 is the variance of all terms of f that contain both (R. Liu
and A. Owen, "Estimating mean dimensionality of analysis of variance decompositions", 2006). It is given as a share of
the variance of f: 0 for an additive f, and 1 for a product of factors with mean 0.

Inputs of a module are exchanged for others that it may have, so the network is run at inputs as they occur, and no
size of a step matters. A difference is on the training support if all four points are.
"""

from __future__ import annotations

from itertools import combinations

import torch
from jaxtyping import Bool, Float, Float64
from pydantic import Field
from torch import Tensor

from modulab.analysis.analysis import Analysis, Trained
from modulab.config.settings import Member
from modulab.metrics.measure import Column
from modulab.metrics.probe import Probe, evaluation_samples
from modulab.networks.base import Network
from modulab.partition import Partition

_SECONDS_PER_VALUE = 6e-9
"""Time of a forward pass for each value of a sample at a site."""


class Interaction(Analysis):
    """The share of an output's variance that depends on the inputs of two modules jointly."""

    pairs: int = Field(ge=2, description="number of pairs of points for each mixed second difference")

    @property
    def needs(self) -> tuple[str, ...]:
        """Return input_modules."""
        return ("input_modules",)

    @property
    def columns(self) -> tuple[Column, ...]:
        """Return the words for the mean over outputs and pairs of modules, and for each pair."""
        return (
            Column("share", "Variance due to interactions of modules", ends_at_one=True),
            Column("largest", "Variance due to interactions, largest", ends_at_one=True),
            Column("on_support", "Variance due to interactions, on the training support"),
            Column("off_support", "Variance due to interactions, off the training support"),
            Column("modules_{one}_{other}", "Interaction of modules {one} and {other}", ends_at_one=True),
        )

    def lacking(self, network: Network, member: Member) -> str | None:
        """Return why there are no interactions."""
        alone = "the task has one module" if member.task.modules == 1 else None
        return super().lacking(network, member) or alone

    def seconds(self, network: Network, member: Member) -> float:
        """Return about how long passes of all exchanges of one or two modules' inputs take."""
        modules = member.task.modules
        passes = 1 + modules + modules * (modules - 1) / 2
        return _SECONDS_PER_VALUE * network.step_units * self.pairs * passes

    def take(self, trained: Trained) -> dict[str, Float64[Tensor, " member"]]:
        """Return E[D^2] / (4 var f), averaged over outputs.

        - `share`: averaged over pairs of modules, too; `largest`: that of the pair and output with most.
        - `on_support`, `off_support`: the mean of the D^2 whose four points are all on the training support, or not, in
          the place of that of all; NaN where there is no such D. Only for a task that withholds combinations and says
          what its support covers.
        - `modules_I_J`: that of modules I and J, counted from 1.
        """
        probe = trained.probe
        samples = evaluation_samples(probe.task, probe.keys, 2 * self.pairs, "full")
        # Laid out alike, with the batch innermost, so equal inputs of a unit give equal bits.
        points, others = (
            half.transpose(1, 2).contiguous().transpose(1, 2)
            for half in samples.inputs.split(self.pairs, dim=1)
        )
        variance = probe.network.forward(points).double().var(dim=1, correction=0)
        found: dict[str, Tensor] = {}
        regions: dict[str, list[tuple[Tensor, Tensor]]] = {"on_support": [], "off_support": []}
        shares: list[Tensor] = []
        for one, other in combinations(range(probe.task.modules), 2):
            corners = _corners(probe.task.partition, points, others, one, other)
            squares = mixed_differences(probe, corners).square()
            shares.append(_share(squares.mean(dim=1), variance))
            found[f"modules_{one + 1}_{other + 1}"] = shares[-1].mean(dim=1)
            on = _on_support(probe, corners)
            if on is not None:
                regions["on_support"].append((squares, on))
                regions["off_support"].append((squares, ~on))
        every = torch.cat(shares, dim=1)
        found["share"] = every.mean(dim=1)
        found["largest"] = every.amax(dim=1)
        for name, parts in regions.items():
            if parts and probe.task.withholds:
                total = torch.stack([torch.where(on[:, :, None], each, 0.0).sum(dim=1) for each, on in parts])
                count = torch.stack([on.sum(dim=1) for _, on in parts]).sum(dim=0)
                mean = total.sum(dim=0) / count[:, None]
                found[name] = _share(mean, variance).mean(dim=1)
        return found


def mixed_differences(
    probe: Probe, corners: list[Float[Tensor, "member pair in_features"]]
) -> Float64[Tensor, "member pair out_features"]:
    """Return f(x) - f(x with x'_i) - f(x with x'_j) + f(x with both), of outputs at four points in this order.

    Of an output that does not depend on x_j, the first differences are those of equal numbers: exactly 0.
    """
    start, one, other, both = (probe.network.forward(points).double() for points in corners)
    return (start - other) - (one - both)


def _corners(
    partition: Partition, points: Tensor, others: Tensor, one: int, other: int
) -> list[Float[Tensor, "member pair in_features"]]:
    """Return x, x with x'_i, x with x'_j, and x with both."""

    def exchanged(*modules: int) -> Tensor:
        changed = points.clone()
        for module in modules:
            own = list(partition.inputs_of(module))
            changed[:, :, own] = others[:, :, own]
        return changed

    return [points, exchanged(one), exchanged(other), exchanged(one, other)]


def _on_support(probe: Probe, corners: list[Tensor]) -> Bool[Tensor, "member pair"] | None:
    """Return which pairs have all four points on the training support, or None if the task does not say."""
    covered = [probe.task.covers(points) for points in corners]
    known = [each for each in covered if each is not None]
    return torch.stack(known).all(dim=0) if len(known) == len(covered) else None


def _share(
    squares: Float64[Tensor, "member output"], variance: Float64[Tensor, "member output"]
) -> Float64[Tensor, "member output"]:
    """Return E[D^2] / (4 var f); an output that is constant does not depend on two modules jointly."""
    return torch.where(squares == 0, 0.0, squares / (4 * variance))
