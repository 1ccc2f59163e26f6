"""How well a partition divides a weighted graph into modules.

With e_rs the weight between modules r and s, e_rr twice that within r, k_r = sum_s e_rs and 2 M = sum_r k_r:

- Newman's modularity Q = sum_r [e_rr / 2M - (k_r / 2M)^2] (M. E. J. Newman, "Analysis of weighted networks", 2004);
- of directed graphs, with e_rs from r to s: Q = sum_r [e_rr / M - k_r^out k_r^in / M^2] (E. A. Leicht and
  M. E. J. Newman, "Community structure in directed networks", 2008);
- of layers, sum_l M_l / M Q_l, with Q_l that of layer l alone, whose edges chance places in l only (M. J. Barber,
  "Modularity and community detection in bipartite networks", 2007);
- the normalised cut sum_r (k_r - e_rr) / k_r (J. Shi and J. Malik, "Normalized cuts and image segmentation", 2000);
- the map equation, the bits per step that describe a random walk in two levels: with p_a = k_a / 2M, p_r = k_r / 2M,
  q_r = (k_r - e_rr) / 2M and q = sum_r q_r, L = f(q) - 2 sum_r f(q_r) - sum_a f(p_a) + sum_r f(q_r + p_r),
  f(x) = x log2 x (M. Rosvall and C. T. Bergstrom, "Maps of random walks on complex networks reveal community
  structure", 2008).

`weights` are non-negative adjacency matrices, [i, j] from node i to node j; functions of undirected graphs take
symmetric ones. `labels` are modules from 0; a node labelled below 0 is left out. Nodes without edges do not count.
A graph without any edge has no score: NaN.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from modulab.metrics.graphs.graph import Graph, directed_graph, undirected_graph
from modulab.metrics.graphs.sums import ModuleSums, module_sums


def newman_modularity(
    weights: Float64[Tensor, "member node node"], labels: Int64[Tensor, "member node"]
) -> Float64[Tensor, " member"]:
    """Return Newman's Q of undirected graphs; at most 1 - 1/K with K modules."""
    return newman(_sums(undirected_graph(weights), labels))


def directed_modularity(
    weights: Float64[Tensor, "member node node"], labels: Int64[Tensor, "member node"]
) -> Float64[Tensor, " member"]:
    """Return the Q of directed graphs; at most 1 - 1/K with K modules."""
    return directed(_sums(directed_graph(weights), labels))


def barber_modularity(
    weights: Float64[Tensor, "member node node"],
    labels: Int64[Tensor, "member node"],
    parts: Int64[Tensor, " node"],
) -> Float64[Tensor, " member"]:
    """Return the Q of graphs in parts, where a pair of parts that edges lead between is a layer; at most 1 - 1/K.

    Symmetric weights give the Q of undirected layers. One part alone has the Q of directed graphs.
    """
    same = parts[:, None] == parts.unique()
    total = weights.flatten(1).sum(dim=1)
    found = torch.zeros_like(total)
    for sources in same.T:
        for targets in same.T:
            between = torch.where(sources[:, None] & targets, weights, 0.0)
            found = found + _chance_corrected(_sums(directed_graph(between), labels).directed, total)
    return found


def modularity_ceiling(
    weights: Float64[Tensor, "member node node"], labels: Int64[Tensor, "member node"]
) -> Float64[Tensor, " member"]:
    """Return 1 - 1/K, the largest Q that a partition into K modules can have; K counts modules with edges."""
    return ceiling(_sums(undirected_graph(weights), labels))


def normalised_cut(
    weights: Float64[Tensor, "member node node"], labels: Int64[Tensor, "member node"]
) -> Float64[Tensor, " member"]:
    """Return the normalised cut of undirected graphs: 0 where nothing leads from module to module."""
    return cut(_sums(undirected_graph(weights), labels))


