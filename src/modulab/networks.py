"""Populations of multilayer perceptrons: one function that runs them all, and the masks that shape them.

Every tensor has the member axis first. Hidden activity is kept as (member, hidden_features, batch): with
the batch innermost, the loops that a compiler makes of noise, activation and gradients run over contiguous
samples. Inputs and outputs keep the usual (member, batch, features).

A network's architecture is a 0/1 mask on each weight matrix. Masked weights start at zero and their
gradients are masked, so that the weights held here are the effective ones, W * M.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int32, Int64
from torch import Tensor

from modulab.streams import Stream, fold_in, normals, uniforms

Perturbation = Callable[[int, Tensor], Tensor]
"""Takes a hidden layer's index and its activity (member, hidden_features, batch); returns the activity passed on."""

_UNROLLED_FEATURES = 4


@dataclass(frozen=True)
class Activation:
    """A nonlinearity and its derivative, both as functions of the pre-activation."""

    function: Callable[[Tensor], Tensor]
    derivative: Callable[[Tensor], Tensor]


def _sigmoid(values: Tensor) -> Tensor:
    # torch.sigmoid rounds the last few elements of a tensor differently, so that a result would depend on
    # how many members follow; tanh does not.
    return 0.5 + 0.5 * torch.tanh(0.5 * values)


def _softplus(values: Tensor) -> Tensor:
    return values.clamp(min=0) + torch.log1p(torch.exp(-values.abs()))


ACTIVATIONS: dict[str, Activation] = {
    "relu": Activation(torch.relu, lambda values: (values > 0).to(values.dtype)),
    "tanh": Activation(torch.tanh, lambda values: 1 - torch.tanh(values).square()),
    "sigmoid": Activation(_sigmoid, lambda values: _sigmoid(values) * (1 - _sigmoid(values))),
    "softplus": Activation(_softplus, _sigmoid),
    "linear": Activation(lambda values: values, torch.ones_like),
}


@dataclass(frozen=True)
class NetworkShape:
    """The sizes that all members of a population share."""

    in_features: int
    hidden_features: tuple[int, ...]
    out_features: int
    activation: str

    @property
    def layer_sizes(self) -> list[tuple[int, int]]:
        """Return (out_features, in_features) of each weight matrix, input side first."""
        sizes = [self.in_features, *self.hidden_features, self.out_features]
        return [(sizes[layer + 1], sizes[layer]) for layer in range(len(sizes) - 1)]

    @property
    def num_parameters(self) -> int:
        """Return the number of weights and biases of one member."""
        return sum(rows * columns + rows for rows, columns in self.layer_sizes)


@dataclass(frozen=True)
class PopulationWeights:
    """The effective weights and the biases of every member, a tensor a layer, input side first."""

    weights: tuple[Float[Tensor, "member _out_features _in_features"], ...]
    biases: tuple[Float[Tensor, "member _out_features"], ...]
    activation: str

    @property
    def num_members(self) -> int:
        """Return the length of the member axis."""
        return self.weights[0].shape[0]

    @property
    def shape(self) -> NetworkShape:
        """Return the sizes that all members share."""
        in_features, *hidden_features = (weight.shape[2] for weight in self.weights)
        return NetworkShape(in_features, tuple(hidden_features), self.weights[-1].shape[1], self.activation)

    def select(self, members: slice | Tensor) -> PopulationWeights:
        """Return the weights of some members."""
        return PopulationWeights(
            tuple(weight[members] for weight in self.weights),
            tuple(bias[members] for bias in self.biases),
            self.activation,
        )


@dataclass(frozen=True)
class Trace:
    """What a forward pass computed; `activities` are clean: before any perturbation of that layer."""

    pre_activations: tuple[Float[Tensor, "member _hidden_features batch"], ...]
    activities: tuple[Float[Tensor, "member _hidden_features batch"], ...]
    outputs: Float[Tensor, "member batch out_features"]


def unflatten(
    parameters: Float[Tensor, "member parameter"], shape: NetworkShape
) -> tuple[
    list[Float[Tensor, "member out_features in_features"]], list[Float[Tensor, "member out_features"]]
]:
    """Return the weight matrices and biases that one row a member holds, as views."""
    weights: list[Tensor] = []
    biases: list[Tensor] = []
    start = 0
    for rows, columns in shape.layer_sizes:
        weights.append(parameters[:, start : start + rows * columns].unflatten(1, (rows, columns)))
        start += rows * columns
        biases.append(parameters[:, start : start + rows])
        start += rows
    return weights, biases


def flatten(
    weights: Sequence[Float[Tensor, "member _out _in"]], biases: Sequence[Float[Tensor, "member _out"]]
) -> Float[Tensor, "member parameter"]:
    """Return one row of parameters a member, layer after layer, each layer's weights before its biases."""
    pieces = [
        piece for weight, bias in zip(weights, biases, strict=True) for piece in (weight.flatten(1), bias)
    ]
    return torch.cat(pieces, dim=1)


