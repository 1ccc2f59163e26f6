"""Gated mixtures of experts: several small perceptrons, and a gate that gives each one a weight for each input.

    y(x) = sum_k g_k(x) E_k(x),  E_k(x) = W_k a_k(x) + b_k,  a_k(x) = activation(R_k x + r_k),
    g(x) = softmax(V x + v)

(R. Jacobs et al., "Adaptive mixtures of local experts", 1991). A gate may keep the largest logits of each input only
and take the softmax over them (N. Shazeer et al., "Outrageously large neural networks", 2017), or keep the weights
that it begins with.

The experts lie beside one another as one wide hidden layer, so they take two products whatever their number:
sum_k g_k (W_k a_k + b_k) is one readout of all g_k a_k, and one of g.

The gate g is not a site: noise and the ablation of units act on hidden units only. g is not an activity whose size
training can choose, but shares of 1. Poisson noise of scale sigma on it would add sigma^2 sum_k g_k E_k^2 to the
variance of the outputs, even with a single expert, whose share is 1, and training could not avoid it; Gaussian noise
would bring in experts that the gate leaves out. A pass taps g at `GATE` all the same: it is recorded there, and a
custom tap can silence an expert.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int32
from pydantic import Field
from torch import Tensor

from modulab.errors import ConfigError
from modulab.networks.base import (
    INPUT,
    OUTPUT,
    Architecture,
    Network,
    Parameter,
    Recording,
    Site,
    Tap,
)
from modulab.networks.perceptron import ACTIVATIONS, ActivationName, contract
from modulab.partition import Partition
from modulab.schema import STRUCTURAL
from modulab.streams import Stream, fold_in, normals
from modulab.tasks.base import Task

GATE = "gate"
"""The name under which a pass taps g, (member, expert, batch)."""


def pre_activation(site: str) -> str:
    """Return the name under which a pass taps the pre-activations of an expert's hidden units."""
    return f"{site}.pre_activation"


def ranks(logits: Float[Tensor, "member expert batch"]) -> Int32[Tensor, "member expert batch"]:
    """Return the rank of each logit of a sample: the number of larger ones, and of equal ones of earlier experts."""
    # Not torch.topk, which does not say which of equal values it takes.
    numbers = torch.arange(logits.shape[1], device=logits.device)[:, None]
    ahead = torch.zeros_like(logits, dtype=torch.int32)
    for expert in range(logits.shape[1]):
        rival = logits[:, expert, None]
        ahead = ahead + ((rival > logits) | ((rival == logits) & (numbers > expert)))
    return ahead


def gate_shares(
    logits: Float[Tensor, "member expert batch"], num_kept: int
) -> Float[Tensor, "member expert batch"]:
    """Return the softmax over the `num_kept` largest logits of each sample, and 0 for the other experts."""
    # The largest logit only guards against overflow: the softmax, and its derivative, are the same without it.
    shares = torch.exp(logits - logits.detach().amax(dim=1, keepdim=True))
    if num_kept < logits.shape[1]:
        shares = torch.where(ranks(logits) < num_kept, shares, 0.0)
    # One by one: a sum over an axis adds up the last elements of a tensor in another order. Of a split, as the gradient
    # of each single index would be as large as the whole.
    total, *others = shares.split(1, dim=1)
    for other in others:
        total = total + other
    return shares / total


