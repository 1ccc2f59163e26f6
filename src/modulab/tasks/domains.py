"""Domains: distributions over the same symbols, all of which one density model must fit, even the worst one.

C. Cortes, M. Mohri and Y. Zhong ("Modular generative models", 2026, arXiv 2602.17554) combine experts, each a model of
one domain, by a gate: q(x) = sum_k g_k(x) e_k(x), and ask for the gate that is best for the worst mixture P_w of the
domains P_k. As KL(P_w || q) is convex in w, the worst mixture is a single domain, so the value of the game is

    min over q of max over k of KL(P_k || q)

With experts that are their domains, and any q, that is the capacity of the channel from k to symbols, by the
redundancy-capacity theorem (R. Gallager, 1976; B. Ryabko, 1979), and the q that attains it is sum_k w_k P_k, a gate
that does not look at the symbol. `metrics.gates.channel_capacity` computes it.

A sample shows a channel as a whole: the densities of all experts at all symbols. The outputs are log q up to a
constant, as the loss divides q by its sum over symbols.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int32
from pydantic import Field, model_validator
from torch import Tensor

from modulab.errors import ConfigError
from modulab.losses import Loss
from modulab.partition import SHARED, Partition
from modulab.schema import STRUCTURAL
from modulab.streams import Stream, fold_in, member_keys, normals
from modulab.tasks.base import Region, Samples, Split, Task
from modulab.tasks.supports import nothing_to_widen, nothing_withheld

_CHANNELS = 3
"""Sub-stream of Stream.TASK from which domains are drawn."""
_ERRORS = 4
"""Sub-stream of Stream.TASK from which the errors of experts are drawn."""
_SUM_ERROR = 1e-6
"""How far from 1 the sum of a row of `task.channel` may be."""


@dataclass(frozen=True)
class WorstDivergence(Loss):
    """Each module's KL(P_k || q) in nats; training minimises the largest."""

    @property
    def error_label(self) -> str:
        """Return `Divergence (nats)`."""
        return "Divergence (nats)"

    def num_targets(self, partition: Partition) -> int:
        """Return the number of domains times that of symbols."""
        return partition.modules * len(partition.outputs)

    def by_module(
        self,
        outputs: Float[Tensor, "member batch out_features"],
        targets: Float[Tensor, "member batch target"],
        partition: Partition,
    ) -> Float[Tensor, "member module"]:
        """Return sum_x P_k(x) log(P_k(x) / q(x)), q being the outputs' exponentials divided by their sum."""
        domains = targets.unflatten(2, (partition.modules, len(partition.outputs)))
        # Subtracted so that no exponential overflows; it cancels, and so has no gradient.
        largest = outputs.detach().amax(dim=2, keepdim=True)
        log_normaliser = (outputs - largest).exp().sum(dim=2).log() + largest[:, :, 0]
        # log 0 is not taken where P_k is 0, whose term is 0.
        log_domains = torch.where(domains > 0, domains, 1.0).log()
        terms = torch.where(domains > 0, domains * (log_domains - outputs[:, :, None]), 0.0)
        return (terms.sum(dim=3) + log_normaliser[:, :, None]).mean(dim=1)

    def total(
        self,
        outputs: Float[Tensor, "member batch out_features"],
        targets: Float[Tensor, "member batch target"],
        partition: Partition,
    ) -> Float[Tensor, " member"]:
        """Return the largest of `by_module`, that of the worst domain; equal ones have equal shares in the gradient."""
        divergences = self.by_module(outputs, targets, partition)
        is_worst = divergences.detach() >= divergences.detach().amax(dim=1, keepdim=True)
        shares = torch.where(is_worst, 1.0, 0.0)
        return (shares * divergences).sum(dim=1) / shares.sum(dim=1)

    def constant_errors(
        self, targets: Float[Tensor, "member batch target"], partition: Partition
    ) -> Float[Tensor, "member module"]:
        """Return each domain's divergence from uniform symbols: with one channel, every answer is constant."""
        symbols = len(partition.outputs)
        uniform = torch.zeros(*targets.shape[:2], symbols, device=targets.device)
        return self.by_module(uniform, targets, partition)