def population_weights(
    parameters: Float[Tensor, "member parameter"], shape: NetworkShape
) -> PopulationWeights:
    """Return flat parameters as weights that `forward` takes."""
    weights, biases = unflatten(parameters, shape)
    return PopulationWeights(tuple(weights), tuple(biases), shape.activation)


def contract(
    weights: Float[Tensor, "member out_features in_features"],
    activity: Float[Tensor, "member in_features batch"],
) -> Float[Tensor, "member out_features batch"]:
    """Return W a for every member.

    A matrix product with four or fewer features on a side is written out term by term: such products are
    bound by memory traffic, and the terms fuse with their neighbours when compiled. Where nothing fuses, few
    features out are better left to the product.
    """
    out_features, in_features = weights.shape[1:]
    if in_features <= _UNROLLED_FEATURES:
        terms = weights[:, :, 0, None] * activity[:, 0, None, :]
        for feature in range(1, in_features):
            terms = terms + weights[:, :, feature, None] * activity[:, feature, None, :]
        return terms
    if out_features <= _UNROLLED_FEATURES and torch.compiler.is_compiling():
        rows = [(weights[:, row, :, None] * activity).sum(dim=1) for row in range(out_features)]
        return torch.stack(rows, dim=1)
    return torch.bmm(weights, activity)


def forward(
    network: PopulationWeights,
    inputs: Float[Tensor, "member batch in_features"],
    perturb: Perturbation | None = None,
) -> Trace:
    """Run every member on its inputs; `perturb` acts on each hidden layer's activity before it is passed on."""
    first = contract(network.weights[0], inputs.transpose(1, 2)) + network.biases[0][:, :, None]
    return forward_from(network, 0, first, perturb)


def forward_from(
    network: PopulationWeights,
    layer: int,
    values: Float[Tensor, "member features batch"],
    perturb: Perturbation | None = None,
) -> Trace:
    """Run every member on from one layer's pre-activations, or outputs if it is the last; the trace begins there."""
    activation = ACTIVATIONS[network.activation].function
    pre_activations: list[Tensor] = []
    activities: list[Tensor] = []
    for hidden in range(layer, len(network.weights) - 1):
        pre_activations.append(values)
        activities.append(activation(values))
        passed_on = activities[-1] if perturb is None else perturb(hidden, activities[-1])
        values = contract(network.weights[hidden + 1], passed_on) + network.biases[hidden + 1][:, :, None]
    return Trace(tuple(pre_activations), tuple(activities), values.transpose(1, 2))


def module_of_feature(num_features: int, modules: int) -> Int64[Tensor, " feature"]:
    """Return the module that each of `num_features` units belongs to when they are shared out evenly, in order."""
    return torch.arange(num_features) * modules // num_features


def architecture_mask(
    shape: NetworkShape,
    modules: int,
    cross_connections: Sequence[float],
    keys: Int32[Tensor, "member 2"],
) -> Float[Tensor, "member parameter"]:
    """Return each member's 0/1 mask: all connections within a module, and a share of those across modules.

    `cross_connections` is the share kept: 1 is a dense network, 0 a premodular (block-diagonal) one, and
    between them each cross-module weight is kept with that probability, drawn from the member's key. A
    larger share keeps all that a smaller one keeps. Biases are never masked.
    """
    shares = torch.tensor(cross_connections, dtype=torch.float32, device=keys.device)[:, None, None]
    mask_keys = fold_in(keys, Stream.MASK)
    weights: list[Tensor] = []
    biases: list[Tensor] = []
    for layer, (rows, columns) in enumerate(shape.layer_sizes):
        within = module_of_feature(rows, modules)[:, None] == module_of_feature(columns, modules)[None, :]
        counters = torch.arange(rows * columns, dtype=torch.int32, device=keys.device).view(1, rows, columns)
        draws = uniforms(fold_in(mask_keys, layer), counters)
        weights.append((within.to(keys.device) | (draws < shares)).float())
        biases.append(torch.ones(len(cross_connections), rows, device=keys.device))
    return flatten(weights, biases)


def initial_parameters(
    shape: NetworkShape,
    mask: Float[Tensor, "member parameter"],
    scales: Float[Tensor, " member"],
    keys: Int32[Tensor, "member 2"],
) -> Float[Tensor, "member parameter"]:
    """Return initial weights, normal with variance scale^2 / fan-in, fan-in counted after masking, and biases of 0.

    With scale 1 a layer passes on the variance of what it reads (Y. LeCun et al., "Efficient BackProp", 1998).
    """
    masks, _ = unflatten(mask, shape)
    initial_keys = fold_in(keys, Stream.INITIALISATION)
    weights: list[Tensor] = []
    biases: list[Tensor] = []
    for layer, layer_mask in enumerate(masks):
        rows, columns = layer_mask.shape[1:]
        deviation = scales[:, None] / layer_mask.sum(dim=2).clamp(min=1).sqrt()
        draws = normals(fold_in(initial_keys, layer), rows, columns)
        weights.append(draws * deviation[:, :, None] * layer_mask)
        biases.append(torch.zeros(len(keys), rows, device=keys.device))
    return flatten(weights, biases)
