"""Perceptrons whose units have places: each layer is a line from 0 to 1, on which its units are in some order.

Places are parts of a member's parameters that are not trained. No output depends on them, so two units of a layer
may exchange places at any time without changing what the network computes. Only the length of connections depends on
them (see `wiring`). Inputs and outputs have places as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float, Int32
from pydantic import Field
from torch import Tensor

from modulab.networks.base import INPUT, OUTPUT, Network, Parameter
from modulab.networks.perceptron import Perceptron, PerceptronArchitecture
from modulab.partition import Partition
from modulab.streams import Stream, fold_in, uniforms
from modulab.tasks.base import Task

_PLACE = "place."


def evenly_spaced(units: int) -> Float[Tensor, " unit"]:
    """Return the middles of n equal parts of the line from 0 to 1, n = `units`, in order: (i + 1/2) / n."""
    return (torch.arange(units) + 0.5) / units


def has_places(network: Network) -> bool:
    """Return whether the units of a network have their own places."""
    return any(part.name.startswith(_PLACE) for part in network.layout)


def unit_places(
    network: Network, parameters: Float[Tensor, "member parameter"]
) -> dict[str, Float[Tensor, "member _unit"]]:
    """Return the places of inputs, of the units of each site, and of outputs, by name, as views of the parameters.

    Nothing for a network without places.
    """
    return {
        name.removeprefix(_PLACE): part
        for name, part in network.split(parameters).items()
        if name.startswith(_PLACE)
    }


@dataclass(frozen=True)
class PlacedPerceptron(Perceptron):
    """A perceptron, with a place for each input, hidden unit and output."""

    @property
    def layout(self) -> tuple[Parameter, ...]:
        """Return the weights and biases of a perceptron, then places from the input side on."""
        units = {INPUT: self.in_features, **{site.name: site.units for site in self.sites}}
        units[OUTPUT] = self.out_features
        places = (
            Parameter(_PLACE + name, (count,), is_weight=False, trained=False)
            for name, count in units.items()
        )
        return (*super().layout, *places)

    def unflatten(
        self, parameters: Float[Tensor, "member parameter"]
    ) -> tuple[
        list[Float[Tensor, "member out_features in_features"]], list[Float[Tensor, "member out_features"]]
    ]:
        """Return the weight matrices and biases, without the places."""
        layers = list(self.split(parameters).values())[: 2 * len(self.layer_sizes)]
        return layers[0::2], layers[1::2]

    def initialise(
        self,
        architectures: Sequence[Any],
        partition: Partition,
        keys: Int32[Tensor, "member 2"],
    ) -> tuple[Float[Tensor, "member parameter"], Float[Tensor, "member parameter"]]:
        """Return masks and initial weights, with units in order, evenly spaced; no gradient moves them.

        Members whose architecture asks for it have weights and biases that are uniform as those of torch's nn.Linear.
        """
        mask, parameters = super().initialise(architectures, partition, keys)
        uniform = [architecture.initial_weights == "uniform" for architecture in architectures]
        if any(uniform):
            drawn = _uniform_parameters(self, mask, keys)
            parameters = torch.where(torch.tensor(uniform, device=keys.device)[:, None], drawn, parameters)
        counts = [part.size for part in self.layout if not part.trained]
        places = torch.cat([evenly_spaced(count) for count in counts]).expand(len(keys), -1).to(keys.device)
        return torch.cat([mask, torch.zeros_like(places)], dim=1), torch.cat([parameters, places], dim=1)


def _uniform_parameters(
    network: PlacedPerceptron, mask: Float[Tensor, "member parameter"], keys: Int32[Tensor, "member 2"]
) -> Float[Tensor, "member parameter"]:
    """Return weights and biases uniform within 1 / sqrt(fan-in), fan-in counted after masking; masked ones are 0."""
    initial_keys = fold_in(keys, Stream.INITIALISATION)
    counters = torch.arange(mask.shape[1], dtype=torch.int32, device=keys.device)[None]
    draws = 2 * uniforms(fold_in(initial_keys, len(network.layer_sizes)), counters) - 1
    bounds: list[Tensor] = []
    for (rows, columns), weights in zip(network.layer_sizes, network.unflatten(mask)[0], strict=True):
        bound = weights.sum(dim=2).clamp(min=1).rsqrt()
        bounds += [bound[:, :, None].expand(-1, rows, columns).flatten(1), bound]
    return draws * torch.cat(bounds, dim=1) * mask


class PlacedArchitecture(PerceptronArchitecture):
    """A perceptron whose units have places."""

    initial_weights: Literal["normal", "uniform"] = Field(
        description="normal: as initial_scale says, with biases of 0; uniform: weights and biases are "
        "uniform within 1 / sqrt(fan-in), as in torch's nn.Linear"
    )

    def network(self, task: Task) -> PlacedPerceptron:
        """Return a perceptron with places, with the task's inputs and outputs.

        Raises: ConfigError if a layer is too narrow to give each module its own unit.
        """
        return PlacedPerceptron(**vars(super().network(task)))
