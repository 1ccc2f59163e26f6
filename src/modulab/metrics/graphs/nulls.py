"""What graphs are compared with: shuffled graphs and random partitions, drawn from each member's own stream.

Each kind of shuffle keeps more of a graph than the one before it:

- layer: the weights of each block, zeros among them, and so its density;
- degree: also how many edges each node has in each block, by trades of neighbours between pairs of nodes (C. J.
  Carstens et al., "Parallel global edge switching for the uniform sampling of simple graphs with prescribed degrees",
  2022; G. Strona et al., "A fast and unbiased procedure to randomize ecological binary matrices", 2014), on which the
  weights are then placed at random;
- nonzero: also which nodes are connected; only where the weights are changes;
- strength: also the summed weight of each node's edges in each block. Weights in proportion to what the strengths
  predict, w_ij / (k_i k_j), are shuffled among the edges, multiplied by k_i k_j of their new place, and fitted to the
  strengths by iterative proportional fitting (R. Sinkhorn, "Diagonal equivalence to matrices with prescribed row and
  column sums", 1967). The weights themselves change.

Where every pair of a block is connected, the first three are one. In a sparse graph a shuffle of layers may leave
nodes without edges; the later ones cannot. A random partition keeps the graph, and how many nodes of each part each
module has.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Literal

import torch
from jaxtyping import Bool, Float64, Int32, Int64
from torch import Tensor

from modulab.metrics.graphs.graph import Block, Graph
from modulab.streams import Stream, fold_in, random_bits

ShuffleKind = Literal["layer", "degree", "nonzero", "strength"]

FITTING_STEPS = 100
"""Of iterative proportional fitting; so many for every member, lest results depend on packing."""


class _Draw(IntEnum):
    """Keeps the draws of one null apart from those of another. Part of every result: never change one."""

    LAYER = 0
    DEGREE = 1
    NONZERO = 2
    STRENGTH = 3
    PARTITION = 4


def shuffled_graphs(
    graph: Graph, keys: Int32[Tensor, "member 2"], kind: ShuffleKind, shuffles: range
) -> Graph:
    """Return shuffled graphs, those of a member side by side: shuffle s of a member is the same in any range."""
    shuffle = SHUFFLES[kind]
    keys = _keys(keys, shuffle.draw, shuffles)
    changed = [
        shuffle.weights(block, fold_in(keys, place), len(shuffles))
        for place, block in enumerate(graph.blocks)
    ]
    return graph.with_weights(changed)


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
    return torch.cat(
        [
            _placed(own, own >= 0, own >= 0, fold_in(keys, place), outside=-1)
            for place, own in enumerate(parts)
        ],
        dim=1,
    )


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
    targets, sources = block.weights.sum(dim=2), block.weights.transpose(1, 2).contiguous().sum(dim=2)
    predicted = targets[:, :, None] * sources[:, None, :]
    edges = block.weights > 0
    ratios = torch.where(edges, block.weights / torch.where(edges, predicted, 1.0), 0.0)
    edges, ratios, predicted, targets, sources = (
        each.repeat_interleave(repeats, dim=0) for each in (edges, ratios, predicted, targets, sources)
    )
    return _fitted(_placed_in_block(ratios, edges, edges, keys) * predicted, targets, sources)


def _fitted(
    weights: Float64[Tensor, "member target source"],
    targets: Float64[Tensor, "member target"],
    sources: Float64[Tensor, "member source"],
) -> Float64[Tensor, "member target source"]:
    """Return weights multiplied by a factor per target and one per source, so that they have these sums."""
    by_source = weights.transpose(1, 2).contiguous()
    columns = torch.ones_like(sources)[:, :, None]
    rows = torch.ones_like(targets)[:, :, None]
    for _ in range(FITTING_STEPS):
        rows = _quotient(targets[:, :, None], torch.bmm(weights, columns))
        columns = _quotient(sources[:, :, None], torch.bmm(by_source, rows))
    return weights * rows * columns.transpose(1, 2)


def _quotient(wanted: Tensor, found: Tensor) -> Tensor:
    return torch.where(found > 0, wanted / torch.where(found > 0, found, 1.0), 0.0)


def traded_edges(
    edges: Bool[Tensor, "member target source"], keys: Int32[Tensor, "member 2"]
) -> Bool[Tensor, "member target source"]:
    """Return random edges between the same nodes, each of which has as many of them as before.

    In each round nodes of the smaller side trade in pairs: those that are neighbours of one of the two only are dealt to
    them anew, as many to each as before.
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
    moved = _placed(values.flatten(1), taken.flatten(1), places.flatten(1), keys, outside=0.0)
    return moved.unflatten(1, values.shape[1:])


def _placed(
    values: Tensor,
    taken: Bool[Tensor, "member element"],
    places: Bool[Tensor, "member element"],
    keys: Int32[Tensor, "member 2"],
    outside: float,
) -> Tensor:
    """Return the values taken, in random order, at as many places; what lies elsewhere is `outside`."""
    packed = torch.where(taken, values, outside)
    if not bool(taken.all()):
        packed = packed.gather(1, (~taken).byte().sort(dim=1, stable=True).indices)
    numbers = torch.arange(values.shape[1], dtype=torch.int32, device=values.device)
    order = _random_order(random_bits(keys, numbers[None]), places)
    return torch.empty_like(packed).scatter_(1, order, packed)


@dataclass(frozen=True)
class _Shuffle:
    draw: _Draw
    weights: Callable[[Block, Tensor, int], Tensor]
    """Takes a block, keys for each member's shuffles, and their number."""
    directed: bool = False
    """Whether it can act only on blocks that hold all of a node's edges to the other part."""


SHUFFLES: dict[ShuffleKind, _Shuffle] = {
    "layer": _Shuffle(_Draw.LAYER, _layer_shuffled),
    "degree": _Shuffle(_Draw.DEGREE, _degree_shuffled, directed=True),
    "nonzero": _Shuffle(_Draw.NONZERO, _nonzero_shuffled),
    "strength": _Shuffle(_Draw.STRENGTH, _strength_shuffled, directed=True),
}
"""How each kind of shuffle changes a block."""
