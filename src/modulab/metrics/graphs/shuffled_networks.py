"""Networks whose weights have changed places: the null of graphs that depend on what units do.

What an edge weighs in such a graph is a product of a weight with how much units vary. Products differ in size from
unit to unit in any network, and a shuffle of the products themselves would count that as structure. So would one of
weights among the units of the graph, from which those that chance left without inputs are missing. Therefore weights
are shuffled within each layer, that is each named part of a network's layout; biases and parts that are not trained
stay as they are. Then the network runs on the same points, and its graph is made again. A network whose weights are
drawn independently, as at initialisation, is one of its own shuffles, and more modular than they are by chance only.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from modulab.metrics.graphs.graph import Block, Graph, Part
from modulab.metrics.graphs.nulls import PlaceShuffle, shuffled_graphs
from modulab.metrics.probe import Probe
from modulab.networks.base import Network, NetworkPopulation
from modulab.tasks.base import Samples


def shuffled_networks(probe: Probe, kind: PlaceShuffle, shuffles: range) -> Probe:
    """Return a probe of networks with shuffled weights, those of a member side by side, at the member's own points.

    Shuffle s of a member is the same in any range. Kinds of shuffles keep what they keep of a graph: see `nulls`.
    """
    count = len(shuffles)
    samples = Samples(_repeated(probe.samples.inputs, count), _repeated(probe.samples.targets, count))
    parameters = _shuffled(probe.network, probe.keys, kind, shuffles)
    networks = NetworkPopulation(probe.network.network, parameters)
    return replace(
        probe,
        keys=probe.keys.repeat_interleave(count, dim=0),
        network=networks,
        seen_network=networks,
        rotation=None,
        samples=samples,
        mask=probe.mask.repeat_interleave(count, dim=0),
        _kept={},
    )


def _shuffled(networks: NetworkPopulation, keys: Tensor, kind: PlaceShuffle, shuffles: range) -> Tensor:
    """Return parameters whose weights have changed places, found by a shuffle of the numbers of their places."""
    repeated = networks.parameters.repeat_interleave(len(shuffles), dim=0)
    places = _weight_places(networks.network)
    if not places:
        return repeated
    values = [networks.parameters[:, own] for own in places]
    # Weights of 0 are numbered 0, as no edge; the others from 1.
    numbers = [
        torch.where(each != 0, torch.arange(1, each[0].numel() + 1, device=each.device).view_as(each[0]), 0)
        for each in values
    ]
    parts = tuple(Part(f"{place}", size) for place, own in enumerate(places) for size in own.shape)
    blocks = tuple(
        Block(2 * place + 1, 2 * place, each.double(), torch.ones_like(each, dtype=torch.bool))
        for place, each in enumerate(numbers)
    )
    moved = shuffled_graphs(Graph(parts, blocks, directed=True), keys, kind, shuffles)
    for own, each, block in zip(places, values, moved.blocks, strict=True):
        source = block.weights.flatten(1).long() - 1
        taken = each.flatten(1).repeat_interleave(len(shuffles), dim=0).gather(1, source.clamp(min=0))
        repeated[:, own.flatten()] = torch.where(source >= 0, taken, 0.0)
    return repeated


def _weight_places(network: Network) -> list[Tensor]:
    """Return which parameters each trained weight matrix consists of; a kernel counts as one with a row per output."""
    found: list[Tensor] = []
    start = 0
    for part in network.layout:
        if part.is_weight and part.trained and part.size > 1:
            found.append(torch.arange(start, start + part.size).view(part.shape[0], -1))
        start += part.size
    return found


def _repeated(values: Tensor, count: int) -> Tensor:
    return values.transpose(1, 2).repeat_interleave(count, dim=0).transpose(1, 2)
