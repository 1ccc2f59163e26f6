import math

import numpy as np
import pytest
import torch
from scipy import special

from modulab.errors import ConfigError
from modulab.tasks.base import Samples
from modulab.tasks.regression import legendre, module_function

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


def gauss_legendre(points=400):
    """Return nodes and weights for means over [-1, 1]; each half has its own, so that |x| is integrated exactly too."""
    nodes, weights = special.roots_legendre(points)
    nodes = np.concatenate([(nodes - 1) / 2, (nodes + 1) / 2])
    return torch.from_numpy(nodes), torch.from_numpy(np.concatenate([weights, weights]) / 4)


def test_legendre_polynomials_are_orthogonal_and_have_their_norm():
    nodes, weights = gauss_legendre()
    values = torch.stack([legendre(nodes, degree) for degree in range(1, 21)])
    products = (values * weights) @ values.T
    torch.testing.assert_close(products, torch.diag(1 / (2 * torch.arange(1.0, 21.0).double() + 1)))


def test_legendre_polynomials_are_those_of_scipy_and_fill_their_range():
    for degree in range(1, 21):
        expected = torch.from_numpy(special.eval_legendre(degree, GRID.double().numpy()))
        torch.testing.assert_close(legendre(GRID.double(), degree), expected)
        outputs = module_function("legendre", 0, 0, degree)(GRID)
        torch.testing.assert_close(outputs.double(), expected, atol=1e-5, rtol=0)
        assert outputs.abs().max() <= 1.000001


def test_degree_is_that_of_every_legendre_function(make_task, points):
    task = make_task("regression", modules=3, functions=["legendre", "identity"], degree=4)
    samples = task.draw(*points(2, 50), "train", "train")
    fourth = (35 * samples.inputs**4 - 30 * samples.inputs**2 + 3) / 8
    torch.testing.assert_close(samples.targets[:, :, ::2], fourth[:, :, ::2], atol=1e-6, rtol=0)
    assert torch.equal(samples.targets[:, :, 1], samples.inputs[:, :, 1])


@pytest.mark.parametrize("share", [0.0, 0.1, 0.75])
def test_nonlinearity_is_the_share_of_the_function_in_targets(make_task, points, share):
    linear, nonlinear, between = (
        make_task("regression", nonlinearity=b).draw(*points(2, 50), "full", "test")
        for b in (0.0, 1.0, share)
    )
    assert torch.equal(linear.targets, linear.inputs)
    assert torch.equal(between.inputs, nonlinear.inputs)
    expected = (1 - share) * between.inputs.double() + share * nonlinear.targets.double()
    torch.testing.assert_close(between.targets.double(), expected, atol=2e-7, rtol=0)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 1.0])
@pytest.mark.parametrize(
    ("name", "degree"),
    [
        *((name, 1) for name in ("sine", "parabola", "absolute", "cosine", "identity")),
        *(("legendre", degree) for degree in range(1, 21)),
    ],
)
def test_changed_function_is_uncorrelated_with_the_old_one_over_the_range(make_task, name, degree, share):
    nodes, weights = gauss_legendre()
    inputs = torch.stack([nodes, nodes], dim=1)[None]
    for module, names in enumerate(([name, "cosine"], ["cosine", name])):
        task = make_task("regression", functions=names, degree=degree, nonlinearity=share)
        samples = Samples(inputs, task.targets_at(inputs[..., None]))
        changed = task.changed(samples, module)
        assert torch.equal(changed.targets[:, :, 1 - module], samples.targets[:, :, 1 - module])
        old, new = (each.targets[0, :, module] for each in (samples, changed))
        old, new = (values - values @ weights for values in (old, new))
        assert ((old * new) @ weights).abs() < 1e-9
        assert (new.square() @ weights) > 0.1


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
        ({"nonlinearity": 1.1}, ["task.nonlinearity=1.1"]),
        ({"degree": 0}, ["task.degree=0"]),
        ({"degree": 21}, ["task.degree=21"]),
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
