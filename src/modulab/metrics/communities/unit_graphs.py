"""The graphs that are searched for modules, what they would be by chance, and the modules that their nodes serve.

- `weight_graph`, `activity_graph` and `jacobian_graph`: inputs, units and outputs, connected by edges as `graphs.kinds`
  weighs them. By chance weights change places between the same two layers, zeros too.
- `co_activation_graph`: units, connected by the squared correlation of their activities over evaluation points, the
  share of the variance of one that the other explains. Unrelated units have 1 / points in expectation.
- `influence_graph`: units, connected by how alike the outputs are that they act on: the cosine of their profiles
  (E_x (dy / da)^2)^(1/2) over outputs, which are never negative.

Likeness needs a null of its own, because it is transitive: what one unit is like is alike, in any network. By chance
the units of each site are mixed by a random rotation. That leaves what a site represents as it is, and ends only that
units, and not mixtures of them, carry it.

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
from modulab.metrics.graphs.nulls import shuffled_graphs
from modulab.metrics.probe import Probe
from modulab.networks.base import Network
from modulab.streams import Stream, fold_in, orthogonal_matrices

_ROTATIONS = 1
"""Keeps rotations apart from the seeds of searches, which are drawn from the same stream."""


@dataclass(frozen=True)
class GraphKind:
    """A way to make graphs of units."""

    build: Callable[[Probe], Graph]
    by_chance: Callable[[Probe, Graph, int], Graph]
    """Returns the random graphs of a number to compare these with."""
    lacking: Callable[[Network], str | None]
    """Returns why a network has no such graph, or None."""


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
    kind = KINDS[name]

    def shuffled(probe: Probe, graph: Graph, number: int) -> Graph:
        return shuffled_graphs(graph, probe.keys, "layer", range(number, number + 1))

    return GraphKind(kind.build, shuffled, kind.lacking)


def _covariances(probe: Probe) -> Float64[Tensor, "member unit unit"]:
    activity = torch.cat(probe.activities(), dim=1).double()
    centred = activity - activity.mean(dim=2, keepdim=True)
    return torch.bmm(centred, centred.transpose(1, 2))


def _co_activations(probe: Probe) -> Graph:
    return _graph_of_units(probe, _cosines(probe.once(_covariances)).square())


def _co_activations_of_mixtures(probe: Probe, graph: Graph, number: int) -> Graph:
    del graph
    rotation = torch.stack([torch.block_diag(*own) for own in zip(*_rotations(probe, number), strict=True)])
    mixed = torch.bmm(torch.bmm(rotation, probe.once(_covariances)), rotation.transpose(1, 2))
    return _graph_of_units(probe, _cosines(mixed).square())


def _influence_moments(probe: Probe) -> list[Float64[Tensor, "member out_features _unit _unit"]]:
    """Return E_x (dy / da)(dy / da)^T of each output, site by site: the diagonal is its squared profile."""
    network, structure = probe.network, probe.network.network
    by_site: dict[str, Tensor] = {}
    for site, jacobian in structure.output_jacobians(network.parameters, probe.samples.inputs, probe.clean):
        flat = jacobian.flatten(0, 1).double()
        moments = torch.bmm(flat, flat.transpose(1, 2)) / jacobian.shape[3]
        by_site[site] = moments.unflatten(0, jacobian.shape[:2])
    return [by_site[site.name] for site in structure.sites]


def _influences(probe: Probe) -> Graph:
    return _graph_of_profiles(probe, probe.once(_influence_moments))


def _influences_of_mixtures(probe: Probe, graph: Graph, number: int) -> Graph:
    del graph
    mixed: list[Tensor] = []
    for rotation, moments in zip(_rotations(probe, number), probe.once(_influence_moments), strict=True):
        many = rotation.repeat_interleave(moments.shape[1], dim=0)
        turned = torch.bmm(torch.bmm(many, moments.flatten(0, 1)), many.transpose(1, 2))
        mixed.append(turned.unflatten(0, moments.shape[:2]))
    return _graph_of_profiles(probe, mixed)


def _graph_of_profiles(probe: Probe, moments: list[Tensor]) -> Graph:
    profiles = torch.cat([torch.diagonal(each, dim1=2, dim2=3) for each in moments], dim=2)
    profiles = profiles.clamp(min=0).sqrt().transpose(1, 2)
    return _graph_of_units(probe, _cosines(torch.bmm(profiles, profiles.transpose(1, 2))))


def _rotations(probe: Probe, number: int) -> list[Float64[Tensor, "member _unit _unit"]]:
    """Return random orthogonal matrices over the units of each site."""
    keys = fold_in(fold_in(fold_in(probe.keys, Stream.COMMUNITIES), _ROTATIONS), number)
    sizes = enumerate(site.units for site in probe.network.network.sites)
    return [orthogonal_matrices(fold_in(keys, place), units) for place, units in sizes]


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
    return None if network.sites else "its network states no sites where units are active"


def _lacks_aligned_units(network: Network) -> str | None:
    alike = len({site.positions * site.visits for site in network.sites}) < 2
    return _lacks_sites(network) or (
        None if alike else "its units differ in how many values they have in a sample"
    )


weight_graph = _of_edges("weight")
activity_graph = _of_edges("activity")
jacobian_graph = _of_edges("jacobian")
co_activation_graph = GraphKind(_co_activations, _co_activations_of_mixtures, _lacks_aligned_units)
influence_graph = GraphKind(_influences, _influences_of_mixtures, _lacks_sites)
