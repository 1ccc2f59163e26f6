"""The loop that takes an analysis of a population, block by block."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from modulab.analysis.analysis import Analysis, Trained, take_checked
from modulab.config.settings import Member
from modulab.errors import ForeignError, foreign_code
from modulab.metrics.probe import BLOCK_BYTES, Tell, make_probe, members_at_once, tell_nobody
from modulab.networks.base import Network, NetworkPopulation
from modulab.results.analyses import Analysed
from modulab.streams import member_keys
from modulab.training.learner import initialise


def analyse_members(
    analysis: Analysis,
    key: str,
    network: Network,
    members: Mapping[str, Member],
    parameters: Float[Tensor, "member parameter"],
    block_bytes: int = BLOCK_BYTES,
    tell: Tell = tell_nobody,
) -> Iterator[Analysed]:
    """Yield what an analysis finds in members of one network, given by run_id, a block after the other.

    Members of a block share a task. If a block fails, each half of it is analysed by itself, down to the members that
    are the cause. Blocks do not change a result.
    """
    names = list(members)
    alike: defaultdict[tuple[object, ...], list[int]] = defaultdict(list)
    for place, member in enumerate(members.values()):
        alike[member.task, member.probes].append(place)
    for places in alike.values():
        first = members[names[places[0]]]
        try:
            with foreign_code():
                reason = analysis.lacking(network, first)
                size = members_at_once(network, first.probes, block_bytes)
        except ForeignError as error:
            yield Analysed([names[place] for place in places], error=str(error))
            continue
        if reason is not None:
            yield Analysed([names[place] for place in places], skipped=reason)
            continue
        for start in range(0, len(places), size):
            block = places[start : start + size]
            chosen = {names[place]: members[names[place]] for place in block}
            yield from _analyse_block(analysis, key, network, chosen, parameters[block], tell)


def _analyse_block(
    analysis: Analysis,
    key: str,
    network: Network,
    members: Mapping[str, Member],
    parameters: Tensor,
    tell: Tell,
) -> Iterator[Analysed]:
    names = list(members)
    try:
        with foreign_code(), torch.no_grad():
            values = _values(analysis, key, network, list(members.values()), parameters, tell)
    except ForeignError as error:
        if len(names) == 1:
            yield Analysed(names, error=str(error))
            return
        middle = len(names) // 2
        for part in (slice(None, middle), slice(middle, None)):
            own = {name: members[name] for name in names[part]}
            yield from _analyse_block(analysis, key, network, own, parameters[part], tell)
    else:
        yield Analysed(names, {name: each.tolist() for name, each in values.items()})


def _values(
    analysis: Analysis,
    key: str,
    network: Network,
    members: Sequence[Member],
    parameters: Tensor,
    tell: Tell,
) -> dict[str, Tensor]:
    count = len(members)
    # A batched product of one matrix takes another kernel, which rounds otherwise, than one of many.
    block = list(members) * 2 if count == 1 else list(members)
    parameters = parameters.repeat(2, 1) if count == 1 else parameters
    masks, _ = initialise(block, network)
    keys = member_keys([member.seed for member in block])
    population = NetworkPopulation(network, parameters)
    probe = make_probe(block[0].task, population, keys, block[0].probes, masks, tell)
    found = take_checked(analysis, key, Trained(tuple(block), probe))
    return {name: values[:count] for name, values in found.items()}
