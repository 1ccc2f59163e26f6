import pytest
import torch
from populations import make_task, probe_of
from torch.nn import functional

from modulab.metrics.errors import measure_errors, module_errors, module_losses
from modulab.networks import PopulationWeights


def test_squared_errors_equal_mse_of_each_module() -> None:
    task = make_task(modules=3)
    outputs, targets = torch.randn(2, 2, 50, 3, generator=torch.Generator().manual_seed(0))
    for member in range(2):
        for module in range(3):
            expected = functional.mse_loss(outputs[member, :, module], targets[member, :, module])
            for function in (module_errors, module_losses):
                torch.testing.assert_close(function(outputs, targets, task)[member, module], expected)


@pytest.mark.parametrize("name", ["classification", "digits"])
def test_classification_losses_and_errors_equal_those_of_torch(name: str) -> None:
    task = make_task(name)
    classes = task.outputs_per_module
    generator = torch.Generator().manual_seed(0)
    outputs = 3 * torch.randn(2, 60, task.out_features, generator=generator)
    targets = torch.randint(classes, (2, 60, 2), generator=generator).float()
    for member in range(2):
        for module in range(2):
            logits = outputs[member, :, module * classes : (module + 1) * classes]
            labels = targets[member, :, module].long()
            torch.testing.assert_close(
                module_losses(outputs, targets, task)[member, module],
                functional.cross_entropy(logits, labels),
            )
            accuracy = (logits.argmax(dim=1) == labels).float().mean()
            torch.testing.assert_close(module_errors(outputs, targets, task)[member, module], 1 - accuracy)


def test_cross_entropy_does_not_overflow() -> None:
    task = make_task("classification")
    outputs = torch.tensor([1e4, -1e4, 1e4, -1e4]).view(1, 1, 4)
    losses = module_losses(outputs, torch.tensor([[[0.0, 1.0]]]), task)
    assert losses.tolist() == [[0.0, 2e4]]


def test_ties_and_nan_are_not_right_answers() -> None:
    task = make_task("classification")
    outputs = torch.tensor([[[1.0, 1.0, torch.nan, 0.0]]])
    for targets in ([0.0, 0.0], [1.0, 1.0]):
        assert module_errors(outputs, torch.tensor([[targets]]), task).tolist() == [[1.0, 1.0]]


@pytest.mark.parametrize("support", ["full", "band"])
def test_test_error_is_on_full_support_and_support_error_on_that_of_training(support: str) -> None:
    # y_m = x_m, and the network says x_1 for both: module 2 errs by x_1 - x_2, of mean square 2/3 if they are
    # independent, and at most w^2 E[(v_1 - v_2)^2] = 2 w^2 / 3 on the band.
    task = make_task(functions=["identity"], support=support, band_width=0.3)
    network = PopulationWeights(
        (torch.tensor([[1.0, 0.0]] * 2).expand(3, 2, 2),), (torch.zeros(3, 2),), "relu"
    )
    found = measure_errors(probe_of(task, network, num_samples=20_000))
    assert found["error/module_1"].tolist() == [0.0] * 3
    torch.testing.assert_close(found["error/module_2"], torch.full((3,), 2 / 3), rtol=0.05, atol=0)
    torch.testing.assert_close(found["error/test"], found["error/module_2"] / 2)
    on_support = found["error/train_support"]
    if support == "full":
        torch.testing.assert_close(on_support, torch.full((3,), 1 / 3), rtol=0.05, atol=0)
    else:
        assert ((on_support > 0.5 * 0.03) & (on_support < 0.031)).all()
