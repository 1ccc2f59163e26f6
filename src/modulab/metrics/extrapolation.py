"""Error beyond the training data: combinations never seen, and inputs out of range."""

from __future__ import annotations

from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor

from modulab.metrics.errors import mean_errors, support_errors
from modulab.metrics.measure import Column, measure
from modulab.metrics.native import module_errors
from modulab.metrics.probe import Probe, evaluation_samples, outputs_on, widened_samples


@measure(
    Column("error_beyond/combination", "Error on withheld combinations"),
    Column("error_beyond/combination_ratio", "Error on withheld / seen combinations"),
    needs=("withheld",),
)
def measure_combination(probe: Probe) -> dict[str, Float[Tensor, " member"]]:
    """Return error where the training support withheld combinations, and its ratio to in-support error.

    Nothing where the task withholds none. In-support error counts in the ratio as at least the smallest
    share of points that could be distinguished, so a perfect classifier does not divide by zero.
    """
    task, num_samples = probe.task, probe.settings.num_samples
    withheld = evaluation_samples(task, probe.keys, num_samples, "withheld")
    error = mean_errors(probe.network, withheld, task, probe.kernels)
    resolution = task.loss_function.resolution(num_samples, task.partition)
    in_support = probe.once(support_errors).clamp(min=resolution)
    return {"error_beyond/combination": error, "error_beyond/combination_ratio": error / in_support}


@measure(
    Column(
        "error_beyond/other_range@{factor}",
        "Error, other inputs at {factor} times their range",
        family="Error, other inputs beyond range",
    ),
    Column(
        "error_beyond/own_range@{factor}",
        "Error, own inputs at {factor} times their range",
        family="Error, own inputs beyond range",
    ),
    needs=("ranges", "output_modules"),
)
def measure_ranges(probe: Probe) -> dict[str, Float[Tensor, " member"]]:
    """Return error on module m's output while inputs range to r times the training range, averaged over m.

    `error_beyond/other_range@r` widens the other modules' inputs, `error_beyond/own_range@r` m's own.
    Points at different r are the same points, stretched. Nothing where the task's inputs have no range; no
    other range with one module.
    """
    task = probe.task
    measures: dict[str, Tensor] = {}

    @cache
    def errors_at(scales: tuple[float, ...]) -> Tensor:
        # With two modules, the points at which one's own input is widened are those for the other's.
        stretched = torch.tensor(scales, device=probe.keys.device)
        samples = widened_samples(probe, stretched)
        outputs = outputs_on(probe.network, samples.inputs, probe.kernels)
        return module_errors(task, outputs, samples.targets, probe.kernels)

    def range_error(own: float, other: float) -> Tensor:
        modules = range(task.modules)
        errors = [
            errors_at(tuple(own if module == widened else other for module in modules))[:, widened]
            for widened in modules
        ]
        # One row per member: over a stack, the last members would be added up in another order.
        return torch.stack(errors, dim=1).mean(dim=1)

    for factor in probe.settings.ranges:
        if task.modules > 1:
            measures[f"error_beyond/other_range@{factor:g}"] = range_error(1.0, factor)
        measures[f"error_beyond/own_range@{factor:g}"] = range_error(factor, 1.0)
    return measures
