"""The positions of the weights of connections and of the biases of units in a row of parameters.

The contract of a network states the weights as a function of its parameters. Evaluated on the numbers of the parameters
in place of their values, that function says which parameter each weight is; so do the sums of a stage, on inputs of
0, of biases.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Int64
from torch import Tensor

from modulab.networks.base import Network

NO_PLACES = "the weights of its connections are not parameters of their own"


@functools.lru_cache(maxsize=64)
def weight_places(network: Network) -> tuple[Int64[Tensor, "_target_unit _source_unit"], ...] | None:
    """Return which parameter each weight of each connection is; None unless each is one, and no other's."""
    return _places(network, network.edge_weights)


@functools.lru_cache(maxsize=64)
def bias_places(network: Network) -> tuple[Int64[Tensor, " _target_unit"], ...] | None:
    """Return which parameter the bias of each unit of each stage is, for a network of layers; None as above."""
    targets = [target for _, target in network.connections]
    sources = [weights.shape[1] for weights in weight_places(network) or ()]
    if not network.is_layered or len(sources) != len(targets):
        return None

    def biases(parameters: Tensor) -> list[Tensor]:
        return [
            network.stage_sums(parameters, stage, parameters.new_zeros(len(parameters), size, 1))[:, :, 0]
            for stage, size in enumerate(sources)
        ]

    return _places(network, biases)


def _places(network: Network, parts_of: Callable[[Tensor], Sequence[Tensor]]) -> tuple[Tensor, ...] | None:
    # Double precision holds the numbers of all parameters. From 1, as 0 stands for a part that is not a parameter.
    numbers = torch.arange(1, network.num_parameters + 1, dtype=torch.float64)[None]
    found = [part[0] for part in parts_of(numbers)]
    places = tuple(part.round().long() - 1 for part in found)
    every = torch.cat([each.flatten() for each in places]) if places else torch.empty(0, dtype=torch.int64)
    if len(every) == 0 or len(every.unique()) < len(every):
        return None
    if int(every.min()) < 0 or int(every.max()) >= network.num_parameters:
        return None
    # Other values in the same places must come out as well: a weight is the parameter, not another function of it.
    others = numbers.sqrt()
    again = zip(places, parts_of(others), strict=True)
    if all(torch.equal(others[0, own], part[0]) for own, part in again):
        return places
    return None
