"""Whether experts of hidden units hold more of the units that predict a function's value than chance.

The functions are the targets of the task's modules, as binary ones (`metrics.communities.predictivity`): where a
network is modular by task, the units of one module's function are found together. (Z. Zhang et al., "Emergent
modularity in pre-trained transformers", arXiv 2305.18390; there the number of units in an expert is taken to be
binomial, and here it is hypergeometric, with a correction for the number of tests.)
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float64, Int64
from pydantic import Field
from torch import Tensor

from modulab.analysis.analysis import Analysis, Trained
from modulab.analysis.cut import permuted
from modulab.analysis.labels import Labels, LabelSource, find_labels, labels_lacking
from modulab.config.settings import Member
from modulab.metrics.communities.predictivity import enrichment, predictivity, task_functions
from modulab.metrics.measure import Column
from modulab.metrics.probe import Probe
from modulab.networks.base import Network

_SECONDS_PER_VALUE = 1e-7
"""Time of sorting for each value of a sample at a site."""
_SECONDS_PER_PARTITION = 1e-3


class ExpertEnrichment(Analysis):
    """How many experts hold more units predictive of a module's target than chance, and how many more."""

    labels: LabelSource = Field(description="function or method that assigns units to experts")
    top_fraction: float = Field(
        gt=0, lt=1, description="share of the units that count as predictive of a function"
    )
    level: float = Field(
        gt=0, lt=1, description="significance level of the tests for enrichment, corrected for their number"
    )
    partitions: int = Field(ge=1, description="number of random partitions of equal sizes for comparison")

    @property
    def needs(self) -> tuple[str, ...]:
        """Return sites and output_modules."""
        return ("sites", "output_modules")

    @property
    def columns(self) -> tuple[Column, ...]:
        """Return the words for the share of experts and for how many times over."""
        return (
            Column("share", "Share of experts enriched for a function", ends_at_one=True),
            Column("share_random", "Share of random experts enriched for a function", ends_at_one=True),
            Column("times", "Predictive units in the richest expert, against chance"),
            Column("times_random", "Predictive units in the richest random expert, against chance"),
            Column("p", "Richest expert, against random experts (p)", ends_at_one=True),
        )

    def lacking(self, network: Network, member: Member) -> str | None:
        """Return why there are no experts."""
        none = None if network.sites else "the network has no hidden units"
        return super().lacking(network, member) or none or labels_lacking(self.labels, network, member.task)

    def seconds(self, network: Network, member: Member) -> float:
        """Return about how long sorting and counting take."""
        sorting = _SECONDS_PER_VALUE * network.total_values * member.probes.num_samples * member.task.modules
        return sorting + _SECONDS_PER_PARTITION * (self.partitions + 1)

    def take(self, trained: Trained) -> dict[str, Float64[Tensor, " member"]]:
        """Return the share of experts that are enriched, how many times over the richest is, both for random experts,
        and p = (1 + number of random partitions whose richest is as rich or richer) / (1 + their number)."""
        probe = trained.probe
        scores = predictivity(torch.cat(probe.activities(), dim=1), task_functions(probe)).cpu().numpy()
        labels = find_labels(self.labels)(probe)
        own = self._found(_of_all_sites(probe, labels), scores)
        drawn = np.stack(
            [
                self._found(_of_all_sites(probe, permuted(probe, labels, draw)), scores)
                for draw in range(self.partitions)
            ]
        )
        richer = (drawn[:, 1] >= own[1]).sum(axis=0)
        values = {
            "share": own[0],
            "share_random": drawn[:, 0].mean(axis=0),
            "times": own[1],
            "times_random": drawn[:, 1].mean(axis=0),
            "p": np.where(np.isfinite(own[1]), (1 + richer) / (1 + self.partitions), np.nan),
        }
        return {name: torch.from_numpy(np.ascontiguousarray(each)) for name, each in values.items()}

    def _found(
        self, labels: Int64[np.ndarray, "member unit"], scores: Float64[np.ndarray, "member unit function"]
    ) -> Float64[np.ndarray, "2 member"]:
        rows = [
            (
                enrichment(each, score, self.top_fraction, self.level)[0],
                richest(each, score, self.top_fraction),
            )
            for each, score in zip(labels, scores, strict=True)
        ]
        return np.array(rows).T


def richest(
    labels: Int64[np.ndarray, " unit"], scores: Float64[np.ndarray, "unit function"], top_fraction: float
) -> float:
    """Return how many times the expected number of a function's most predictive units the richest expert holds.

    A mean over functions; NaN where no unit belongs to an expert.
    """
    kept = labels >= 0
    labels, scores = labels[kept], scores[kept]
    if not len(labels):
        return float("nan")
    drawn = max(1, round(top_fraction * len(labels)))
    top = labels[np.argsort(-scores, axis=0, kind="stable")[:drawn]]
    times = [
        (top == expert).sum(axis=0) / (drawn * (labels == expert).mean()) for expert in np.unique(labels)
    ]
    return float(np.max(times, axis=0).mean())


def _of_all_sites(probe: Probe, labels: Labels) -> Int64[np.ndarray, "member unit"]:
    """Return the labels of all hidden units; experts of different sites are different ones."""
    found: list[Tensor] = []
    first = 0
    for site in probe.network.network.sites:
        own = labels[site.name]
        found.append(torch.where(own >= 0, own + first, own))
        # By the number of units, which does not depend on the other members as the largest label does.
        first += site.units
    return torch.cat(found, dim=1).cpu().numpy()
