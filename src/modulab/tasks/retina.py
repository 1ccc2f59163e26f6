"""The retina task: is there an object on the left of an image, and one on the right? Its goal may change in training.

An image has eight pixels: the left four show an object or not, and so do the right four. The goal is a function of both
answers, left AND right or left OR right: goals that share the same subgoals. N. Kashtan and U. Alon, "Spontaneous
evolution of modularity and network motifs", PNAS 2005, let networks evolve while such goals took turns; J. Clune,
J.-B. Mouret and H. Lipson, "The evolutionary origins of modularity", 2013, added a cost of connections.

The training points of a member come in an order, and the goal changes with a point's number. So it is a function of the
member's seed and of the step, whatever the member is packed with and wherever training is resumed.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Bool, Float, Int32
from pydantic import Field, model_validator
from torch import Tensor

from modulab.errors import ConfigError
from modulab.partition import SHARED, Partition, even_shares
from modulab.schema import STRUCTURAL
from modulab.streams import fold_in, random_bits, uniforms
from modulab.tasks import supports
from modulab.tasks.base import Region, Samples, Split, Task, own_columns, with_targets_of

PIXELS = 4
"""The number of pixels of each side."""
IMAGES = 1 << (2 * PIXELS)
LEFT_OBJECTS = (15, 7, 5, 13, 1, 11, 4, 14)
"""Patterns of the left four pixels that are objects: bit j of an image's number is pixel j."""
RIGHT_OBJECTS = (240, 224, 160, 176, 128, 208, 32, 112)
"""The objects of the right four pixels: those of the left, mirrored."""

_IMAGE, _GOAL = 0, 1
"""The draws from a point's key. Part of every result: never change one."""


def objects(
    images: Int32[Tensor, "member batch"],
) -> tuple[Bool[Tensor, "member batch"], Bool[Tensor, "member batch"]]:
    """Return whether the images, given by their numbers, show an object on the left, and one on the right."""
    numbers = torch.arange(IMAGES)
    left = torch.isin(numbers & (IMAGES // 16 - 1), torch.tensor(LEFT_OBJECTS))
    right = torch.isin(numbers & (IMAGES - 16), torch.tensor(RIGHT_OBJECTS))
    return left[images.long()], right[images.long()]


def pixels(images: Int32[Tensor, "member batch"]) -> Float[Tensor, "member batch pixel"]:
    """Return the pixels of images, 1 or -1, the left ones first."""
    places = torch.arange(2 * PIXELS, dtype=torch.int32)
    return ((images[:, :, None] >> places) & 1).float() * 2 - 1


class RetinaTask(Task):
    """Two modules: the left and the right side of an image. The network says whether the goal is met, class 1 or 0."""

    goal: Literal["and", "or"] = Field(
        description="joint outputs: whether there must be objects on both sides, or on at least one; "
        "measures use this goal"
    )
    goals: Literal["fixed", "modular", "random"] = Field(
        description="goal in every second period of training: the same goal (fixed), the other one of and/or "
        "(modular), or a random set of images that changes each time (random)"
    )
    goal_period: int = Field(
        ge=1,
        description="number of training points of a period, a multiple of training.batch_size; varying goals "
        "need data.num_samples=null",
    )
    outputs: Literal["joint", "separate"] = Field(
        description="whether the network answers for both sides jointly, or for each side separately",
        json_schema_extra=STRUCTURAL,
    )

    @model_validator(mode="after")
    def _check_goals(self) -> RetinaTask:
        if self.modules != 2:
            raise ConfigError(
                f"task.modules={self.modules}: a retina has a left and a right side, each a module. Set task.modules=2."
            )
        if self.outputs == "separate" and self.goals != "fixed":
            raise ConfigError(
                f"task.goals={self.goals} needs a goal of both sides together. Set task.outputs=joint, or "
                "task.goals=fixed."
            )
        return self

    @property
    def inputs_per_module(self) -> int:
        """Return 4, the pixels of a side."""
        return PIXELS

    @property
    def outputs_per_module(self) -> int:
        """Return 2, the logits of no and yes."""
        return 2

    @property
    def partition(self) -> Partition:
        """Return the side of each pixel; joint outputs belong to none."""
        if self.outputs == "separate":
            return super().partition
        return Partition(self.modules, even_shares(2 * PIXELS, self.modules), (SHARED,) * 2)

    @property
    def loss(self) -> str:
        """Return `cross_entropy`."""
        return "cross_entropy"

    def check_training(self, num_samples: int | None, batch_size: int) -> None:
        """Raise ConfigError if the points of a minibatch would be of several periods."""
        if self.goals == "fixed":
            return
        if num_samples is not None:
            raise ConfigError(
                f"task.goals={self.goals} changes the goal from point to point of training, and "
                f"data.num_samples={num_samples} shows the same points at every step. Set data.num_samples=null."
            )
        if self.goal_period % batch_size:
            raise ConfigError(
                f"task.goal_period={self.goal_period} points are not a whole number of minibatches of "
                f"training.batch_size={batch_size}. Set task.goal_period to a multiple of it."
            )

    def changed(self, samples: Samples, module: int = 0) -> Samples | None:
        """Return the same images with a side's answers exchanged, or None for joint outputs."""
        if self.outputs == "joint":
            return None
        return with_targets_of(samples, module, 1 - samples.targets[:, :, own_columns(module, 1)])

    def draw(
        self,
        keys: Int32[Tensor, "member 2"],
        counters: Int32[Tensor, "member batch"],
        region: Region,
        split: Split,
        scales: Float[Tensor, " module"] | None = None,
    ) -> Samples:
        """Return images, all equally likely; in training, with the goal of their period."""
        if scales is not None:
            raise supports.nothing_to_widen("pixels", "retina")
        if region == "withheld":
            raise supports.nothing_withheld(self.name)
        images = random_bits(fold_in(keys, _IMAGE), counters) & (IMAGES - 1)
        left, right = objects(images)
        if self.outputs == "separate":
            answers = torch.stack([left, right], dim=2)
        else:
            met = self._met(left, right, self.goal)
            if region == "train" and split == "train" and self.goals != "fixed":
                periods = counters // self.goal_period
                met = torch.where(periods % 2 == 1, self._met_otherwise(keys, images, periods), met)
            answers = met[:, :, None].expand(-1, -1, self.modules)
        return Samples(pixels(images), answers.float())

    @staticmethod
    def _met(left: Tensor, right: Tensor, goal: str) -> Bool[Tensor, "member batch"]:
        return left & right if goal == "and" else left | right

    def _met_otherwise(self, keys: Tensor, images: Tensor, periods: Tensor) -> Bool[Tensor, "member batch"]:
        """Return whether images meet the other goal, or belong to the random set of their period.

        Each image belongs to a random set with a probability that is the share of images that meet the other goal.
        """
        other = "or" if self.goal == "and" else "and"
        if self.goals == "modular":
            return self._met(*objects(images), other)
        every = torch.arange(IMAGES, dtype=torch.int32)[None]
        share = self._met(*objects(every), other).float().mean()
        return uniforms(fold_in(keys, _GOAL), periods * IMAGES + images) < share
