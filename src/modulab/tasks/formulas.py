"""Formulas in a few variables whose structure a network may show: independent parts, shared features, composition.

They are the symbolic formulas of Z. Liu, E. Gan and M. Tegmark (BIMT), arXiv 2305.08746, 2023, with their test errors.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int32
from pydantic import Field, model_validator
from torch import Tensor

from modulab.errors import ConfigError
from modulab.partition import SHARED, Partition
from modulab.schema import STRUCTURAL
from modulab.streams import fold_in, uniforms
from modulab.tasks import supports
from modulab.tasks.base import Region, Samples, Split, Task

FormulaName = Literal["independent", "shared", "composed"]
PUBLISHED_POINTS = 100
"""The number of training points of the published networks, and of their test points."""


@dataclass(frozen=True)
class Formula:
    """A function of variables in [-1, 1], and which of its parts each variable and value belongs to."""

    function: Callable[[list[Tensor]], list[Tensor]]
    partition: Partition
    published_seed: int
    """The seed of NumPy's generator that gave the published network its points."""


def _independent(x: list[Tensor]) -> list[Tensor]:
    cubed = x[0] + x[2]
    return [cubed * cubed * cubed, x[1].square() + torch.sin(torch.pi * x[3])]


def _shared(x: list[Tensor]) -> list[Tensor]:
    first = x[0].square()
    second = first + x[1].square()
    return [first, second, second + x[2].square()]


def _composed(x: list[Tensor]) -> list[Tensor]:
    return [((x[0] - x[1]).square() + (x[2] - x[3]).square()).sqrt()]


FORMULAS: dict[FormulaName, Formula] = {
    "independent": Formula(_independent, Partition(2, (0, 1, 0, 1), (0, 1)), 0),
    "shared": Formula(_shared, Partition(1, (0, 0, 0), (0, 0, 0)), 4),
    "composed": Formula(_composed, Partition(2, (0, 0, 1, 1), (SHARED,)), 3),
}


class FormulaTask(Task):
    """One of the three formulas; mean squared error.

    independent: ((x1 + x3)^3, x2^2 + sin(pi x4)), two modules. shared: (x1^2, x1^2 + x2^2, x1^2 + x2^2 + x3^2), one
    module, as each value is a part of the next. composed: sqrt((x1 - x2)^2 + (x3 - x4)^2), two modules and a joint
    output.
    """

    formula: FormulaName = Field(
        description="independent ((x1 + x3)^3, x2^2 + sin(pi x4)), shared (x1^2, x1^2 + x2^2, x1^2 + x2^2 + x3^2) or "
        "composed sqrt((x1 - x2)^2 + (x3 - x4)^2)",
        json_schema_extra=STRUCTURAL,
    )
    full_batch: int | None = Field(
        ge=1,
        description="number of training points that are all used at every step, equal to "
        "training.batch_size; needs data.num_samples=null. null means minibatches as in other tasks",
    )

    points: Literal["drawn", "published"] = Field(
        description="drawn for each seed, or those of the published network: the same 100 training points "
        "and 100 test points for all seeds",
    )

    @model_validator(mode="after")
    def _check_modules(self) -> FormulaTask:
        modules = FORMULAS[self.formula].partition.modules
        if self.modules != modules:
            raise ConfigError(
                f"task.modules={self.modules}: the formula {self.formula} has a fixed number of parts. Set "
                f"task.modules={modules}."
            )
        return self

    @property
    def inputs_per_module(self) -> int:
        """Return the number of variables of a part."""
        return len(self.partition.inputs) // self.modules

    @property
    def outputs_per_module(self) -> int:
        """Return the number of values of a part, or of all parts where they share them."""
        return len(self.partition.judged_outputs(0))

    @property
    def partition(self) -> Partition:
        """Return the part of each variable and value."""
        return FORMULAS[self.formula].partition

    @property
    def loss(self) -> str:
        """Return `squared`."""
        return "squared"

    def check_training(self, num_samples: int | None, batch_size: int) -> None:
        """Raise ConfigError if not all points of a full batch would be seen at every step."""
        if self.full_batch is None:
            return
        if num_samples is not None:
            raise ConfigError(
                f"task.full_batch={self.full_batch} shows points in order, and data.num_samples={num_samples} draws "
                "minibatches with replacement. Set data.num_samples=null, or task.full_batch=null."
            )
        if batch_size != self.full_batch:
            raise ConfigError(
                f"training.batch_size={batch_size} is not the number of points of task.full_batch={self.full_batch}. "
                f"Set training.batch_size={self.full_batch}."
            )

    def draw(
        self,
        keys: Int32[Tensor, "member 2"],
        counters: Int32[Tensor, "member batch"],
        region: Region,
        split: Split,
        scales: Float[Tensor, " module"] | None = None,
    ) -> Samples:
        """Return variables uniform on [-1, 1]; in full batches or of published points, the same again and again."""
        if scales is not None:
            raise supports.nothing_to_widen("variables", self.name)
        if region == "withheld":
            raise supports.nothing_withheld(self.name)
        if self.full_batch is not None and region == "train" and split == "train":
            counters = counters % self.full_batch
        if self.points == "published":
            published = _published(self.formula, split == "train")
            variables = [values[counters.long() % PUBLISHED_POINTS] for values in published]
        else:
            variables = [
                2 * uniforms(fold_in(keys, variable), counters) - 1
                for variable in range(len(self.partition.inputs))
            ]
        values = FORMULAS[self.formula].function(variables)
        return Samples(torch.stack(variables, dim=2), torch.stack(values, dim=2))


@functools.cache
def _published(formula: FormulaName, is_training: bool) -> Float[Tensor, "variable point"]:
    """Return the published points: NumPy's first uniform draws from their seed to train on, and the next to test."""
    of = FORMULAS[formula]
    generator = np.random.RandomState(of.published_seed)
    training, tests = (generator.rand(PUBLISHED_POINTS, len(of.partition.inputs)) for _ in range(2))
    return torch.from_numpy(2 * (training if is_training else tests) - 1).float().T.contiguous()
