"""Overlap: modules that share inputs, from none (a separable task) to all."""

from __future__ import annotations

import torch
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor

from modulab.errors import ConfigError
from modulab.partition import SHARED, Partition, even_shares
from modulab.schema import STRUCTURAL
from modulab.tasks.base import Samples, with_targets_of
from modulab.tasks.regression import Function, RegressionTask


class OverlapTask(RegressionTask):
    """Each module has K inputs in [-1, 1]; the first of them, a share, are also read by the next module, in a ring.

    Module m gives the mean of f_m over all inputs that it reads: its own K and, for the share s, the first s K of
    module m - 1 (of the last one for module 0). At share 0 the task is separable, and with K = 1 it is the regression
    task; at share 1 every input is read by two modules. The idea is that of Bena and Goodman, "Dynamics of
    specialization in neural modules under resource constraints", 2025, whose modules' inputs covary by a ratio.
    """

    inputs: int = Field(
        ge=1, description="K, the number of inputs of each module", json_schema_extra=STRUCTURAL
    )
    share: float = Field(
        ge=0,
        le=1,
        description="share of each module's inputs that the next module also reads",
        json_schema_extra=STRUCTURAL,
    )

    @model_validator(mode="after")
    def _check_share(self) -> OverlapTask:
        if abs(self.share * self.inputs - self.num_shared) > 1e-6:
            raise ConfigError(
                f"task.share={self.share} of task.inputs={self.inputs} is not a whole number of inputs. Set task.share "
                f"to a multiple of {1 / self.inputs:.7g}."
            )
        if self.num_shared > 0 and self.modules == 1:
            raise ConfigError(
                f"task.share={self.share} needs another module that reads inputs too, and task.modules=1 has none. "
                "Set task.modules to 2 or more, or task.share=0."
            )
        return self

    @property
    def num_shared(self) -> int:
        """Return how many inputs of each module are read by the next one too."""
        return round(self.share * self.inputs)

    @property
    def inputs_per_module(self) -> int:
        """Return K."""
        return self.inputs

    @property
    def partition(self) -> Partition:
        """Return equal shares in order, in which inputs that two modules read are shared."""
        parts = super().partition
        if self.code == "bump":
            return parts
        labels = [
            SHARED if place % self.inputs < self.num_shared else module
            for place, module in enumerate(even_shares(self.num_coordinates, self.modules))
        ]
        return Partition(self.modules, tuple(labels), parts.outputs)

    def targets_at(
        self, inputs: Float[Tensor, "member batch module coordinate"]
    ) -> Float[Tensor, "member batch target"]:
        """Return each module's mean over the inputs that it reads."""
        means = [
            self._mean_over_read(
                inputs, module, lambda values, module=module: self.module_values(module, values)
            )
            for module in range(self.modules)
        ]
        return torch.stack(means, dim=2)

    def _mean_over_read(
        self, inputs: Float[Tensor, "member batch module coordinate"], module: int, function: Function
    ) -> Float[Tensor, "member batch"]:
        read = [inputs[:, :, module, place] for place in range(self.inputs)]
        read += [inputs[:, :, module - 1, place] for place in range(self.num_shared)]
        total, *others = (function(values.contiguous()) for values in read)
        for values in others:
            total = total + values
        return total if len(read) == 1 else total * (1.0 / len(read))

    def changed(self, samples: Samples, module: int = 0) -> Samples | None:
        """Return the same points with the function of a module changed, for all inputs that it reads."""
        inputs = samples.inputs.unflatten(2, (self.modules, self.inputs))
        targets = self._mean_over_read(inputs, module, self.other_function(module))
        return with_targets_of(samples, module, targets.unsqueeze(2))
