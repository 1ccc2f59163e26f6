"""The modules that units belong to, given those of the inputs and outputs.

A random walk over a unit's edges, with probabilities in proportion to their weights and in both directions, comes at
last to an input or an output whose module is known. The unit belongs to the module where that is most probable (X. Zhu,
Z. Ghahramani and J. Lafferty, "Semi-supervised learning using Gaussian fields and harmonic functions", 2003). With one
hidden layer it is the module that most of its weight leads to. No layers are needed, and what has no edges of its own
to inputs or outputs is reached through other units.

The partition therefore depends on the graph, and would divide a random graph better than chance does. What its
scores are compared with has to be assigned in the same way.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from modulab.metrics.graphs.graph import Graph

_ENDS = 1e-9
"""The probability that a walk ends at a step, so one which reaches no module does not give a singular system."""


def strongest_modules(graph: Graph, known: Sequence[int], modules: int) -> Int64[Tensor, "member node"]:
    """Return the module of every node: that known, if it is not below 0, else that where a random walk ends.

    Nodes without edges, and those from which no walk comes to a module, have -1.
    """
    device = graph.blocks[0].weights.device
    given = torch.tensor(known, device=device)
    free = torch.tensor(
        [node for node, module in enumerate(known) if module < 0], device=device, dtype=torch.int64
    )
    labels = given.repeat(graph.num_members, 1)
    if len(free):
        labels[:, free] = _most_probable(_arrivals(graph, given, free, modules))
    return torch.where(graph.connected(), labels, -1)


def _arrivals(
    graph: Graph, given: Tensor, free: Tensor, modules: int
) -> Float64[Tensor, "member free_node module"]:
    """Return the probability that a walk from each free node comes to each module first, up to a factor per node."""
    belongs = (given[:, None] == torch.arange(modules, device=given.device)).double()
    direct = graph.blocks[0].weights.new_zeros(graph.num_members, len(given), modules)
    is_free = given < 0
    between_free = False
    for block in graph.blocks:
        sources, targets = graph.nodes_of(block.source), graph.nodes_of(block.target)
        # One product per member: a product of all of them together would round by how many there are.
        direct[:, targets] += torch.bmm(block.weights, belongs[sources].expand(graph.num_members, -1, -1))
        direct[:, sources] += torch.bmm(
            block.weights.transpose(1, 2), belongs[targets].expand(graph.num_members, -1, -1)
        )
        between_free |= bool(is_free[sources].any()) and bool(is_free[targets].any())
    direct = direct[:, free]
    if not between_free:
        return direct
    adjacency = graph.adjacency()
    if graph.directed:
        adjacency = adjacency + adjacency.transpose(1, 2)
    outgoing, incoming = graph.strengths()
    strengths = (outgoing + incoming)[:, free] * (1 + _ENDS)
    strengths = torch.where(strengths > 0, strengths, 1.0)
    steps = adjacency[:, free][:, :, free]
    return torch.linalg.solve(torch.diag_embed(strengths) - steps, direct)


def _most_probable(arrivals: Tensor) -> Int64[Tensor, "member free_node"]:
    best = torch.zeros_like(arrivals[:, :, 0])
    labels = torch.full(best.shape, -1, dtype=torch.int64, device=best.device)
    for module in range(arrivals.shape[2]):
        own = arrivals[:, :, module]
        labels = torch.where(own > best, module, labels)
        best = torch.maximum(best, own)
    return labels
