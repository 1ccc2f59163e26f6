"""Errors and losses of every member, module by module."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from modulab.metrics.measure import Column, measure
from modulab.metrics.native import NO_KERNELS, Kernels, module_errors
from modulab.metrics.probe import Probe, evaluation_samples, outputs_on
from modulab.networks.base import NetworkPopulation
from modulab.tasks.base import Samples, Task


def mean_errors(
    network: NetworkPopulation, samples: Samples, task: Task, kernels: Kernels = NO_KERNELS
) -> Float[Tensor, " member"]:
    """Return each member's error on samples, averaged over modules."""
    outputs = outputs_on(network, samples.inputs, kernels)
    return module_errors(task, outputs, samples.targets, kernels).mean(dim=1)


def support_errors(probe: Probe) -> Float[Tensor, " member"]:
    """Return each member's error on new points of the training support."""
    trained = evaluation_samples(probe.task, probe.keys, probe.settings.num_samples, "train")
    return mean_errors(probe.network, trained, probe.task, probe.kernels)


@measure(
    Column("error/test", "Test error"),
    Column("error/module_{module}", "Test error of module {module}"),
    Column("error/train_support", "Error in the training support"),
)
def measure_errors(probe: Probe) -> dict[str, Float[Tensor, " member"]]:
    """Return clean test errors: the mean over modules, each module's own (counted from 1), and in-support error.

    `error/test` is on independent modules, whatever was trained on; `error/train_support` is on new points
    of the training support.
    """
    task = probe.task
    errors = module_errors(task, probe.outputs, probe.samples.targets, probe.kernels)
    measures = {"error/test": errors.mean(dim=1)}
    for module in range(task.modules):
        measures[f"error/module_{module + 1}"] = errors[:, module]
    if probe.asks("error/train_support"):
        measures["error/train_support"] = probe.once(support_errors)
    return measures
