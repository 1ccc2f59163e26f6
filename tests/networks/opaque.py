"""A network that states no more than it must: a perceptron whose connections and stages nobody sees."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from modulab.networks.base import Network, Parameter, Site, Tap
from modulab.networks.perceptron import Perceptron, PerceptronArchitecture
from modulab.partition import Partition
from modulab.tasks.base import Task


@dataclass(frozen=True)
class Opaque(Network):
    """Passes on what must be stated to the perceptron inside."""

    in_features: int
    out_features: int
    inside: Perceptron

    @property
    def layout(self) -> tuple[Parameter, ...]:
        return self.inside.layout

    @property
    def sites(self) -> tuple[Site, ...]:
        return self.inside.sites

    def initialise(
        self, architectures: Sequence[PerceptronArchitecture], partition: Partition, keys: Tensor
    ) -> tuple[Tensor, Tensor]:
        return self.inside.initialise(architectures, partition, keys)

    def forward(self, parameters: Tensor, inputs: Tensor, tap: Tap | None = None) -> Tensor:
        return self.inside.forward(parameters, inputs, tap)


class OpaqueArchitecture(PerceptronArchitecture):
    """A perceptron of which nothing but the forward pass is known."""

    def network(self, task: Task) -> Opaque:
        inside = super().network(task)
        return Opaque(inside.in_features, inside.out_features, inside)
