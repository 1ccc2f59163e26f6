"""Digit tasks: each module reads the image of a handwritten digit and must name it.

The images are the 1,797 of 8 by 8 pixels that scikit-learn bundles (E. Alpaydin and C. Kaynak, "Optical
recognition of handwritten digits", UCI repository, 1998). A fifth of each digit's are kept for testing.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, cast

import torch
from jaxtyping import Float, Float64, Int32, Int64
from pydantic import Field, model_validator
from torch import Tensor

from modulab.streams import Stream, fold_in, integers, member_keys, random_bits
from modulab.tasks import supports
from modulab.tasks.base import Region, Samples, Split, Task, own_columns, with_targets_of

NUM_DIGITS = 10
IMAGE_SIDE = 8
TEST_FRACTION = 0.2

_IMAGE_SPLIT = 3
"""Sub-stream of Stream.TASK that splits images; 1 is that of random functions, 2 of withheld combinations."""


@dataclass(frozen=True)
class Images:
    """Images sorted by digit, pixels in [0, 1]; those of digit k begin at starts[k] and number counts[k]."""

    pixels: Float[Tensor, "image pixel"]
    digits: Int64[Tensor, " image"]
    starts: Int64[Tensor, " digit"]
    counts: Int64[Tensor, " digit"]


@lru_cache(maxsize=1)
def _all_images() -> tuple[Tensor, Tensor]:
    from sklearn.datasets import load_digits  # takes half a second that other tasks need not spend

    bundle = cast(Any, load_digits())
    return torch.tensor(bundle.data, dtype=torch.float32) / 16.0, torch.tensor(bundle.target).long()


@lru_cache(maxsize=8)
def load_images(split: Split, device: torch.device) -> Images:
    """Return a split's images: of each digit a fixed random fifth for `test`, the others for `train`."""
    pixels, digits = _all_images()
    keys = fold_in(fold_in(member_keys([0]), Stream.TASK), _IMAGE_SPLIT)
    order = random_bits(keys, torch.arange(len(digits), dtype=torch.int32).unsqueeze(0))[0]
    chosen: list[Tensor] = []
    for digit in range(NUM_DIGITS):
        images = torch.nonzero(digits == digit)[:, 0]
        images = images[torch.argsort(order[images], stable=True)]
        num_test = round(TEST_FRACTION * len(images))
        chosen.append(images[:num_test] if split == "test" else images[num_test:])
    counts = torch.tensor([len(images) for images in chosen])
    indices = torch.cat(chosen)
    starts = torch.cumsum(counts, dim=0) - counts
    return Images(
        pixels[indices].to(device), digits[indices].to(device), starts.to(device), counts.to(device)
    )


class DigitsTask(Task):
    """Module m reads an 8 by 8 image of a digit and must name the digit."""

    support: Literal["full", "labels"] = Field(
        description="joint distribution of the modules' digits in training; labels withholds combinations"
    )
    withheld_fraction: float = Field(
        gt=0, lt=1, description="labels support: share of the 10^modules joint labels that is withheld"
    )
    withheld_seed: int = Field(
        ge=0, lt=2**63, description="labels support: seed of the withheld joint labels"
    )

    @model_validator(mode="after")
    def _check_support(self) -> DigitsTask:
        if self.support == "labels":
            supports.check_withholding(NUM_DIGITS, self.modules, self.withheld_fraction, "labels")
        return self

    @property
    def inputs_per_module(self) -> int:
        """Return the number of pixels."""
        return IMAGE_SIDE * IMAGE_SIDE

    @property
    def input_shape(self) -> tuple[int, int]:
        """Return (row, column) of an image."""
        return (IMAGE_SIDE, IMAGE_SIDE)

    @property
    def outputs_per_module(self) -> int:
        """Return the number of digits."""
        return NUM_DIGITS

    @property
    def loss(self) -> str:
        """Return `cross_entropy`."""
        return "cross_entropy"

    @property
    def withholds(self) -> bool:
        """Return whether the support is other than `full`."""
        return self.support != "full"

    def changed(self, samples: Samples, module: int = 0) -> Samples:
        """Return the same images with a module's digit k named k + 1, and 9 named 0."""
        names = samples.targets[:, :, own_columns(module, 1)]
        return with_targets_of(samples, module, (names + 1) % NUM_DIGITS)

    def draw(
        self,
        keys: Int32[Tensor, "member 2"],
        counters: Int32[Tensor, "member batch"],
        region: Region,
        split: Split,
        scales: Float[Tensor, " module"] | None = None,
    ) -> Samples:
        """Return a split's images, independent over modules given that their joint label is in the region."""
        if scales is not None:
            raise supports.nothing_to_widen("images", "digits")
        images = load_images(split, counters.device)
        indices = self._image_indices(keys, counters, region, images)
        return Samples(images.pixels[indices].flatten(2), images.digits[indices].float())

    def _image_indices(self, keys: Tensor, counters: Tensor, region: Region, images: Images) -> Tensor:
        num_images = torch.full((len(keys),), len(images.digits), dtype=torch.int32, device=counters.device)
        if self.support == "full" and region == "withheld":
            raise supports.nothing_withheld()
        if self.support == "full" or region == "full":
            columns = [
                integers(fold_in(keys, module), counters, num_images) for module in range(self.modules)
            ]
            return torch.stack(columns, dim=2).long()
        weights = _joint_label_weights(
            self.modules, self.withheld_fraction, self.withheld_seed, region == "withheld", images.counts
        )
        digits = supports.combinations(keys, counters, weights, NUM_DIGITS, self.modules)
        # One large random number modulo the digit's own number of images.
        limit = torch.full_like(num_images, 2**31 - 1)
        columns = [integers(fold_in(keys, module), counters, limit) for module in range(self.modules)]
        return images.starts[digits] + torch.stack(columns, dim=2) % images.counts[digits]


def _joint_label_weights(
    modules: int, fraction: float, seed: int, withheld: bool, counts: Int64[Tensor, " digit"]
) -> Float64[Tensor, " combination"]:
    """Return each joint label's weight: the product of its digits' image counts, 0 outside the region."""
    table = supports.withheld_combinations(NUM_DIGITS, modules, fraction, seed)
    values = counts.double().cpu().expand(modules, NUM_DIGITS)
    return supports.combination_weights(values) * (table == withheld)
