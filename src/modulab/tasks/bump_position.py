"""The position of a bump in an image, or the image of a bump from its position; modules are the two coordinates.

Positions far along both coordinates may be withheld, as in Q. Liang, D. Qian, L. Ziyin and I. Fiete, "Compositional
generalization via forced rendering of disentangled latents", 2025. Their code has 32 pixels, a width of 1.5 and a
corner from 12 on.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float, Int32
from pydantic import Field, model_validator
from torch import Tensor

from modulab.errors import ConfigError
from modulab.partition import SHARED, Partition
from modulab.schema import STRUCTURAL
from modulab.tasks import supports
from modulab.tasks.base import Region, Samples, Split, Task, own_columns, with_targets_of


class BumpPositionTask(Task):
    """Regression on the position (x, y) of a Gaussian bump in an image of pixels, or on the image from the position.

    In an image of g by g pixels, positions are uniform on [0, g - 1]^2, in pixels, and are given to [-1, 1]. The pixel
    in row i and column j is exp(-((j - x)^2 + (i - y)^2) / (2 w^2)).
    """

    side: int = Field(
        ge=2, description="g, pixels along each side of the image", json_schema_extra=STRUCTURAL
    )
    width: float = Field(gt=0, description="standard deviation of the bump, in pixels")
    direction: Literal["to_position", "to_image"] = Field(
        description="whether the network reads the image and outputs the position, or the reverse",
        json_schema_extra=STRUCTURAL,
    )
    support: Literal["full", "corner"] = Field(
        description="joint distribution of x and y in training; corner withholds positions at which both are "
        "large"
    )
    corner: float = Field(
        gt=0, description="c, in pixels: corner support trains where x < c or y < c and withholds the rest"
    )

    @model_validator(mode="after")
    def _check_sizes(self) -> BumpPositionTask:
        if self.modules != 2:
            raise ConfigError(
                f"task.modules={self.modules}: a position has two coordinates, each a module. Set task.modules=2."
            )
        if self.support == "corner" and self.corner >= self.side - 1:
            raise ConfigError(
                f"task.corner={self.corner} withholds nothing, because positions end at {self.side - 1} in an image of "
                f"task.side={self.side} pixels. Lower it, or set task.support=full."
            )
        return self

    @property
    def inputs_per_module(self) -> int:
        """Return 1: a module reads a coordinate, possibly through an image."""
        return 1

    @property
    def outputs_per_module(self) -> int:
        """Return 1."""
        return 1

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Return (row, column) of an image, or one coordinate."""
        return (self.side, self.side) if self.direction == "to_position" else (1,)

    @property
    def partition(self) -> Partition:
        """Return a module for each coordinate; pixels are shared."""
        pixels, position = (SHARED,) * self.side**2, (0, 1)
        if self.direction == "to_position":
            return Partition(2, pixels, position)
        return Partition(2, position, pixels)

    @property
    def loss(self) -> str:
        """Return `squared`."""
        return "squared"

    @property
    def withholds(self) -> bool:
        """Return whether the support is `corner`."""
        return self.support == "corner"

    def changed(self, samples: Samples, module: int = 0) -> Samples | None:
        """Return the same images with 2 x^2 - 1 in place of x, which is uncorrelated with it; None to images."""
        if self.direction == "to_image":
            return None
        positions = samples.targets[:, :, own_columns(module, 1)]
        return with_targets_of(samples, module, 2.0 * positions.square() - 1.0)

    def draw(
        self,
        keys: Int32[Tensor, "member 2"],
        counters: Int32[Tensor, "member batch"],
        region: Region,
        split: Split,  # noqa: ARG002 synthetic points are the same in both splits
        scales: Float[Tensor, " module"] | None = None,
    ) -> Samples:
        """Return positions of a region and the images there."""
        if scales is not None:
            raise supports.nothing_to_widen("positions in an image", self.name)
        positions = self._positions(keys, counters, region)
        images = self.images(positions)
        return Samples(images, positions) if self.direction == "to_position" else Samples(positions, images)

    def _positions(self, keys: Tensor, counters: Tensor, region: Region) -> Float[Tensor, "member batch 2"]:
        if region == "full" or not self.withholds:
            if region == "withheld":
                raise supports.nothing_withheld()
            return supports.full(keys, counters, 2, 1).flatten(2)
        edge = 2.0 * self.corner / (self.side - 1) - 1.0
        if region == "withheld":
            # Drawn directly, because they may be rare: uniform on [edge, 1]^2.
            positions = supports.full(keys, counters, 2, 1).flatten(2)
            return (positions * (0.5 * (1.0 - edge)) + 0.5 * (1.0 + edge)).clamp(min=edge, max=1.0)
        return supports.rejection(
            keys,
            counters,
            lambda source: supports.independent(source, 2, 1),
            lambda positions, _: (positions < edge).flatten(1).any(dim=1),
        ).flatten(2)

    def images(self, positions: Float[Tensor, "member batch 2"]) -> Float[Tensor, "member batch pixel"]:
        """Return the image of a bump at each position, its pixels row by row."""
        pixels = torch.arange(self.side, device=positions.device, dtype=positions.dtype)
        places = (positions + 1.0) * (0.5 * (self.side - 1))
        # Each coordinate's exponential alone: their product is the bump.
        along = torch.exp(((places.unsqueeze(3) - pixels) * (1.0 / self.width)).square() * -0.5)
        columns, rows = along[:, :, 0], along[:, :, 1]
        return (rows.unsqueeze(3) * columns.unsqueeze(2)).flatten(2)
