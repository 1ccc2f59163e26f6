"""Searches for modules: planted ones are recovered, and the block model finds none where none can be detected."""

from __future__ import annotations

from collections.abc import Callable

import networkx as nx
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from modulab.errors import ConfigError
from modulab.metrics.communities import searches
from modulab.metrics.communities.agreement import adjusted_mutual_information, num_modules
from modulab.metrics.graphs.scores import map_equation, newman_modularity
from tests.metrics.planted_graphs import layered_graph, least_ratio, planted_graph

Search = Callable[[NDArray[np.float64], int], NDArray[np.int64]]
SEARCHES: list[Search] = [
    searches.louvain,
    searches.leiden,
    searches.infomap,
    searches.spectral,
    searches.block_model,
]
each_search = pytest.mark.parametrize("search", SEARCHES, ids=lambda search: search.__name__)


@each_search
@pytest.mark.parametrize("modules", [2, 3, 5])
def test_every_search_recovers_planted_modules(search: Search, modules: int) -> None:
    adjacency, labels = planted_graph(modules, 30, degree=12, ratio=0.02, seed=modules)
    found = search(adjacency, 0)
    assert adjusted_mutual_information(found, labels) > 0.95
    assert num_modules(found) == modules


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("share", [0.0, 0.1, 0.2, 0.3])
def test_block_model_recovers_planted_modules_well_below_the_threshold_of_detectability(
    share: float, seed: int
) -> None:
    ratio = share * least_ratio(3, 16)
    adjacency, labels = planted_graph(3, 40, degree=16, ratio=ratio, seed=seed)
    assert adjusted_mutual_information(searches.block_model(adjacency, seed), labels) > 0.95


@pytest.mark.parametrize("ratio", [1.15 * least_ratio(3, 16), 1.5 * least_ratio(3, 16), 1.0])
def test_block_model_finds_one_module_beyond_the_threshold_where_modularity_finds_several(
    ratio: float,
) -> None:
    for seed in range(2):
        adjacency, _ = planted_graph(3, 40, degree=16, ratio=ratio, seed=seed)
        assert num_modules(searches.block_model(adjacency, seed)) == 1
        assert num_modules(searches.louvain(adjacency, seed)) > 2


def test_block_model_finds_modules_of_layers_and_not_the_layers() -> None:
    for seed in range(3):
        adjacency, parts, modules = layered_graph(40, crossing=0.05, seed=seed)
        assert np.array_equal(searches.block_model(adjacency, seed, parts), modules)
        mixed, parts, _ = layered_graph(40, crossing=1.0, seed=seed)
        assert num_modules(searches.block_model(mixed, seed, parts)) == 1


def test_searches_reach_the_known_optima_of_small_graphs() -> None:
    # Zachary's karate club, unweighted: Q = .4197896 (U. Brandes et al., 2008); codelength by infomap 2.16.0.
    karate = nx.to_numpy_array(nx.karate_club_graph(), weight=None)

    def best(search: Search, score: Callable[..., torch.Tensor], sign: int) -> float:
        found = [search(karate, seed) for seed in range(20)]
        weights = torch.from_numpy(karate)[None]
        return max(sign * float(score(weights, torch.from_numpy(labels)[None])) for labels in found)

    assert best(searches.leiden, newman_modularity, 1) == pytest.approx(0.4197896, abs=1e-7)
    assert best(searches.louvain, newman_modularity, 1) == pytest.approx(0.4197896, abs=1e-7)
    assert best(searches.infomap, map_equation, -1) == pytest.approx(-4.3117926458018285, abs=1e-9)


@each_search
def test_nodes_without_edges_are_left_out_and_modules_are_numbered_by_size(search: Search) -> None:
    adjacency = np.zeros((20, 20))
    adjacency[1:7, 1:7] = adjacency[8:20, 8:20] = 1.0
    np.fill_diagonal(adjacency, 0.0)
    found = search(adjacency, 5)
    assert np.nonzero(found < 0)[0].tolist() == [0, 7]
    assert set(found[8:]) == {0}
    assert set(found[1:7]) == {1}
    assert search(np.zeros((3, 3)), 0).tolist() == [-1, -1, -1]


@each_search
def test_one_seed_gives_one_partition(search: Search) -> None:
    adjacency, _ = planted_graph(3, 20, degree=8, ratio=0.3, seed=1)
    assert np.array_equal(search(adjacency, 11), search(adjacency, 11))


def test_spectral_clustering_makes_as_many_modules_as_it_is_asked_for() -> None:
    adjacency, labels = planted_graph(4, 20, degree=12, ratio=0.02, seed=0)
    assert num_modules(searches.spectral(adjacency, 0, modules=2)) == 2
    assert adjusted_mutual_information(searches.spectral(adjacency, 0, modules=4), labels) > 0.95


@pytest.mark.parametrize("module", ["igraph", "infomap"])
def test_missing_library_is_an_error_that_names_the_extra(
    module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, module, None)
    search = searches.leiden if module == "igraph" else searches.infomap
    with pytest.raises(ConfigError, match=r"modulab\[communities\]"):
        search(np.ones((3, 3)), 0)
