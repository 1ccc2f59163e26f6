"""Errors and losses of every member, module by module."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from modulab.metrics.probe import Probe, evaluation_samples
from modulab.networks import PopulationWeights, forward
from modulab.tasks.base import Samples, Task


def module_losses(
    outputs: Float[Tensor, "member batch out_features"],
    targets: Float[Tensor, "member batch target"],
    task: Task,
) -> Float[Tensor, "member module"]:
    """Return the batch mean of each module's loss: mean squared error, or cross-entropy in nats."""
    if task.loss == "squared":
        return _mean_squared_errors(outputs, targets, task)
    logits = outputs.unflatten(2, (task.modules, task.outputs_per_module))
    largest = logits.amax(dim=3)
    spread = torch.log(torch.exp(logits - largest[:, :, :, None]).sum(dim=3))
    return (spread + largest - _target_logits(logits, targets)).mean(dim=1)


def module_errors(
    outputs: Float[Tensor, "member batch out_features"],
    targets: Float[Tensor, "member batch target"],
    task: Task,
) -> Float[Tensor, "member module"]:
    """Return each module's error: mean squared error, or 1 - accuracy where the task classifies.

    A class counts as named only if its logit exceeds all others: a tie is an error, and so is NaN.
    """
    if task.loss == "squared":
        return _mean_squared_errors(outputs, targets, task)
    logits = outputs.unflatten(2, (task.modules, task.outputs_per_module))
    classes = torch.arange(task.outputs_per_module, device=outputs.device)
    is_target = targets[:, :, :, None] == classes
    best_other = torch.where(is_target, -torch.inf, logits).amax(dim=3)
    named = _target_logits(logits, targets) > best_other
    return 1 - named.float().mean(dim=1)


def mean_errors(network: PopulationWeights, samples: Samples, task: Task) -> Float[Tensor, " member"]:
    """Return each member's error on samples, averaged over modules."""
    return module_errors(forward(network, samples.inputs).outputs, samples.targets, task).mean(dim=1)


def measure_errors(probe: Probe) -> dict[str, Float[Tensor, " member"]]:
    """Return clean test errors: the mean over modules, each module's own (counted from 1), and in-support error.

    `error/test` is on independent modules, whatever was trained on; `error/train_support` is on new points
    of the training support.
    """
    task = probe.task
    errors = module_errors(probe.clean.outputs, probe.samples.targets, task)
    measures = {"error/test": errors.mean(dim=1)}
    for module in range(task.modules):
        measures[f"error/module_{module + 1}"] = errors[:, module]
    trained = evaluation_samples(task, probe.keys, probe.settings.num_samples, "train")
    measures["error/train_support"] = mean_errors(probe.network, trained, task)
    return measures


def _mean_squared_errors(outputs: Tensor, targets: Tensor, task: Task) -> Tensor:
    squares = (outputs - targets).square().mean(dim=1)
    return squares.unflatten(1, (task.modules, task.outputs_per_module)).mean(dim=2)


def _target_logits(logits: Tensor, targets: Tensor) -> Tensor:
    return logits.gather(3, targets.long()[:, :, :, None])[:, :, :, 0]