@dataclass(frozen=True)
class Experts(Network):
    """Perceptrons of one hidden layer side by side, their outputs added up in the shares that a gate gives them."""

    in_features: int
    num_experts: int
    width: int
    out_features: int
    activation: str
    num_kept: int
    """The number of experts with a share in a sample."""
    trains_gate: bool

    @property
    def layout(self) -> tuple[Parameter, ...]:
        """Return the input weights of all experts, their output weights and the gate; experts follow one another."""
        units = self.num_experts * self.width
        return (
            Parameter("read.weight", (units, self.in_features)),
            Parameter("read.bias", (units,), is_weight=False),
            Parameter("write.weight", (self.out_features, units)),
            Parameter("write.bias", (self.out_features, self.num_experts), is_weight=False),
            Parameter("gate.weight", (self.num_experts, self.in_features), trained=self.trains_gate),
            Parameter("gate.bias", (self.num_experts,), is_weight=False, trained=self.trains_gate),
        )

    @property
    def sites(self) -> tuple[Site, ...]:
        """Return expert.0, expert.1 and so on: the hidden units of each expert, before the gate."""
        return tuple(Site(f"expert.{expert}", self.width) for expert in range(self.num_experts))

    @property
    def gate_name(self) -> str:
        """Return `gate`."""
        return GATE

    @property
    def pre_activations(self) -> dict[str, str]:
        """Return expert.0.pre_activation and so on, by site."""
        return {site.name: pre_activation(site.name) for site in self.sites}

    def initialise(
        self,
        architectures: Sequence[ExpertsArchitecture],
        partition: Partition,
        keys: Int32[Tensor, "member 2"],
    ) -> tuple[Float[Tensor, "member parameter"], Float[Tensor, "member parameter"]]:
        """Return masks of 1, but 0 for a gate that is not trained, and normal weights of variance scale^2 / fan-in.

        The fan-in of a readout is the width of one expert. Biases are 0. With equal keys a single expert begins with
        the weights of a perceptron.
        """
        del partition
        initial_keys = fold_in(keys, Stream.INITIALISATION)
        scales, gate_scales = (
            torch.tensor(values, device=keys.device)[:, None, None]
            for values in (
                [architecture.initial_scale for architecture in architectures],
                [architecture.gate_scale for architecture in architectures],
            )
        )
        deviations = {
            "read.weight": scales / self.in_features**0.5,
            "write.weight": scales / self.width**0.5,
            "gate.weight": gate_scales / self.in_features**0.5,
        }
        masks: list[Tensor] = []
        values: list[Tensor] = []
        for part in self.layout:
            shape = (len(keys), part.size)
            masks.append(torch.full(shape, float(part.trained), device=keys.device))
            if part.name in deviations:
                own_keys = fold_in(initial_keys, list(deviations).index(part.name))
                drawn = normals(own_keys, *part.shape) * deviations[part.name]
                values.append(drawn.flatten(1))
            else:
                values.append(torch.zeros(shape, device=keys.device))
        return torch.cat(masks, dim=1), torch.cat(values, dim=1)

    def forward(
        self,
        parameters: Float[Tensor, "member parameter"],
        inputs: Float[Tensor, "member batch in_features"],
        tap: Tap | None = None,
    ) -> Float[Tensor, "member batch out_features"]:
        """Return every member's outputs; `tap` is called at the gate, and at pre-activations, too."""
        tap = tap or (lambda _, values: values)
        parts = self.split(parameters)
        read = inputs.transpose(1, 2)
        logits = contract(parts["gate.weight"], read) + parts["gate.bias"][:, :, None]
        gate = tap(GATE, gate_shares(logits, self.num_kept))
        sums = contract(parts["read.weight"], read) + parts["read.bias"][:, :, None]
        activation = ACTIVATIONS[self.activation].function
        gated: list[Tensor] = []
        for site, share, own in zip(
            self.sites, gate.split(1, dim=1), sums.split(self.width, dim=1), strict=True
        ):
            activity = tap(site.name, activation(tap(pre_activation(site.name), own)))
            gated.append(share * activity)
        outputs = contract(parts["write.weight"], torch.cat(gated, dim=1)) + contract(
            parts["write.bias"], gate
        )
        return outputs.transpose(1, 2)

    @property
    def connections(self) -> tuple[tuple[str, str], ...]:
        """Return those from the inputs to each expert, and then those from each expert to the outputs."""
        names = [site.name for site in self.sites]
        return (*((INPUT, name) for name in names), *((name, OUTPUT) for name in names))

    def edge_weights(
        self, parameters: Float[Tensor, "member parameter"]
    ) -> Sequence[Float[Tensor, "member _target_unit _source_unit"]]:
        """Return the weights of each expert; those of its readout do not contain its share."""
        parts = self.split(parameters)
        return [
            *parts["read.weight"].split(self.width, dim=1),
            *parts["write.weight"].split(self.width, dim=2),
        ]

    def output_jacobians(
        self,
        parameters: Float[Tensor, "member parameter"],
        inputs: Float[Tensor, "member batch in_features"],
        recording: Recording,
    ) -> Iterator[tuple[str, Float[Tensor, "member out_features unit _batch"]]]:
        """Yield g_k W_k of each expert, the last first."""
        del inputs
        shares = recording.used(GATE).split(1, dim=1)
        weights = self.split(parameters)["write.weight"].split(self.width, dim=2)
        for expert in range(self.num_experts - 1, -1, -1):
            yield self.sites[expert].name, weights[expert][:, :, :, None] * shares[expert][:, :, None]

    @property
    def input_weights(self) -> tuple[str, ...]:
        """Return the input weights of experts and gate."""
        return ("read.weight", "gate.weight")

    @property
    def activation_cost(self) -> int:
        """Return that of a perceptron, 2 for activity times gate and the joined layer, and 8 buffers of the gate."""
        return 2 + 8 // self.width + ACTIVATIONS[self.activation].cost


