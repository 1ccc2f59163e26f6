"""Shuffles and random partitions: what each keeps, that they are uniform, and that packing changes none."""

from __future__ import annotations

from collections import Counter
from statistics import NormalDist

import pytest
import torch
from torch import Tensor

from modulab.metrics.graphs.comparison import compare
from modulab.metrics.graphs.graph import Block, Graph, Part
from modulab.metrics.graphs.nulls import ShuffleKind, random_partitions, shuffled_graphs, traded_edges
from modulab.metrics.graphs.scores import newman_modularity, normalised_cut
from modulab.streams import member_keys

KINDS: tuple[ShuffleKind, ...] = ("layer", "degree", "nonzero", "strength")


def layered_graphs(members: int, density: float, seed: int = 0) -> Graph:
    """Return graphs of three parts, one of whose nodes is not in the graph, and of which one is connected to itself."""
    draws = torch.Generator().manual_seed(seed)
    parts = (Part("input", 3), Part("hidden", 7), Part("output", 2))
    blocks = []
    for source, target in ((0, 1), (1, 1), (1, 2)):
        shape = (members, parts[target].size, parts[source].size)
        weights = torch.randn(shape, generator=draws, dtype=torch.float64).abs()
        weights = weights * (torch.rand(shape, generator=draws) < density)
        blocks.append(Block(source, target, weights, torch.ones(shape, dtype=torch.bool)))
    kept = torch.ones(members, 12, dtype=torch.bool)
    kept[:, 4] = False
    return Graph(parts, tuple(blocks), directed=True).only(kept)


def by_member(values: Tensor, members: int) -> Tensor:
    return values.unflatten(0, (members, -1))


@pytest.mark.parametrize("density", [1.0, 0.4])
@pytest.mark.parametrize("kind", KINDS)
def test_shuffles_keep_what_they_say_and_change_the_rest(kind: ShuffleKind, density: float) -> None:
    graph = layered_graphs(3, density)
    shuffled = shuffled_graphs(graph, member_keys(range(3)), kind, range(5))
    for before, after in zip(graph.blocks, shuffled.blocks, strict=True):
        old = before.weights[:, None].expand(3, 5, -1, -1)
        new = by_member(after.weights, 3)
        assert not (new[~by_member(after.possible, 3)] > 0).any()
        assert torch.equal((new > 0).sum((2, 3)), (old > 0).sum((2, 3)))  # density
        # Weights that their strengths determine, as those of a node with one edge, are all that cannot change.
        assert (new != old).any(dim=(2, 3)).float().mean() > (0.9 if density == 1 else 0.3)
        if kind != "strength":
            assert torch.equal(new.flatten(2).sort().values, old.flatten(2).sort().values)
        if kind == "degree":
            for axis in (2, 3):
                assert torch.equal((new > 0).sum(axis), (old > 0).sum(axis))
        if kind in ("nonzero", "strength"):
            assert torch.equal(new > 0, old > 0)
        if kind == "strength":
            # Fitting converges slowly where few pairs are connected.
            near = 1e-6 if density == 1 else 1e-3
            for axis in (2, 3):
                torch.testing.assert_close(new.sum(axis), old.sum(axis), rtol=near, atol=1e-8)


@pytest.mark.parametrize("kind", KINDS)
def test_shuffles_of_a_member_are_the_same_bits_in_any_company_and_in_any_range(kind: ShuffleKind) -> None:
    graph = layered_graphs(4, 0.5)
    keys = member_keys(range(4))
    whole = shuffled_graphs(graph, keys, kind, range(6))
    pair = Graph(
        graph.parts,
        tuple(Block(b.source, b.target, b.weights[1:3], b.possible[1:3]) for b in graph.blocks),
        directed=True,
    )
    few = shuffled_graphs(pair, keys[1:3], kind, range(2, 5))
    for all_of, some in zip(whole.blocks, few.blocks, strict=True):
        assert torch.equal(by_member(all_of.weights, 4)[1:3, 2:5], by_member(some.weights, 2))


def test_trades_give_each_graph_of_these_degrees_equally_often() -> None:
    # There are 5 matrices of zeros and ones with sums 2, 1, 1 of rows and of columns.
    edges = torch.tensor([[1, 1, 0], [1, 0, 0], [0, 0, 1]]).bool()
    count = 4000
    found = traded_edges(edges.expand(count, 3, 3), member_keys(range(count)))
    shares = Counter(tuple(each.flatten().tolist()) for each in found)
    assert len(shares) == 5
    deviation = (count * 0.2 * 0.8) ** 0.5
    assert all(abs(times - count / 5) < 4 * deviation for times in shares.values())


