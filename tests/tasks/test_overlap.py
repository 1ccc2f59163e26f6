import math

import pytest
import torch

from modulab.errors import ConfigError
from modulab.partition import SHARED

FUNCTIONS = [
    lambda x: math.sin(math.pi * x),
    lambda x: 2 * x * x - 1,
    lambda x: 2 * abs(x) - 1,
    lambda x: math.cos(math.pi * x),
]


@pytest.mark.parametrize(("modules", "share"), [(1, 0.0), (2, 0.25), (3, 0.5), (2, 1.0), (4, 1.0)])
def test_each_module_gives_the_mean_of_its_function_over_what_it_reads(make_task, points, modules, share):
    task = make_task("overlap", modules=modules, inputs=4, share=share)
    samples = task.draw(*points(2, 10), "full", "test")
    shared = int(4 * share)
    for inputs, targets in zip(
        samples.inputs.flatten(0, 1).tolist(), samples.targets.flatten(0, 1).tolist(), strict=True
    ):
        for module in range(modules):
            before = (module - 1) % modules
            read = [*inputs[4 * module : 4 * module + 4], *inputs[4 * before : 4 * before + shared]]
            values = [FUNCTIONS[module](each) for each in read]
            assert targets[module] == pytest.approx(sum(values) / len(values), abs=1e-5)


@pytest.mark.parametrize("support", ["full", "band", "cells"])
def test_without_overlap_one_input_each_is_the_regression_task_bit_for_bit(make_task, points, support):
    settings = {
        "modules": 3,
        "support": support,
        "functions": ["teacher", "sine"],
        "nonlinearity": 0.3,
        "cells": 4,
    }
    overlap = make_task("overlap", inputs=1, share=0.0, **settings)
    regression = make_task("regression", **settings)
    assert overlap.partition == regression.partition
    for region in ("train", "full") if support == "full" else ("train", "full", "withheld"):
        found, expected = (task.draw(*points(2, 50), region, "train") for task in (overlap, regression))
        assert torch.equal(found.inputs, expected.inputs)
        assert torch.equal(found.targets, expected.targets)
        assert torch.equal(overlap.changed(found).targets, regression.changed(expected).targets)


def test_at_full_overlap_moving_any_input_moves_two_modules_and_without_one(make_task, points):
    for share, moved in ((0.0, 1), (1.0, 2)):
        task = make_task("overlap", modules=4, inputs=2, share=share, functions=["identity"])
        samples = task.draw(*points(1, 5), "full", "test")
        for place in range(8):
            inputs = samples.inputs.clone()
            inputs[..., place] += 0.1
            targets = task.targets_at(inputs.unflatten(2, (4, 2)))
            assert ((targets - samples.targets).abs() > 1e-3).sum(dim=2).tolist() == [[moved] * 5]


@pytest.mark.parametrize(
    ("share", "labels"),
    [
        (0.0, (0, 0, 1, 1, 2, 2)),
        (0.5, (SHARED, 0, SHARED, 1, SHARED, 2)),
        (1.0, (SHARED,) * 6),
    ],
)
def test_inputs_that_two_modules_read_are_shared(make_task, share, labels):
    assert make_task("overlap", modules=3, inputs=2, share=share).partition.inputs == labels


def test_change_applies_to_all_inputs_that_module_1_reads(make_task, points):
    settings = {"modules": 3, "inputs": 4, "share": 0.5}
    task, other = (
        make_task("overlap", functions=names, **settings)
        for names in (["sine", "cosine", "absolute"], ["parabola", "cosine", "absolute"])
    )
    changed = task.changed(task.draw(*points(2, 50), "full", "test"))
    assert torch.equal(changed.targets, other.draw(*points(2, 50), "full", "test").targets)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"share": 0.3}, ["task.share=0.3", "task.inputs=4", "multiple of 0.25"]),
        ({"modules": 1}, ["task.share=0.5", "task.modules=1", "task.share=0"]),
        ({"share": 1.5}, ["task.share=1.5"]),
        ({"inputs": 0}, ["task.inputs=0"]),
    ],
)
def test_impossible_settings_are_refused_by_name(make_task, changes, words):
    with pytest.raises(ConfigError) as error:
        make_task("overlap", **changes)
    for word in words:
        assert word in str(error.value)
