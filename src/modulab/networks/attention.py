"""Attention: one block of a transformer on a short sequence of tokens (A. Vaswani et al., "Attention is all you need",
2017), without mask and layer norm.

Of a task whose modules read (token, feature), all modules' tokens make one sequence, module after module. The rows of
an image are tokens; of features without an order, those of a module are one token.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int32
from pydantic import Field
from torch import Tensor

from modulab.errors import ConfigError
from modulab.networks.base import Architecture, Network, Parameter, Site, Tap
from modulab.networks.perceptron import ACTIVATIONS, ActivationName, contract
from modulab.partition import Partition
from modulab.schema import STRUCTURAL
from modulab.streams import Stream, fold_in, normals
from modulab.tasks.base import Task

Readout = Literal["all", "mean", "last"]


def attention_weights(
    queries: Float[Tensor, "member head feature token batch"],
    keys: Float[Tensor, "member head feature token batch"],
) -> Float[Tensor, "member head token source_token batch"]:
    """Return softmax_u(q_t . k_u / sqrt(features)): how much token t takes from each token u."""
    # Products and sums, not batched matrix products: these are of tokens by tokens for each sample, and with so few
    # tokens took longer than the sums, compiled up to 8 tokens, and not compiled up to 16.
    scores = (queries[:, :, :, :, None] * keys[:, :, :, None]).sum(dim=2) / math.sqrt(queries.shape[2])
    # Subtracted so that no exponential overflows; it cancels, and so has no gradient. Not torch.softmax, which rounds
    # by an element's place in memory.
    exponentials = torch.exp(scores - scores.detach().amax(dim=3, keepdim=True))
    return exponentials / exponentials.sum(dim=3, keepdim=True)


def weighted_values(
    weights: Float[Tensor, "member head token source_token batch"],
    values: Float[Tensor, "member head feature source_token batch"],
) -> Float[Tensor, "member head feature token batch"]:
    """Return sum_u w_tu v_u."""
    return (weights[:, :, None] * values[:, :, :, None]).sum(dim=4)


@dataclass(frozen=True)
class Attention(Network):
    """One block of attention and one of hidden units, each added to the states of the tokens, and a linear readout.

    With x_t the features of token t, and heads side by side:

        s_t = E x_t + p_t
        r_t = s_t + P [sum_u w_tu V s_u],  w_tu = softmax_u(Q s_t . K s_u / sqrt(width / heads)) in each head
        z_t = r_t + W f(H r_t + b)
        y = R z + c,  z the states of all tokens, their mean, or the last one

    Biases that p, b and c can stand in for are left out. There are no edges: what passes between tokens depends on the
    input, and what a unit sends to an output goes through the states, by products of weights that differ from token to
    token. So penalties on weights are refused, and measures of structure are skipped.
    """

    in_features: int
    out_features: int
    tokens: int
    """The number of tokens of all modules together."""
    width: int
    heads: int
    hidden: int
    activation: str
    readout: Readout

    @property
    def layout(self) -> tuple[Parameter, ...]:
        """Return E, p, Q, K, V, P, H, b, W, R and c; R reads width x tokens, all tokens of a unit side by side."""
        width, hidden = self.width, self.hidden
        read = width * self.tokens if self.readout == "all" else width
        return (
            Parameter("embedding.weight", (width, self.in_features // self.tokens)),
            Parameter("position", (width, self.tokens), is_weight=False),
            Parameter("query.weight", (width, width)),
            Parameter("key.weight", (width, width)),
            Parameter("value.weight", (width, width)),
            Parameter("projection.weight", (width, width)),
            Parameter("hidden.weight", (hidden, width)),
            Parameter("hidden.bias", (hidden,), is_weight=False),
            Parameter("write.weight", (width, hidden)),
            Parameter("readout.weight", (self.out_features, read)),
            Parameter("readout.bias", (self.out_features,), is_weight=False),
        )

    @property
    def sites(self) -> tuple[Site, ...]:
        """Return what the heads gather, side by side, and the hidden units: each at every token."""
        return (
            Site("attention", self.width, positions=self.tokens),
            Site("hidden", self.hidden, positions=self.tokens),
        )

    def initialise(
        self,
        architectures: Sequence[AttentionArchitecture],
        partition: Partition,
        keys: Int32[Tensor, "member 2"],
    ) -> tuple[Float[Tensor, "member parameter"], Float[Tensor, "member parameter"]]:
        """Return masks of 1, and normal weights with variance scale^2 / fan-in; biases are 0.

        Positions are drawn like a column of the embedding, as if the position were one more feature.
        """
        del partition
        scales = torch.tensor([architecture.initial_scale for architecture in architectures]).to(keys.device)
        initial_keys = fold_in(keys, Stream.INITIALISATION)
        parts: list[Tensor] = []
        for number, part in enumerate(self.layout):
            if part.name.endswith("bias"):
                parts.append(torch.zeros(len(keys), part.size, device=keys.device))
                continue
            fan_in = self.in_features // self.tokens if part.name == "position" else part.shape[1]
            draws = normals(fold_in(initial_keys, number), *part.shape)
            parts.append((draws * (scales / math.sqrt(fan_in))[:, None, None]).flatten(1))
        parameters = torch.cat(parts, dim=1)
        return torch.ones_like(parameters), parameters

    def forward(
        self,
        parameters: Float[Tensor, "member parameter"],
        inputs: Float[Tensor, "member batch in_features"],
        tap: Tap | None = None,
    ) -> Float[Tensor, "member batch out_features"]:
        """Return every member's outputs; `tap` is called at `attention.weights`, too: (head and token, token read)."""
        tap = tap or _untapped
        parts = self.split(parameters)
        tokens = inputs.transpose(1, 2).unflatten(1, (self.tokens, -1)).transpose(1, 2)
        embedded = contract(parts["embedding.weight"], tokens.flatten(2)).unflatten(2, (self.tokens, -1))
        states = (embedded + parts["position"][:, :, :, None]).flatten(2)

        queries, keys, values = (
            contract(parts[f"{name}.weight"], states)
            .unflatten(1, (self.heads, -1))
            .unflatten(3, (self.tokens, -1))
            for name in ("query", "key", "value")
        )
        weights = attention_weights(queries, keys)
        shape = weights.shape
        weights = tap("attention.weights", weights.flatten(3).flatten(1, 2)).view(shape)
        gathered = tap("attention", weighted_values(weights, values).flatten(3).flatten(1, 2))
        states = states + contract(parts["projection.weight"], gathered)

        sums = contract(parts["hidden.weight"], states) + parts["hidden.bias"][:, :, None]
        hidden = tap("hidden", ACTIVATIONS[self.activation].function(sums))
        states = states + contract(parts["write.weight"], hidden)
        outputs = contract(parts["readout.weight"], self._read(states)) + parts["readout.bias"][:, :, None]
        return outputs.transpose(1, 2)

    def _read(
        self, states: Float[Tensor, "member unit token_and_batch"]
    ) -> Float[Tensor, "member read_unit batch"]:
        by_token = states.unflatten(2, (self.tokens, -1))
        match self.readout:
            case "all":
                return by_token.flatten(1, 2)
            case "mean":
                return by_token.mean(dim=2)
            case "last":
                return by_token[:, :, -1]

    @property
    def activation_cost(self) -> int:
        """Return that of the nonlinearity, and what states and attention take beside sites."""
        beside = self.tokens * (6 * self.width + (2 * self.width + 6 * self.heads) * self.tokens)
        units = self.in_features + self.total_values + self.out_features
        return ACTIVATIONS[self.activation].cost + -(-beside // units)


def _untapped(place: str, values: Tensor) -> Tensor:
    del place
    return values


class AttentionArchitecture(Architecture):
    """A transformer of one block, whose tokens are those of all modules one after another."""

    width: int = Field(ge=1, description="units of a token's state", json_schema_extra=STRUCTURAL)
    heads: int = Field(
        ge=1,
        description="number of attention heads, among which width is divided",
        json_schema_extra=STRUCTURAL,
    )
    hidden: int = Field(
        ge=1, description="hidden units at each token after attention", json_schema_extra=STRUCTURAL
    )
    activation: ActivationName = Field(
        description="nonlinearity of hidden units", json_schema_extra=STRUCTURAL
    )
    readout: Readout = Field(
        description="what the readout reads: the states of all tokens, their mean, or the state of the last "
        "token",
        json_schema_extra=STRUCTURAL,
    )
    initial_scale: float = Field(
        gt=0, description="initial weights are normal with standard deviation initial_scale / sqrt(fan-in)"
    )

    def network(self, task: Task) -> Attention:
        """Return a network that reads the task's tokens.

        Raises: ConfigError if heads do not divide the width, or the task's inputs are not tokens.
        """
        if self.width % self.heads:
            raise ConfigError(
                f"architecture.heads={self.heads} do not divide architecture.width={self.width}. Set "
                f"architecture.width to a multiple of it, such as {self.heads * (self.width // self.heads + 1)}."
            )
        return Attention(
            task.in_features,
            task.out_features,
            num_tokens(task),
            self.width,
            self.heads,
            self.hidden,
            self.activation,
            self.readout,
        )


def num_tokens(task: Task) -> int:
    """Return the number of tokens of all modules: the steps or rows of each, or one each for features without order.

    Raises: ConfigError if the inputs have more axes, or modules do not have equal shares of them in order.
    """
    shape = task.input_shape
    if len(shape) > 2:
        raise ConfigError(
            f"task={task.name}: the inputs of a module are arranged as {shape}, and attention reads (token, feature) "
            "or (feature,). Choose another architecture."
        )
    if task.partition.inputs_per_module != math.prod(shape):
        raise ConfigError(
            f"task={task.name}: its inputs are not equal shares of {math.prod(shape)} in the order of "
            "modules, so they cannot be divided into tokens. Choose another architecture."
        )
    return task.modules * (shape[0] if len(shape) == 2 else 1)
