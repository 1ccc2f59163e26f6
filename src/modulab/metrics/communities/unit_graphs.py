"""The graphs that are searched for modules, what they are by chance, and the modules that their nodes serve.

- `weight_graph`, `activity_graph` and `jacobian_graph`: inputs, units and outputs, connected by edges as `graphs.kinds`
  weighs them.
- `co_activation_graph`: units, connected by the squared correlation of their activities over evaluation points, the
  share of the variance of one that the other explains. Unrelated units have 1 / points in expectation.
- `influence_graph`: units, connected by how alike the outputs are that they act on: the cosine of their profiles
  (E_x (dy / da)^2)^(1/2) over outputs, which are never negative.

By chance the weights of each layer change places, zeros too, and the graph is that of the network that has them
(see `graphs.shuffled_networks`). Likeness is transitive, and rectified units are alike where they are active in the
same half of the input space. So shuffled likenesses, and the likenesses of random mixtures of units, are less modular
than those of any network: against mixtures, 17 of 100 untrained dense networks of 20 units had a z of 2 by
co-activation, and 93 sparse ones by influence.

A `GraphKind` is what the key `graph` of a search names, by its dotted path.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from modulab.metrics.graphs.assignment import strongest_modules
from modulab.metrics.graphs.graph import Block, Graph, Part
from modulab.metrics.graphs.kinds import KINDS, node_modules
from modulab.metrics.graphs.kinds import GraphKind as EdgeKind
from modulab.metrics.graphs.shuffled_networks import shuffled_networks
from modulab.metrics.probe import Probe
from modulab.networks.base import Network


@dataclass(frozen=True)
class GraphKind:
    """A way to make graphs of units."""

    build: Callable[[Probe], Graph]
    lacking: Callable[[Network], str | None]
    """Returns why a network has no such graph, or None."""

    def by_chance(self, probe: Probe, number: int) -> Graph:
        """Return the graphs of networks whose weights have changed places; each number gives others."""
        return self.build(shuffled_networks(probe, "layer", range(number, number + 1)))


def symmetric_adjacency(graph: Graph) -> Float64[Tensor, "member node node"]:
    """Return the adjacency of graphs whose edges have no direction, or where it does not count."""
    adjacency = graph.adjacency()
    return adjacency + adjacency.transpose(1, 2) if graph.directed else adjacency


def modules_served(probe: Probe) -> dict[str, Int64[Tensor, "member _node"]]:
    """Return the task's module of each input and output, and the one that each unit serves, by place.

    A unit serves the module that its connections lead to (see `graphs.assignment`), or without edges the one whose
    inputs and outputs it varies with. Units that serve none are labelled -1; there are no labels for a network of which
    neither is known.
    """
    network, partition = probe.network.network, probe.task.partition
    kinds: tuple[EdgeKind, ...] = ("weight", "coactivation")
    kind = next((KINDS[name] for name in kinds if KINDS[name].lacking(network) is None), None)
    if kind is None:
        return {}
    graph = kind.build(probe)
    known = node_modules(network, partition, graph.parts)
    labels = strongest_modules(graph, known, partition.modules)
    return {part.name: labels[:, graph.nodes_of(place)] for place, part in enumerate(graph.parts)}


def _of_edges(name: EdgeKind) -> GraphKind:
    return GraphKind(KINDS[name].build, KINDS[name].lacking)


def _covariances(probe: Probe) -> Float64[Tensor, "member unit unit"]:
    activity = torch.cat(probe.activities(), dim=1).double()
    centred = activity - activity.mean(dim=2, keepdim=True)
    return torch.bmm(centred, centred.transpose(1, 2))


def _co_activations(probe: Probe) -> Graph:
    return _graph_of_units(probe, _cosines(_covariances(probe)).square())


def _influences(probe: Probe) -> Graph:
    network, structure = probe.network, probe.network.network
    by_site: dict[str, Tensor] = {}
    for site, jacobian in structure.output_jacobians(network.parameters, probe.samples.inputs, probe.clean):
        by_site[site] = jacobian.double().square().mean(dim=3).sqrt().transpose(1, 2)
    profiles = torch.cat([by_site[site.name] for site in structure.sites], dim=1)
    return _graph_of_units(probe, _cosines(torch.bmm(profiles, profiles.transpose(1, 2))))


def _cosines(products: Float64[Tensor, "member unit unit"]) -> Float64[Tensor, "member unit unit"]:
    """Return the cosines of vectors from their products; 0 with a vector of length 0."""
    lengths = torch.diagonal(products, dim1=1, dim2=2).clamp(min=0).sqrt()
    scale = torch.where(lengths > 0, 1 / torch.where(lengths > 0, lengths, 1.0), 0.0)
    return products * scale[:, :, None] * scale[:, None, :]


def _graph_of_units(probe: Probe, weights: Float64[Tensor, "member unit unit"]) -> Graph:
    """Return the undirected graphs over all units, without edges from a unit to itself."""
    sites = probe.network.network.sites
    bounds = [0]
    for site in sites:
        bounds.append(bounds[-1] + site.units)
    blocks: list[Block] = []
    for target in range(len(sites)):
        for source in range(target + 1):
            own = weights[:, bounds[target] : bounds[target + 1], bounds[source] : bounds[source + 1]]
            possible = torch.ones_like(own, dtype=torch.bool)
            if source == target:
                possible = possible.tril(-1)
            blocks.append(Block(source, target, torch.where(possible, own, 0.0), possible))
    return Graph(tuple(Part(site.name, site.units) for site in sites), tuple(blocks), directed=False)


def _lacks_sites(network: Network) -> str | None:
    return None if network.sites else "the network defines no sites where units are active"


def _lacks_aligned_units(network: Network) -> str | None:
    alike = len({site.positions * site.visits for site in network.sites}) < 2
    return _lacks_sites(network) or (
        None if alike else "its units differ in how many values they have in a sample"
    )


weight_graph = _of_edges("weight")
activity_graph = _of_edges("activity")
jacobian_graph = _of_edges("jacobian")
co_activation_graph = GraphKind(_co_activations, _lacks_aligned_units)
influence_graph = GraphKind(_influences, _lacks_sites)
