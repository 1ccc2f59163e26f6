"""Graphs of networks: of their weights, and of how units vary together.

With a_j the values that an edge w_ij reads at its source, std over evaluation points, and g_i the derivative of the
target's value by the sum of what its edges bring, an edge weighs

- weight: |w_ij|. Depends on scale: (a_j, w_ij) -> (c a_j, w_ij / c) leaves a network of rectified units as it is
  and changes its graph;
- activity: |w_ij| std(a_j), what the edge contributes to the variation of the sum that it leads to;
- jacobian: |w_ij| E|g_i| std(a_j) / std(a_i), the derivative of one unit by another in units of their variation.
  Invariant under rescaling.

That of co-activation needs no edges (see `coactivation`). Units and inputs whose value never varies over the
evaluation points are dead and have no edges, in any graph. Those that no edge leads to or from are isolated. Neither
counts as a node.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float64
from torch import Tensor

from modulab.metrics.graphs.coactivation import coactivation_graph
from modulab.metrics.graphs.graph import Block, Graph, Part
from modulab.metrics.graphs.nulls import ShuffleKind, shuffled_graphs
from modulab.metrics.graphs.shuffled_networks import shuffled_networks
from modulab.metrics.probe import Probe
from modulab.networks.base import INPUT, OUTPUT, Network
from modulab.partition import SHARED, Partition

GraphKind = Literal["weight", "activity", "jacobian", "coactivation"]
NullName = Literal[ShuffleKind, "frame", "partition"]


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


def _edges_lacking(network: Network) -> str | None:
    return None if network.connections else "the network has no weighted connections"


def _layers_lacking(network: Network) -> str | None:
    if network.is_layered:
        return None
    return "the network is not a sequence of layers, so that derivatives of units by units are not known"


def _values_lacking(network: Network) -> str | None:
    if not network.sites:
        return "the network defines no sites where units are active"
    if any(site.positions * site.visits > 1 for site in network.sites):
        return "its units have several values per sample, which do not correspond to inputs and outputs"
    return None


@dataclass(frozen=True)
class Kind:
    """A kind of graph: how it is made, why a network has none, what it is called, and what it is compared with."""

    build: Callable[[Probe], Graph]
    lacking: Callable[[Network], str | None]
    label: str
    nulls: tuple[NullName, ...]
    """The nulls that are available for it."""
    directed: bool = True
    """Whether edges have a direction, and blocks of them are layers."""

    def shuffled(self, probe: Probe, graph: Graph, shuffle: ShuffleKind, numbers: range) -> Graph:
        """Return shuffled graphs of a probe's networks, those of a member side by side.

        Weights change places in the network, whose graph is then made again: what an edge weighs and which units are
        dead depends on all weights. Strengths are those of the graph, so edges of the graph are changed to keep
        them.
        """
        if shuffle == "strength":
            return shuffled_graphs(graph, probe.keys, shuffle, numbers)
        return self.build(shuffled_networks(probe, shuffle, numbers))


_OF_EDGES: tuple[NullName, ...] = ("layer", "degree", "nonzero", "strength", "partition")
KINDS: dict[GraphKind, Kind] = {
    "weight": Kind(weight_graph, _edges_lacking, "weights", _OF_EDGES),
    "activity": Kind(activity_graph, _edges_lacking, "weights times activity", _OF_EDGES),
    "jacobian": Kind(jacobian_graph, _layers_lacking, "derivatives", _OF_EDGES),
    "coactivation": Kind(
        coactivation_graph,
        _values_lacking,
        "co-activation",
        ("layer", "degree", "nonzero", "frame", "partition"),
        directed=False,
    ),
}
"""The kinds, by the names that configs and columns of results have."""


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
    placed = list(zip(network.connections, weights, strict=True))
    read = [each.shape[2] for (source, _), each in placed if source == INPUT]
    sites = (Part(site.name, site.units) for site in network.sites)
    parts = (
        Part(INPUT, read[0] if read else network.in_features),
        *sites,
        Part(OUTPUT, network.out_features),
    )
    names = [part.name for part in parts]
    blocks = tuple(
        Block(names.index(source), names.index(target), each, torch.ones_like(each, dtype=torch.bool))
        for (source, target), each in placed
    )
    return Graph(parts, blocks, directed=True).only(~dead_nodes(probe, parts))


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
