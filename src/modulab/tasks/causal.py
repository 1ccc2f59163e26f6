"""Causal tasks: linear Gaussian mechanisms, one of which changes, with few samples from which to learn the change.

Variables x_1 to x_d are made one after another, x_i = b_i + sum_{j<i} w_ij x_j + s_i xi_i with standard normal xi. An
intervention replaces the mechanism of one variable, its w_i, b_i and s_i. Models that factor the joint distribution as
it was made, into p(x_i | x_1 ... x_{i-1}), have one conditional to learn again; in the reverse order all of those after
the variable, in that order or not, are others. That is what makes causal models quick to adapt (B. Schoelkopf et al.,
"On causal and anticausal learning", 2012; Y. Bengio et al., "A meta-transfer objective for learning to disentangle
causal mechanisms", 2020).

A sample of the task is a whole data set: the likelihood of a linear Gaussian model depends on N observations through
their mean outer product E z z', z = (1, x), alone. Evaluation has the exact one, that of infinitely many observations.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Float64, Int32
from pydantic import Field, model_validator
from torch import Tensor

from modulab.errors import ConfigError
from modulab.losses import Loss
from modulab.partition import SHARED, Partition
from modulab.streams import Stream, fold_in, member_keys, normals
from modulab.tasks.base import Region, Samples, Split, Task
from modulab.tasks.supports import nothing_to_widen, nothing_withheld

_MECHANISMS = 5
"""Sub-stream of Stream.TASK from which mechanisms are drawn."""
_CHANGES = 6
"""Sub-stream of Stream.TASK from which the mechanism after an intervention is drawn."""
_DRAWN_TOGETHER = 1024
"""Data sets whose noise is drawn at once: fast, and a few MiB."""


@dataclass(frozen=True)
class Mechanisms:
    """x_i = intercepts_i + sum_j weights_ij x_j + exp(log_deviations_i) xi_i, with weights below the diagonal."""

    weights: Float64[Tensor, "variable variable"]
    intercepts: Float64[Tensor, " variable"]
    log_deviations: Float64[Tensor, " variable"]

    def mixing(self) -> Float64[Tensor, "variable variable"]:
        """Return (I - W)^-1, by which variables follow from what is drawn for each: x = (I - W)^-1 (b + s xi)."""
        return torch.linalg.inv(torch.eye(len(self.intercepts), dtype=torch.float64) - self.weights)

    def moments(self) -> Float64[Tensor, "coordinate coordinate"]:
        """Return E z z' of z = (1, x), exactly."""
        made = self.mixing()
        mean = made @ self.intercepts
        covariance = made @ torch.diag((2 * self.log_deviations).exp()) @ made.T
        return _moments(mean, covariance)


def _moments(
    mean: Float64[Tensor, " variable"], covariance: Float64[Tensor, "variable variable"]
) -> Float64[Tensor, "coordinate coordinate"]:
    first = torch.cat([torch.ones(1, dtype=torch.float64), mean])
    moments = first[:, None] * first
    moments[1:, 1:] += covariance
    return moments


def conditionals(
    moments: Float64[Tensor, "coordinate coordinate"],
) -> tuple[Float64[Tensor, "variable coordinate"], Float64[Tensor, " variable"]]:
    """Return each variable's coefficients on 1 and those before it, 0 for others, and its log variance given them."""
    size = len(moments)
    coefficients = torch.zeros(size - 1, size, dtype=torch.float64)
    log_variances = torch.zeros(size - 1, dtype=torch.float64)
    for variable in range(1, size):
        found = torch.linalg.solve(moments[:variable, :variable], moments[:variable, variable])
        coefficients[variable - 1, :variable] = found
        log_variances[variable - 1] = (
            moments[variable, variable] - found @ moments[:variable, variable]
        ).log()
    return coefficients, log_variances


@dataclass(frozen=True)
class LikelihoodLoss(Loss):
    """Negative log likelihood in nats, minus the target: outputs are each module's, averaged over a data set."""

    @property
    def error_label(self) -> str:
        """Return `Divergence (nats)`, which the mean over modules is if targets are the entropy."""
        return "Divergence (nats)"

    def num_targets(self, partition: Partition) -> int:
        """Return the number of modules."""
        return partition.modules

    def by_module(
        self,
        outputs: Float[Tensor, "member batch out_features"],
        targets: Float[Tensor, "member batch target"],
        partition: Partition,
    ) -> Float[Tensor, "member module"]:
        """Return the batch mean of outputs less targets."""
        del partition
        return (outputs - targets).mean(dim=1)

    def constant_errors(
        self, targets: Float[Tensor, "member batch target"], partition: Partition
    ) -> Float[Tensor, "member module"]:
        """Return the error of outputs of 0: there is no constant answer to a likelihood."""
        return self.by_module(torch.zeros_like(targets), targets, partition)


