"""Leaky recurrent networks: units that read the inputs step by step, and their own activity of the step before.

    h_t = (1 - alpha) h_(t-1) + alpha phi(W h_(t-1) + U x_t + b),   h_0 = 0,   y = V h_T + c

This is tau dh/dt = -h + phi(W h + U x + b) in steps of length alpha tau (G. R. Yang et al., "Task representations in
neural networks trained to perform many cognitive tasks", 2019). With alpha = 1 it is the network of J. Elman ("Finding
structure in time", 1990).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

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
from modulab.networks.perceptron import (
    ACTIVATIONS,
    ActivationName,
    Perceptron,
    architecture_mask,
    check_shared_out,
    contract,
    initial_parameters,
)
from modulab.partition import Partition, even_shares
from modulab.schema import STRUCTURAL
from modulab.tasks.base import Task

RECURRENT = "recurrent"
"""The site of the units, to which a pass comes once at each step."""


@dataclass(frozen=True)
class Recurrent(Network):
    """Leaky units with one nonlinearity that read inputs and one another, and a linear readout of the last step."""

    in_features: int
    out_features: int
    units: int
    activation: str
    leak: float
    steps: int
    sequences: int | None
    """How many sequences the inputs are, one after another; None if all inputs are shown at every step."""

    @property
    def channels(self) -> int:
        """Return how many inputs are read per step."""
        return self.in_features if self.sequences is None else self.in_features // self.steps

    @property
    def layout(self) -> tuple[Parameter, ...]:
        """Return U, b, W, V and c."""
        return (
            Parameter("read.weight", (self.units, self.channels)),
            Parameter("read.bias", (self.units,), is_weight=False),
            Parameter("recurrent.weight", (self.units, self.units)),
            Parameter("write.weight", (self.out_features, self.units)),
            Parameter("write.bias", (self.out_features,), is_weight=False),
        )

    @property
    def sites(self) -> tuple[Site, ...]:
        """Return the units, which a pass visits at each step."""
        return (Site(RECURRENT, self.units, visits=self.steps),)

    def initialise(
        self,
        architectures: Sequence[RecurrentArchitecture],
        partition: Partition,
        keys: Int32[Tensor, "member 2"],
    ) -> tuple[Float[Tensor, "member parameter"], Float[Tensor, "member parameter"]]:
        """Return masks and initial weights as those of a perceptron from inputs to units, units and outputs."""
        if self.sequences is not None:
            channels = even_shares(self.channels, self.sequences)
            partition = Partition(partition.modules, channels, partition.outputs)
        chain = Perceptron(self.channels, (self.units, self.units), self.out_features, self.activation)
        shares = [architecture.cross_connections for architecture in architectures]
        chain_mask = self.chain_mask(
            chain, architecture_mask(chain, partition, shares, keys), architectures, keys
        )
        drawn = initial_parameters(chain, chain_mask, torch.ones(len(keys)), keys)
        scale = torch.tensor([architecture.initial_scale for architecture in architectures])
        recurrent_scale = torch.tensor([architecture.recurrent_scale for architecture in architectures])
        scales = [scale, scale, recurrent_scale, scale, scale]
        parts = [
            part.flatten(1) * factor[:, None]
            for part, factor in zip(_without_second_bias(chain, drawn), scales, strict=True)
        ]
        masks = [part.flatten(1) for part in _without_second_bias(chain, chain_mask)]
        return torch.cat(masks, dim=1), torch.cat(parts, dim=1)

    def chain_mask(
        self,
        chain: Perceptron,
        mask: Float[Tensor, "member chain_parameter"],
        architectures: Sequence[Any],
        keys: Int32[Tensor, "member 2"],
    ) -> Float[Tensor, "member chain_parameter"]:
        """Return the mask of the perceptron from inputs to units, units and outputs, for kinds that mask more of it."""
        del chain, architectures, keys
        return mask

    def forward(
        self,
        parameters: Float[Tensor, "member parameter"],
        inputs: Float[Tensor, "member batch in_features"],
        tap: Tap | None = None,
    ) -> Float[Tensor, "member batch out_features"]:
        """Return every member's outputs; what `tap` returns for h_t is what the next step and the readout read."""
        parts = self.split(parameters)
        activation = ACTIVATIONS[self.activation].function
        hidden: Tensor | None = None
        for read in self._sums_from_inputs(parts, inputs):
            sums = read if hidden is None else contract(parts["recurrent.weight"], hidden) + read
            hidden = self._leak(hidden, activation(sums))
            if tap is not None:
                hidden = tap(RECURRENT, hidden)
        assert hidden is not None
        return (contract(parts["write.weight"], hidden) + parts["write.bias"][:, :, None]).transpose(1, 2)

    def _sums_from_inputs(self, parts: dict[str, Tensor], inputs: Tensor) -> Sequence[Tensor]:
        """Return U x_t + b of each step: one product, which all steps share where they see the same inputs."""
        weights, bias = parts["read.weight"], parts["read.bias"][:, :, None]
        if self.sequences is None:
            return [contract(weights, inputs.transpose(1, 2)) + bias] * self.steps
        sums = contract(weights, self.inputs_read(inputs)) + bias
        # Cut at once: the gradient of each slice on its own would be as large as that of all of them.
        return sums.unflatten(2, (self.steps, -1)).unbind(2)

    def _leak(self, before: Tensor | None, activity: Tensor) -> Tensor:
        """Return h_t from h_(t-1), None where that is h_0 = 0, and phi of the sums."""
        if self.leak == 1:
            return activity
        if before is None:
            return self.leak * activity
        return (1 - self.leak) * before + self.leak * activity

    def inputs_read(
        self, inputs: Float[Tensor, "member batch in_features"]
    ) -> Float[Tensor, "member source_unit _batch"]:
        """Return the inputs that are read at each step, step after step along the last axis."""
        values = inputs.transpose(1, 2)
        if self.sequences is None:
            return values.repeat(1, 1, self.steps)
        by_step = values.unflatten(1, (self.sequences, self.steps, -1)).transpose(2, 3)
        return by_step.flatten(3).flatten(1, 2)

    @property
    def connections(self) -> tuple[tuple[str, str], ...]:
        """Return those from inputs to units, from units to units, and from units to outputs."""
        return ((INPUT, RECURRENT), (RECURRENT, RECURRENT), (RECURRENT, OUTPUT))

    def edge_weights(
        self, parameters: Float[Tensor, "member parameter"]
    ) -> Sequence[Float[Tensor, "member _target_unit _source_unit"]]:
        """Return U, W and V."""
        parts = self.split(parameters)
        return [parts[name] for name in ("read.weight", "recurrent.weight", "write.weight")]

    def activity_read(
        self,
        connection: tuple[str, str],
        inputs: Float[Tensor, "member batch in_features"],
        recording: Recording,
    ) -> Float[Tensor, "member source_unit _batch"]:
        """Return h_1 to h_(T-1) for W, which has nothing to read at the first step, and h_T for V."""
        source, target = connection
        if source == INPUT:
            return self.inputs_read(inputs)
        batch = inputs.shape[1]
        states = recording.values[RECURRENT]
        if target == OUTPUT:
            return states[:, :, -batch:]
        return states[:, :, :-batch] if self.steps > 1 else torch.zeros_like(states)

    @property
    def input_weights(self) -> tuple[str, ...]:
        """Return those that read the inputs, none where these are sequences."""
        return ("read.weight",) if self.sequences is None else ()

    @property
    def activation_cost(self) -> int:
        """Return that of the nonlinearity."""
        return ACTIVATIONS[self.activation].cost


