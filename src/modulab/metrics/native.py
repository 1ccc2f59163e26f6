"""Functions that measures may have run as native code, a row at a time, and what runs them.

Measures are written in torch's operations on all members of a probe. What takes most of their time, such as passes
with noise, draws and derivatives, is stated as functions of a row as well, from which native code can be generated.
Whether it is decides the engine that trains the networks; results agree to rounding.
"""

from __future__ import annotations

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor

from modulab.metrics.row_functions import ModuleErrors
from modulab.tasks.base import Task

RowFunction = Callable[..., Tensor]
"""A pure function of tensors with a row for each pass, draw or derivative, which gives one such tensor: a frozen
dataclass with `__call__`, so that equal fields are an equal function. A row must not depend on other rows, and what is
computed not on the values of tensors."""

Run = Callable[..., Tensor]
"""The same as native code. A tensor of fewer rows serves several rows of the others with each of its own, in
succession."""


class Kernels:
    """What takes the place of torch's operations where measures are native. This one has nothing to offer."""

    def compiled(self, function: RowFunction, *tensors: Tensor) -> Run | None:
        """Return native code of a function, for rows of the shapes of these tensors; None where there is none."""
        del function, tensors
        return None

    def count_rates(
        self, activity: Float[Tensor, "*draws"], window: float, scores: Float[Tensor, "*draws"]
    ) -> Float[Tensor, "*draws"] | None:
        """Return `robustness.poisson_count_rates` over a window, to the same bits; None where there is no code."""
        del activity, window, scores
        return None

    def is_ready(self, task: object) -> bool:
        """Return whether a task of measuring, by any name, was begun before: at the first time code may be compiled."""
        del task
        return True


NO_KERNELS = Kernels()


def module_errors(
    task: Task,
    outputs: Float[Tensor, "row batch out_features"],
    targets: Float[Tensor, "member batch target"],
    kernels: Kernels,
    of_loss: bool = False,
) -> Float[Tensor, "row module"]:
    """Return each module's error, or its loss, by native code where there is any.

    Several rows of outputs in succession may share a member's targets.
    """
    function = ModuleErrors(task.loss_function, task.partition, of_loss)
    given = outputs.transpose(1, 2), targets.transpose(1, 2)
    run = kernels.compiled(function, *given)
    if run is not None:
        return run(*given)
    return function(given[0], given[1].repeat_interleave(len(outputs) // len(targets), dim=0))
