"""Source sets: two sources with a joint distribution, which an autoencoder must encode, and when its code mixes them.

W. Dorrell et al., "Range, not independence, drives modularity in biologically inspired representations" (2024, arXiv
2410.06232), ask when a linear code that is non-negative and costs energy gives each source units of its own. What
decides is the range of the sources: how their support is shaped, not whether they are independent.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Float64, Int32
from pydantic import Field, model_validator
from torch import Tensor

from modulab.errors import ConfigError
from modulab.streams import Stream, fold_in, member_keys, uniforms
from modulab.tasks.base import Region, Samples, Split, Task
from modulab.tasks.supports import nothing_to_widen, nothing_withheld

_SETS = 2
"""Sub-stream of Stream.TASK from which source sets are drawn."""
_CORNERS = ((-0.5, -0.5), (0.5, 0.5), (-0.5, 0.5), (0.5, -0.5))
"""The corners of the square, in the order in which they are added to a set."""


class SourcesTask(Task):
    """Module m reads source m and must reproduce it. The joint values of the sources are a set of points."""

    points: int = Field(
        ge=3, description="number of points of a source set, drawn uniformly from the unit square"
    )
    corners: int = Field(
        ge=0, le=4, description="number of corners of the square that replace the first points of the set"
    )
    source_seed: int = Field(ge=0, lt=2**63, description="seed of the source set")

    @model_validator(mode="after")
    def _check_corners(self) -> SourcesTask:
        if self.corners and self.modules != 2:
            raise ConfigError(
                f"task.corners={self.corners} is for two sources, not task.modules={self.modules}. Set task.corners=0."
            )
        if self.corners > self.points:
            raise ConfigError(
                f"task.points={self.points} has no room for task.corners={self.corners}. Raise task.points."
            )
        return self

    @property
    def inputs_per_module(self) -> int:
        """Return 1."""
        return 1

    @property
    def outputs_per_module(self) -> int:
        """Return 1."""
        return 1

    @property
    def loss(self) -> str:
        """Return `squared`."""
        return "squared"

    def source_points(self) -> Float[Tensor, "point module"]:
        """Return the points of the set, on which training and evaluation run."""
        return source_sets([self.source_seed], self.points, self.modules, self.corners)[0]

    def draw(
        self,
        keys: Int32[Tensor, "member 2"],
        counters: Int32[Tensor, "member batch"],
        region: Region,
        split: Split,  # noqa: ARG002 synthetic points are the same in both splits
        scales: Float[Tensor, " module"] | None = None,
    ) -> Samples:
        """Return the points of the set in order, again and again: as many points as the set has are the set."""
        if scales is not None:
            raise nothing_to_widen("sources", self.name)
        if region == "withheld":
            raise nothing_withheld(self.name)
        points = self.source_points().to(keys.device)
        chosen = points[counters.long() % self.points]
        return Samples(chosen, chosen)


def source_sets(
    seeds: list[int], points: int, modules: int = 2, corners: int = 0
) -> Float[Tensor, "set point module"]:
    """Return source sets by their seeds: points of the unit square centred on 0, with `corners` of its corners."""
    keys = fold_in(fold_in(member_keys(seeds), Stream.TASK), _SETS)
    counters = torch.arange(points * modules, dtype=torch.int32).expand(len(seeds), -1)
    sets = uniforms(keys, counters).unflatten(1, (points, modules)) - 0.5
    if corners:
        sets[:, :corners] = torch.tensor(_CORNERS[:corners])
    return sets


def mixing_margin(sources: Float[Tensor, "set point 2"]) -> Float64[Tensor, " set"]:
    """Return how far an optimal code of two sources is from keeping them apart: 0 if it does, negative if it mixes.

    With centred sources x, e_i = min(-min x_i, max x_i), c = E x_1 x_2 and directions w = (cos t, sin t), it is

        min over t of (min_n w . x_n)^2 - (w_1^2 e_1^2 + w_2^2 e_2^2 - 2 c w_1 w_2)

    (Dorrell et al. 2024, theorem on two sources; the ellipse on the right must fit in the support function of the set).
    A unit that reads along w pays for being non-negative by the offset -min_n w . x_n; the right side is what the same
    readout costs when each source has its own unit. In one of the two directions of each axis both are equal, so
    the minimum is 0 at most. Sets without points in the corners of their range are mixed almost surely, as the
    left side changes linearly about the axes.

    The minimum is exact. Where one point n attains min_n, the function is a quadratic form of w, whose stationary
    directions are the eigenvectors of x_n x_n' - E, with E = [[e_1^2, -c], [-c, e_2^2]]; elsewhere two points attain it
    at once, which happens at directions normal to their difference. The function is evaluated at all of these.
    """
    centred = sources.double() - sources.double().mean(dim=1, keepdim=True)
    extent = torch.minimum(-centred.amin(dim=1), centred.amax(dim=1))
    covariance = (centred[:, :, 0] * centred[:, :, 1]).mean(dim=1)
    ellipse = torch.diag_embed(extent.square())
    ellipse[:, 0, 1] = ellipse[:, 1, 0] = -covariance

    outer = centred[:, :, :, None] * centred[:, :, None, :]
    directions = torch.linalg.eigh(outer - ellipse[:, None]).eigenvectors.transpose(2, 3).flatten(1, 2)
    first, second = torch.triu_indices(centred.shape[1], centred.shape[1], 1)
    differences = centred[:, first] - centred[:, second]
    normals = torch.stack([-differences[:, :, 1], differences[:, :, 0]], dim=2)
    normals = normals / normals.norm(dim=2, keepdim=True).clamp(min=torch.finfo(torch.float64).tiny)
    axes = torch.eye(2, dtype=torch.float64).expand(len(centred), 2, 2)
    tried = torch.cat([directions, normals, axes], dim=1)
    tried = torch.cat([tried, -tried], dim=1)

    offset = (tried @ centred.transpose(1, 2)).amin(dim=2).square()
    apart = ((tried @ ellipse) * tried).sum(dim=2)
    # A pair of equal points has no normal: its direction is 0, where the function is 0 and changes no minimum.
    return (offset - apart).amin(dim=1)


def mixing_margins(
    seeds: list[int], points: int, corners: int = 0, at_once: int = 1024
) -> Float64[Tensor, " set"]:
    """Return the margins of source sets by their seeds, some sets at a time."""
    parts = [seeds[start : start + at_once] for start in range(0, len(seeds), at_once)]
    return torch.cat([mixing_margin(source_sets(part, points, corners=corners)) for part in parts])
