"""Linear Gaussian conditionals: the density of each variable given those before it, as changes of known ones.

    -log p(x_i | x_1 ... x_{i-1}) = (log 2 pi + l_i + (x_i - c_i . (1, x))^2 / e^{l_i}) / 2

The product of these is any Gaussian distribution. Inputs are the mean of z z', z = (1, x), over a data set, on which
alone the mean of the squares depends, and the coefficients c and log variances l before the change, which training adds
to (`tasks.causal`). The conditionals of all variables may be updated, or that of one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int32
from pydantic import Field
from torch import Tensor

from modulab.errors import ConfigError
from modulab.networks.base import Architecture, Network, Parameter, Site, Tap
from modulab.partition import Partition
from modulab.tasks.base import Task
from modulab.tasks.causal import CausalTask


@dataclass(frozen=True)
class Conditionals(Network):
    """One linear Gaussian conditional per variable."""

    in_features: int
    out_features: int

    @property
    def layout(self) -> tuple[Parameter, ...]:
        """Return the changes of coefficients, on 1 and all variables, and those of log variances."""
        variables = self.out_features
        return (
            Parameter("change.coefficients", (variables, variables + 1)),
            Parameter("change.log_variance", (variables,), is_weight=False),
        )

    @property
    def sites(self) -> tuple[Site, ...]:
        """Return none: it has no units."""
        return ()

    def initialise(
        self,
        architectures: Sequence[ConditionalsArchitecture],
        partition: Partition,
        keys: Int32[Tensor, "member 2"],
    ) -> tuple[Float[Tensor, "member parameter"], Float[Tensor, "member parameter"]]:
        """Return masks of the variables before each and of the conditionals that are updated, and no change."""
        del partition
        variables = self.out_features
        updated = torch.tensor(
            [
                [architecture.updated in (None, variable) for variable in range(1, variables + 1)]
                for architecture in architectures
            ],
            device=keys.device,
        ).float()
        before = torch.ones(variables, variables + 1, device=keys.device).tril()
        mask = torch.cat([(updated[:, :, None] * before).flatten(1), updated], dim=1)
        return mask, torch.zeros_like(mask)

    def forward(
        self,
        parameters: Float[Tensor, "member parameter"],
        inputs: Float[Tensor, "member batch in_features"],
        tap: Tap | None = None,
    ) -> Float[Tensor, "member batch out_features"]:
        """Return the mean negative log likelihood of each variable given those before it."""
        del tap
        variables = self.out_features
        parts = self.split(parameters)
        moments = inputs[:, :, : (variables + 1) ** 2].unflatten(2, (variables + 1, variables + 1))
        before = inputs[:, :, (variables + 1) ** 2 :].unflatten(2, (variables, variables + 2))
        coefficients = before[:, :, :, :-1] + parts["change.coefficients"][:, None]
        log_variance = before[:, :, :, -1] + parts["change.log_variance"][:, None]
        places = torch.arange(variables + 1, device=inputs.device)
        own = torch.where(places[1:, None] == places, 1.0, 0.0)
        residual = own - coefficients
        products = (moments[:, :, None] * residual[:, :, :, None, :]).sum(dim=4)
        squares = (products * residual).sum(dim=3)
        return (math.log(2 * math.pi) + log_variance + squares * (-log_variance).exp()) / 2


class ConditionalsArchitecture(Architecture):
    """Conditionals for task=causal."""

    updated: int | None = Field(
        ge=1,
        description="number of the only conditional that is trained, in the order in which variables "
        "are shown; null trains all",
    )

    def network(self, task: Task) -> Conditionals:
        """Return one conditional per variable.

        Raises: ConfigError if the task has no mechanisms, or no conditional of that number.
        """
        if not isinstance(task, CausalTask):
            raise ConfigError(
                f"architecture.name={self.name} models variables, and task.name={task.name} has none. Set task=causal."
            )
        if self.updated is not None and self.updated > task.modules:
            raise ConfigError(
                f"architecture.updated={self.updated} is not one of task.modules={task.modules} conditionals. Set it "
                f"to {task.modules} or less."
            )
        return Conditionals(task.in_features, task.modules)
