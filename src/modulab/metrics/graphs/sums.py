"""Sums of a graph's weights within and between modules: all that scores of a partition are made of."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from modulab.metrics.graphs.graph import Graph


@dataclass(frozen=True)
class ModuleSums:
    """What edges weigh, from module to module and node by node. Nodes labelled below 0 are left out."""

    by_block: tuple[Float64[Tensor, "member module module"], ...]
    """For each block of edges, the weight from the module of the row to that of the column."""
    outgoing: Float64[Tensor, "member node"]
    incoming: Float64[Tensor, "member node"]
    sizes: Float64[Tensor, "member module"]
    """How many nodes of each module have an edge."""

    @property
    def directed(self) -> Float64[Tensor, "member module module"]:
        """Return the weights from module to module, over all blocks."""
        total = self.by_block[0]
        for block in self.by_block[1:]:
            total = total + block
        return total

    @property
    def undirected(self) -> Float64[Tensor, "member module module"]:
        """Return the weights between modules: e_rs, and e_rr, twice the weight within module r."""
        directed = self.directed
        return directed + directed.transpose(1, 2).contiguous()

    @property
    def strengths(self) -> Float64[Tensor, "member node"]:
        """Return the summed weights of each node's edges."""
        return self.outgoing + self.incoming


def module_sums(graph: Graph, labels: Int64[Tensor, "member node"], modules: int) -> ModuleSums:
    """Return the sums for labels from 0 to `modules` - 1; a node labelled below 0 is left out with its edges."""
    if bool((labels < 0).any()):
        graph = graph.only(labels >= 0)
    belongs = (labels[:, :, None] == torch.arange(modules, device=labels.device)).double()
    by_block: list[Tensor] = []
    for block in graph.blocks:
        targets = belongs[:, graph.nodes_of(block.target)].transpose(1, 2)
        sources = belongs[:, graph.nodes_of(block.source)]
        by_block.append(torch.bmm(torch.bmm(targets, block.weights), sources).transpose(1, 2).contiguous())
    outgoing, incoming = graph.strengths()
    connected = (outgoing + incoming > 0).double()
    sizes = torch.bmm(connected[:, None], belongs)[:, 0]
    return ModuleSums(tuple(by_block), outgoing, incoming, sizes)
