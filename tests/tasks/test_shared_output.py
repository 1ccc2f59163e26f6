import numpy as np
import torch

from modulab.partition import SHARED


def test_output_is_the_sum_over_modules_of_their_functions(make_task, points):
    task = make_task("shared_output", modules=5)
    samples = task.draw(*points(3, 40), "full", "test")
    x = samples.inputs.double().numpy()
    expected = (
        np.sin(np.pi * x[..., 0])
        + 2 * x[..., 1] ** 2
        - 1
        + 2 * np.abs(x[..., 2])
        - 1
        + np.cos(np.pi * x[..., 3])
        + np.sin(np.pi * x[..., 4])
    )
    np.testing.assert_allclose(samples.targets[..., 0], expected, atol=3e-6)


def test_output_is_the_sum_of_those_of_the_regression_task(make_task, points):
    settings = {
        "functions": ["legendre", "teacher"],
        "degree": 3,
        "nonlinearity": 0.5,
        "support": "band",
        "modules": 3,
    }
    found, apart = (
        make_task(name, **settings).draw(*points(2, 40), "train", "train")
        for name in ("shared_output", "regression")
    )
    assert torch.equal(found.inputs, apart.inputs)
    torch.testing.assert_close(found.targets[..., 0], apart.targets.sum(dim=2))


def test_inputs_have_modules_and_the_output_has_none(make_task):
    task = make_task("shared_output", modules=3)
    assert task.partition.inputs == (0, 1, 2)
    assert task.partition.outputs == (SHARED,)
    assert task.num_targets == task.out_features == 1


def test_no_function_changes_for_one_module_alone(make_task, points):
    task = make_task("shared_output")
    assert task.changed(task.draw(*points(1, 5), "full", "test")) is None
