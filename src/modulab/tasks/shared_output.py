"""One output for all modules: a task with modules that its outputs do not show."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from modulab.partition import SHARED, Partition
from modulab.tasks.base import Samples
from modulab.tasks.regression import RegressionTask


class SharedOutputTask(RegressionTask):
    """Module m reads x_m in [-1, 1]; the only output is the sum over modules of f_m(x_m), and belongs to none."""

    @property
    def partition(self) -> Partition:
        """Return the inputs' modules, and one shared output."""
        return Partition(self.modules, super().partition.inputs, (SHARED,))

    @property
    def outputs_per_module(self) -> int:
        """Return 1, which all modules share."""
        return 1

    def targets_at(
        self, inputs: Float[Tensor, "member batch module coordinate"]
    ) -> Float[Tensor, "member batch target"]:
        """Return the sum of the modules' values."""
        total, *others = super().targets_at(inputs).unbind(dim=2)
        for values in others:
            total = total + values
        return total.unsqueeze(2)

    def changed(self, samples: Samples, module: int = 0) -> Samples | None:
        """Return None: what is forgotten of the other modules cannot be distinguished from what one of them learns."""
        del samples, module
        return None