class DomainsTask(Task):
    """Module k is a domain, a distribution over symbols; its inputs are the density of its expert at each symbol."""

    symbols: int = Field(ge=2, description="number of symbols of a channel", json_schema_extra=STRUCTURAL)
    contrast: float = Field(
        ge=0,
        description="how much domains differ: the standard deviation of their log densities before "
        "normalisation",
    )
    expert_error: float = Field(
        ge=0,
        description="standard deviation of the error of an expert's log density; with 0 experts equal their "
        "domains",
    )
    channel_seed: int = Field(ge=0, lt=2**63, description="seed of the domains and of the errors of experts")
    channel: list[list[float]] | None = Field(
        description="your own channel, rows with the probability of each symbol in a domain; null draws a "
        "channel"
    )

    @model_validator(mode="after")
    def _check_channel(self) -> DomainsTask:
        if self.channel is None:
            return self
        if len(self.channel) != self.modules or {len(row) for row in self.channel} != {self.symbols}:
            raise ConfigError(
                f"task.channel={self.channel} has another shape than the task. Give task.modules={self.modules} "
                f"rows of task.symbols={self.symbols} numbers."
            )
        for row in self.channel:
            if min(row) < 0 or abs(sum(row) - 1) > _SUM_ERROR:
                raise ConfigError(
                    f"task.channel has the row {row}, which is not a distribution. Give numbers of 0 or more "
                    "that sum to 1."
                )
        return self

    @property
    def codes(self) -> tuple[str, ...]:
        """Return `coordinate` alone: a rotated density is not a density."""
        return ("coordinate",)

    @property
    def inputs_per_module(self) -> int:
        """Return the number of symbols."""
        return self.symbols

    @property
    def outputs_per_module(self) -> int:
        """Return the number of symbols: all outputs are shared."""
        return self.symbols

    @property
    def partition(self) -> Partition:
        """Return the partition in which inputs belong to their domain and outputs to all."""
        inputs = tuple(module for module in range(self.modules) for _ in range(self.symbols))
        return Partition(self.modules, inputs, (SHARED,) * self.symbols)

    @property
    def loss(self) -> Loss:
        """Return the divergence of the worst domain."""
        return WorstDivergence()

    def domains(self) -> Float[Tensor, "module symbol"]:
        """Return P_k(x)."""
        if self.channel is not None:
            return torch.tensor(self.channel)
        return torch.softmax(self.contrast * self._normals(_CHANNELS), dim=1)

    def experts(self) -> Float[Tensor, "module symbol"]:
        """Return e_k(x), in proportion to P_k(x) exp(expert_error xi), with xi standard normal."""
        domains = self.domains()
        if self.expert_error == 0:
            return domains
        shifted = domains * (self.expert_error * self._normals(_ERRORS)).exp()
        return shifted / shifted.sum(dim=1, keepdim=True)

    def _normals(self, stream: int) -> Float[Tensor, "module symbol"]:
        keys = fold_in(fold_in(member_keys([self.channel_seed]), Stream.TASK), stream)
        return normals(keys, self.modules, self.symbols)[0]

    def draw(
        self,
        keys: Int32[Tensor, "member 2"],
        counters: Int32[Tensor, "member batch"],
        region: Region,
        split: Split,  # noqa: ARG002 there is one channel
        scales: Float[Tensor, " module"] | None = None,
    ) -> Samples:
        """Return the channel, the same for every key and counter."""
        if scales is not None:
            raise nothing_to_widen("densities", self.name)
        if region == "withheld":
            raise nothing_withheld(self.name)
        shape = (*counters.shape, self.modules * self.symbols)
        inputs, targets = (
            densities.flatten().to(keys.device).expand(shape)
            for densities in (self.experts(), self.domains())
        )
        return Samples(inputs, targets)
