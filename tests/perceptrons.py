"""Populations of perceptrons with weights of the test's own, and their forward passes layer by layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from modulab.networks.base import NetworkPopulation, Recording, Tap
from modulab.networks.perceptron import Perceptron, flatten, pre_activation
from modulab.regularisers import Pass


@dataclass(frozen=True)
class Perceptrons(NetworkPopulation):
    """A population whose layers can be read; they are views of its parameters."""

    network: Perceptron

    @property
    def weights(self) -> tuple[Tensor, ...]:
        return tuple(self.network.unflatten(self.parameters)[0])

    @property
    def biases(self) -> tuple[Tensor, ...]:
        return tuple(self.network.unflatten(self.parameters)[1])

    @property
    def activation(self) -> str:
        return self.network.activation


def planted(weights: Sequence[Tensor], biases: Sequence[Tensor], activation: str) -> Perceptrons:
    """Return perceptrons with these weights and biases, input side first."""
    in_features, *hidden = (weight.shape[2] for weight in weights)
    network = Perceptron(in_features, tuple(hidden), weights[-1].shape[1], activation)
    return Perceptrons(network, flatten(list(weights), list(biases)))


def torch_layers(population: Perceptrons) -> nn.Sequential:
    """Return the first of some perceptrons of tanh units as torch.nn layers."""
    layers: list[nn.Module] = []
    for weight, bias in zip(population.weights, population.biases, strict=True):
        linear = nn.Linear(weight.shape[2], weight.shape[1])
        with torch.no_grad():
            linear.weight.copy_(weight[0])
            linear.bias.copy_(bias[0])
        layers += [linear, nn.Tanh()]
    return nn.Sequential(*layers[:-1])


def perceptrons(population: NetworkPopulation) -> Perceptrons:
    """Return a population whose layers can be read."""
    assert isinstance(population.network, Perceptron)
    return Perceptrons(population.network, population.parameters)


@dataclass(frozen=True)
class Trace:
    """A forward pass, layer by layer, before any tap."""

    recording: Recording
    pre_activations: list[Tensor]
    activities: list[Tensor]

    @property
    def outputs(self) -> Tensor:
        return self.recording.outputs


def trace(population: NetworkPopulation, inputs: Tensor, tap: Tap | None = None) -> Trace:
    """Return a forward pass."""
    recording = population.record(inputs, tap)
    sites = population.network.sites
    return Trace(
        recording,
        [recording.values[pre_activation(layer)] for layer in range(len(sites))],
        [recording.values[site.name] for site in sites],
    )


def passed(population: NetworkPopulation, mask: Tensor, inputs: Tensor) -> Pass:
    """Return a forward pass as regularisers see it."""
    recording = population.record(inputs)
    return Pass(population.network, population.parameters, mask, inputs, recording)