def _without_second_bias(chain: Perceptron, parameters: Tensor) -> list[Tensor]:
    """Return U, b, W, V and c of a chain's parameters; its second bias is one too many, as b is added at each step."""
    (read, recurrent, write), (bias, _, write_bias) = chain.unflatten(parameters)
    return [read, bias, recurrent, write, write_bias]


class RecurrentArchitecture(Architecture):
    """A leaky recurrent network, and the share of cross-module connections that its mask keeps.

    It reads sequences step by step and images row by row, those of all modules side by side. Inputs without an order
    are shown at every step.
    """

    width: int = Field(ge=1, description="number of recurrent units", json_schema_extra=STRUCTURAL)
    activation: ActivationName = Field(description="nonlinearity of the units", json_schema_extra=STRUCTURAL)
    leak: float = Field(
        gt=0,
        le=1,
        description="alpha, the share of a unit's activity that is replaced at each step; with 1 nothing is "
        "kept",
        json_schema_extra=STRUCTURAL,
    )
    steps: int = Field(
        ge=1,
        description="number of steps for which inputs without an order are shown; sequences have their own "
        "length",
        json_schema_extra=STRUCTURAL,
    )
    cross_connections: float = Field(
        ge=0,
        le=1,
        description="share of cross-module connections that is kept: 1 is dense, 0 premodular, values "
        "between are partial",
    )
    initial_scale: float = Field(
        gt=0,
        description="initial input and output weights are normal with standard deviation initial_scale / "
        "sqrt(fan-in)",
    )
    recurrent_scale: float = Field(
        ge=0, description="the same for weights between units; about the spectral radius of a dense network"
    )

    def network(self, task: Task) -> Recurrent:
        """Return a recurrent network with the task's inputs and outputs.

        Raises: ConfigError if there are too few units to give each module one, or inputs that it cannot read.
        """
        check_shared_out(task, self.cross_connections, "width", self.width, "a recurrent unit")
        steps, sequences = reading(task, self.steps)
        return Recurrent(
            in_features=task.in_features,
            out_features=task.out_features,
            units=self.width,
            activation=self.activation,
            leak=self.leak,
            steps=steps,
            sequences=sequences,
        )


def reading(task: Task, steps: int) -> tuple[int, int | None]:
    """Return in how many steps a task's inputs are read, and how many sequences they are if they are any.

    Raises: ConfigError if they are arranged in more than two dimensions, or are not equal shares of the modules.
    """
    match task.input_shape:
        case (_,):
            return steps, None
        case (length, _) if task.partition.inputs_per_module == math.prod(task.input_shape):
            return length, task.modules
        case (_, _):
            raise ConfigError(
                f"architecture._target_: a recurrent network reads one sequence of shape {task.input_shape} for each "
                f"module, but the inputs of task.name={task.name} are not such equal shares in order. Choose another "
                "architecture, or let the task's input_shape be (features,)."
            )
        case shape:
            raise ConfigError(
                f"architecture._target_: a recurrent network reads inputs of shape (features,), (step, feature) or "
                f"(row, column), and those of task.name={task.name} have shape {shape}. Choose another architecture."
            )
