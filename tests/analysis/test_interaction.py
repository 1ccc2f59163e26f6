from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from modulab.analysis.analysis import Trained
from tests.analysis.blocks import Formula, block, members, shipped


def of_formula(formula: Callable[[Tensor], Tensor], **settings: object) -> Trained:
    some = members(2, **settings)
    task = some[0].task
    return block(some, torch.zeros(2, 1), Formula(task.in_features, task.out_features, formula))


def stacked(*columns: Tensor) -> Tensor:
    return torch.stack(columns, dim=2)


def test_a_sum_of_functions_has_no_interaction() -> None:
    trained = of_formula(lambda x: stacked(x[..., 0].sin() + x[..., 1].exp(), x[..., 1] ** 3))
    found = shipped("interaction").take(trained)
    assert (found["share"] < 1e-13).all()
    # Of numbers that add up without rounding, it is 0 to the bit.
    exact = of_formula(
        lambda x: (x * 4).round()[..., :1] + stacked(torch.zeros_like(x[..., 1]), x[..., 1].sign())
    )
    assert shipped("interaction").take(exact)["share"].tolist() == [0, 0]


@pytest.mark.parametrize(("one", "other"), [(0.0, 0.0), (1.0, 0.0), (1.0, -2.0)])
def test_a_product_has_the_share_of_its_closed_form(one: float, other: float) -> None:
    """(x + a)(y + b) with variance s = 1/3 of x and y: s^2 / (s^2 + s b^2 + s a^2)."""
    trained = of_formula(lambda x: ((x[..., 0] + one) * (x[..., 1] + other))[..., None].repeat(1, 1, 2))
    found = shipped("interaction", pairs=20_000).take(trained)
    expected = (1 / 9) / (1 / 9 + other**2 / 3 + one**2 / 3)
    torch.testing.assert_close(found["share"], torch.full((2,), expected).double(), rtol=0.05, atol=0)
    assert torch.equal(found["modules_1_2"], found["share"])


def test_a_product_of_three_modules_has_all_of_its_variance_in_each_pair() -> None:
    trained = of_formula(
        lambda x: x.prod(dim=2, keepdim=True).repeat(1, 1, 3), task__modules=3, task__functions=["sine"]
    )
    found = shipped("interaction", pairs=20_000).take(trained)
    for name in ("modules_1_2", "modules_1_3", "modules_2_3", "share"):
        torch.testing.assert_close(found[name], torch.ones(2).double(), rtol=0.1, atol=0)


def test_premodular_networks_have_none_and_dense_ones_some() -> None:
    settings = {"architecture__width": 8, "architecture__depth": 2, "architecture__activation": "tanh"}
    premodular = shipped("interaction").take(block(members(3, "premodular", **settings)))
    assert premodular["share"].tolist() == [0, 0, 0]
    assert premodular["largest"].tolist() == [0, 0, 0]
    assert (shipped("interaction").take(block(members(3, **settings)))["share"] > 1e-4).all()


def test_what_a_network_does_beyond_its_support_is_told_apart() -> None:
    """Additive wherever one input is negative, which is the support `corner`, and not where both are positive."""

    def formula(x: Tensor) -> Tensor:
        joint = 4 * ((x[..., 0] > 0) & (x[..., 1] > 0)).float()
        return (x[..., 0] - x[..., 1] + joint)[..., None].repeat(1, 1, 2)

    found = shipped("interaction").take(of_formula(formula, task__support="corner"))
    assert (found["on_support"] < 1e-13).all()
    assert (found["off_support"] > found["share"]).all()
    full = shipped("interaction").take(of_formula(formula))
    assert "on_support" not in full
    # On a cross, no two modules differ from rest at once.
    cross = shipped("interaction").take(of_formula(formula, task__support="cross"))
    assert cross["on_support"].isnan().all()
    torch.testing.assert_close(cross["off_support"], cross["share"])


def test_a_mixed_code_is_analysed_in_the_coordinates_of_modules() -> None:
    premodular = block(members(2, "premodular", architecture__width=8))
    mixed = block(members(2, "dense", architecture__width=8, task__code="mixed"))
    network = mixed.probe.network.network
    turned = network.turn_inputs(premodular.probe.network.parameters, _rotation(mixed).T)
    found = shipped("interaction").take(block(mixed.members, turned))
    assert (found["share"] < 1e-10).all()


def _rotation(trained: Trained) -> Tensor:
    rotation = trained.probe.rotation
    assert rotation is not None
    return rotation


def test_tasks_of_one_module_and_codes_without_modules_are_skipped_with_the_reason() -> None:
    interaction = shipped("interaction")
    [alone] = members(1, task__modules=1)
    assert interaction.lacking(Formula(1, 1, torch.sin), alone) == "the task has one module"
    [bump] = members(1, task__code="bump")
    reason = interaction.lacking(Formula(25, 2, torch.sin), bump)
    assert reason == "not every module of the task has inputs of its own"
