"""Losses against torch's own, module by module, for every kind of partition."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from modulab.errors import ConfigError
from modulab.losses import LOSSES, CrossEntropyLoss, Loss, SquaredLoss, find_loss
from modulab.partition import SHARED, Partition

EQUAL = Partition.of_equal_shares(3, 1, 2)
UNEQUAL = Partition(3, (0, 1, 2), (2, 0, 2, 1, 0, 2))
WITH_SHARED = Partition(2, (0, SHARED), (SHARED, 1, 0, 1, 0, 1))
ALL_SHARED = Partition(2, (0, 1), (SHARED, SHARED, SHARED))
PARTITIONS = pytest.mark.parametrize(
    "partition", [EQUAL, UNEQUAL, WITH_SHARED, ALL_SHARED], ids=["equal", "unequal", "shared", "all_shared"]
)
BATCH = 40


def outputs_of(partition: Partition) -> Tensor:
    return 3 * torch.randn(2, BATCH, len(partition.outputs), generator=torch.Generator().manual_seed(0))


def targets_of(loss: Loss, partition: Partition) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    if isinstance(loss, SquaredLoss):
        return torch.randn(2, BATCH, loss.num_targets(partition), generator=generator)
    classes = [len(partition.judged_outputs(module)) for module in range(partition.modules)]
    columns = [torch.randint(count, (2, BATCH), generator=generator) for count in classes]
    return torch.stack(columns, dim=2).float()


@PARTITIONS
def test_squared_loss_equals_mse_of_each_module(partition: Partition) -> None:
    loss = LOSSES["squared"]
    outputs, targets = outputs_of(partition), targets_of(loss, partition)
    for module in range(partition.modules):
        own = list(partition.judged_outputs(module))
        for member in range(2):
            expected = functional.mse_loss(outputs[member][:, own], targets[member][:, own])
            for found in (loss.by_module, loss.errors):
                torch.testing.assert_close(found(outputs, targets, partition)[member, module], expected)
            mean = targets[member][:, own].mean(dim=0)
            constant = functional.mse_loss(mean.expand(BATCH, -1), targets[member][:, own])
            torch.testing.assert_close(loss.constant_errors(targets, partition)[member, module], constant)


@PARTITIONS
def test_cross_entropy_loss_and_errors_equal_those_of_torch(partition: Partition) -> None:
    loss = LOSSES["cross_entropy"]
    outputs, targets = outputs_of(partition), targets_of(loss, partition)
    for member in range(2):
        for module in range(partition.modules):
            logits = outputs[member][:, list(partition.judged_outputs(module))]
            labels = targets[member, :, module].long()
            torch.testing.assert_close(
                loss.by_module(outputs, targets, partition)[member, module],
                functional.cross_entropy(logits, labels),
            )
            accuracy = (logits.argmax(dim=1) == labels).float().mean()
            torch.testing.assert_close(loss.errors(outputs, targets, partition)[member, module], 1 - accuracy)
            most_frequent = labels.bincount().max() / BATCH
            torch.testing.assert_close(
                loss.constant_errors(targets, partition)[member, module], 1 - most_frequent
            )


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("partition", [EQUAL, UNEQUAL], ids=["equal", "unequal"])
def test_total_is_the_mean_over_modules(name: str, partition: Partition) -> None:
    loss = LOSSES[name]
    outputs, targets = outputs_of(partition), targets_of(loss, partition)
    torch.testing.assert_close(
        loss.total(outputs, targets, partition), loss.by_module(outputs, targets, partition).mean(dim=1)
    )


@PARTITIONS
def test_squared_loss_without_a_unit_equals_that_of_the_network_without_it(partition: Partition) -> None:
    loss = SquaredLoss()
    generator = torch.Generator().manual_seed(2)
    weights = torch.randn(2, len(partition.outputs), 5, generator=generator)
    activity = torch.randn(2, 5, BATCH, generator=generator)
    targets = targets_of(loss, partition)

    def value(kept: Tensor) -> Tensor:
        outputs = torch.bmm(weights, activity * kept[:, None]).transpose(1, 2)
        return loss.by_module(outputs, targets, partition)

    outputs = torch.bmm(weights, activity).transpose(1, 2)
    found = loss.rises_without_units(weights, activity, outputs, targets, partition)
    whole = torch.ones(5)
    for unit in range(5):
        kept = whole.clone()
        kept[unit] = 0
        torch.testing.assert_close(found[:, unit], value(kept) - value(whole), rtol=1e-4, atol=1e-5)


def test_cross_entropy_does_not_overflow() -> None:
    partition = Partition.of_equal_shares(2, 2, 2)
    outputs = torch.tensor([1e4, -1e4, 1e4, -1e4]).view(1, 1, 4)
    losses = CrossEntropyLoss().by_module(outputs, torch.tensor([[[0.0, 1.0]]]), partition)
    assert losses.tolist() == [[0.0, 2e4]]


def test_ties_and_nan_are_not_right_answers() -> None:
    partition = Partition.of_equal_shares(2, 2, 2)
    outputs = torch.tensor([[[1.0, 1.0, torch.nan, 0.0]]])
    for targets in ([0.0, 0.0], [1.0, 1.0]):
        errors = CrossEntropyLoss().errors(outputs, torch.tensor([[targets]]), partition)
        assert errors.tolist() == [[1.0, 1.0]]


def test_losses_are_found_by_name_and_a_misspelt_name_is_rejected() -> None:
    assert find_loss("squared") == find_loss(SquaredLoss()) == SquaredLoss()
    with pytest.raises(ConfigError, match="Did you mean 'squared'"):
        find_loss("sqared")
