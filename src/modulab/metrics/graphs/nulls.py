"""The nulls of graphs: shuffled graphs and random partitions, drawn from each member's own stream.

Each kind of shuffle keeps more of a graph than the one before it:

- layer: the weights of each block, zeros among them, and so its density;
- degree: also how many edges each node has in each block, by trades of neighbours between pairs of nodes (C. J.
  Carstens et al., "Parallel global edge switching for the uniform sampling of simple graphs with prescribed degrees",
  2022; G. Strona et al., "A fast and unbiased procedure to randomize ecological binary matrices", 2014), on which the
  weights are then placed at random;
- nonzero: also which nodes are connected; only where the weights are changes;
- strength: also the summed weight of each node's edges in each block. Each node of the larger side exchanges the
  weights of its edges with one another, in proportion to the strengths k_j of the nodes j that they lead to: w_ij / k_j
  are shuffled and multiplied by k_j of their new place. The little by which strengths differ then is made up for by
  iterative proportional fitting (R. Sinkhorn, "Diagonal equivalence to matrices with prescribed row and column sums",
  1967), to a millionth in dense graphs and about a thousandth in sparse ones. The weights themselves change.

Where every pair of a block is connected, the first three are one. In a sparse graph a shuffle of layers may leave
nodes without edges; the later ones cannot. A random partition keeps the graph, and how many nodes of each part each
module has.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from enum import IntEnum
from typing import Literal

import torch
from jaxtyping import Bool, Float64, Int32, Int64
from torch import Tensor

from modulab.metrics.graphs.graph import Block, Graph
from modulab.streams import Stream, fold_in, random_bits

PlaceShuffle = Literal["layer", "degree", "nonzero"]
"""The nulls that permute weights."""
ShuffleKind = Literal[PlaceShuffle, "strength"]

FITTING_STEPS = 100
"""Steps of iterative proportional fitting, equal for all members so that results do not depend on packing."""


class _Draw(IntEnum):
    """Separates the random streams of nulls. Part of every result: never change one."""

    LAYER = 0
    DEGREE = 1
    NONZERO = 2
    STRENGTH = 3
    PARTITION = 4


def shuffled_graphs(
    graph: Graph, keys: Int32[Tensor, "member 2"], kind: ShuffleKind, shuffles: range
) -> Graph:
    """Return shuffled graphs, those of a member side by side: shuffle s of a member is the same in any range."""
    draw, shuffle = _SHUFFLES[kind]
    keys = _keys(keys, draw, shuffles)
    return graph.with_weights(
        [shuffle(block, fold_in(keys, place), len(shuffles)) for place, block in enumerate(graph.blocks)]
    )


def random_partitions(
    graph: Graph,
    labels: Int64[Tensor, "member node"],
    keys: Int32[Tensor, "member 2"],
    partitions: range,
) -> Int64[Tensor, "member_and_partition node"]:
    """Return labels in random order within each part of the graph; nodes labelled below 0 keep theirs."""
    keys = _keys(keys, _Draw.PARTITION, partitions)
    given = labels.repeat_interleave(len(partitions), dim=0)
    parts = [given[:, graph.nodes_of(part)] for part in range(len(graph.parts))]
    permuted: list[Tensor] = []
    for place, own in enumerate(parts):
        numbers = torch.arange(own.shape[1], dtype=torch.int32, device=keys.device)[None]
        bits = random_bits(fold_in(keys, place), numbers)
        permuted.append(_placed(own, own >= 0, own >= 0, bits, outside=-1))
    return torch.cat(permuted, dim=1)


def _keys(keys: Tensor, draw: _Draw, numbers: range) -> Int32[Tensor, "member_and_shuffle 2"]:
    own = fold_in(fold_in(keys, Stream.GRAPH_NULL), int(draw)).repeat_interleave(len(numbers), dim=0)
    words = torch.arange(numbers.start, numbers.stop, dtype=torch.int32, device=keys.device)
    return fold_in(own, words.repeat(len(keys)))


def _layer_shuffled(block: Block, keys: Tensor, repeats: int) -> Tensor:
    possible = block.possible.repeat_interleave(repeats, dim=0)
    return _placed_in_block(block.weights.repeat_interleave(repeats, dim=0), possible, possible, keys)


def _nonzero_shuffled(block: Block, keys: Tensor, repeats: int) -> Tensor:
    weights = block.weights.repeat_interleave(repeats, dim=0)
    return _placed_in_block(weights, weights > 0, weights > 0, keys)


def _degree_shuffled(block: Block, keys: Tensor, repeats: int) -> Tensor:
    weights = block.weights.repeat_interleave(repeats, dim=0)
    edges = weights > 0
    complete = torch.equal(block.weights > 0, block.possible)
    traded = edges if complete else traded_edges(edges, fold_in(keys, 1))
    return _placed_in_block(weights, edges, traded, keys)


def _strength_shuffled(block: Block, keys: Tensor, repeats: int) -> Tensor:
    weights = block.weights
    if weights.shape[1] < weights.shape[2]:
        return (
            _strengths_kept(weights.transpose(1, 2).contiguous(), keys, repeats).transpose(1, 2).contiguous()
        )
    return _strengths_kept(weights, keys, repeats)


def _strengths_kept(weights: Float64[Tensor, "member row column"], keys: Tensor, repeats: int) -> Tensor:
    rows, columns = weights.sum(dim=2), weights.transpose(1, 2).contiguous().sum(dim=2)
    scale = torch.where(columns > 0, columns, 1.0)[:, None, :]
    edges, shares, rows, columns, scale = (
        each.repeat_interleave(repeats, dim=0)
        for each in (weights > 0, weights / scale, rows, columns, scale)
    )
    numbers = torch.arange(edges[0].numel(), dtype=torch.int32, device=keys.device).view(1, *edges.shape[1:])
    moved = _placed(shares, edges, edges, random_bits(keys, numbers), outside=0.0)
    return _fitted(moved * scale, rows, columns)


def _fitted(
    weights: Float64[Tensor, "member row column"],
    rows: Float64[Tensor, "member row"],
    columns: Float64[Tensor, "member column"],
) -> Float64[Tensor, "member row column"]:
    """Return weights multiplied by a factor per row and one per column, so they have these sums."""
    by_column = weights.transpose(1, 2).contiguous()
    column_factors = torch.ones_like(columns)[:, :, None]
    row_factors = torch.ones_like(rows)[:, :, None]
    for _ in range(FITTING_STEPS):
        row_factors = _quotient(rows[:, :, None], torch.bmm(weights, column_factors))
        column_factors = _quotient(columns[:, :, None], torch.bmm(by_column, row_factors))
    return weights * row_factors * column_factors.transpose(1, 2)


def _quotient(wanted: Tensor, found: Tensor) -> Tensor:
    return torch.where(found > 0, wanted / torch.where(found > 0, found, 1.0), 0.0)


def traded_edges(
    edges: Bool[Tensor, "member target source"], keys: Int32[Tensor, "member 2"]
) -> Bool[Tensor, "member target source"]:
    """Return random edges between the same nodes, each of which has as many of them as before.

    In each round nodes of the smaller side trade in pairs: those that are neighbours of only one of the two are dealt
    to them again, as many to each as before.
    """
    if edges.shape[1] > edges.shape[2]:
        return traded_edges(edges.transpose(1, 2).contiguous(), keys).transpose(1, 2).contiguous()
    rows = edges.shape[1]
    if rows < 2:
        return edges
    pairs = rows // 2
    numbers = torch.arange(rows, dtype=torch.int32, device=edges.device)[None]
    places = torch.arange(pairs * edges.shape[2], dtype=torch.int32, device=edges.device)
    places = places.view(1, pairs, edges.shape[2])
    for turn in range(4 * math.ceil(math.log2(rows)) + 1):
        own = fold_in(keys, turn)
        order = random_bits(fold_in(own, 0), numbers).sort(dim=1, stable=True).indices[:, : 2 * pairs]
        first, second = order[:, :pairs, None].expand(-1, -1, edges.shape[2]), order[:, pairs:, None]
        second = second.expand_as(first)
        mine, yours = edges.gather(1, first), edges.gather(1, second)
        traded = mine ^ yours
        dealt = (mine & ~yours).sum(dim=2, keepdim=True)
        ranks = _ranks(random_bits(fold_in(own, 1), places), traded)
        mine = torch.where(traded, ranks < dealt, mine)
        yours = torch.where(traded, ~mine, yours)
        edges = edges.scatter(1, first, mine).scatter(1, second, yours)
    return edges


def _ranks(bits: Int32[Tensor, "*shape"], among: Bool[Tensor, "*shape"]) -> Int64[Tensor, "*shape"]:
    """Return each element's place in the order of `bits` along the last axis, those of `among` first."""
    order = _random_order(bits, among)
    places = torch.arange(order.shape[-1], device=order.device).expand_as(order)
    return torch.empty_like(order).scatter_(-1, order, places)


