"""Error beyond the training data: combinations never seen, and inputs out of range."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from modulab.metrics.errors import mean_errors, module_errors
from modulab.metrics.probe import Probe, evaluation_samples
from modulab.networks import forward


def measure_combination(probe: Probe) -> dict[str, Float[Tensor, " member"]]:
    """Return error where the training support withheld combinations, and its ratio to in-support error.

    Nothing where the task withholds none. In-support error counts in the ratio as at least the smallest
    share of points that could be told apart, lest a classifier without a fault divide by 0.
    """
    task, num_samples = probe.task, probe.settings.num_samples
    if not task.withholds:
        return {}
    withheld = evaluation_samples(task, probe.keys, num_samples, "withheld")
    trained = evaluation_samples(task, probe.keys, num_samples, "train")
    error = mean_errors(probe.network, withheld, task)
    resolution = torch.finfo(error.dtype).tiny if task.loss == "squared" else 1 / (num_samples * task.modules)
    in_support = mean_errors(probe.network, trained, task).clamp(min=resolution)
    return {"extrapolation/combination": error, "extrapolation/combination_ratio": error / in_support}


def measure_ranges(probe: Probe) -> dict[str, Float[Tensor, " member"]]:
    """Return error on module m's output while inputs range to r times the training range, averaged over m.

    `extrapolation/other_range@r` widens the other modules' inputs, `extrapolation/own_range@r` m's own.
    Points at different r are the same points, stretched. Nothing where the task's inputs have no range; no
    other range with one module.
    """
    task = probe.task
    measures: dict[str, Tensor] = {}
    if not task.ranges:
        return measures
    for factor in probe.settings.ranges:
        if task.modules > 1:
            measures[f"extrapolation/other_range@{factor:g}"] = _range_error(probe, factor, own=False)
        measures[f"extrapolation/own_range@{factor:g}"] = _range_error(probe, factor, own=True)
    return measures


def _range_error(probe: Probe, factor: float, own: bool) -> Tensor:
    task = probe.task
    errors: list[Tensor] = []
    for module in range(task.modules):
        widened = torch.arange(task.modules) == module
        scales = torch.where(widened if own else ~widened, factor, 1.0).to(probe.keys.device)
        samples = evaluation_samples(task, probe.keys, probe.settings.num_samples, "full", scales)
        outputs = forward(probe.network, samples.inputs).outputs
        errors.append(module_errors(outputs, samples.targets, task)[:, module])
    return torch.stack(errors).mean(dim=0)
