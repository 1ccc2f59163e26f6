"""Cut a dense network into experts, keep a few of them for each input, and measure the rise of test error.

The experts are clusters of the hidden units at each site; a router scores them for each input, and the activity of the
units of all but a share of them is set to 0. The same is done with random partitions of equal sizes. What is lost less
along clusters than across them is modularity by input: not every input needs every unit, and those that it needs are
found together. Units that belong to no expert are always kept. (Z. Zhang et al., "MoEfication: Transformer feed-forward
layers are mixtures of experts", 2022; Z. Qiu et al., arXiv 2310.10908.)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Bool, Float, Float64
from pydantic import Field, field_validator
from torch import Tensor

from modulab.analysis.analysis import Analysis, Trained
from modulab.analysis.cut import compare, permuted
from modulab.analysis.labels import Labels, LabelSource, find_labels, labels_lacking
from modulab.analysis.routers import Router, Scores, Visit
from modulab.config.settings import Member
from modulab.metrics.measure import Column
from modulab.metrics.probe import Probe, evaluation_samples
from modulab.networks.base import Network
from modulab.schema import import_target

_SECONDS_PER_VALUE = 4e-8
"""For each value of a sample at a site, with a router and a share."""


class Route(Analysis):
    """The rise of test error when each input is routed to a share of the experts, against random experts."""

    labels: LabelSource = Field(description="function or method that assigns units to experts")
    routers: dict[str, str] = Field(
        min_length=1, description="dotted paths of routers, by the names used in columns"
    )
    shares: list[float] = Field(
        min_length=1, description="shares of the experts that are kept, rounded up to whole experts"
    )
    partitions: int = Field(ge=1, description="number of random partitions of equal sizes for comparison")

    @field_validator("shares")
    @classmethod
    def _rising(cls, shares: list[float]) -> list[float]:
        if sorted(set(shares)) != shares or not all(0 < share <= 1 for share in shares):
            raise ValueError(
                f"{shares}: shares must be above 0 and at most 1, in rising order without repetition."
            )
        return shares

    @field_validator("routers")
    @classmethod
    def _are_functions(cls, routers: dict[str, str]) -> dict[str, str]:
        for name, path in routers.items():
            if not callable(import_target(path, f"routers.{name}")):
                raise ValueError(f"{path}: it is not a function. Name one of modulab.analysis.routers.")
        return routers

    @property
    def needs(self) -> tuple[str, ...]:
        """Return layers."""
        return ("layers",)

    @property
    def columns(self) -> tuple[Column, ...]:
        """Return the words for each router and share."""
        return (
            Column(
                "rise_random_{router}@{share}",
                "Rise of error with a share {share} of random experts, router {router}",
                "Rise of error with a share of random experts",
            ),
            Column(
                "rise_{router}@{share}",
                "Rise of error with a share {share} of experts, router {router}",
                "Rise of error with a share of experts",
            ),
            Column(
                "z_{router}@{share}",
                "Rise with a share {share} of experts, against random ones (z), {router}",
            ),
            Column(
                "p_{router}@{share}",
                "Rise with a share {share} of experts, against random ones (p), {router}",
                ends_at_one=True,
            ),
        )

    def lacking(self, network: Network, member: Member) -> str | None:
        """Return why there is nothing to route to."""
        none = None if network.sites else "the network has no hidden units"
        return super().lacking(network, member) or none or labels_lacking(self.labels, network, member.task)

    def seconds(self, network: Network, member: Member) -> float:
        """Return about how long all routed passes take."""
        passes = (self.partitions + 1) * len(self.routers) * len(self.shares)
        return _SECONDS_PER_VALUE * network.step_units * member.probes.num_samples * passes

    def take(self, trained: Trained) -> dict[str, Float64[Tensor, " member"]]:
        """Return rises of error, their mean over random experts, z and p (see `cut.compare`)."""
        probe = trained.probe
        labels = find_labels(self.labels)(probe)
        rises = self._rises(probe, labels)
        drawn: list[dict[str, Tensor]] = []
        for draw in range(self.partitions):
            probe.tell(f"random experts, {draw + 1} of {self.partitions}")
            drawn.append(self._rises(probe, permuted(probe, labels, draw)))
        found: dict[str, Tensor] = {}
        for end, rise in rises.items():
            found |= compare(end, rise, torch.stack([each[end] for each in drawn]))
        return found

    def _rises(self, probe: Probe, labels: Labels) -> dict[str, Float64[Tensor, " member"]]:
        """Return the rise for each router and share, by the ends of their columns."""
        experts = expert_units(probe.network.network, labels)
        seen = _seen_in_training(probe, experts)
        clean = _mean_error(probe, probe.clean.outputs)
        found: dict[str, Tensor] = {}
        for name, path in self.routers.items():
            router: Router = import_target(path, f"routers.{name}")
            scores = {site: router(visit) for site, visit in seen.items()}
            for share in self.shares:
                outputs = routed_outputs(probe, experts, scores, share)
                found[f"_{name}@{share:g}"] = _mean_error(probe, outputs) - clean
        return found


def expert_units(network: Network, labels: Labels) -> dict[str, Float[Tensor, "member expert _unit"]]:
    """Return which units are of which expert, site by site; experts that a member lacks have no units."""
    found: dict[str, Tensor] = {}
    for site in network.sites:
        own = labels[site.name]
        # One at least, where no unit of any member belongs to an expert.
        numbers = torch.arange(max(1, 1 + int(own.max())), device=own.device)
        found[site.name] = (own[:, None, :] == numbers[:, None]).float()
    return found


def routed_outputs(
    probe: Probe, experts: Mapping[str, Tensor], scores: Mapping[str, Scores], share: float
) -> Float[Tensor, "member batch out_features"]:
    """Return outputs with the experts kept that score highest; later sites are shown what earlier ones leave."""
    stages = {site.name: stage for stage, site in enumerate(probe.network.network.sites)}
    read = probe.samples.inputs.transpose(1, 2)

    def keep_some(place: str, values: Tensor) -> Tensor:
        nonlocal read
        if place not in stages:
            return values
        visit = Visit(probe.network, stages[place], read, values, experts[place])
        read = values * kept_units(visit, scores[place](visit), share)
        return read

    return probe.network.forward(probe.samples.inputs, keep_some)


def kept_units(
    visit: Visit, scores: Float[Tensor, "member expert batch"], share: float
) -> Bool[Tensor, "member unit batch"]:
    """Return which units are kept at each point: those of a share of a member's experts, and those of none."""
    there = visit.experts.any(dim=2)
    number = torch.ceil(share * there.sum(dim=1).double() - 1e-9)
    ranked = torch.where(there[:, :, None], scores, -torch.inf)
    order = torch.argsort(ranked, dim=1, descending=True, stable=True)
    dropped = torch.argsort(order, dim=1) >= number[:, None, None]
    lost = torch.zeros_like(visit.activity, dtype=torch.bool)
    for own, out in zip(visit.experts.unbind(1), dropped.unbind(1), strict=True):
        lost |= (own > 0)[:, :, None] & out[:, None, :]
    return ~lost


def _seen_in_training(probe: Probe, experts: Mapping[str, Tensor]) -> dict[str, Visit]:
    """Return what sites show at points of the training support with all experts, for routers that are fitted."""
    points = evaluation_samples(probe.task, probe.keys, probe.settings.num_samples, "train").inputs
    recording: Any = probe.network.record(points)
    found: dict[str, Visit] = {}
    read = points.transpose(1, 2)
    for stage, site in enumerate(probe.network.network.sites):
        activity = recording.values[site.name]
        found[site.name] = Visit(probe.network, stage, read, activity, experts[site.name])
        read = activity
    return found


def _mean_error(probe: Probe, outputs: Tensor) -> Float64[Tensor, " member"]:
    task = probe.task
    return task.loss_function.errors(outputs, probe.samples.targets, task.partition).double().mean(dim=1)
