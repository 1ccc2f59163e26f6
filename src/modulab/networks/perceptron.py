"""Multilayer perceptrons: all members in one pass, and the masks that shape them.

The architecture of a member is a 0/1 mask on each weight matrix. Masked weights start at zero and their gradients are
masked, so the weights held in a row are the effective ones, W * M.
"""

from __future__ import annotations

import bisect
import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int32
from pydantic import Field
from torch import Tensor

from modulab.errors import ConfigError
from modulab.networks.base import (
    Architecture,
    Network,
    Parameter,
    Recording,
    Site,
    Tap,
)
from modulab.partition import Partition, even_shares, within_modules
from modulab.schema import STRUCTURAL
from modulab.streams import Stream, fold_in, normals, uniforms
from modulab.tasks.base import Task

_UNROLLED_FEATURES = 4


@dataclass(frozen=True)
class Activation:
    """A nonlinearity and its derivative, both as functions of the pre-activation."""

    function: Callable[[Tensor], Tensor]
    derivative: Callable[[Tensor], Tensor]
    cost: int = 16
    """Buffers of a site's activity that both hold in an eager step: many, for all but those of one operation."""


def _sigmoid(values: Tensor) -> Tensor:
    # torch.sigmoid rounds the last few elements of a tensor differently, so a result would depend on
    # how many members follow; tanh does not.
    return 0.5 + 0.5 * torch.tanh(0.5 * values)


def _silu(values: Tensor) -> Tensor:
    return values * _sigmoid(values)


def _silu_derivative(values: Tensor) -> Tensor:
    gate = _sigmoid(values)
    return gate * (1 + values * (1 - gate))


def _softplus(values: Tensor) -> Tensor:
    return values.clamp(min=0) + torch.log1p(torch.exp(-values.abs()))


ACTIVATIONS: dict[str, Activation] = {
    "relu": Activation(torch.relu, lambda values: (values > 0).to(values.dtype), cost=0),
    "tanh": Activation(torch.tanh, lambda values: 1 - torch.tanh(values).square()),
    "sigmoid": Activation(_sigmoid, lambda values: _sigmoid(values) * (1 - _sigmoid(values))),
    "softplus": Activation(_softplus, _sigmoid),
    "silu": Activation(_silu, _silu_derivative),
    "linear": Activation(lambda values: values, torch.ones_like, cost=0),
}
ActivationName = Literal["relu", "tanh", "sigmoid", "softplus", "silu", "linear"]


def flatten(
    weights: Sequence[Float[Tensor, "member _out _in"]], biases: Sequence[Float[Tensor, "member _out"]]
) -> Float[Tensor, "member parameter"]:
    """Return one row of parameters per member, layer after layer, each layer's weights before its biases."""
    pieces = [
        piece for weight, bias in zip(weights, biases, strict=True) for piece in (weight.flatten(1), bias)
    ]
    return torch.cat(pieces, dim=1)


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


def pre_activation(layer: int) -> str:
    """Return the name under which a pass taps a hidden layer's pre-activations, from 0."""
    return f"hidden.{layer}.pre_activation"


