"""What every kind of network must keep, checked on members of it."""

from __future__ import annotations

from collections.abc import Sequence

import jaxtyping
import pytest
import torch
from torch import Tensor

from modulab.config.settings import Member
from modulab.metrics.measure import find_measures, skipped_measures
from modulab.metrics.taking import measure_population
from modulab.networks.base import NetworkPopulation
from modulab.streams import member_keys
from modulab.training.learner import initialise
from modulab.training.program import network_of
from tests.training.fitting import trained_parameters


def check_packing(members: Sequence[Member]) -> None:
    """Check that members, which share structural settings, end in the same bits alone and in company."""
    packed = trained_parameters(members)
    reverse = trained_parameters(list(reversed(members)))
    assert torch.equal(packed, reverse.flip(0))
    for place, member in enumerate(members):
        assert torch.equal(trained_parameters([member])[0], packed[place]), place
    start = initialise(members, network_of(members[0]))[1]
    assert ((packed - start).abs().amax(dim=1) > 0).all()


def check_measures(member: Member) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Measure two members before training, and each alone; return what was measured and why the rest was skipped."""
    network = network_of(member)
    keys = member_keys([member.seed, member.seed + 1])
    members = [member, member.model_copy(update={"seed": member.seed + 1})]
    mask, parameters = initialise(members, network)
    found = measure_population(member.task, NetworkPopulation(network, parameters), keys, member.probes, mask)
    for place in range(2):
        rows = slice(place, place + 1)
        alone = measure_population(
            member.task, NetworkPopulation(network, parameters[rows]), keys[rows], member.probes, mask[rows]
        )
        for name, values in alone.items():
            assert torch.equal(values[0], found[name][place]) or values.isnan().all(), name
    assert all(values.isfinite().any() for values in found.values())
    return found, skipped_measures(find_measures(member.probes), network, member.task)


def check_taps(member: Member) -> None:
    """Check that a pass comes to each site as often, and with as many values, as the network says."""
    network = network_of(member)
    _, parameters = initialise([member], network)
    inputs = torch.rand(1, 5, network.in_features)
    seen: dict[str, list[tuple[int, ...]]] = {}

    def look(place: str, values: Tensor) -> Tensor:
        seen.setdefault(place, []).append(tuple(values.shape))
        return values

    outputs = network.forward(parameters, inputs, look)
    assert outputs.shape == (1, 5, network.out_features)
    for site in network.sites:
        assert seen[site.name] == [(1, site.units, 5 * site.positions)] * site.visits
    for (source, target), edges in zip(network.connections, network.edges(parameters), strict=True):
        assert (edges.source, edges.target) == (source, target)


def check_compiled(members: Sequence[Member], monkeypatch: pytest.MonkeyPatch) -> None:
    """Check that members end where they do with the eager engine, to 1e-4, when they are compiled."""
    # Shape checks look at random parts of what they check, and would be traced.
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    eager, compiled = (trained_parameters(members, engine) for engine in ("eager", "compiled"))
    torch.testing.assert_close(compiled, eager, rtol=0, atol=1e-4)