class ExpertsArchitecture(Architecture):
    """A mixture of experts and its gate.

    There is no share of cross-module connections: the shares of a gate add up to 1, so experts of separate modules
    would still depend on the inputs of all.
    """

    experts: int = Field(ge=1, description="number of experts", json_schema_extra=STRUCTURAL)
    width: int = Field(ge=1, description="hidden units of each expert", json_schema_extra=STRUCTURAL)
    activation: ActivationName = Field(
        description="nonlinearity of hidden units", json_schema_extra=STRUCTURAL
    )
    gate: Literal["dense", "top_k", "frozen"] = Field(
        description="which experts have a share in a sample: all (dense), the top_k experts with the largest "
        "logits, or all with a gate that is not trained (frozen)",
        json_schema_extra=STRUCTURAL,
    )
    top_k: int | None = Field(
        ge=1,
        description="number of experts with a share in a sample for gate=top_k; null for other gates",
        json_schema_extra=STRUCTURAL,
    )
    gate_scale: float = Field(
        ge=0,
        description="initial weights of the gate are normal with standard deviation gate_scale / "
        "sqrt(fan-in); with 0 all logits begin equal",
    )
    initial_scale: float = Field(
        gt=0,
        description="initial weights of experts are normal with standard deviation initial_scale / sqrt(fan-in)",
    )

    def network(self, task: Task) -> Experts:
        """Return a mixture of experts with the task's inputs and outputs.

        Raises: ConfigError if `top_k` does not go with the gate or the number of experts.
        """
        self._check_top_k()
        return Experts(
            task.in_features,
            self.experts,
            self.width,
            task.out_features,
            self.activation,
            num_kept=self.experts if self.top_k is None else self.top_k,
            trains_gate=self.gate != "frozen",
        )

    def _check_top_k(self) -> None:
        if self.gate != "top_k":
            if self.top_k is not None:
                raise ConfigError(
                    f"architecture.top_k={self.top_k} has no meaning with architecture.gate={self.gate}, where all "
                    "experts have a share. Set architecture.top_k=null, or architecture.gate=top_k."
                )
        elif self.top_k is None:
            raise ConfigError(
                "architecture.gate=top_k needs architecture.top_k, the number of experts with a share in a sample. "
                f"Set it to a number from 2 to architecture.experts={self.experts}."
            )
        elif self.top_k > self.experts:
            raise ConfigError(
                f"architecture.top_k={self.top_k} experts cannot be chosen among "
                f"architecture.experts={self.experts}. "
                f"Set architecture.top_k to {self.experts} or less."
            )
        elif self.top_k == 1 and self.experts > 1:
            raise ConfigError(
                "architecture.top_k=1 leaves one expert with a share of 1, so the gate has no gradient and "
                "is not trained. Set architecture.top_k to 2 or more."
            )
