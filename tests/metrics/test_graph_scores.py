"""Scores of partitions, against published values, networkx, sums over all graphs, and definitions written out."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import combinations_with_replacement

import networkx as nx
import numpy as np
import pytest
import torch
from torch import Tensor

from modulab.metrics.graphs.description import block_model_description_length, description_length
from modulab.metrics.graphs.graph import undirected_graph
from modulab.metrics.graphs.scores import (
    barber_modularity,
    directed_modularity,
    map_equation,
    modularity_ceiling,
    newman_modularity,
    normalised_cut,
)
from modulab.metrics.graphs.sums import module_sums

SCORES = (
    newman_modularity,
    directed_modularity,
    modularity_ceiling,
    normalised_cut,
    map_equation,
    block_model_description_length,
)


def adjacency(graph: nx.Graph) -> Tensor:
    return torch.tensor(nx.to_numpy_array(graph, nodelist=sorted(graph), weight=None))[None]


def of_layers(*layers: list[list[float]]) -> Tensor:
    """Return the symmetric adjacency matrix of layers of weights, a row for each source."""
    matrices = [np.abs(np.array(layer)) for layer in layers]
    sizes = [len(matrices[0]), *(matrix.shape[1] for matrix in matrices)]
    starts = np.cumsum([0, *sizes])
    found = np.zeros((starts[-1], starts[-1]))
    for place, matrix in enumerate(matrices):
        found[starts[place] : starts[place + 1], starts[place + 1] : starts[place + 2]] = matrix
    return torch.tensor(found + found.T)[None]


def random_graphs(members: int, nodes: int, symmetric: bool, seed: int = 0) -> tuple[Tensor, Tensor]:
    draws = torch.Generator().manual_seed(seed)
    weights = torch.rand(members, nodes, nodes, generator=draws, dtype=torch.float64)
    weights = weights * (torch.rand(members, nodes, nodes, generator=draws) < 0.5)
    if symmetric:
        weights = weights + weights.transpose(1, 2)
    return weights, torch.randint(0, 3, (members, nodes), generator=draws)


TRIANGLES = adjacency(nx.Graph([(0, 1), (1, 2), (0, 2), (3, 4), (4, 5), (3, 5), (2, 3)]))
CLIQUES = adjacency(
    nx.compose(nx.disjoint_union(nx.complete_graph(8), nx.complete_graph(8)), nx.Graph([(0, 8), (1, 9)]))
)
SMALL = of_layers([[12, -1.3], [0, 7.4]], [[-8.9, 0.15], [0.23, -5.7]])
LARGE = of_layers(
    [[5.4, 0.03, 0, 0], [0, 0, -0.4, 5.5], [-12, 0, 4.8, -0.07], [0, 6.3, 0.001, 7]],
    [[-13.3, -0.4, 6, 0.1], [0.7, -8, 0, -5.8], [7.4, 0.3, -15, 0], [0, 0, 0, -12.3]],
)
HALVES = torch.tensor([[0, 0, 0, 1, 1, 1]])


def test_codelengths_are_those_of_infomap() -> None:
    one, cliques = torch.zeros(1, 6, dtype=torch.int64), torch.tensor([[0] * 8 + [1] * 8])
    karate = adjacency(nx.karate_club_graph())
    communities = [set(map(int, names.split())) for names in ("4 5 6 10 16", "0 1 2 3 7 9 11 12 13 17 19 21")]
    label = [next((place for place, own in enumerate(communities) if node in own), 2) for node in range(34)]
    turns = torch.tensor([[0, 1] * 3])
    for weights, labels, golden in (
        (TRIANGLES, HALVES, 2.3207303568337903),
        (TRIANGLES, one, 2.556656707462823),
        (CLIQUES, cliques, 3.250078086380893),
        (karate, torch.tensor([label]), 4.3117926458018285),
        (SMALL, turns, 1.8117286275246807),
        (SMALL, one, 2.454393478564208),
    ):
        assert map_equation(weights, labels).item() == pytest.approx(golden, abs=1e-12)


def test_description_length_of_two_triangles_is_that_of_graph_tool() -> None:
    two = 2.951813039619154 + 6.396929655216146 + 3.583518938456113 + 7.167037876912225
    one = 5.457921897057759 + 1.791759469228055 + 0 + 9.36117126167877
    found = block_model_description_length(TRIANGLES.repeat(2, 1, 1), torch.cat([HALVES, 0 * HALVES]))
    assert found.tolist() == pytest.approx([two, one], abs=1e-9)


@pytest.mark.parametrize(
    ("weights", "cut", "modularity"), [(SMALL, 0.098897, 0.429020), (LARGE, 0.037213, 0.467238)]
)
def test_cut_and_modularity_are_those_of_published_networks(
    weights: Tensor, cut: float, modularity: float
) -> None:
    labels = torch.arange(weights.shape[1])[None] % 2
    assert normalised_cut(weights, labels).item() == pytest.approx(cut, abs=5e-7)
    assert newman_modularity(weights, labels).item() == pytest.approx(modularity, abs=5e-7)
    # Published to six digits; by networkx to all.
    graph = nx.from_numpy_array(weights[0].numpy())
    one, other = ({node for node in graph if node % 2 == module} for module in (0, 1))
    exact = nx.normalized_cut_size(graph, one, weight="weight"), nx.community.modularity(graph, [one, other])
    assert normalised_cut(weights, labels).item() == pytest.approx(exact[0], abs=1e-12)
    assert newman_modularity(weights, labels).item() == pytest.approx(exact[1], abs=1e-12)


def test_codelengths_are_those_that_infomap_computes_for_the_modules_that_it_finds() -> None:
    infomap = pytest.importorskip("infomap")
    for weights in (TRIANGLES, CLIQUES, SMALL, LARGE):
        search = infomap.Infomap(silent=True, two_level=True, seed=1)
        for one, other in (weights[0].triu() > 0).nonzero().tolist():
            search.add_link(one, other, weights[0, one, other].item())
        result = search.run()
        modules = dict(result.modules())
        labels = torch.tensor([[modules[node] for node in range(weights.shape[1])]])
        labels = torch.unique(labels, return_inverse=True)[1]
        assert map_equation(weights, labels).item() == pytest.approx(result.codelength, abs=1e-9)


@pytest.mark.parametrize("symmetric", [True, False])
def test_modularity_is_that_of_networkx_with_weights_directions_and_self_connections(symmetric: bool) -> None:
    weights, labels = random_graphs(4, 9, symmetric)
    found = (newman_modularity if symmetric else directed_modularity)(weights, labels)
    for own, label, value in zip(weights, labels, found, strict=True):
        matrix = own.numpy().copy()
        if symmetric:
            # networkx counts a self-connection of weight w as a degree of 2 w, and a diagonal as its weight.
            np.fill_diagonal(matrix, np.diag(matrix) / 2)
        graph = nx.from_numpy_array(matrix, create_using=nx.Graph if symmetric else nx.DiGraph)
        sets = [set(torch.where(label == module)[0].tolist()) for module in label.unique()]
        assert value.item() == pytest.approx(nx.community.modularity(graph, sets), abs=1e-12)


def test_cut_is_that_of_networkx() -> None:
    weights, labels = random_graphs(4, 9, symmetric=True)
    labels = labels % 2
    found = normalised_cut(weights, labels)
    for own, label, value in zip(weights, labels, found, strict=True):
        matrix = own.numpy().copy()
        np.fill_diagonal(matrix, np.diag(matrix) / 2)
        graph = nx.from_numpy_array(matrix)
        nodes = torch.where(label == 0)[0].tolist()
        assert value.item() == pytest.approx(nx.normalized_cut_size(graph, nodes, weight="weight"), abs=1e-12)


def test_layered_modularity_is_its_definition_pair_by_pair() -> None:
    weights, labels = random_graphs(3, 9, symmetric=False)
    parts = torch.tensor([0, 0, 0, 1, 1, 1, 1, 2, 2])
    allowed = (parts[:, None] + 1 == parts) | ((parts[:, None] == 1) & (parts == 1))
    weights = weights * allowed
    expected = torch.zeros(3, dtype=torch.float64)
    for source, target in ((0, 1), (1, 1), (1, 2)):
        layer = weights * ((parts[:, None] == source) & (parts == target))
        chance = layer.sum(2)[:, :, None] * layer.sum(1)[:, None, :] / layer.sum((1, 2))[:, None, None]
        same = labels[:, :, None] == labels[:, None, :]
        expected += ((layer - chance) * same).sum((1, 2)) / weights.sum((1, 2))
    torch.testing.assert_close(barber_modularity(weights, labels, parts), expected)
    both = weights + weights.transpose(1, 2)
    bipartite = both * (parts[:, None] + parts == 1)
    one_way = weights * ((parts[:, None] == 0) & (parts == 1))
    torch.testing.assert_close(
        barber_modularity(bipartite, labels, parts), barber_modularity(one_way, labels, parts)
    )


@pytest.mark.parametrize("count", [2, 3, 5])
def test_equal_modules_without_anything_between_them_reach_the_ceiling_and_no_cut(count: int) -> None:
    weights = torch.block_diag(*[torch.ones(4, 4)] * count).double()[None]
    labels = torch.arange(4 * count)[None] // 4
    assert modularity_ceiling(weights, labels).item() == pytest.approx(1 - 1 / count, abs=1e-15)
    for modularity in (newman_modularity, directed_modularity):
        assert modularity(weights, labels).item() == pytest.approx(1 - 1 / count, abs=1e-14)
    assert normalised_cut(weights, labels).tolist() == [0.0]


def test_block_model_is_a_distribution_over_all_graphs_with_parallel_edges_and_self_connections() -> None:
    # Given the partition, the probabilities of all multigraphs of 3 edges on 4 nodes add up to 1.
    pairs = list(combinations_with_replacement(range(4), 2))
    graphs = torch.zeros(0, 4, 4, dtype=torch.float64)
    every: list[Tensor] = []
    for edges in combinations_with_replacement(pairs, 3):
        matrix = torch.zeros(4, 4, dtype=torch.float64)
        for one, other in edges:
            matrix[one, other] += 1
            matrix[other, one] += 1
        every.append(matrix)
    graphs = undirected_graph(torch.stack(every))
    for label in ([0, 0, 1, 1], [0, 1, 1, 1], [0, 0, 0, 0]):
        labels = torch.tensor(label).repeat(len(every), 1)
        modules = max(label) + 1
        sizes = torch.tensor([label.count(module) for module in range(modules)]).double()
        sums = replace(module_sums(graphs, labels, modules), sizes=sizes.repeat(len(every), 1))
        partition = math.log(4 * math.comb(3, modules - 1) * 24)
        partition -= sum(math.lgamma(size + 1) for size in sizes.tolist())
        total = torch.exp(partition - description_length(graphs, sums)).sum()
        assert total.item() == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("score", SCORES)
def test_scores_depend_on_neither_the_order_of_nodes_nor_the_unit_of_weights_nor_names_of_modules(
    score: object,
) -> None:
    assert callable(score)
    weights, labels = random_graphs(3, 9, symmetric=True)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(1))
    renamed = torch.tensor([2, 0, 1])[labels]
    moved = score(weights[:, order][:, :, order] * 37.0, renamed[:, order])
    torch.testing.assert_close(moved, score(weights, labels), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("score", SCORES)
def test_nodes_without_a_module_or_without_edges_do_not_count(score: object) -> None:
    assert callable(score)
    weights, labels = random_graphs(3, 9, symmetric=True)
    wider = torch.nn.functional.pad(weights, (0, 2, 0, 2))
    wider[:, 9, :9] = wider[:, :9, 9] = 1.0
    labels_wider = torch.nn.functional.pad(labels, (0, 2), value=-1)
    labels_wider[:, 10] = 1  # has no edges
    torch.testing.assert_close(score(wider, labels_wider), score(weights, labels), rtol=1e-13, atol=1e-13)


def test_graphs_without_edges_have_no_score() -> None:
    for score in SCORES[:-1]:
        assert score(torch.zeros(1, 4, 4, dtype=torch.float64), torch.tensor([[0, 0, 1, 1]])).isnan().all()