@dataclass(frozen=True)
class Perceptron(Network):
    """Hidden layers of units with one nonlinearity, and a linear readout."""

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
    def layout(self) -> tuple[Parameter, ...]:
        """Return weight.0, bias.0, weight.1 and so on, input side first."""
        parts: list[Parameter] = []
        for layer, (rows, columns) in enumerate(self.layer_sizes):
            parts.append(Parameter(f"weight.{layer}", (rows, columns)))
            parts.append(Parameter(f"bias.{layer}", (rows,), is_weight=False))
        return tuple(parts)

    @property
    def sites(self) -> tuple[Site, ...]:
        """Return hidden.0, hidden.1 and so on."""
        return tuple(Site(f"hidden.{layer}", units) for layer, units in enumerate(self.hidden_features))

    @property
    def pre_activations(self) -> dict[str, str]:
        """Return hidden.0.pre_activation and so on, by site."""
        return {site.name: pre_activation(layer) for layer, site in enumerate(self.sites)}

    def unflatten(
        self, parameters: Float[Tensor, "member parameter"]
    ) -> tuple[
        list[Float[Tensor, "member out_features in_features"]], list[Float[Tensor, "member out_features"]]
    ]:
        """Return the weight matrices and biases that one row per member holds, as views."""
        parts = list(self.split(parameters).values())
        return parts[0::2], parts[1::2]

    def initialise(
        self,
        architectures: Sequence[PerceptronArchitecture],
        partition: Partition,
        keys: Int32[Tensor, "member 2"],
    ) -> tuple[Float[Tensor, "member parameter"], Float[Tensor, "member parameter"]]:
        """Return masks of `architecture_mask` and parameters of `initial_parameters`."""
        shares = [architecture.cross_connections for architecture in architectures]
        scales = torch.tensor([architecture.initial_scale for architecture in architectures])
        mask = architecture_mask(self, partition, shares, keys)
        return mask, initial_parameters(self, mask, scales, keys)

    def forward(
        self,
        parameters: Float[Tensor, "member parameter"],
        inputs: Float[Tensor, "member batch in_features"],
        tap: Tap | None = None,
    ) -> Float[Tensor, "member batch out_features"]:
        """Return every member's outputs; `tap` is called at pre-activations, too."""
        weights, biases = self.unflatten(parameters)
        first = contract(weights[0], inputs.transpose(1, 2)) + biases[0][:, :, None]
        return self._continue(weights, biases, 0, first, tap)

    def _continue(
        self, weights: list[Tensor], biases: list[Tensor], layer: int, values: Tensor, tap: Tap | None
    ) -> Tensor:
        activation = ACTIVATIONS[self.activation].function
        for hidden in range(layer, len(self.hidden_features)):
            if tap is not None:
                values = tap(pre_activation(hidden), values)
            activity = activation(values)
            if tap is not None:
                activity = tap(f"hidden.{hidden}", activity)
            values = contract(weights[hidden + 1], activity) + biases[hidden + 1][:, :, None]
        return values.transpose(1, 2)

    @property
    def connections(self) -> tuple[tuple[str, str], ...]:
        """Return the chain from the inputs through the hidden layers to the outputs."""
        return self.layer_connections

    def edge_weights(
        self, parameters: Float[Tensor, "member parameter"]
    ) -> Sequence[Float[Tensor, "member _target_unit _source_unit"]]:
        """Return the weight matrices, input side first."""
        return self.unflatten(parameters)[0]

    def gates(self, recording: Recording) -> dict[str, Float[Tensor, "member _unit batch"]]:
        """Return activation'(z) of each hidden layer."""
        derivative = ACTIVATIONS[self.activation].derivative
        return {
            site.name: derivative(recording.used(pre_activation(layer)))
            for layer, site in enumerate(self.sites)
        }

    def output_jacobians(
        self,
        parameters: Float[Tensor, "member parameter"],
        inputs: Float[Tensor, "member batch in_features"],
        recording: Recording,
    ) -> Iterator[tuple[str, Float[Tensor, "member out_features unit _batch"]]]:
        """Yield dy/da of each hidden layer by the chain rule from the outputs back."""
        del inputs
        weights, _ = self.unflatten(parameters)
        derivative = ACTIVATIONS[self.activation].derivative
        jacobian = weights[-1][:, :, :, None]
        for layer in range(len(self.hidden_features) - 1, -1, -1):
            yield f"hidden.{layer}", jacobian
            if layer > 0:
                through = jacobian * derivative(recording.used(pre_activation(layer)))[:, None]
                jacobian = torch.einsum("mohb,mhg->mogb", through, weights[layer])

    @property
    def is_layered(self) -> bool:
        """Return True: each weight matrix reads the layer before it."""
        return True

    @property
    def num_stages(self) -> int:
        """Return the number of weight matrices."""
        return len(self.hidden_features) + 1

    def stage_sums(
        self,
        parameters: Float[Tensor, "member parameter"],
        stage: int,
        values: Float[Tensor, "member source_unit batch"],
        biased: bool = True,
    ) -> Float[Tensor, "member target_unit batch"]:
        """Return W a + b of one layer, or W a."""
        weights, biases = self.unflatten(parameters)
        if biased:
            return torch.baddbmm(biases[stage][:, :, None], weights[stage], values)
        return torch.bmm(weights[stage], values)

    def recorded_sums(
        self,
        recording: Recording,
        stage: int,
        inputs: Float[Tensor, "member batch in_features"],
    ) -> Float[Tensor, "member target_unit batch"]:
        """Return one layer's pre-activations, or the outputs if it is the last."""
        del inputs
        if stage < len(self.hidden_features):
            return recording.values[pre_activation(stage)]
        return recording.outputs.transpose(1, 2)

    def run_from(
        self,
        parameters: Float[Tensor, "member parameter"],
        stage: int,
        sums: Float[Tensor, "member target_unit batch"],
        tap: Tap | None = None,
    ) -> Float[Tensor, "member batch out_features"]:
        """Return the outputs that follow from one layer's pre-activations, or outputs if it is the last."""
        weights, biases = self.unflatten(parameters)
        return self._continue(weights, biases, stage, sums, tap)

    @property
    def input_weights(self) -> tuple[str, ...]:
        """Return those of the first layer."""
        return ("weight.0",)

    @property
    def activation_cost(self) -> int:
        """Return that of the nonlinearity."""
        return ACTIVATIONS[self.activation].cost


