"""About how long training takes: the products of wide layers count, whatever the engine."""

from __future__ import annotations

from typing import Any

import pytest

from modulab.config.settings import read_run
from modulab.training.cost import EAGER, NATIVE, step_seconds
from tests.members import member_config

JOINT = {"task__code": "bump", "task__bump_grid": 5, "training__steps": 1000}


@pytest.mark.parametrize(
    ("settings", "microseconds"),
    [  # of a step of a network, measured on one core with the native engine and minibatches of 256
        ({**JOINT, "task__modules": 3, "architecture__width": 72}, 161),
        ({**JOINT, "task__modules": 4, "architecture__width": 96}, 1458),
        ({"architecture__width": 512}, 50),
        ({"architecture__width": 128, "architecture__depth": 3}, 725),
    ],
)
def test_wide_layers_take_the_time_of_their_products(settings: dict[str, Any], microseconds: float) -> None:
    member = read_run(member_config(**settings)).member
    estimate = step_seconds([member], NATIVE.packed) / member.training.steps
    assert microseconds / 2 < 1e6 * estimate < 2 * microseconds
    # What no engine saves plays no part in the choice of one.
    saved = step_seconds([member], EAGER.packed) - step_seconds([member], NATIVE.packed)
    values = member.training.batch_size * member.architecture.network(member.task).step_units
    assert saved == pytest.approx(member.training.steps * values * (EAGER.noiseless - NATIVE.noiseless))
