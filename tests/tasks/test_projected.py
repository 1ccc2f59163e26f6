from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from modulab.errors import ConfigError
from modulab.networks.projected_modules import true_projections
from modulab.tasks.base import Task, as_seen
from modulab.tasks.projected import ProjectedTask, sine_moments

Make = Callable[..., Task]
Points = Callable[..., tuple[Tensor, Tensor]]


def make_projected(make_task: Make, **changes: object) -> ProjectedTask:
    task = make_task("projected", **changes)
    assert isinstance(task, ProjectedTask)
    return task


@pytest.mark.parametrize("coordinates", [1, 2])
def test_moments_of_sines_are_those_of_a_gauss_hermite_quadrature(coordinates: int) -> None:
    generator = torch.Generator().manual_seed(coordinates)
    waves = torch.randn(3, coordinates, generator=generator, dtype=torch.float64)
    phases = 6 * torch.rand(3, generator=generator, dtype=torch.float64)
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    grid = np.stack(np.meshgrid(*[nodes] * coordinates, indexing="ij"), axis=-1)
    joint = np.ones(grid.shape[:-1])
    for axis in range(coordinates):
        joint = joint * weights.reshape([-1 if axis == other else 1 for other in range(coordinates)])
    values = np.sin(grid @ waves.numpy().T + phases.numpy()).sum(axis=-1)
    total = (2 * math.pi) ** (coordinates / 2)
    mean = float((joint * values).sum() / total)
    variance = float((joint * values**2).sum() / total) - mean**2
    assert sine_moments(waves, phases) == pytest.approx((mean, variance), abs=1e-10)


@pytest.mark.parametrize("sizes", [{}, {"modules": 2, "module_features": 3, "sines": 4, "features": 9}])
def test_targets_are_sums_of_sines_with_mean_0_and_variance_1(
    make_task: Make, points: Points, sizes: dict[str, int]
) -> None:
    task = make_projected(make_task, **sizes)
    samples = task.draw(*points(2, 40_000), "train", "train")
    read = samples.inputs.double().numpy()
    expected = np.zeros(read.shape[:2])
    for module in range(task.modules):
        waves, phases = task.waves(module)
        own = read[:, :, module * task.module_features : (module + 1) * task.module_features]
        mean, variance = sine_moments(waves, phases)
        values = np.sin(np.einsum("mbi,ji->mbj", own, waves.numpy()) + phases.numpy()).sum(axis=2)
        expected += (values - mean) / math.sqrt(task.modules * variance)
    np.testing.assert_allclose(samples.targets[:, :, 0], expected, atol=1e-5)
    assert expected.mean() == pytest.approx(0, abs=0.02)
    assert expected.var() == pytest.approx(1, abs=0.02)
    covariance = np.cov(read[0].T)
    np.testing.assert_allclose(covariance, np.eye(task.features), atol=0.04)


def test_what_modules_read_does_not_depend_on_the_number_of_inputs(make_task: Make, points: Points) -> None:
    few, many = (
        make_task("projected", features=features).draw(*points(2, 30), "train", "train")
        for features in (3, 31)
    )
    assert torch.equal(few.inputs, many.inputs[:, :, :3])
    assert torch.equal(few.targets, many.targets)


@pytest.mark.parametrize("code", ["coordinate", "mixed"])
def test_true_projections_give_from_what_is_seen_what_modules_read(
    make_task: Make, points: Points, code: str
) -> None:
    task = make_projected(make_task, code=code, module_features=2, features=11)
    inputs = task.draw(*points(2, 30), "train", "train").inputs
    rows = true_projections(task).flatten(0, 1)
    torch.testing.assert_close(rows @ rows.T, torch.eye(6), atol=1e-6, rtol=0)
    torch.testing.assert_close(as_seen(task, inputs) @ rows.T, inputs[:, :, :6], atol=1e-5, rtol=0)


def test_modules_that_do_not_fit_are_refused(make_task: Make) -> None:
    with pytest.raises(ConfigError, match=r"task\.features=5 inputs have no room .* Set task\.features to 6"):
        make_task("projected", features=5, module_features=2)
