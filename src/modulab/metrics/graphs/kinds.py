"""Graphs of networks: of their weights, and of how units vary together.

With a_j the values that an edge w_ij reads at its source, std over evaluation points, and g_i the derivative of the
target's value by the sum of what its edges bring, an edge weighs

- weight: |w_ij|. Says nothing of scale: (a_j, w_ij) -> (c a_j, w_ij / c) leaves a network of rectified units as it is
  and changes its graph;
- activity: |w_ij| std(a_j), what the edge contributes to the variation of the sum that it leads to;
- jacobian: |w_ij| E|g_i| std(a_j) / std(a_i), the derivative of one unit by another in units of their variation.
  Invariant under rescaling.

The graph of co-activation needs no edges: |correlation| of the values of inputs, units and outputs, pair by pair.

Units and inputs whose value never varies over the evaluation points are dead and have no edges, in any graph. Those that
no edge leads to or from are isolated. Neither counts as a node.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float64
from torch import Tensor

from modulab.metrics.graphs.graph import Block, Graph, Part
from modulab.metrics.probe import Probe
from modulab.networks.base import INPUT, OUTPUT, Network
from modulab.partition import SHARED, Partition

GraphKind = Literal["weight", "activity", "jacobian", "coactivation"]


def weight_graph(probe: Probe) -> Graph:
    """Return the graphs of absolute weights."""
    return _graph_of_edges(probe, [edges.weights.double().abs() for edges in probe.network.edges()])


def activity_graph(probe: Probe) -> Graph:
    """Return the graphs of absolute weights times the standard deviation of what they read."""
    network, inputs = probe.network.network, probe.samples.inputs
    weights: list[Tensor] = []
    for connection, edges in zip(network.connections, probe.network.edges(), strict=True):
        read = _deviation(network.activity_read(connection, inputs, probe.clean))
        weights.append(edges.weights.double().abs() * read[:, None, :])
    return _graph_of_edges(probe, weights)


def jacobian_graph(probe: Probe) -> Graph:
    """Return the graphs of mean absolute derivatives of units by units, in units of their standard deviations."""
    network, inputs = probe.network.network, probe.samples.inputs
    gates = network.gates(probe.clean)
    weights: list[Tensor] = []
    for connection, edges in zip(network.connections, probe.network.edges(), strict=True):
        target = edges.target
        read = _deviation(network.activity_read(connection, inputs, probe.clean))
        values = _outputs(probe) if target == OUTPUT else probe.clean.values[target]
        varied = _deviation(values)
        gain = torch.where(varied > 0, 1 / torch.where(varied > 0, varied, 1.0), 0.0)
        if target in gates:
            gain = gain * gates[target].double().abs().mean(dim=2)
        weights.append(edges.weights.double().abs() * gain[:, :, None] * read[:, None, :])
    return _graph_of_edges(probe, weights)


def coactivation_graph(probe: Probe) -> Graph:
    """Return the graphs of absolute correlations of inputs, units and outputs over evaluation points."""
    inputs = probe.samples.inputs.transpose(1, 2).contiguous()
    names = [INPUT, *(site.name for site in probe.network.network.sites), OUTPUT]
    values = [_standardised(each) for each in (inputs, *probe.activities(), _outputs(probe))]
    parts = tuple(Part(name, each.shape[1]) for name, each in zip(names, values, strict=True))
    blocks: list[Block] = []
    for target, of_target in enumerate(values):
        for source, of_source in enumerate(values[: target + 1]):
            weights = torch.bmm(of_target, of_source.transpose(1, 2)).abs()
            possible = torch.ones_like(weights, dtype=torch.bool)
            if source == target:
                possible = possible.tril(-1)
            blocks.append(Block(source, target, torch.where(possible, weights, 0.0), possible))
    return Graph(parts, tuple(blocks), directed=False).only(~dead_nodes(probe, parts))


def _edges_lacking(network: Network) -> str | None:
    return None if network.connections else "its network has no weighted connections"


def _layers_lacking(network: Network) -> str | None:
    if network.is_layered:
        return None
    return (
        "the connections of its network do not lead through one layer after another, so that derivatives of "
        "units by units are not known"
    )


def _values_lacking(network: Network) -> str | None:
    if not network.sites:
        return "its network states no sites where units are active"
    if any(site.positions * site.visits > 1 for site in network.sites):
        return "its units have several values a sample, which inputs and outputs do not correspond to"
    return None


@dataclass(frozen=True)
class _Kind:
    build: Callable[[Probe], Graph]
    lacking: Callable[[Network], str | None]
    label: str
    directed: bool


KINDS: dict[GraphKind, _Kind] = {
    "weight": _Kind(weight_graph, _edges_lacking, "weights", True),
    "activity": _Kind(activity_graph, _edges_lacking, "weights times activity", True),
    "jacobian": _Kind(jacobian_graph, _layers_lacking, "derivatives", True),
    "coactivation": _Kind(coactivation_graph, _values_lacking, "co-activation", False),
}
"""How each graph is made, why a network has none, what it is called, and whether its edges have a direction."""


def dead_nodes(probe: Probe, parts: Sequence[Part]) -> Bool[Tensor, "member node"]:
    """Return which inputs and units have one value at all evaluation points."""
    inputs = probe.samples.inputs
    dead: list[Tensor] = []
    for part in parts:
        if part.name == OUTPUT:
            dead.append(torch.zeros(len(inputs), part.size, dtype=torch.bool, device=inputs.device))
            continue
        values = _inputs_as_nodes(probe, part.size) if part.name == INPUT else probe.clean.values[part.name]
        dead.append(values.amax(dim=2) == values.amin(dim=2))
    return torch.cat(dead, dim=1)


def node_modules(network: Network, partition: Partition, parts: Sequence[Part]) -> tuple[int, ...]:
    """Return the module of each input and output, `SHARED` for those of none and for units.

    An input that edges read is one that several of the task's inputs may stand for, such as the steps of a sequence.
    It belongs to a module if all of these do.
    """
    labels: list[int] = []
    for part in parts:
        if part.name == OUTPUT:
            labels += partition.outputs
        elif part.name == INPUT and part.size == network.in_features:
            labels += partition.inputs
        elif part.name == INPUT:
            alone = torch.eye(network.in_features)[:, None, :]
            reads = (network.inputs_read(alone) != 0).any(dim=2)  # (input of the task, input that edges read)
            for node in reads.unbind(dim=1):
                found = {partition.inputs[feature] for feature in node.nonzero()[:, 0].tolist()}
                labels.append(found.pop() if len(found) == 1 else SHARED)
        else:
            labels += [SHARED] * part.size
    return tuple(labels)


def _graph_of_edges(probe: Probe, weights: Sequence[Tensor]) -> Graph:
    network = probe.network.network
    connections = network.connections
    sizes = {site.name: site.units for site in network.sites}
    sizes[INPUT] = next(
        (len(each[0, 0]) for (source, _), each in _pairs(connections, weights) if source == INPUT), 0
    )
    sizes[OUTPUT] = network.out_features
    names = [INPUT, *(site.name for site in network.sites), OUTPUT]
    parts = tuple(Part(name, sizes[name]) for name in names)
    blocks = tuple(
        Block(names.index(source), names.index(target), each, torch.ones_like(each, dtype=torch.bool))
        for (source, target), each in _pairs(connections, weights)
    )
    return Graph(parts, blocks, directed=True).only(~dead_nodes(probe, parts))


def _pairs(
    connections: Sequence[tuple[str, str]], weights: Sequence[Tensor]
) -> list[tuple[tuple[str, str], Tensor]]:
    return list(zip(connections, weights, strict=True))


def _inputs_as_nodes(probe: Probe, size: int) -> Tensor:
    """Return the inputs as nodes: as edges read them, or as the task has them where the graph has those."""
    inputs = probe.samples.inputs
    if size == inputs.shape[2]:
        return inputs.transpose(1, 2)
    return probe.network.network.inputs_read(inputs)


def _outputs(probe: Probe) -> Tensor:
    return probe.clean.outputs.transpose(1, 2).contiguous()


def _deviation(values: Tensor) -> Float64[Tensor, "member node"]:
    """Return standard deviations over the last axis; exactly 0 where all values are equal."""
    varied = values.amax(dim=2) > values.amin(dim=2)
    return torch.where(varied, values.double().contiguous().std(dim=2, correction=0), 0.0)


def _standardised(values: Tensor) -> Float64[Tensor, "member node _batch"]:
    """Return values less their mean, of sum of squares 1, or all 0 where they do not vary."""
    deviation = _deviation(values)[:, :, None]
    values = values.double().contiguous()
    centred = values - values.mean(dim=2, keepdim=True)
    scale = torch.where(deviation > 0, 1 / torch.where(deviation > 0, deviation, 1.0), 0.0)
    return centred * scale / values.shape[2] ** 0.5
