"""A task of your own: each module reads two numbers and outputs the larger one."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from modulab.tasks.continuous import ContinuousTask


class LargerTask(ContinuousTask):
    """Regression on y_m = max(a_m, b_m), with a_m and b_m in [-1, 1]. Supports and codes are inherited."""

    @property
    def inputs_per_module(self) -> int:
        """Return 2."""
        return 2

    @property
    def outputs_per_module(self) -> int:
        """Return 1."""
        return 1

    def targets_at(
        self, inputs: Float[Tensor, "member batch module coordinate"]
    ) -> Float[Tensor, "member batch target"]:
        """Return the larger coordinate of each module."""
        return torch.maximum(inputs[..., 0], inputs[..., 1])
