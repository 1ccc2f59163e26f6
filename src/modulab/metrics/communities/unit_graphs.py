"""Graphs whose nodes are the units of networks, and the modules of the task that these units serve.

- `weight_graph`: inputs, units and outputs, connected by absolute weights; only for networks with edges.
- `co_activation_graph`: units, connected by the squared correlation of their activities over evaluation points, the
  share of the variance of one that the other explains. Unrelated units have 1 / points in expectation.
- `influence_graph`: units, connected by how alike the outputs are that they act on: the cosine of their profiles
  (E_x (dy / da)^2)^(1/2) over outputs, which are never negative.

A `GraphKind` is what the key `graph` of a search names, by its dotted path. Each kind says what its graphs would be by
chance. For weights, they change places between the same two layers, zeros too. Likeness needs another null, because it
is transitive: what two units are like is alike, in any network. There the units of each site are mixed by a random
rotation, which leaves what a site represents as it is and ends only that units, and not mixtures of them, carry it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from modulab.metrics.communities.searches import LEFT_OUT
from modulab.metrics.modularity import unit_strengths
from modulab.metrics.probe import Probe
from modulab.networks.base import INPUT, OUTPUT, Network
from modulab.streams import fold_in, member_keys, orthogonal_matrices

Adjacency = Float64[np.ndarray, "node node"]


@dataclass(frozen=True)
class UnitGraphs:
    """One graph per member; its nodes lie side by side, place by place."""

    places: tuple[tuple[str, int], ...]
    """The name and the number of nodes of each place: the inputs, sites, the outputs."""
    adjacency: Float64[Tensor, "member node node"]
    """Symmetric, not negative."""
    by_chance: Callable[[int, int], Adjacency]
    """Returns a random graph to compare a member's with, by the member's place and a seed."""

    @property
    def parts(self) -> Int64[np.ndarray, " node"]:
        """Return the number of each node's place."""
        return place_numbers(self.places)


@dataclass(frozen=True)
class GraphKind:
    """A way to make graphs of units."""

    make: Callable[[Probe], UnitGraphs]
    lacking: Callable[[Network], str | None]
    """Returns why a network has no such graph, or None."""


def place_numbers(places: tuple[tuple[str, int], ...]) -> Int64[np.ndarray, " node"]:
    """Return the number of each node's place."""
    return np.repeat(np.arange(len(places)), [size for _, size in places])


def _weights(probe: Probe) -> UnitGraphs:
    edges = probe.network.edges()
    sizes = {each.source: each.weights.shape[2] for each in edges}
    sizes |= {each.target: each.weights.shape[1] for each in edges}
    order = [INPUT, *(site.name for site in probe.network.network.sites), OUTPUT]
    places = tuple((name, sizes[name]) for name in order if name in sizes)
    first = 0
    nodes: dict[str, slice] = {}
    for name, size in places:
        nodes[name] = slice(first, first + size)
        first += size
    adjacency = torch.zeros(probe.network.num_members, first, first, dtype=torch.float64)
    for each in edges:
        adjacency[:, nodes[each.target], nodes[each.source]] += each.weights.abs().double().cpu()
    adjacency = adjacency + adjacency.transpose(1, 2)
    parts = place_numbers(places)

    def shuffled(member: int, seed: int) -> Adjacency:
        return shuffle_layers(adjacency[member].numpy(), parts, np.random.default_rng(seed))

    return UnitGraphs(places, adjacency, shuffled)


def shuffle_layers(
    adjacency: Adjacency, parts: Int64[np.ndarray, " node"], rng: np.random.Generator
) -> Adjacency:
    """Return an adjacency matrix whose weights, zeros too, changed places between the same two parts, or in one."""
    shuffled = np.zeros_like(adjacency)
    nodes = [np.nonzero(parts == part)[0] for part in np.unique(parts)]
    for place, rows in enumerate(nodes):
        for columns in nodes[place:]:
            pairs = np.ix_(rows, columns)
            weights = adjacency[pairs]
            if rows is not columns:
                shuffled[pairs] = rng.permuted(weights.ravel()).reshape(weights.shape)
                continue
            above = np.triu_indices(len(rows), 1)
            shuffled[rows[above[0]], rows[above[1]]] = rng.permuted(weights[above])
    return shuffled + shuffled.T


def _co_activations(probe: Probe) -> UnitGraphs:
    activity = torch.cat(probe.activities(), dim=1).double().cpu()
    centred = activity - activity.mean(dim=2, keepdim=True)
    covariance = torch.bmm(centred, centred.transpose(1, 2))

    def squared_correlations(
        covariance: Float64[Tensor, "member unit unit"],
    ) -> Float64[Tensor, "member unit unit"]:
        return _cosines(covariance).square()

    def rotated(member: int, seed: int) -> Adjacency:
        rotation = _rotation(probe, seed)
        return _without_loops(squared_correlations((rotation @ covariance[member] @ rotation.T)[None]))[
            0
        ].numpy()

    return UnitGraphs(_sites(probe), _without_loops(squared_correlations(covariance)), rotated)