class PerceptronArchitecture(Architecture):
    """A multilayer perceptron, and the share of cross-module connections that its mask keeps."""

    width: int = Field(ge=1, description="units in each hidden layer", json_schema_extra=STRUCTURAL)
    match: Literal["width", "parameters"] = Field(
        description="what equals that of a dense network of this width: width, or parameters (the number of "
        "weights and biases), for which hidden layers are made wider",
        json_schema_extra=STRUCTURAL,
    )
    depth: int = Field(
        ge=0, description="number of hidden layers; 0 is a linear map", json_schema_extra=STRUCTURAL
    )
    activation: ActivationName = Field(
        description="nonlinearity of hidden units", json_schema_extra=STRUCTURAL
    )
    cross_connections: float = Field(
        ge=0,
        le=1,
        description="share of cross-module connections that is kept: 1 is dense, 0 premodular, values "
        "between are partial",
    )
    initial_scale: float = Field(
        gt=0, description="initial weights are normal with standard deviation initial_scale / sqrt(fan-in)"
    )

    def network(self, task: Task) -> Perceptron:
        """Return a perceptron with the task's inputs and outputs.

        Raises: ConfigError if a layer is too narrow to give each module its own unit.
        """
        width = self.width
        if self.depth > 0 and self.match == "parameters" and self.cross_connections < 1:
            width = matched_width(task.partition, self.width, self.depth, self.cross_connections)
        elif self.depth > 0:
            check_shared_out(task, self.cross_connections, "width", self.width, "a hidden unit")
        return Perceptron(task.in_features, (width,) * self.depth, task.out_features, self.activation)

    @property
    def structure(self) -> tuple[object, ...]:
        """Return the share of connections where it sets the width."""
        return (self.cross_connections,) if self.match == "parameters" else ()


