"""Description length of a planted partition: a normalised code, and a search that finds its shortest."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import gammaln

from modulab.metrics.communities.block_model import description_gain, shortest_partition
from modulab.metrics.communities.description import (
    counted_graph,
    description_length,
    edge_counts,
    tally,
)
from modulab.metrics.communities.searches import louvain

Integers = NDArray[np.int64]


def partition_length(labels: Integers) -> float:
    nodes, sizes = len(labels), np.bincount(labels)
    choose = gammaln(nodes) - gammaln(len(sizes)) - gammaln(nodes - len(sizes) + 1)
    return float(np.log(nodes) + choose + gammaln(nodes + 1) - gammaln(sizes + 1).sum())


def graphs_of_one_part(nodes: int, edges: int) -> list[Integers]:
    pairs = [(i, j) for i in range(nodes) for j in range(i, nodes)]
    found: list[Integers] = []
    for numbers in product(range(edges + 1), repeat=len(pairs)):
        if sum(numbers) == edges:
            counts = np.zeros((nodes, nodes), dtype=np.int64)
            for (i, j), number in zip(pairs, numbers, strict=True):
                counts[i, j] += number
                counts[j, i] += number  # a connection of a node with itself counts twice
            found.append(counts)
    return found


@pytest.mark.parametrize("labels", [[0, 0, 0], [0, 0, 1], [0, 1, 2]])
def test_probabilities_of_all_graphs_add_up_to_one(labels: list[int]) -> None:
    modules, parts = np.array(labels), np.zeros(3, dtype=np.int64)
    lengths = [
        description_length(counted_graph(counts, parts), modules) for counts in graphs_of_one_part(3, 3)
    ]
    assert np.exp(partition_length(modules) - np.array(lengths)).sum() == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("labels", [[0, 0, 0, 0, 0], [0, 1, 0, 1, 1], [0, 1, 1, 0, 0]])
def test_probabilities_of_all_graphs_of_two_layers_add_up_to_one(labels: list[int]) -> None:
    modules, parts = np.array(labels), np.array([0, 0, 1, 1, 1])
    total = 0.0
    for numbers in product(range(4), repeat=6):
        if sum(numbers) == 3:
            counts = np.zeros((5, 5), dtype=np.int64)
            counts[:2, 2:] = np.reshape(numbers, (2, 3))
            graph = counted_graph(counts + counts.T, parts)
            total += np.exp(partition_length(modules) - description_length(graph, modules))
    assert total == pytest.approx(1, abs=1e-12)


def partitions(nodes: int) -> list[Integers]:
    """Return all partitions, as labels in order of first use."""
    found = [[0]]
    for _ in range(nodes - 1):
        found = [[*labels, label] for labels in found for label in range(max(labels) + 2)]
    return [np.array(labels) for labels in found]


@pytest.mark.parametrize("parts", [[0] * 7, [0, 0, 0, 1, 1, 1, 1]])
@pytest.mark.parametrize("seed", range(4))
def test_search_finds_the_shortest_of_all_partitions_of_a_small_graph(parts: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    layers, planted = np.array(parts), np.array([0, 0, 1, 0, 0, 1, 1])
    rates = np.where(planted[:, None] == planted, 9.0, 0.3)
    rates *= 1.0 if not layers.any() else layers[:, None] != layers
    counts = np.triu(rng.poisson(rates), 1)
    graph = counted_graph(counts + counts.T, layers)
    shortest = min(description_length(graph, labels) for labels in partitions(7))
    start = louvain((counts + counts.T).astype(np.float64), seed)
    found = shortest_partition(graph, start, np.random.default_rng(seed))
    assert description_length(graph, found) == pytest.approx(shortest, abs=1e-9)
    together = np.zeros(7, dtype=np.int64)
    gain = description_length(graph, together) - description_length(graph, found)
    assert description_gain(graph, found) == pytest.approx(gain, abs=1e-9)


def test_merged_tally_is_that_of_merged_labels() -> None:
    rng = np.random.default_rng(0)
    counts = np.triu(rng.poisson(1.0, size=(9, 9)))
    graph = counted_graph(counts + counts.T, np.repeat([0, 1, 2], 3))
    labels = np.array([0, 1, 2, 0, 1, 2, 3, 3, 0])
    merged = tally(graph, labels).merged(1, 2)
    expected = tally(graph, np.array([0, 1, 1, 0, 1, 1, 2, 2, 0]))
    assert np.array_equal(merged.sizes, expected.sizes)
    assert all(np.array_equal(*pair) for pair in zip(merged.between, expected.between, strict=True))


def test_counts_are_multiples_of_the_mean_weight_and_do_not_depend_on_its_unit() -> None:
    weights = np.array([[2.0, 1.0, 3.0], [1.0, 0.0, 0.0], [3.0, 0.0, 0.0]])  # loop of 1, edges of 1 and 3
    expected = [[2, 1, 2], [1, 0, 0], [2, 0, 0]]
    assert edge_counts(weights).tolist() == expected
    assert edge_counts(weights * 7.5).tolist() == expected
