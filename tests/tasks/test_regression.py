import math

import pytest
import torch

from modulab.errors import ConfigError
from modulab.tasks.regression import module_function

GRID = torch.linspace(-1, 1, 20001)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("sine", {-0.5: -1, 0.0: 0, 0.5: 1, 1.0: 0, 2.5: 1}),
        ("parabola", {-1.0: 1, 0.0: -1, 0.5: -0.5, 2.0: 7}),
        ("absolute", {-1.0: 1, 0.0: -1, 0.25: -0.5, -2.0: 3}),
        ("cosine", {-1.0: -1, 0.0: 1, 0.5: 0, 2.0: 1}),
        ("identity", {-1.0: -1, 0.3: 0.3, 4.0: 4}),
    ],
)
def test_functions_take_their_known_values(name, values):
    outputs = module_function(name, 0, 0)(torch.tensor(list(values)))
    torch.testing.assert_close(outputs, torch.tensor(list(values.values())).float(), atol=2e-6, rtol=0)


@pytest.mark.parametrize("name", ["fourier", "teacher"])
@pytest.mark.parametrize("seed", [0, 1, 2**40])
def test_random_functions_just_fill_the_target_range(name, seed):
    for module in range(4):
        outputs = module_function(name, seed, module)(GRID)
        assert abs(outputs.min().item() + 1) < 1e-4
        assert abs(outputs.max().item() - 1) < 1e-4


@pytest.mark.parametrize("name", ["fourier", "teacher"])
def test_random_functions_differ_between_seeds_and_modules(name):
    outputs = [module_function(name, seed, module)(GRID) for seed in range(3) for module in range(3)]
    for index, first in enumerate(outputs):
        for second in outputs[:index]:
            assert (first - second).abs().max() > 0.1


def test_fourier_function_holds_four_harmonics_and_a_constant():
    outputs = module_function("fourier", 0, 0)(torch.arange(64) / 32 - 1.0)
    spectrum = torch.fft.rfft(outputs).abs() / 64
    assert (spectrum[1:5] > 1e-3).all()
    assert (spectrum[5:] < 1e-5).all()


def test_functions_are_cycled_over_modules(make_task, points):
    task = make_task("regression", modules=5, functions=["sine", "identity"])
    samples = task.draw(*points(2, 50), "train", "train")
    for module in range(5):
        inputs, targets = samples.inputs[:, :, module], samples.targets[:, :, module]
        expected = inputs if module % 2 else torch.sin(math.pi * inputs)
        torch.testing.assert_close(targets, expected, atol=1e-6, rtol=0)


def test_scales_multiply_inputs_and_targets_are_the_function_there(make_task, points):
    task = make_task("regression", modules=3, functions=["parabola", "identity"])
    plain = task.draw(*points(2, 50), "full", "test")
    scales = torch.tensor([1.0, 4.0, 10.0])
    wide = task.draw(*points(2, 50), "full", "test", scales)
    assert torch.equal(wide.inputs, plain.inputs * scales)
    assert torch.equal(wide.targets[:, :, 0], plain.targets[:, :, 0])
    assert torch.equal(wide.targets[:, :, 1], 4.0 * plain.inputs[:, :, 1])
    assert torch.equal(wide.targets[:, :, 2], 2.0 * wide.inputs[:, :, 2].square() - 1.0)
    assert task.ranges


@pytest.mark.parametrize(
    ("functions", "expected"),
    [
        (["sine", "absolute"], ["parabola", "absolute", "sine"]),
        (["parabola"], ["sine", "parabola", "parabola"]),
        (["absolute"], ["sine", "absolute", "absolute"]),
        (["cosine", "identity", "fourier"], ["sine", "identity", "fourier"]),
        (["identity"], ["parabola", "identity", "identity"]),
        (["teacher"], ["sine", "teacher", "teacher"]),
    ],
)
def test_change_replaces_the_first_modules_function_by_an_uncorrelated_one(
    make_task, points, functions, expected
):
    task = make_task("regression", modules=3, functions=functions)
    changed = task.changed(task.draw(*points(2, 50), "full", "test"))
    other = make_task("regression", modules=3, functions=expected)
    assert torch.equal(changed.targets, other.draw(*points(2, 50), "full", "test").targets)
    old, new = (module_function(names[0], 0, 0)(GRID.double()) for names in (functions, expected))
    if functions != ["teacher"]:
        assert abs(torch.corrcoef(torch.stack([old, new]))[0, 1]) < 1e-6


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"modules": 1, "support": "band"}, ["task.support=band", "task.modules=1", "2 or more"]),
        ({"modules": 1, "support": "cells"}, ["task.support=cells", "task.modules=1"]),
        ({"support": "cells", "withheld_fraction": 0.001}, ["task.withheld_fraction=0.001", "nothing"]),
        ({"support": "cells", "withheld_fraction": 0.95}, ["task.withheld_fraction=0.95", "0.75"]),
        ({"support": "cells", "modules": 30}, ["task.modules=30", "10 or less"]),
        ({"support": "cells", "cells": 5000}, ["5000^2", "fewer cells"]),
        ({"band_width": 0.5}, ["task.band_width=0.5", "less than 0.5", "withheld region begins"]),
        ({"band_width": -0.1}, ["task.band_width=-0.1"]),
        ({"functions": []}, ["task.functions", "at least 1"]),
        ({"functions": ["sin"]}, ["task.functions.0='sin'", "'sine'"]),
        ({"support": "labels"}, ["task.support='labels'", "'band'"]),
        ({"function_seed": -1}, ["task.function_seed=-1"]),
        ({"cells": 1}, ["task.cells=1"]),
        ({"withheld_fraction": 1.0}, ["task.withheld_fraction=1.0"]),
        ({"suport": "full"}, ["task.suport", "'support'"]),
    ],
)
def test_impossible_settings_are_refused_by_name(make_task, changes, words):
    with pytest.raises(ConfigError) as error:
        make_task("regression", **changes)
    for word in words:
        assert word in str(error.value)


def test_settings_of_other_supports_do_not_get_in_the_way(make_task):
    assert not make_task("regression", modules=1).withholds
    assert make_task("regression", modules=500, support="corner").withholds
    assert not make_task("regression", modules=500, withheld_fraction=1e-9).withholds