def _random_order(bits: Tensor, among: Tensor) -> Tensor:
    words = torch.where(among, bits.long(), 1 << 32)  # beyond any 32 bits
    return words.sort(dim=-1, stable=True).indices


def _placed_in_block(values: Tensor, taken: Tensor, places: Tensor, keys: Tensor) -> Tensor:
    """Return a block with the values of some pairs in random order at as many others, and 0 elsewhere."""
    numbers = torch.arange(values[0].numel(), dtype=torch.int32, device=values.device)[None]
    bits = random_bits(keys, numbers)
    moved = _placed(values.flatten(1), taken.flatten(1), places.flatten(1), bits, outside=0.0)
    return moved.unflatten(1, values.shape[1:])


def _placed(
    values: Tensor,
    taken: Bool[Tensor, "*row element"],
    places: Bool[Tensor, "*row element"],
    bits: Int32[Tensor, "*row element"],
    outside: float,
) -> Tensor:
    """Return the values taken from each row, in random order, at as many places of it; elsewhere is `outside`."""
    packed = torch.where(taken, values, outside)
    if not bool(taken.all()):
        packed = packed.gather(-1, (~taken).byte().sort(dim=-1, stable=True).indices)
    return torch.empty_like(packed).scatter_(-1, _random_order(bits, places), packed)


_SHUFFLES: dict[ShuffleKind, tuple[_Draw, Callable[[Block, Tensor, int], Tensor]]] = {
    "layer": (_Draw.LAYER, _layer_shuffled),
    "degree": (_Draw.DEGREE, _degree_shuffled),
    "nonzero": (_Draw.NONZERO, _nonzero_shuffled),
    "strength": (_Draw.STRENGTH, _strength_shuffled),
}
"""The draws of each kind of shuffle, and how it changes a block, given keys for each member's shuffles and how many."""
