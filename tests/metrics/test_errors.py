import pytest
import torch
from populations import make_network, make_task, probe_of
from torch.nn import functional

from modulab.metrics.errors import measure_errors, module_errors, module_losses


def test_squared_errors_equal_mse_of_each_module() -> None:
    task = make_task(modules=3)
    outputs, targets = torch.randn(2, 50, 3), torch.randn(2, 50, 3)
    for member in range(2):
        for module in range(3):
            expected = functional.mse_loss(outputs[member, :, module], targets[member, :, module])
            for function in (module_errors, module_losses):
                torch.testing.assert_close(function(outputs, targets, task)[member, module], expected)


@pytest.mark.parametrize("name", ["classification", "digits"])
def test_classification_losses_and_errors_equal_those_of_torch(name: str) -> None:
    task = make_task(name)
    classes = task.outputs_per_module
    outputs = 3 * torch.randn(2, 60, task.out_features)
    targets = torch.randint(classes, (2, 60, 2)).float()
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


def test_test_error_is_the_mean_over_modules_and_in_support_error_differs_only_off_full_support() -> None:
    for support, differs in (("full", False), ("band", True)):
        task = make_task(support=support)
        found = measure_errors(probe_of(task, make_network(task, 12), num_samples=8_000))
        modules = torch.stack([found["error/module_1"], found["error/module_2"]])
        assert torch.equal(found["error/test"], modules.mean(dim=0))
        ratio = found["error/train_support"] / found["error/test"]
        assert bool(((ratio - 1).abs() > 0.05).any()) == differs
