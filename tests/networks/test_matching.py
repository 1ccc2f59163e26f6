"""Networks of equal numbers of parameters: counted entry by entry, and against the formula of one hidden layer."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from modulab.config.identity import run_id
from modulab.config.settings import read_run, structural_key
from modulab.networks.perceptron import Perceptron
from modulab.training.learner import initialise
from modulab.training.program import network_of
from tests.members import make_member, member_config
from tests.training.fitting import trained_parameters


def left_by_the_mask(width: int, modules: int, depth: int, **changes: Any) -> int:
    """Return how many entries a member's mask leaves."""
    member = make_member(
        task__modules=modules, architecture__width=width, architecture__depth=depth,
        **{f"architecture__{key}": value for key, value in changes.items()},
    )  # fmt: skip
    return int(initialise([member], network_of(member))[0].sum())


def width_of(modules: int, width: int, depth: int, share: float = 0.0) -> int:
    """Return the hidden width of a network matched in parameters."""
    network = network_of(
        make_member(
            task__modules=modules, architecture__width=width, architecture__depth=depth,
            architecture__cross_connections=share, architecture__match="parameters",
        )
    )  # fmt: skip
    assert isinstance(network, Perceptron)
    assert len(set(network.hidden_features)) == 1
    return network.hidden_features[0]


@pytest.mark.parametrize("modules", [2, 4, 8])
@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("width", [3, 8, 48, 97])
def test_premodular_network_has_as_nearly_as_equal_modules_allow_the_parameters_of_a_dense_one(
    width: int, depth: int, modules: int
) -> None:
    dense = left_by_the_mask(width, modules, depth)
    matched = width_of(modules, width, depth)
    assert matched % modules == 0
    assert left_by_the_mask(width, modules, depth, match="parameters") == dense
    found = left_by_the_mask(width, modules, depth, match="parameters", cross_connections=0.0)
    near = [
        left_by_the_mask(other, modules, depth, cross_connections=0.0)
        for other in (matched - modules, matched, matched + modules)
        if other > 0
    ]
    assert found in near
    assert abs(found - dense) == min(abs(each - dense) for each in near)


@pytest.mark.parametrize("modules", [2, 4, 8])
@pytest.mark.parametrize("width", [24, 48, 96])
def test_width_of_one_hidden_layer_is_that_of_the_formula(modules: int, width: int) -> None:
    """(2 d + 1) H + d = 3 H' + d, up to half a unit a module."""
    assert abs(width_of(modules, width, 1) - (2 * modules + 1) * width / 3) <= modules / 2


def test_width_of_deep_networks_grows_about_as_the_root_of_the_number_of_modules() -> None:
    for modules in (2, 4, 8):
        ratio = width_of(modules, 400, 8) / 400
        assert ratio == pytest.approx(modules**0.5, rel=0.02)


def test_partial_network_is_matched_on_average_over_masks() -> None:
    changes = {"match": "parameters", "cross_connections": 0.3}
    dense = left_by_the_mask(40, 4, 2)
    members = [
        make_member(
            seed=seed, task__modules=4, architecture__width=40, architecture__depth=2,
            **{f"architecture__{key}": value for key, value in changes.items()},
        )
        for seed in range(200)
    ]  # fmt: skip
    counts = initialise(members, network_of(members[0]))[0].sum(dim=1).double()
    step = left_by_the_mask(width_of(4, 40, 2, 0.3) + 4, 4, 2, cross_connections=0.3) - float(counts[0])
    assert abs(float(counts.mean()) - dense) < abs(step)
    assert width_of(4, 40, 2, 0.0) > width_of(4, 40, 2, 0.3) > width_of(4, 40, 2, 1.0) == 40


def test_matching_width_is_the_network_and_the_name_that_it_always_was() -> None:
    config = member_config(architecture__cross_connections=0.0)
    earlier = config | {"architecture": {k: v for k, v in config["architecture"].items() if k != "match"}}
    assert read_run(earlier).run_id == read_run(config).run_id == run_id(earlier)
    assert read_run(earlier).config["architecture"]["match"] == "width"
    matched = member_config(architecture__cross_connections=0.0, architecture__match="parameters")
    assert read_run(matched).run_id != read_run(config).run_id


def test_members_whose_matched_widths_differ_are_not_packed_together() -> None:
    quick: dict[str, Any] = {
        "architecture__width": 6, "architecture__match": "parameters", "training__steps": 5,
        "training__curve_every": 5, "training__batch_size": 8,
    }  # fmt: skip
    shares = [0.0, 0.0, 0.5, 1.0]
    members = [
        make_member(seed=seed, architecture__cross_connections=share, **quick)
        for seed, share in enumerate(shares)
    ]
    assert len({structural_key(member) for member in members}) == 3
    together = trained_parameters(members[:2])
    for member, row in zip(members[:2], together, strict=True):
        assert torch.equal(trained_parameters([member])[0], row)
    as_ever = [member.architecture.model_copy(update={"match": "width"}) for member in members]
    assert len({each.structure for each in as_ever}) == 1