def _influences(probe: Probe) -> UnitGraphs:
    network, structure = probe.network, probe.network.network
    # Of each output, E_x (dy / da)(dy / da)^T within each site: its diagonal is the squared profile, in any rotation.
    by_site = {
        site: _second_moments(jacobian)
        for site, jacobian in structure.output_jacobians(
            network.parameters, probe.samples.inputs, probe.clean
        )
    }
    moments = [by_site[site.name] for site in structure.sites]

    def likeness(moments: list[Tensor]) -> Tensor:
        profiles = torch.cat([torch.diagonal(each, dim1=2, dim2=3) for each in moments], dim=2)
        profiles = profiles.clamp(min=0).sqrt().transpose(1, 2)
        return _without_loops(_cosines(torch.bmm(profiles, profiles.transpose(1, 2))))

    def rotated(member: int, seed: int) -> Adjacency:
        rotation = _rotation(probe, seed)
        mixed: list[Tensor] = []
        first = 0
        for each in moments:
            own = rotation[first : first + each.shape[2], first : first + each.shape[2]]
            mixed.append(own @ each[member : member + 1] @ own.T)
            first += each.shape[2]
        return likeness(mixed)[0].numpy()

    return UnitGraphs(_sites(probe), likeness(moments), rotated)


def _second_moments(jacobian: Tensor) -> Float64[Tensor, "member out_features unit unit"]:
    flat = jacobian.flatten(0, 1).double()
    moments = torch.bmm(flat, flat.transpose(1, 2)) / jacobian.shape[3]
    return moments.unflatten(0, jacobian.shape[:2]).cpu()


def _cosines(products: Float64[Tensor, "member unit unit"]) -> Float64[Tensor, "member unit unit"]:
    """Return the cosines of vectors from their products; 0 with a vector of length 0."""
    lengths = torch.diagonal(products, dim1=1, dim2=2).clamp(min=0).sqrt()
    scale = torch.where(lengths > 0, 1 / torch.where(lengths > 0, lengths, 1.0), 0.0)
    return products * scale[:, :, None] * scale[:, None, :]


def _rotation(probe: Probe, seed: int) -> Float64[Tensor, "unit unit"]:
    """Return a matrix that rotates the units of each site at random."""
    keys = member_keys([seed])
    sizes = enumerate(site.units for site in probe.network.network.sites)
    return torch.block_diag(*(orthogonal_matrices(fold_in(keys, place), size)[0] for place, size in sizes))


def _sites(probe: Probe) -> tuple[tuple[str, int], ...]:
    return tuple((site.name, site.units) for site in probe.network.network.sites)


def _without_loops(adjacency: Float64[Tensor, "member node node"]) -> Float64[Tensor, "member node node"]:
    own = torch.eye(adjacency.shape[1], dtype=torch.bool)
    # A product of matrices is not symmetric to the last bit.
    return torch.where(own, 0.0, (adjacency + adjacency.transpose(1, 2)) / 2)


def _lacks_edges(network: Network) -> str | None:
    return None if network.connections else "its network has no weighted connections"


def _lacks_sites(network: Network) -> str | None:
    return None if network.sites else "its network states no sites where units are active"


def _lacks_aligned_units(network: Network) -> str | None:
    alike = len({site.positions * site.visits for site in network.sites}) < 2
    return _lacks_sites(network) or (
        None if alike else "its units differ in how many values they have in a sample"
    )


weight_graph = GraphKind(_weights, _lacks_edges)
co_activation_graph = GraphKind(_co_activations, _lacks_aligned_units)
influence_graph = GraphKind(_influences, _lacks_sites)


def modules_served(probe: Probe) -> dict[str, Int64[Tensor, "member _node"]]:
    """Return the task's module of each input and output, and the one that each unit serves most strongly, by place.

    A unit serves the modules that its paths lead from and to (`modularity.unit_strengths`). Nodes that are shared,
    units without paths, and units of networks that are not layered are `LEFT_OUT`.
    """
    partition, network = probe.task.partition, probe.network.network
    members = probe.network.num_members
    found = {
        INPUT: torch.tensor(partition.inputs).expand(members, -1),
        OUTPUT: torch.tensor(partition.outputs).expand(members, -1),
    }
    known = network.is_layered and all(
        set(range(partition.modules)) <= set(side) for side in (partition.inputs, partition.outputs)
    )
    for site in network.sites:
        found[site.name] = torch.full((members, site.units), LEFT_OUT)
    if known and network.sites:
        strengths, totals = unit_strengths(probe.network, probe.samples.inputs, partition)
        served = torch.where(totals > 0, strengths.argmax(dim=2), LEFT_OUT).cpu()
        sizes = [site.units for site in network.sites]
        found |= dict(zip((site.name for site in network.sites), served.split(sizes, dim=1), strict=True))
    return found
