"""The partition under which a graph has the shortest description: one module if more do not shorten it.

A description can also be short because modules avoid connections within them. A search that starts from a partition of
high modularity ends in modules that have them.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
from jaxtyping import Int64
from numpy.typing import NDArray
from scipy.special import gammaln

from modulab.metrics.communities.description import (
    CountedGraph,
    Counts,
    Integers,
    Reals,
    ends_length,
    tally,
    varying_length,
)

_MOST_SWEEPS = 20
"""Passes over all nodes at one number of modules; a few are enough nearly always."""


def shortest_partition(
    graph: CountedGraph, start: Int64[np.ndarray, " node"], rng: np.random.Generator
) -> Int64[np.ndarray, " node"]:
    """Return the best partition on the way from `start` to one module.

    Nodes move while that shortens the description; then the two modules merge of which that costs least, and so on.
    """
    labels = np.unique(start, return_inverse=True)[1].astype(np.int64)
    best, shortest = np.zeros_like(labels), np.inf
    while True:
        labels = _moved(graph, labels, rng)
        found = tally(graph, labels)
        length = varying_length(graph, found)
        # More modules must be better by more than rounding.
        if length < shortest - 1e-9 or (len(found.sizes[0]) < best.max() + 1 and length <= shortest + 1e-9):
            best, shortest = labels, length
        if found.modules == 1:
            return best
        pairs = list(combinations(range(found.modules), 2))
        lengths = [varying_length(graph, found.merged(one, other)) for one, other in pairs]
        one, other = pairs[int(np.argmin(lengths))]
        labels = np.unique(np.where(labels == other, one, labels), return_inverse=True)[1].astype(np.int64)


def description_gain(graph: CountedGraph, labels: Int64[np.ndarray, " node"]) -> float:
    """Return by how many nats a partition shortens the description that one module gives; 0 for one module."""
    together = tally(graph, np.zeros_like(labels))
    return varying_length(graph, together) - varying_length(graph, tally(graph, labels))


@dataclass
class _Side:
    """One part of a connection, as its nodes see it when they move."""

    part: int
    nodes: Integers
    counts: Integers
    """From each node of this part to each of the other part, or of this one, loops left out."""
    degrees: Integers
    """Ends of edges, an edge from a node to itself counted twice."""
    to_modules: Integers
    """From each node of this part to each module of the other part."""
    ends: Integers
    """Ends of edges by module."""
    connection: int
    other: int
    """The place of the other side among all sides; its own within one part."""


@dataclass
class _State:
    """A partition with sums that are kept up to date as nodes move."""

    labels: Integers
    sizes: Integers
    """Nodes by part and module."""
    sides: list[_Side]
    inner: Integers
    """Edges within modules, by connection."""
    edges: Integers

    def move(self, node: int, module: int) -> None:
        """Move a node to another module."""
        before = int(self.labels[node])
        for side in self.sides:
            row = _row(side, node)
            if row is None:
                continue
            self.inner[side.connection] += side.to_modules[row, module] - side.to_modules[row, before]
            side.ends[before] -= side.degrees[row]
            side.ends[module] += side.degrees[row]
            other = self.sides[side.other]
            other.to_modules[:, before] -= side.counts[row]
            other.to_modules[:, module] += side.counts[row]
        part = next(side.part for side in self.sides if _row(side, node) is not None)
        self.sizes[part, before] -= 1
        self.sizes[part, module] += 1
        self.labels[node] = module


def _row(side: _Side, node: int) -> int | None:
    place = int(np.searchsorted(side.nodes, node))
    return place if place < len(side.nodes) and side.nodes[place] == node else None


def _state(graph: CountedGraph, labels: Integers) -> _State:
    found = tally(graph, labels)
    belongs = np.eye(found.modules, dtype=np.int64)[labels]
    sides: list[_Side] = []
    inner: list[int] = []
    for number, (connection, between) in enumerate(zip(graph.connections, found.between, strict=True)):
        inner.append(int(np.trace(between)) // (2 if connection.within_part else 1))
        ways = [(connection.rows, connection.columns, connection.counts)]
        if not connection.within_part:
            ways.append((connection.columns, connection.rows, connection.counts.T))
        first = len(sides)
        for way, (nodes, others, counts) in enumerate(ways):
            moving = counts - np.diag(np.diagonal(counts)) if connection.within_part else counts
            sides.append(
                _Side(
                    part=int(graph.parts[nodes[0]]),
                    nodes=nodes,
                    counts=moving,
                    degrees=counts.sum(axis=1),
                    to_modules=moving @ belongs[others],
                    ends=belongs[nodes].T @ counts.sum(axis=1),
                    connection=number,
                    other=first + len(ways) - 1 - way,
                )
            )
    edges = np.array([connection.edges for connection in graph.connections], dtype=np.int64)
    return _State(labels.copy(), found.sizes.copy(), sides, np.array(inner, dtype=np.int64), edges)


def _moved(graph: CountedGraph, labels: Integers, rng: np.random.Generator) -> Integers:
    """Return a partition into as many modules from which no single node should move."""
    modules = int(labels.max()) + 1
    if modules == 1 or not graph.connections:
        return labels
    state = _state(graph, labels)
    of_node = [
        [(side, row) for side in state.sides if (row := _row(side, node)) is not None]
        for node in range(graph.num_nodes)
    ]
    log_others = float(np.log(modules - 1))
    for _ in range(_MOST_SWEEPS):
        changed = False
        for node in rng.permutation(graph.num_nodes).tolist():
            before = int(state.labels[node])
            if of_node[node] and state.sizes[:, before].sum() > 1:
                costs = _costs(state, of_node[node], before, log_others)
                module = int(np.argmin(costs))
                if costs[module] < -1e-9:
                    state.move(node, module)
                    changed = True
        if not changed:
            break
    return state.labels


def _costs(
    state: _State, places: list[tuple[_Side, int]], before: int, log_others: float
) -> NDArray[np.float64]:
    """Return by how many nats the description grows if a node moves to each of the modules."""
    part = places[0][0].part
    sizes = state.sizes[part]
    totals = state.sizes.sum(axis=0)
    costs = np.log(totals[before]) - np.log(totals + 1.0)  # of the partition
    for side, row in places:
        inner, edges = state.inner[side.connection], state.edges[side.connection]
        change = side.to_modules[row] - side.to_modules[row, before]
        costs += _pair_length(inner + change, edges) - _pair_length(inner, edges) - change * log_others
        degree = side.degrees[row]
        costs += ends_length(sizes + 1, side.ends + degree) - ends_length(sizes, side.ends)
        costs += ends_length(sizes[before] - 1, side.ends[before] - degree) - ends_length(
            sizes[before], side.ends[before]
        )
    costs[before] = 0.0
    return costs


def _pair_length(inner: Counts, edges: Counts) -> Reals | np.float64:
    return -gammaln(inner + 1) - gammaln(edges - inner + 1)
