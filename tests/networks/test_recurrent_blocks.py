from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch

from modulab.config.settings import Member
from modulab.errors import ConfigError
from modulab.training.learner import initialise
from modulab.training.program import network_of
from tests.members import make_member
from tests.networks.kinds import check_packing, check_taps


def make(seed: int = 0, noise: str = "none", **overrides: Any) -> Member:
    """Return a member with four blocks of two units."""
    small: dict[str, Any] = {
        "architecture__width": 8, "task__length": 4, "training__steps": 4, "training__batch_size": 8,
        "data__num_samples": 32, "probes__num_samples": 24,
    }  # fmt: skip
    return make_member(
        {"task": "bit_memory", "architecture": "recurrent_blocks", "noise": noise},
        seed=seed,
        **(small | overrides),
    )


def masks(**overrides: Any) -> dict[str, torch.Tensor]:
    members = [make(seed, **overrides) for seed in range(3)]
    mask, parameters = initialise(members, network_of(members[0]))
    assert (parameters[mask == 0] == 0).all()
    return network_of(members[0]).split(mask)


def test_blocks_are_connected_within_themselves_and_what_has_not_grown_not_at_all() -> None:
    parts = masks(architecture__grown=3, architecture__block_connections=0.0)
    expected = torch.block_diag(*[torch.ones(2, 2)] * 3, torch.zeros(2, 2))
    assert all(torch.equal(own, expected) for own in parts["recurrent.weight"])
    there = torch.tensor([1.0] * 6 + [0.0] * 2)
    assert all(torch.equal(own[:, 0], there) for own in parts["read.weight"])
    assert all(torch.equal(own, there) for own in parts["read.bias"])
    assert all(torch.equal(own, there.expand(2, -1)) for own in parts["write.weight"])
    assert (parts["write.bias"] == 1).all()


def test_a_share_of_connections_between_blocks_is_kept_and_a_larger_one_keeps_the_same() -> None:
    few, many, all_of_them = (
        masks(architecture__width=32, architecture__block_connections=share)["recurrent.weight"]
        for share in (0.2, 0.5, 1.0)
    )
    between = torch.block_diag(*[torch.ones(8, 8)] * 4) == 0
    assert (few[:, ~between] == 1).all()
    assert few[:, between].mean().item() == pytest.approx(0.2, abs=0.03)
    assert (many >= few).all()
    assert (all_of_them == 1).all()
    assert not torch.equal(few[0], few[1])


def test_growing_adds_weights_and_leaves_those_that_are_there() -> None:
    members = [[make(seed, architecture__grown=grown) for seed in range(2)] for grown in (1, 2, 4)]
    network = network_of(members[0][0])
    starts = [initialise(each, network) for each in members]
    for (mask, small), (larger_mask, large) in pairwise(starts):
        assert (larger_mask >= mask).all()
        assert (larger_mask.sum(dim=1) > mask.sum(dim=1)).all()
        assert torch.equal(large * mask, small)


def test_one_block_is_the_dense_recurrent_network() -> None:
    own = make(architecture__blocks=1, architecture__grown=1)
    dense = make_member(
        {"task": "bit_memory", "architecture": "recurrent"}, seed=0, architecture__width=8, task__length=4
    )
    ours, theirs = (initialise([member] * 2, network_of(member)) for member in (own, dense))
    assert torch.equal(ours[0], theirs[0])
    assert torch.equal(ours[1], theirs[1])
    inputs = torch.rand(2, 5, 4)
    assert torch.equal(network_of(own).forward(ours[1], inputs), network_of(dense).forward(theirs[1], inputs))


def test_members_that_have_grown_differently_train_together_and_end_as_they_do_alone() -> None:
    check_packing(
        [
            make(0, "poisson", architecture__grown=1),
            make(1, "poisson", architecture__grown=4, noise__scale=0.1),
            make(2, "poisson", architecture__grown=2, architecture__block_connections=0.5),
        ]
    )
    check_taps(make())


def test_blocks_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"architecture\.blocks=9 are more than the units"):
        make(architecture__blocks=9)
    with pytest.raises(ConfigError, match=r"architecture\.grown=5 is more than architecture\.blocks=4"):
        make(architecture__grown=5)