def unmasked(partition: Partition, width: int, depth: int, cross_connections: float) -> float:
    """Return how many weights and biases the mask leaves on average, of `width` units shared out equally."""
    modules = partition.modules
    labels = [partition.inputs, *[tuple(range(modules))] * depth, partition.outputs]
    counts = [1, *[width // modules] * depth, 1]
    total = float(depth * width + len(partition.outputs))
    for layer in range(depth + 1):
        units = counts[layer] * counts[layer + 1]
        pairs = len(labels[layer]) * len(labels[layer + 1])
        within = int(within_modules(labels[layer + 1], labels[layer]).sum())
        total += units * (within + cross_connections * (pairs - within))
    return total


@functools.cache
def matched_width(partition: Partition, width: int, depth: int, cross_connections: float) -> int:
    """Return the width, with equal units per module, whose number of unmasked parameters is nearest a dense network's.

    The dense network has `width` units per layer. With one hidden layer, of d modules with an input and an output each,
    (2 d + 1) H + d parameters of a dense network are 3 H' + d of a premodular one: H' = (2 d + 1) H / 3.
    """
    modules = partition.modules
    inputs, outputs = len(partition.inputs), len(partition.outputs)
    # A dense network in full, for its width need not be a multiple of the number of modules.
    dense = width * (inputs + 1) + (depth - 1) * width * (width + 1) + outputs * (width + 1)

    def excess(units: int) -> float:
        return unmasked(partition, units * modules, depth, cross_connections) - dense

    # Every unit brings a bias, so as many units as the dense network has parameters are too many.
    above = bisect.bisect_left(range(1, dense + 1), 0, key=excess) + 1
    nearest = min((units for units in (above - 1, above) if units > 0), key=lambda units: abs(excess(units)))
    return nearest * modules


def check_shared_out(task: Task, cross_connections: float, key: str, units: int, unit: str) -> None:
    """Raise ConfigError if units that are shared out over modules are too few to give each module one."""
    if cross_connections < 1 and units < task.modules:
        raise ConfigError(
            f"architecture.{key}={units} cannot give each of task.modules={task.modules} {unit}, "
            f"which architecture.cross_connections={cross_connections} requires. "
            f"Set architecture.{key} to {task.modules} or more."
        )


def architecture_mask(
    network: Perceptron,
    partition: Partition,
    cross_connections: Sequence[float],
    keys: Int32[Tensor, "member 2"],
) -> Float[Tensor, "member parameter"]:
    """Return each member's 0/1 mask: all connections within a module, and a share of those across modules.

    Hidden units are shared out over modules evenly, in order. `cross_connections` is the share kept: 1 is a dense
    network, 0 a premodular (block-diagonal) one, and between them each cross-module weight is kept with that
    probability, drawn from the member's key. A larger share keeps all that a smaller one keeps. Biases are never
    masked.
    """
    shares = torch.tensor(cross_connections, dtype=torch.float32, device=keys.device)[:, None, None]
    mask_keys = fold_in(keys, Stream.MASK)
    hidden = [even_shares(units, partition.modules) for units in network.hidden_features]
    labels = [partition.inputs, *hidden, partition.outputs]
    weights: list[Tensor] = []
    biases: list[Tensor] = []
    for layer, (rows, columns) in enumerate(network.layer_sizes):
        within = within_modules(labels[layer + 1], labels[layer])
        counters = torch.arange(rows * columns, dtype=torch.int32, device=keys.device).view(1, rows, columns)
        draws = uniforms(fold_in(mask_keys, layer), counters)
        weights.append((within.to(keys.device) | (draws < shares)).float())
        biases.append(torch.ones(len(cross_connections), rows, device=keys.device))
    return flatten(weights, biases)


def initial_parameters(
    network: Perceptron,
    mask: Float[Tensor, "member parameter"],
    scales: Float[Tensor, " member"],
    keys: Int32[Tensor, "member 2"],
) -> Float[Tensor, "member parameter"]:
    """Return initial weights, normal with variance scale^2 / fan-in, fan-in counted after masking, and biases of 0.

    With scale 1 a layer passes on the variance of what it reads (Y. LeCun et al., "Efficient BackProp", 1998).
    """
    return initial_layers(network.unflatten(mask)[0], scales, keys)


def initial_layers(
    masks: Sequence[Float[Tensor, "member _out _in"]],
    scales: Float[Tensor, " member"],
    keys: Int32[Tensor, "member 2"],
) -> Float[Tensor, "member parameter"]:
    """Return the same for the masks of layers, in which a row holds all that a unit reads."""
    initial_keys = fold_in(keys, Stream.INITIALISATION)
    weights: list[Tensor] = []
    biases: list[Tensor] = []
    for layer, mask in enumerate(masks):
        rows, columns = mask.shape[1:]
        deviation = scales[:, None] / mask.sum(dim=2).clamp(min=1).sqrt()
        draws = normals(fold_in(initial_keys, layer), rows, columns)
        weights.append(draws * deviation[:, :, None] * mask)
        biases.append(torch.zeros(len(keys), rows, device=keys.device))
    return flatten(weights, biases)
