"""A member trained in company ends with the weights it has when trained alone, bit for bit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from modulab.config.settings import Member
from tests.members import make_member
from tests.training.fitting import trained_parameters

NOISES = ("gaussian", "poisson", "multiplicative", "dropout")
REGULARISERS = (
    "activity_weight",
    "scale_free",
    "multiplicative",
    "l1",
    "l2",
    "activity_l1",
    "activity_l2",
    "jacobian",
)

neighbours = st.fixed_dictionaries(
    {
        "noise": st.sampled_from(NOISES),
        "regulariser": st.sampled_from(REGULARISERS),
        "strength": st.sampled_from([0.0, 0.01, 0.3]),
        "seed": st.integers(0, 2**63 - 1),
        "noise__scale": st.sampled_from([0.0, 0.2, 3.0]),
        "architecture__cross_connections": st.sampled_from([0.0, 0.3, 1.0]),
        "data__num_samples": st.sampled_from([1, 7, 64, None]),
        "training__learning_rate": st.sampled_from([1e-3, 0.1, 1e30]),
        "training__weight_decay": st.sampled_from([0.0, 0.1]),
        "training__gradient_clip": st.sampled_from([None, 0.5]),
        "training__schedule": st.sampled_from(["constant", "linear", "cosine"]),
    }
)


def member_of(values: dict[str, Any]) -> Member:
    """Return the member that a draw describes; checking it uses random numbers, which a strategy must not."""
    settings_of = dict(values)
    choices = {"noise": settings_of.pop("noise"), "regulariser": settings_of.pop("regulariser")}
    return make_member(choices, regulariser__strength=settings_of.pop("strength"), **settings_of)


def reshaped(member: Member, width: int, depth: int, batch_size: int, activation: str, steps: int) -> Member:
    """Return a member with other structural settings."""
    architecture = member.architecture.model_copy(
        update={"width": width, "depth": depth, "activation": activation}
    )
    training = member.training.model_copy(
        update={"batch_size": batch_size, "steps": steps, "curve_every": steps}
    )
    return member.model_copy(update={"architecture": architecture, "training": training})


@settings(
    max_examples=12, suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
)  # fmt: skip
@given(
    subject=neighbours,
    company=st.lists(neighbours, min_size=1, max_size=8),
    place=st.integers(0, 8),
    width=st.sampled_from([2, 5, 17, 48]),
    depth=st.integers(0, 2),
    batch_size=st.sampled_from([1, 13, 37, 64]),
    activation=st.sampled_from(["relu", "tanh", "sigmoid", "softplus", "linear"]),
)
def test_company_of_any_kind_leaves_a_members_weights_bit_identical(
    subject: dict[str, Any], company: list[dict[str, Any]], place: int,
    width: int, depth: int, batch_size: int, activation: str,
) -> None:  # fmt: skip
    torch.set_num_threads(1)
    own, *others = [
        reshaped(member_of(values), width, depth, batch_size, activation, 8) for values in [subject, *company]
    ]
    packed = [*others[:place], own, *others[place:]]
    alone = trained_parameters([own])[0]
    together = trained_parameters(packed)[packed.index(own)]
    assert torch.equal(alone.view(torch.int32), together.view(torch.int32))


@pytest.mark.slow
@pytest.mark.usefixtures("unchecked")
def test_member_among_149_others_ends_bit_identical_after_300_steps() -> None:
    torch.set_num_threads(1)
    shared = {
        "training__steps": 300, "training__curve_every": 100, "architecture__width": 24, "training__batch_size": 64,
    }  # fmt: skip
    members = [
        make_member(
            {"noise": NOISES[index % 4], "regulariser": REGULARISERS[index % 8]},
            seed=index // 2,
            noise__scale=0.1 * (index % 5),
            regulariser__strength=0.02 * (index % 3),
            architecture__cross_connections=(1.0, 0.0, 0.5)[index % 3],
            data__num_samples=(16, 256, None)[index % 3],
            training__learning_rate=(1e-3, 3e-3, 1e-2, 1e20)[index % 4],
            **shared,
        )
        for index in range(150)
    ]
    together = trained_parameters(members)
    for index in (0, 59, 122, 149):
        alone = trained_parameters([members[index]])[0]
        assert torch.equal(alone.view(torch.int32), together[index].view(torch.int32)), index
