"""The description length of a graph in which modules connect to themselves more than to one another.

The model is the planted partition one in its microcanonical, degree-corrected form (L. Zhang and T. P. Peixoto,
"Statistical inference of assortative community structures", 2020), here for graphs in parts, such as the layers of a
network, of which it is known which are connected. Of the edges between two parts it describes how many lie within
modules, in which module or pair of modules each lies, the degrees of the nodes, and which ends of edges meet; each of
these has a uniform prior. With E edges, e_in of them within one of K modules and e_out between two, that is

    ln(E + 1) [K > 1] - ln e_in! - ln e_out! + e_in ln K + e_out ln K (K - 1)
        + sum over ends and modules of ln (n_r + e_r - 1)! / (n_r - 1)!  - sum_i ln k_i! + sum_(i<j) ln A_ij!

nats, where module r has n_r nodes and e_r ends of edges in the part at an end, and node i has degree k_i. Within one
part, whose edges have two ends alike, it is less by E ln 2, and an edge from a node to itself counts A_ii = 2 and adds
ln A_ii!! (the even double factorial). The partition of N nodes takes ln N + ln C(N - 1, K - 1) + ln N! - sum_r ln n_r!
more, which is why modules are found only if they shorten the description.

A general block model, with a rate for each pair of groups, would find the layers of a network, not its modules: that
units of a layer are not connected with one another is the first thing that it explains.

Real weights are not counts. They are rounded to multiples of their mean, so an edge counts once on average. How
many modules are found depends on that unit.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64
from numpy.typing import NDArray
from scipy.special import gammaln

Integers = NDArray[np.int64]
Counts = Integers | np.int64 | int
Reals = NDArray[np.float64]


def edge_counts(adjacency: Float64[np.ndarray, "node node"]) -> Int64[np.ndarray, "node node"]:
    """Return weights as whole multiples, rounded, of the mean weight of an edge; the diagonal as even numbers."""
    edges = adjacency[np.triu_indices(len(adjacency), 1)]
    loops = np.diagonal(adjacency) / 2
    positive = np.concatenate([edges[edges > 0], loops[loops > 0]])
    unit = positive.mean() if len(positive) else 1.0
    counts = np.rint(adjacency / unit).astype(np.int64)
    np.fill_diagonal(counts, 2 * np.rint(loops / unit).astype(np.int64))
    return counts


@dataclass(frozen=True)
class Connection:
    """Edges between the nodes of two parts, or within one, as counts."""

    rows: Integers
    """The nodes of one part; those of the other, or the same, are the columns."""
    columns: Integers
    counts: Integers
    """Symmetric within one part, with twice the number of a node's connections with itself on its diagonal."""

    @property
    def within_part(self) -> bool:
        """Return whether both ends lie in one part."""
        return self.rows is self.columns

    @property
    def edges(self) -> int:
        """Return the number of edges."""
        return int(self.counts.sum()) // (2 if self.within_part else 1)


@dataclass(frozen=True)
class CountedGraph:
    """A graph of counted edges between nodes in parts."""

    parts: Integers
    """The part of each node."""
    connections: tuple[Connection, ...]

    @property
    def num_nodes(self) -> int:
        """Return the number of nodes."""
        return len(self.parts)


def counted_graph(counts: Int64[np.ndarray, "node node"], parts: Int64[np.ndarray, " node"]) -> CountedGraph:
    """Return the connections of a symmetric matrix of counts."""
    names = np.unique(parts)
    nodes = [np.nonzero(parts == name)[0] for name in names]
    connections: list[Connection] = []
    for place, rows in enumerate(nodes):
        for columns in nodes[place:]:
            between = counts[np.ix_(rows, columns)]
            if between.any():
                connections.append(Connection(rows, columns, between))
    return CountedGraph(np.searchsorted(names, parts), tuple(connections))


@dataclass(frozen=True)
class Tally:
    """What the description length needs to know of a partition into K modules."""

    sizes: Integers
    """Nodes by part and module."""
    between: tuple[Integers, ...]
    """Counts of each connection by the modules of its ends."""

    @property
    def modules(self) -> int:
        """Return K."""
        return self.sizes.shape[1]

    def merged(self, one: int, other: int) -> Tally:
        """Return the tally of the partition with module `other` made part of module `one`."""
        keep = np.delete(np.arange(self.modules), other)
        onto = np.eye(self.modules, dtype=np.int64)
        onto[other, one] = 1
        onto = onto[:, keep]
        return Tally(self.sizes @ onto, tuple(onto.T @ each @ onto for each in self.between))


def tally(graph: CountedGraph, labels: Int64[np.ndarray, " node"]) -> Tally:
    """Return the tally of labels from 0, each of which a node has."""
    belongs = np.eye(int(labels.max()) + 1, dtype=np.int64)[labels]
    sizes = np.eye(int(graph.parts.max()) + 1, dtype=np.int64)[graph.parts].T @ belongs
    between = tuple(belongs[each.rows].T @ each.counts @ belongs[each.columns] for each in graph.connections)
    return Tally(sizes, between)


def description_length(graph: CountedGraph, labels: Int64[np.ndarray, " node"]) -> float:
    """Return how many nats describe a graph and its partition."""
    return varying_length(graph, tally(graph, labels)) + _fixed_length(graph)


def varying_length(graph: CountedGraph, found: Tally) -> float:
    """Return the part of the description length in which partitions differ."""
    return _partition_length(found.sizes.sum(axis=0)) + sum(
        _connection_length(graph, connection, between, found)
        for connection, between in zip(graph.connections, found.between, strict=True)
    )


def ends_length(sizes: Counts, ends: Counts) -> Reals:
    """Return ln (n + e - 1)! / (n - 1)! for modules of n nodes and e ends of edges; 0 for none."""
    return np.where(sizes > 0, gammaln(np.maximum(sizes, 1) + ends) - gammaln(np.maximum(sizes, 1)), 0.0)


def _connection_length(graph: CountedGraph, connection: Connection, between: Integers, found: Tally) -> float:
    edges, modules = connection.edges, found.modules
    inner = int(np.trace(between)) // (2 if connection.within_part else 1)
    length = -gammaln(inner + 1) - gammaln(edges - inner + 1) + edges * np.log(modules)
    if modules > 1:
        length += np.log(edges + 1) + (edges - inner) * np.log(modules - 1)
    part_sizes = found.sizes[graph.parts[connection.rows[0]]]
    length += ends_length(part_sizes, between.sum(axis=1)).sum()
    if not connection.within_part:
        other_sizes = found.sizes[graph.parts[connection.columns[0]]]
        length += ends_length(other_sizes, between.sum(axis=0)).sum()
    return float(length)


def _partition_length(sizes: Integers) -> float:
    nodes, modules = int(sizes.sum()), len(sizes)
    choices = gammaln(nodes) - gammaln(modules) - gammaln(nodes - modules + 1)
    return float(np.log(nodes) + choices + gammaln(nodes + 1) - gammaln(sizes + 1).sum())


def _fixed_length(graph: CountedGraph) -> float:
    length = 0.0
    for each in graph.connections:
        length -= float(gammaln(each.counts.sum(axis=1) + 1).sum())
        if not each.within_part:
            length += float(gammaln(each.counts + 1).sum() - gammaln(each.counts.sum(axis=0) + 1).sum())
            continue
        above = each.counts[np.triu_indices(len(each.counts), 1)]
        loops = np.diagonal(each.counts) // 2
        length += float(gammaln(above + 1).sum() + (loops * np.log(2) + gammaln(loops + 1)).sum())
        length -= each.edges * np.log(2)
    return length