def test_orders_of_shuffled_weights_are_equally_likely() -> None:
    weights = torch.tensor([[[0.0, 1.0, 2.0]]], dtype=torch.float64)
    block = Block(0, 1, weights, torch.ones_like(weights, dtype=torch.bool))
    graph = Graph((Part("input", 3), Part("output", 1)), (block,), directed=True)
    count = 3000
    found = shuffled_graphs(graph, member_keys([5]), "layer", range(count)).blocks[0].weights
    shares = Counter(tuple(each.flatten().tolist()) for each in found)
    assert len(shares) == 6
    assert all(abs(times - count / 6) < 4 * (count * 5 / 36) ** 0.5 for times in shares.values())


def test_random_partitions_keep_the_sizes_of_modules_in_each_part() -> None:
    graph = layered_graphs(2, 1.0)
    labels = torch.tensor([[0, 1, 1, 0, -1, 0, 1, 1, 0, 0, 0, 1]]).repeat(2, 1)
    found = random_partitions(graph, labels, member_keys([0, 1]), range(9))
    assert found.shape == (18, 12)
    for part in range(3):
        own = found[:, graph.nodes_of(part)]
        given = labels[:1, graph.nodes_of(part)].expand_as(own)
        assert torch.equal(own.sort().values, given.sort().values)
    assert (found[:, 4] == -1).all()
    assert len(found.unique(dim=0)) > 10


def test_random_graphs_are_no_more_modular_than_random_partitions_of_them() -> None:
    # 100 graphs of Erdos and Renyi, with a partition that has nothing to do with them.
    members, nodes = 100, 20
    draws = torch.Generator().manual_seed(3)
    weights = (torch.rand(members, nodes, nodes, generator=draws) < 0.3).double().triu(1)
    weights = weights + weights.transpose(1, 2)
    labels = (torch.arange(nodes) // 10).repeat(members, 1)
    block = Block(0, 0, weights, torch.ones_like(weights, dtype=torch.bool))
    graph = Graph((Part("nodes", nodes),), (block,), directed=False)
    random = random_partitions(graph, labels, member_keys(range(members)), range(50))
    repeated = weights.repeat_interleave(50, dim=0)
    for score, rises in ((newman_modularity, True), (normalised_cut, False)):
        against = compare(score(weights, labels), by_member(score(repeated, random), members), rises)
        assert (against.z < 2).sum() >= 95
        assert abs(against.z.mean()) < 3 / members**0.5
        assert (against.p <= 0.1).sum() <= 20  # 10 are expected, with a standard deviation of 3


def test_comparison_counts_ties_adds_one_and_turns_scores_that_fall() -> None:
    null = torch.tensor([[1.0, 2.0, 3.0], [0.5, 0.5, 0.5]], dtype=torch.float64)
    score = torch.tensor([3.0, 0.5], dtype=torch.float64)
    rising, falling = compare(score, null, rises=True), compare(score, null, rises=False)
    assert rising.mean.tolist() == [2.0, 0.5]
    assert rising.p.tolist() == [2 / 4, 1.0]
    assert falling.p.tolist() == [1.0, 1.0]
    # 1 of 3 is as modular, so that the z of 1 of the score is borne out as far as p = 1/2 only.
    assert (rising.z[0].item(), falling.z[0].item()) == (0.0, -1.0)
    assert rising.z[1].isnan()
    beyond = compare(torch.tensor([5.0]).double(), null[:1], rises=True)
    assert (beyond.p.item(), beyond.z.item()) == (1 / 4, 3.0)


def test_a_positive_z_is_at_most_that_of_a_normal_variable_with_the_same_p_also_for_skewed_scores() -> None:
    draws = torch.Generator().manual_seed(0)
    values = torch.randn(4000, 51, generator=draws, dtype=torch.float64).square()  # z of 2 in 5 of 100
    against = compare(values[:, 0], values[:, 1:], rises=True)
    plain = (values[:, 0] - values[:, 1:].mean(dim=1)) / values[:, 1:].std(dim=1)
    assert (plain >= 2).double().mean() > 0.045
    assert (against.z >= 2).double().mean() < 1 / 51 + 3 * (1 / 51 / 4000) ** 0.5
    some = against.p > 1 / 51 + 1e-9
    highest = torch.tensor([NormalDist().inv_cdf(1 - p) if p < 1 else 0.0 for p in against.p.tolist()])
    assert (against.z[some] <= highest[some].clamp(min=0).double() + 1e-6).all()
    torch.testing.assert_close(against.z[~some], plain[~some])
    torch.testing.assert_close(against.z[plain < 0], plain[plain < 0])
