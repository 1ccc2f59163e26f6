"""The interface between measures and native code.

Measures are written in torch operations on all members of a probe. The parts that take most of their time, such as
passes with noise, draws and derivatives, are also stated as functions of a row, from which native code can be
generated. The engine that trains the networks decides which of the two is used. Results agree up to rounding.
"""

from __future__ import annotations

from collections.abc import Callable

from jaxtyping import Float, Float64
from torch import Tensor

from modulab.metrics.row_functions import ModuleErrors
from modulab.tasks.base import Task

RowFunction = Callable[..., Tensor]
"""A pure function of tensors that have one row per pass, draw or derivative. It returns one such tensor. It is a frozen
dataclass with `__call__`, so two functions with equal fields are equal. A row must not depend on other rows, and the
operations must not depend on the values of tensors."""

Run = Callable[..., Tensor]
"""A row function as native code. If a tensor has fewer rows than the others, each of its rows is used for several
consecutive rows of the others."""


class Kernels:
    """Native code for parts of measures. This base class has none, so measures are computed by torch."""

    members_to_torchs: float = 1.0
    """How many times the members that torch measures at once are measured at once, in about the same memory."""

    def compiled(self, function: RowFunction, *tensors: Tensor) -> Run | None:
        """Return native code for a function and rows of the shapes of these tensors, or None if there is none."""
        del function, tensors
        return None

    def count_rates(
        self,
        activity: Float[Tensor, "row ..."],
        windows: Float64[Tensor, "row_or_one window"],
        scores: Float[Tensor, "row_or_fewer ..."],
    ) -> Float[Tensor, "row window ..."] | None:
        """Return the same bits as `robustness.poisson_count_rates` for windows, or None if there is no native code.

        A row of scores can serve several consecutive rows of activity.
        """
        del activity, windows, scores
        return None

    def is_ready(self, task: object) -> bool:
        """Return whether this was called with an equal `task` before. If not, measuring may compile code."""
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
    """Return each module's error, or its loss, by native code if there is any.

    Consecutive rows of outputs can share the targets of one member.
    """
    function = ModuleErrors(task.loss_function, task.partition, of_loss)
    given = outputs.transpose(1, 2), targets.transpose(1, 2)
    run = kernels.compiled(function, *given)
    if run is not None:
        return run(*given)
    return function(given[0], given[1].repeat_interleave(len(outputs) // len(targets), dim=0))
