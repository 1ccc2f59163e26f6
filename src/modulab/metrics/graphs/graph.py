"""Weighted graphs, one per member, whose edges lead from one part of the nodes to another.

The nodes of a network's graph are its inputs, its units and its outputs; each site is a part. Every edge is stored
once, in a block of edges that have their part of sources and their part of targets in common. So a graph of layers
takes as much memory as its weights, and shuffles and sums act on what can be connected only. The same functions
take any adjacency matrix as a graph of one part with one block.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float64
from torch import Tensor


@dataclass(frozen=True)
class Part:
    """A part of the nodes: those of one site, the inputs or the outputs."""

    name: str
    size: int


@dataclass(frozen=True)
class Block:
    """Edges from the nodes of one part to those of another, or of the same one; parts are given by their places."""

    source: int
    target: int
    weights: Float64[Tensor, "member target_node source_node"]
    """The weights, non-negative; 0 if there is no edge."""
    possible: Bool[Tensor, "member target_node source_node"]
    """Which pairs can have an edge: both nodes are in the graph, and the pair is stored here."""


@dataclass(frozen=True)
class Graph:
    """One weighted graph per member, over the same parts. Each edge is in one block, once."""

    parts: tuple[Part, ...]
    blocks: tuple[Block, ...]
    directed: bool
    """Whether the direction of edges means something. Measures of undirected graphs ignore it in any case."""

    @property
    def num_members(self) -> int:
        """Return the length of the member axis."""
        return len(self.blocks[0].weights)

    @property
    def num_nodes(self) -> int:
        """Return the number of nodes, those without edges among them."""
        return sum(part.size for part in self.parts)

    def nodes_of(self, part: int) -> slice:
        """Return which nodes are of a part."""
        start = sum(each.size for each in self.parts[:part])
        return slice(start, start + self.parts[part].size)

    def adjacency(self) -> Float64[Tensor, "member node node"]:
        """Return matrices whose element [i, j] is the weight from node i to node j; symmetric if undirected.

        A connection of a node with itself counts twice on the diagonal of an undirected graph, once for each of its
        ends, as degrees count it.
        """
        found = self.blocks[0].weights.new_zeros(self.num_members, self.num_nodes, self.num_nodes)
        for block in self.blocks:
            found[:, self.nodes_of(block.source), self.nodes_of(block.target)] += block.weights.transpose(
                1, 2
            )
        return found if self.directed else found + found.transpose(1, 2)

    def connected(self) -> Bool[Tensor, "member node"]:
        """Return which nodes have an edge."""
        found = torch.zeros(
            self.num_members, self.num_nodes, dtype=torch.bool, device=self.blocks[0].weights.device
        )
        for block in self.blocks:
            edges = block.weights > 0
            found[:, self.nodes_of(block.source)] |= edges.any(dim=1)
            found[:, self.nodes_of(block.target)] |= edges.any(dim=2)
        return found

    def strengths(self) -> tuple[Float64[Tensor, "member node"], Float64[Tensor, "member node"]]:
        """Return the summed weights of the edges from each node, and of those to each node."""
        outgoing = self.blocks[0].weights.new_zeros(self.num_members, self.num_nodes)
        incoming = torch.zeros_like(outgoing)
        for block in self.blocks:
            # Copied, because only a sum over the innermost axis adds in an order that does not depend on its place.
            by_source = block.weights.transpose(1, 2).contiguous()
            outgoing[:, self.nodes_of(block.source)] += by_source.sum(dim=2)
            incoming[:, self.nodes_of(block.target)] += block.weights.sum(dim=2)
        return outgoing, incoming

    def only(self, kept: Bool[Tensor, "member node"]) -> Graph:
        """Return the graphs without the edges of nodes that are not kept, which can have none from then on."""

        def reduced(block: Block) -> Block:
            pairs = kept[:, self.nodes_of(block.target), None] & kept[:, None, self.nodes_of(block.source)]
            return Block(
                block.source, block.target, torch.where(pairs, block.weights, 0.0), block.possible & pairs
            )

        return Graph(self.parts, tuple(map(reduced, self.blocks)), self.directed)

    def with_weights(self, weights: Sequence[Float64[Tensor, "member _target_node _source_node"]]) -> Graph:
        """Return graphs with other weights in each block, for a multiple of the members if there are more of them."""

        def changed(block: Block, own: Tensor) -> Block:
            repeats = len(own) // len(block.weights)
            possible = block.possible
            if repeats > 1:
                possible = possible.repeat_interleave(repeats, dim=0)
            return Block(block.source, block.target, own, possible)

        blocks = tuple(changed(block, own) for block, own in zip(self.blocks, weights, strict=True))
        return Graph(self.parts, blocks, self.directed)


def undirected_graph(weights: Float64[Tensor, "member node node"]) -> Graph:
    """Return graphs with the edges of symmetric adjacency matrices, whose diagonals count each of its ends."""
    size = weights.shape[1]
    stored = torch.ones(size, size, dtype=torch.bool, device=weights.device).tril()
    halves = torch.eye(size, dtype=weights.dtype, device=weights.device).mul(-0.5).add(1)
    once = torch.where(stored, weights * halves, 0.0)
    return Graph((Part("nodes", size),), (Block(0, 0, once, stored.expand_as(once)),), directed=False)


def directed_graph(weights: Float64[Tensor, "member node node"]) -> Graph:
    """Return graphs with the edges of adjacency matrices, from node i to node j at [i, j]."""
    once = weights.transpose(1, 2).contiguous()
    block = Block(0, 0, once, torch.ones_like(once, dtype=torch.bool))
    return Graph((Part("nodes", weights.shape[1]),), (block,), directed=True)
