"""The description length of a graph under a stochastic block model, which grows with every module.

The model is the microcanonical degree-corrected one (T. P. Peixoto, "Nonparametric Bayesian inference of the
microcanonical stochastic block model", 2017). Its description length, in nats, is that of the graph given degrees k and
the numbers of edges e_rs (e_rr twice those within r), plus those of the partition of N nodes into B modules of n_r
nodes, of the e_rs of E edges, and of the degrees (each way to deal e_r half-edges to n_r nodes equally likely):

    graph       sum_r ln e_r! - sum_(r<s) ln e_rs! - sum_r ln e_rr!!
                - sum_i ln k_i! + sum_(i<j) ln A_ij! + sum_i ln A_ii!!
    partition   ln N + ln C(N - 1, B - 1) + ln N! - sum_r ln n_r!
    edges       ln C(B (B + 1) / 2 + E - 1, E)
    degrees     sum_r ln C(n_r + e_r - 1, e_r)

Fewer nats are better. A partition that is no better than none costs more than one module does, which a maximum of
modularity does not say. The model is one of counts: real weights are rounded to multiples of their mean, so each
connection counts once on average. Weights are not counts of evidence: how many modules are found depends on that unit.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from modulab.metrics.graphs.graph import Graph, undirected_graph
from modulab.metrics.graphs.sums import ModuleSums, module_sums


def block_model_description_length(
    weights: Float64[Tensor, "member node node"], labels: Int64[Tensor, "member node"]
) -> Float64[Tensor, " member"]:
    """Return the description length of undirected graphs, in nats; see `scores` for weights and labels.

    Weights count as `edge_counts` counts them. Those of a graph without weights, 0 and 1, are counts as they are.
    """
    graph = undirected_graph(weights).only(labels >= 0)
    counts = edge_counts(graph)
    return description_length(counts, module_sums(counts, labels, int(labels.max()) + 1))


def edge_counts(graph: Graph) -> Graph:
    """Return the weights as whole multiples, rounded, of the mean weight of a member's edges."""
    total, edges = 0.0, 0.0
    for block in graph.blocks:
        total = total + block.weights.flatten(1).sum(dim=1)
        edges = edges + (block.weights > 0).flatten(1).double().sum(dim=1)
    assert isinstance(total, Tensor)
    per_weight = edges / torch.where(total > 0, total, 1.0)
    return graph.with_weights([(block.weights * per_weight[:, None, None]).round() for block in graph.blocks])


def description_length(counts: Graph, sums: ModuleSums) -> Float64[Tensor, " member"]:
    """Return the description length of graphs of which the weights are counts, and the sums of these.

    Edges between the same nodes are to be in one block, in one direction, except those of the two directions.
    """
    return _graph_term(counts, sums) + _partition_term(sums.sizes) + _edges_term(sums) + _degrees_term(sums)


def _graph_term(counts: Graph, sums: ModuleSums) -> Tensor:
    between = sums.undirected
    modules = between.shape[1]
    above = torch.ones(modules, modules, dtype=torch.bool, device=between.device).triu(1)
    pairs = torch.where(above, _log_factorial(between), 0.0).flatten(1).sum(dim=1)
    within = _log_even_double_factorial(torch.diagonal(between, dim1=1, dim2=2).contiguous()).sum(dim=1)
    modules_total = _log_factorial(between.sum(dim=2)).sum(dim=1)
    nodes = _log_factorial(sums.strengths).sum(dim=1)
    return modules_total - pairs - within - nodes + _parallel_edges(counts)


def _parallel_edges(counts: Graph) -> Tensor:
    """Return sum_(i<j) ln A_ij! + sum_i ln A_ii!!."""
    found = torch.zeros(counts.num_members, dtype=torch.float64, device=counts.blocks[0].weights.device)
    for block in counts.blocks:
        if block.source != block.target:
            found = found + _log_factorial(block.weights).flatten(1).sum(dim=1)
            continue
        both = block.weights + block.weights.transpose(1, 2)
        nodes = both.shape[1]
        above = torch.ones(nodes, nodes, dtype=torch.bool, device=both.device).triu(1)
        found = found + torch.where(above, _log_factorial(both), 0.0).flatten(1).sum(dim=1)
        own = torch.diagonal(both, dim1=1, dim2=2).contiguous()
        found = found + _log_even_double_factorial(own).sum(dim=1)
    return found


def _partition_term(sizes: Tensor) -> Tensor:
    nodes, modules = sizes.sum(dim=1), (sizes > 0).double().sum(dim=1)
    term = nodes.log() + _log_choose(nodes - 1, modules - 1)
    return term + _log_factorial(nodes) - _log_factorial(sizes).sum(dim=1)


def _edges_term(sums: ModuleSums) -> Tensor:
    modules = (sums.sizes > 0).double().sum(dim=1)
    edges = sums.directed.flatten(1).sum(dim=1)
    return _log_choose(modules * (modules + 1) / 2 + edges - 1, edges)


def _degrees_term(sums: ModuleSums) -> Tensor:
    half_edges = sums.undirected.sum(dim=2)
    ways = _log_choose((sums.sizes + half_edges - 1).clamp(min=0), half_edges)
    return ways.sum(dim=1)


def _log_factorial(numbers: Tensor) -> Tensor:
    return torch.lgamma(numbers + 1)


def _log_even_double_factorial(numbers: Tensor) -> Tensor:
    """Return ln (2n)!! = n ln 2 + ln n! of even numbers 2n."""
    return numbers / 2 * math.log(2) + _log_factorial(numbers / 2)


def _log_choose(total: Tensor, chosen: Tensor) -> Tensor:
    return _log_factorial(total) - _log_factorial(chosen) - _log_factorial(total - chosen)
