"""Functions that measures may have run as native code, a row at a time, and what runs them.

Measures are written in torch's operations on all members of a probe. What takes most of their time, such as passes
with noise, draws and derivatives, is stated as functions of a row as well, from which native code can be generated.
Whether it is decides the engine that trains the networks; results agree to rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int32
from torch import Tensor

from modulab.losses import Loss
from modulab.networks.base import Network
from modulab.partition import Partition
from modulab.streams import normals
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


@dataclass(frozen=True)
class Normals:
    """Standard normal draws of `streams.normals`."""

    rows: int
    columns: int

    def __call__(self, keys: Int32[Tensor, "row 2"]) -> Float[Tensor, "row rows columns"]:
        """Return a matrix of draws for each key."""
        return normals(keys, self.rows, self.columns)


@dataclass(frozen=True)
class Outputs:
    """The outputs of a clean pass."""

    network: Network

    def __call__(
        self, parameters: Float[Tensor, "row parameter"], inputs: Float[Tensor, "row in_features batch"]
    ) -> Float[Tensor, "row out_features batch"]:
        """Return outputs; both they and inputs have points along the last axis."""
        return self.network.forward(parameters, inputs.transpose(1, 2)).transpose(1, 2)


@dataclass(frozen=True)
class SilencedOutputs:
    """The outputs of a pass in which some units are silent."""

    network: Network

    def __call__(
        self,
        parameters: Float[Tensor, "row parameter"],
        inputs: Float[Tensor, "row in_features batch"],
        kept: Float[Tensor, "row unit"],
    ) -> Float[Tensor, "row out_features batch"]:
        """Return outputs where activity is multiplied by `kept`: 1 or 0 for each unit, site after site."""
        sites = self.network.sites
        parts = kept.split([site.units for site in sites], dim=1)
        own = dict(zip((site.name for site in sites), parts, strict=True))

        def silence(place: str, values: Tensor) -> Tensor:
            return values * own[place][:, :, None] if place in own else values

        return self.network.forward(parameters, inputs.transpose(1, 2), silence).transpose(1, 2)


@dataclass(frozen=True)
class AbsoluteDerivatives:
    """Sums over points of the absolute derivative by each input of one output, or of a weighted sum of outputs."""

    network: Network

    def __call__(
        self,
        parameters: Float[Tensor, "row parameter"],
        inputs: Float[Tensor, "row in_features batch"],
        weights: Float[Tensor, "row out_features"],
    ) -> Float[Tensor, "row in_features"]:
        """Return sum_x |d(w . y) / dx|, by one product with the transposed Jacobian."""

        def outputs_of(seen: Tensor) -> Tensor:
            return self.network.forward(parameters, seen)

        vjp: Any = torch.func.vjp
        outputs, pull_back = vjp(outputs_of, inputs.transpose(1, 2))
        [gradient] = pull_back(torch.zeros_like(outputs) + weights[:, None, :])
        return gradient.abs().sum(dim=1)


@dataclass(frozen=True)
class ModuleErrors:
    """Each module's error, or its loss, from outputs."""

    loss: Loss
    partition: Partition
    of_loss: bool = False

    def __call__(
        self, outputs: Float[Tensor, "row out_features batch"], targets: Float[Tensor, "row target batch"]
    ) -> Float[Tensor, "row module"]:
        """Return `Loss.errors`, or `Loss.by_module`, of points along the last axis."""
        judge = self.loss.by_module if self.of_loss else self.loss.errors
        return judge(outputs.transpose(1, 2), targets.transpose(1, 2), self.partition)


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
