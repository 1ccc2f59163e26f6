"""How much of what module 1 learns moves the other modules: blocks of the tangent kernel.

A small step of gradient descent on module 1's outputs moves the outputs of module m at x by the tangent kernel
K_m1(x, x') = sum over parameters of dy_m(x)/dw dy_1(x')/dw, times the loss's derivative at the points x' of the step
(A. Jacot et al., "Neural tangent kernel", 2018). The size of K_m1 against K_11 is therefore forgetting to first
order, before any step is taken. Parameters that a network masks or does not train take no part; so the blocks of a
premodular network are 0 exactly.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Float64
from pydantic import Field
from torch import Tensor

from modulab.config.settings import Probes
from modulab.metrics.measure import Column, Measure
from modulab.metrics.probe import Probe, drawn_samples
from modulab.networks.base import Network, NetworkPopulation
from modulab.tasks.base import Task, as_seen

_SECONDS_PER_POINT = 3e-5
_ELEMENTS = 1 << 22
"""Derivatives of one output, over members, points and parameters, that are held at once."""


class CrossTangent(Measure):
    """`forgetting/cross_tangent`: |K_m1|_F / |K_11|_F, as a root mean square over the modules m other than 1.

    With two modules it is |K_21|_F / |K_11|_F. Outputs are logits where the task classifies.
    """

    points: int = Field(
        ge=1, description="number of evaluation points of the kernel, at most probes.num_samples"
    )

    @property
    def needs(self) -> tuple[str, ...]:
        """Return that the kernel's blocks are of the outputs of one module each."""
        return ("output_modules",)

    @property
    def columns(self) -> tuple[Column, ...]:
        """Return the words for its value."""
        return (Column("forgetting/cross_tangent", "Tangent kernel across modules"),)

    def seconds(self, probes: Probes) -> float:
        """Return about how long it takes for a network."""
        return _SECONDS_PER_POINT * min(self.points, probes.num_samples)

    def lacking(self, network: Network, task: Task) -> str | None:
        """Return that a single module has no others."""
        return "the task has one module" if task.modules == 1 else super().lacking(network, task)

    def take(self, probe: Probe) -> dict[str, Float64[Tensor, " member"]]:
        """Return the ratio of the blocks."""
        partition = probe.task.partition
        points = min(self.points, probe.settings.num_samples)
        drawn = drawn_samples(probe.task, probe.keys, points, "full")
        inputs = as_seen(probe.task, drawn.inputs)
        squares = kernel_squares(probe.seen_network, inputs, probe.mask, partition.outputs_of(0))
        own = squares[:, list(partition.outputs_of(0))].sum(dim=1)
        labels = enumerate(partition.outputs)
        others = [output for output, module in labels if module in range(1, partition.modules)]
        across = squares[:, others].sum(dim=1) / (partition.modules - 1)
        return {"forgetting/cross_tangent": (across / own).sqrt()}


def kernel_squares(
    network: NetworkPopulation,
    inputs: Float[Tensor, "member batch in_features"],
    mask: Float[Tensor, "member parameter"],
    chosen: tuple[int, ...],
) -> Float64[Tensor, "member out_features"]:
    """Return, for each output, its squared tangent kernel with the chosen outputs, summed over pairs of points."""
    points = inputs.shape[1]
    size = max(1, _ELEMENTS // (points * network.network.num_parameters))
    rows = [slice(start, start + size) for start in range(0, network.num_members, size)]
    return torch.cat(
        [_kernel_squares(network.select(some), inputs[some], mask[some], chosen) for some in rows]
    )


def _kernel_squares(
    network: NetworkPopulation, inputs: Tensor, mask: Tensor, chosen: tuple[int, ...]
) -> Tensor:
    jacobians = _parameter_jacobians(network, inputs, mask)
    squares: list[Tensor] = []
    for jacobian in jacobians:
        # One product for each member: products of a batch of one round otherwise than those of many.
        kernels = [
            [(one @ other.T).square().sum() for other in (jacobians[output][member] for output in chosen)]
            for member, one in enumerate(jacobian)
        ]
        squares.append(torch.stack([torch.stack(of_member).sum() for of_member in kernels]))
    return torch.stack(squares, dim=1)


def _parameter_jacobians(
    network: NetworkPopulation, inputs: Tensor, mask: Tensor
) -> list[Float64[Tensor, "member batch parameter"]]:
    """Return the derivative of each output by the parameters, at every point.

    Each point is given to a network of its own, so one gradient of a sum over networks holds them all.
    """
    points = inputs.shape[1]
    many = network.repeated(points)
    alone = inputs.flatten(0, 1)[:, None]

    def outputs_of(parameters: Tensor) -> Tensor:
        return network.network.forward(parameters, alone)

    vjp: Any = torch.func.vjp
    outputs, pull_back = vjp(outputs_of, many.parameters)
    found: list[Tensor] = []
    for output in range(outputs.shape[2]):
        picked = torch.zeros_like(outputs)
        picked[:, :, output] = 1
        gradients = pull_back(picked)[0].unflatten(0, (-1, points))
        found.append((gradients * mask[:, None]).double())
    return found
