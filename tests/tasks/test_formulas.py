"""Formulas point by point, and full batches of the same points."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from modulab.errors import ConfigError
from modulab.tasks.base import Task
from tests.members import make_member

Make = Callable[..., Task]
Points = Callable[..., tuple[Tensor, Tensor]]
MODULES = {"independent": 2, "shared": 1, "composed": 2}


def value(formula: str, x: list[float]) -> list[float]:
    if formula == "independent":
        return [(x[0] + x[2]) ** 3, x[1] ** 2 + math.sin(math.pi * x[3])]
    if formula == "shared":
        return [sum(each**2 for each in x[:count]) for count in (1, 2, 3)]
    return [math.hypot(x[0] - x[1], x[2] - x[3])]


@pytest.mark.parametrize("formula", list(MODULES))
def test_targets_are_the_formula_of_uniform_variables(make_task: Make, points: Points, formula: str) -> None:
    task = make_task("formulas", formula=formula, modules=MODULES[formula])
    drawn = task.draw(*points(2, 4000), "train", "train")
    assert drawn.inputs.shape[2] == task.in_features
    torch.testing.assert_close(drawn.inputs.mean(dim=1), torch.zeros(2, task.in_features), rtol=0, atol=0.04)
    torch.testing.assert_close(
        drawn.inputs.var(dim=1), torch.full((2, task.in_features), 1 / 3), rtol=0, atol=0.02
    )
    for inputs, targets in zip(drawn.inputs[1, :20].tolist(), drawn.targets[1, :20].tolist(), strict=True):
        assert targets == pytest.approx(value(formula, inputs), abs=1e-5)


@pytest.mark.parametrize("formula", list(MODULES))
def test_outputs_depend_on_the_variables_of_their_part_alone(make_task: Make, formula: str) -> None:
    partition = make_task("formulas", formula=formula, modules=MODULES[formula]).partition
    base = [0.3, -0.2, 0.5, 0.1][: len(partition.inputs)]
    for variable, part in enumerate(partition.inputs):
        moved = list(base)
        moved[variable] = -0.7
        pairs = zip(value(formula, base), value(formula, moved), partition.outputs, strict=True)
        assert all(before == after or own in (part, -1) for before, after, own in pairs)


def test_a_full_batch_has_the_same_points_at_every_step_and_tests_have_others(
    make_task: Make, points: Points
) -> None:
    task = make_task("formulas", full_batch=5)
    keys, counters = points(2, 15)
    drawn = task.draw(keys, counters, "train", "train").inputs
    assert torch.equal(drawn[:, :5], drawn[:, 5:10])
    assert torch.equal(drawn[:, :5], drawn[:, 10:])
    tested = task.draw(keys, counters, "full", "test").inputs
    assert len(tested[0].unique(dim=0)) == 15


def test_published_points_are_the_first_draws_of_the_published_seed(make_task: Make, points: Points) -> None:
    task = make_task("formulas", formula="shared", modules=1, points="published")
    keys, counters = points(2, 150)
    training, tests = (
        task.draw(keys, counters, "full", "train").inputs,
        task.draw(keys, counters, "full", "test").inputs,
    )
    one_by_one = np.random.RandomState(4)
    drawn = torch.tensor([one_by_one.rand() for _ in range(600)]).view(2, 100, 3) * 2 - 1
    for found, expected in zip((training, tests), drawn, strict=True):
        torch.testing.assert_close(found[0, :100], expected.float())
        assert torch.equal(found[0, 100:], found[0, :50])
        assert torch.equal(found[0], found[1])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"task__full_batch": 8, "data__num_samples": 64}, "data.num_samples=null"),
        (
            {"task__full_batch": 8, "data__num_samples": None, "training__batch_size": 16},
            "training.batch_size=8",
        ),
        ({"task__formula": "shared"}, "task.modules=1"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(changes: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        make_member({"task": "formulas"}, **changes)