def map_equation(
    weights: Float64[Tensor, "member node node"], labels: Int64[Tensor, "member node"]
) -> Float64[Tensor, " member"]:
    """Return the two-level codelength of undirected graphs, in bits per step."""
    return codelength(_sums(undirected_graph(weights), labels))


def newman(sums: ModuleSums) -> Float64[Tensor, " member"]:
    """Return Newman's Q."""
    between = sums.undirected
    strengths = between.sum(dim=2)
    total = strengths.sum(dim=1, keepdim=True)
    return (_diagonal(between) / total - (strengths / total).square()).sum(dim=1)


def directed(sums: ModuleSums) -> Float64[Tensor, " member"]:
    """Return the Q of directed graphs."""
    between = sums.directed
    return _chance_corrected(between, between.flatten(1).sum(dim=1))


def layered(sums: ModuleSums) -> Float64[Tensor, " member"]:
    """Return the Q of layers, which are the blocks of the graph."""
    total = sums.directed.flatten(1).sum(dim=1)
    found = torch.zeros_like(total)
    for between in sums.by_block:
        found = found + _chance_corrected(between, total)
    return found


def ceiling(sums: ModuleSums) -> Float64[Tensor, " member"]:
    """Return 1 - 1/K; NaN where there are no edges."""
    modules = _num_modules(sums)
    return torch.where(modules > 0, 1 - 1 / modules, torch.nan)


def relative(sums: ModuleSums) -> Float64[Tensor, " member"]:
    """Return Newman's Q over its ceiling; NaN with one module."""
    return newman(sums) / ceiling(sums)


def cut(sums: ModuleSums) -> Float64[Tensor, " member"]:
    """Return the normalised cut."""
    between = sums.undirected
    strengths = between.sum(dim=2)
    shares = _leaving(between) / torch.where(strengths > 0, strengths, 1.0)
    return torch.where(_num_modules(sums) > 0, shares.sum(dim=1), torch.nan)


def codelength(sums: ModuleSums) -> Float64[Tensor, " member"]:
    """Return the two-level codelength."""
    between, nodes = sums.undirected, sums.strengths
    total = between.sum(dim=2).sum(dim=1, keepdim=True)
    visits, exits = between.sum(dim=2) / total, _leaving(between) / total
    return (
        _entropy_term(exits.sum(dim=1))
        - 2 * _entropy_term(exits).sum(dim=1)
        - _entropy_term(nodes / total).sum(dim=1)
        + _entropy_term(visits + exits).sum(dim=1)
    )


def _sums(graph: Graph, labels: Tensor) -> ModuleSums:
    return module_sums(graph, labels, int(labels.max()) + 1)


def _chance_corrected(between: Tensor, total: Tensor) -> Float64[Tensor, " member"]:
    """Return sum_r [e_rr - k_r^out k_r^in / M_l] / M for one layer of a graph of total weight M; 0 without weight."""
    own = between.flatten(1).sum(dim=1)[:, None]
    sources, targets = between.sum(dim=2), between.transpose(1, 2).contiguous().sum(dim=2)
    expected = sources * targets / torch.where(own > 0, own, 1.0)
    return (_diagonal(between) - expected).sum(dim=1) / total


def _diagonal(between: Tensor) -> Float64[Tensor, "member module"]:
    return torch.diagonal(between, dim1=1, dim2=2)


def _leaving(between: Tensor) -> Float64[Tensor, "member module"]:
    """Return the weight that leads out of each module, added up by itself so that none gives exactly 0."""
    own = torch.eye(between.shape[1], dtype=torch.bool, device=between.device)
    return torch.where(own, 0.0, between).sum(dim=2)


def _num_modules(sums: ModuleSums) -> Float64[Tensor, " member"]:
    return (sums.sizes > 0).double().sum(dim=1)


def _entropy_term(values: Tensor) -> Tensor:
    """Return x log2 x, 0 at 0."""
    return torch.special.xlogy(values, values) / math.log(2)
