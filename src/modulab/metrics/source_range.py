"""How far units mix sources, and the margin that predicts whether they do."""

from __future__ import annotations

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from modulab.metrics.measure import Column, Measure
from modulab.metrics.probe import Probe
from modulab.networks.base import INPUT, Network
from modulab.tasks.base import Task
from modulab.tasks.sources import SourcesTask, mixing_margin

_LEAST_RANGE = 0.1
"""Share of the largest range of activity from which on a unit counts as active, as in the reference's code."""


def mixing_angles(weights: Float[Tensor, "member unit module"]) -> Float[Tensor, "member unit"]:
    """Return the angle between each unit's weights and the nearest axis, in degrees: 0 for one source alone.

    With two sources 45 degrees mix both equally.
    """
    magnitude = weights.abs()
    largest = magnitude.amax(dim=2)
    others = (magnitude.square().sum(dim=2) - largest.square()).clamp(min=0).sqrt()
    return torch.rad2deg(torch.atan2(others, largest))


class SourceMixing(Measure):
    """`sources/mixing_angle`, the largest among active units, and `sources/margin`, by which it is predicted."""

    @property
    def needs(self) -> tuple[str, ...]:
        """Return edges and sites."""
        return ("edges", "sites")

    @property
    def columns(self) -> tuple[Column, ...]:
        """Return the words for its values."""
        return (
            Column("sources/mixing_angle", "Largest mixing angle (degrees)"),
            Column("sources/margin", "Margin of the source set"),
        )

    def lacking(self, network: Network, task: Task) -> str | None:
        """Return that a task has no source set of two sources, if so."""
        if not isinstance(task, SourcesTask) or task.modules != 2:
            return "the task is not a set of two sources"
        return super().lacking(network, task)

    def take(self, probe: Probe) -> dict[str, Float64[Tensor, " member"]]:
        """Return the largest angle of units whose activity ranges over enough, and the margin of the task's set."""
        assert isinstance(probe.task, SourcesTask)
        angles = torch.cat(
            [mixing_angles(edges.weights) for edges in probe.network.edges() if edges.source == INPUT], dim=1
        )
        activity = probe.activities()[0]
        ranges = activity.amax(dim=2) - activity.amin(dim=2)
        active = ranges > _LEAST_RANGE * ranges.amax(dim=1, keepdim=True)
        margin = mixing_margin(probe.task.source_points()[None])
        return {
            "sources/mixing_angle": torch.where(active, angles, 0.0).amax(dim=1).double(),
            "sources/margin": margin.expand(probe.network.num_members).to(angles.device),
        }
