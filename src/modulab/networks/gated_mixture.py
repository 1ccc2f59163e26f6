"""Gated mixtures of densities: q(x) = sum_k g_k(x) e_k(x) over symbols x, with shares g that sum to 1.

C. Cortes, M. Mohri and Y. Zhong, "Modular generative models" (2026, arXiv 2602.17554). The experts e_k are given by the
task and frozen, or trained with the gate. The gate may look at the symbol, a table g_k(x), or be constant, g_k. The
outputs are log q: the task's loss divides q by its sum over symbols, where the reference constrains that sum to 1.
Neither matters for a constant gate, whose q sums to 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int32
from pydantic import Field
from torch import Tensor

from modulab.errors import ConfigError
from modulab.networks.base import Architecture, Network, Parameter, Site, Tap
from modulab.networks.experts import GATE, gate_shares
from modulab.partition import Partition
from modulab.schema import STRUCTURAL
from modulab.streams import Stream, fold_in, normals
from modulab.tasks.base import Task
from modulab.tasks.domains import DomainsTask

DENSITY = "density"
"""The name under which a pass taps e, (member, expert, batch x symbols)."""


@dataclass(frozen=True)
class GatedMixture(Network):
    """A gate over densities that the inputs give, or that are trained."""

    in_features: int
    out_features: int
    num_experts: int
    sees_symbols: bool
    """Whether the gate has separate shares for each symbol."""
    trains_densities: bool

    @property
    def symbols(self) -> int:
        """Return the number of symbols: log q at each is an output."""
        return self.out_features

    @property
    def layout(self) -> tuple[Parameter, ...]:
        """Return the logits of the gate and, where they are trained, those of the experts' densities."""
        shape = (self.num_experts, self.symbols if self.sees_symbols else 1)
        gate = Parameter("gate.logits", shape, is_weight=False)
        if not self.trains_densities:
            return (gate,)
        return (gate, Parameter("density.logits", (self.num_experts, self.symbols), is_weight=False))

    @property
    def sites(self) -> tuple[Site, ...]:
        """Return none: shares and densities are probabilities, not the activity of units."""
        return ()

    @property
    def gate_name(self) -> str:
        """Return `gate`."""
        return GATE

    def initialise(
        self,
        architectures: Sequence[GatedMixtureArchitecture],
        partition: Partition,
        keys: Int32[Tensor, "member 2"],
    ) -> tuple[Float[Tensor, "member parameter"], Float[Tensor, "member parameter"]]:
        """Return masks of 1 and normal logits, of the standard deviations that the architectures say."""
        del partition
        initial_keys = fold_in(keys, Stream.INITIALISATION)
        deviations = {
            "gate.logits": [architecture.gate_scale for architecture in architectures],
            "density.logits": [architecture.density_scale for architecture in architectures],
        }
        values: list[Tensor] = []
        for number, part in enumerate(self.layout):
            scales = torch.tensor(deviations[part.name], device=keys.device)[:, None, None]
            values.append((scales * normals(fold_in(initial_keys, number), *part.shape)).flatten(1))
        parameters = torch.cat(values, dim=1)
        return torch.ones_like(parameters), parameters

    def forward(
        self,
        parameters: Float[Tensor, "member parameter"],
        inputs: Float[Tensor, "member batch in_features"],
        tap: Tap | None = None,
    ) -> Float[Tensor, "member batch out_features"]:
        """Return log q at every symbol; `tap` is called at the gate and at the densities."""
        tap = tap or (lambda _, values: values)
        parts = self.split(parameters)
        shape = (parameters.shape[0], self.num_experts, inputs.shape[1], self.symbols)
        shares = gate_shares(parts["gate.logits"], self.num_experts)
        gate = tap(GATE, shares[:, :, None].expand(shape).flatten(2))
        if self.trains_densities:
            own = gate_shares(parts["density.logits"].transpose(1, 2), self.symbols).transpose(1, 2)
            densities = own[:, :, None].expand(shape)
        else:
            densities = inputs.unflatten(2, (self.num_experts, self.symbols)).transpose(1, 2)
        terms = (gate * tap(DENSITY, densities.flatten(2))).split(1, dim=1)
        # One by one, as a sum over an axis adds up in an order that depends on the number of members.
        mixture = terms[0]
        for term in terms[1:]:
            mixture = mixture + term
        mixture = mixture[:, 0].unflatten(1, (inputs.shape[1], self.symbols))
        # Symbols that no domain has do not count in the loss, but their logarithm has to be finite.
        return mixture.clamp(min=torch.finfo(mixture.dtype).tiny).log()


class GatedMixtureArchitecture(Architecture):
    """A gate over the experts of task=domains."""

    gate: Literal["constant", "symbol"] = Field(
        description="whether the shares are constant, or different for each symbol",
        json_schema_extra=STRUCTURAL,
    )
    densities: Literal["given", "trained"] = Field(
        description="given: the task's experts, frozen; trained: experts are trained together with the gate",
        json_schema_extra=STRUCTURAL,
    )
    gate_scale: float = Field(
        ge=0, description="standard deviation of the gate's initial logits; with 0 all shares begin equal"
    )
    density_scale: float = Field(
        ge=0, description="standard deviation of the initial logits of trained densities"
    )

    def network(self, task: Task) -> GatedMixture:
        """Return a gate with as many experts as the task has domains.

        Raises: ConfigError if the task has no densities.
        """
        if not isinstance(task, DomainsTask):
            raise ConfigError(
                f"architecture.name={self.name} mixes densities, and task.name={task.name} has none. Set task=domains."
            )
        return GatedMixture(
            task.in_features,
            task.symbols,
            task.modules,
            sees_symbols=self.gate == "symbol",
            trains_densities=self.densities == "trained",
        )