class CausalTask(Task):
    """Module i is the conditional of variable i given those before it, in the order in which the task shows them."""

    intervened: int = Field(
        ge=1, description="number of the variable whose mechanism changes, in causal order"
    )
    order: Literal["causal", "reversed"] = Field(
        description="whether variables are shown in causal order or in reverse"
    )
    observations: int = Field(ge=2, description="number of observations after the change in a data set")
    coupling: float = Field(ge=0, description="standard deviation of the weights between variables")
    mechanism_seed: int = Field(ge=0, lt=2**63, description="seed of the mechanisms and of the change")

    @model_validator(mode="after")
    def _check_intervened(self) -> CausalTask:
        if self.intervened > self.modules:
            raise ConfigError(
                f"task.intervened={self.intervened} is not one of task.modules={self.modules} variables. Set it to "
                f"{self.modules} or less."
            )
        return self

    @property
    def codes(self) -> tuple[str, ...]:
        """Return `coordinate` alone: moments are not coordinates."""
        return ("coordinate",)

    @property
    def inputs_per_module(self) -> int:
        """Return the number of inputs of a module if they are divided evenly; all modules read the moments."""
        return len(self.partition.inputs) // self.modules

    @property
    def outputs_per_module(self) -> int:
        """Return 1."""
        return 1

    @property
    def partition(self) -> Partition:
        """Return the partition of shared moments and of each module's own conditional before the change."""
        size = self.modules + 1
        own = tuple(module for module in range(self.modules) for _ in range(size + 1))
        return Partition(self.modules, (SHARED,) * size**2 + own, tuple(range(self.modules)))

    @property
    def loss(self) -> Loss:
        """Return the likelihood."""
        return LikelihoodLoss()

    def mechanisms(self, after: bool) -> Mechanisms:
        """Return the mechanisms before or after the change."""
        weights, intercepts, deviations = self._drawn(_MECHANISMS)
        if after:
            changed = self.intervened - 1
            for values, new in zip((weights, intercepts, deviations), self._drawn(_CHANGES), strict=True):
                values[changed] = new[changed]
        return Mechanisms(weights, intercepts, deviations)

    def _drawn(self, stream: int) -> tuple[Tensor, Tensor, Tensor]:
        keys = fold_in(fold_in(member_keys([self.mechanism_seed]), Stream.TASK), stream)
        drawn = normals(keys, self.modules, self.modules + 2)[0].double()
        weights = (self.coupling * drawn[:, : self.modules]).tril(-1)
        # Deviations are within a factor of 1.5 of 1 for two in three variables.
        return weights, drawn[:, -2].clone(), math.log(1.5) * drawn[:, -1]

    def shown(
        self, moments: Float64[Tensor, "coordinate coordinate"]
    ) -> Float64[Tensor, "coordinate coordinate"]:
        """Return the moments of variables as made in the order in which they are shown."""
        if self.order == "causal":
            return moments
        places = [0, *range(self.modules, 0, -1)]
        return moments[places][:, places]

    def draw(
        self,
        keys: Int32[Tensor, "member 2"],
        counters: Int32[Tensor, "member batch"],
        region: Region,
        split: Split,
        scales: Float[Tensor, " module"] | None = None,
    ) -> Samples:
        """Return data sets of `observations` observations or, in the test split, exact moments; all after the change.

        Inputs are the moments and, of each module, coefficients and log variance before the change. Targets are the
        entropy of the distribution after it, in equal shares, so errors on exact moments add up to a divergence.
        """
        if scales is not None:
            raise nothing_to_widen("moments", self.name)
        if region == "withheld":
            raise nothing_withheld(self.name)
        coefficients, log_variances = conditionals(self.shown(self.mechanisms(after=False).moments()))
        before = torch.cat([coefficients, log_variances[:, None]], dim=1).flatten()
        after = self.mechanisms(after=True)

        def row_of(moments: Float64[Tensor, "coordinate coordinate"]) -> Float[Tensor, " in_features"]:
            return torch.cat([self.shown(moments).flatten(), before]).float()

        if split == "test":
            inputs = row_of(after.moments()).expand(*counters.shape, -1)
        else:
            by_member = zip(keys.cpu(), counters.cpu(), strict=True)
            rows = [row_of(moments) for key, own in by_member for moments in self._observed(after, key, own)]
            inputs = torch.stack(rows).unflatten(0, tuple(counters.shape))
        inputs = inputs.to(keys.device)
        entropy = float(after.log_deviations.mean()) + (1 + math.log(2 * math.pi)) / 2
        targets = torch.full((*counters.shape, self.modules), entropy, device=keys.device)
        return Samples(inputs, targets)

    def _observed(
        self, mechanisms: Mechanisms, key: Int32[Tensor, " 2"], counters: Int32[Tensor, " batch"]
    ) -> Iterator[Float64[Tensor, "coordinate coordinate"]]:
        """Yield the moments of data sets; of larger ones the first observations are those of smaller ones."""
        made, deviations = mechanisms.mixing().T, mechanisms.log_deviations.exp()
        ones = torch.ones(self.observations, 1, dtype=torch.float64)
        for some in counters.split(_DRAWN_TOGETHER):
            keys = fold_in(key.expand(len(some), 2), some)
            for noise in normals(keys, self.observations, self.modules).double():
                observed = (mechanisms.intercepts + noise * deviations) @ made
                coordinates = torch.cat([ones, observed], dim=1)
                yield coordinates.T @ coordinates / self.observations
