"""A network with one site to which a pass comes twice, its units active at two positions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from modulab.networks.base import Network, Parameter, Site, Tap
from modulab.networks.perceptron import PerceptronArchitecture
from modulab.partition import Partition
from modulab.streams import Stream, fold_in, normals
from modulab.tasks.base import Task


@dataclass(frozen=True)
class Repeated(Network):
    """relu(W x) for each half of the inputs, then relu(V h) of both, and a readout of the sum over halves."""

    in_features: int
    out_features: int
    units: int

    @property
    def layout(self) -> tuple[Parameter, ...]:
        units = self.units
        return (
            Parameter("read", (units, self.in_features // 2)),
            Parameter("again", (units, units)),
            Parameter("write", (self.out_features, units)),
        )

    @property
    def sites(self) -> tuple[Site, ...]:
        return (Site("hidden", self.units, positions=2, visits=2),)

    def initialise(
        self, architectures: Sequence[Any], partition: Partition, keys: Tensor
    ) -> tuple[Tensor, Tensor]:
        drawn = normals(fold_in(keys, Stream.INITIALISATION), 1, self.num_parameters)[:, 0]
        return torch.ones_like(drawn), 0.5 * drawn

    def inputs_read(self, inputs: Tensor) -> Tensor:
        return torch.cat(inputs.transpose(1, 2).chunk(2, dim=1), dim=2)

    def forward(self, parameters: Tensor, inputs: Tensor, tap: Tap | None = None) -> Tensor:
        parts = self.split(parameters)
        tap = tap or (lambda place, values: values)
        hidden = tap("hidden", torch.relu(torch.bmm(parts["read"], self.inputs_read(inputs))))
        hidden = tap("hidden", torch.relu(torch.bmm(parts["again"], hidden)))
        halves = torch.bmm(parts["write"], hidden).chunk(2, dim=2)
        return (halves[0] + halves[1]).transpose(1, 2)

    @property
    def connections(self) -> tuple[tuple[str, str], ...]:
        return (("input", "hidden"), ("hidden", "hidden"), ("hidden", "output"))

    def edge_weights(self, parameters: Tensor) -> Sequence[Tensor]:
        return list(self.split(parameters).values())


class RepeatedArchitecture(PerceptronArchitecture):
    """A config of it, which takes the width from the keys of a perceptron."""

    def network(self, task: Task) -> Repeated:  # pyright: ignore[reportIncompatibleMethodOverride]
        return Repeated(task.in_features, task.out_features, self.width)
