"""Forgetting and adaptation: after training, module 1's function changes and only its output is trained on.

Every member goes on from the weights with which it ended, whatever it was trained with, under one rule: Adam
at a constant learning rate on fresh points of its training support, without noise or penalty, its mask kept.
What is compared is how the networks take a change, not how their own ways of training would have made it:
under noise or a penalty an arm would also learn at another speed and spare other weights.

Nothing in the loss holds the other modules' outputs in place, so their errors rise by as much as the weights
that module 1 moves are theirs as well: not at all, to the bit, in a premodular network. Errors are those on
test points of the training support, where all that was learned can be forgotten.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from modulab.config.settings import Probes
from modulab.metrics.measure import Column, measure
from modulab.metrics.probe import Probe, drawn_samples
from modulab.optimisers import UPDATES
from modulab.streams import Stream, fold_in
from modulab.tasks.base import Samples, Task, as_seen

_BETA1, _BETA2, _EPSILON = 0.9, 0.999, 1e-8
"""Adam's coefficients, those of D. Kingma and J. Ba, 2015."""
_SECONDS_PER_STEP = 2e-4
"""Of adapting one network; twice that for classes, five times for digits."""
_DRAWN_POINTS = 4096
"""About how many points a member are drawn at once, which bounds memory and changes no result."""


@dataclass(frozen=True)
class Adaptation:
    """Each module's error on the changed task, at looks during adaptation, and what module 1 is judged by."""

    steps: list[int]
    """After how many steps each look was taken, from 0 on."""
    errors: Float[Tensor, "look member module"]
    constant_errors: Float[Tensor, " member"]
    """Module 1's error if it gave the best answer that does not depend on its input."""


@measure(
    Column("forgetting/others_rise", "Rise of other modules' error"),
    Column("forgetting/others_rise_at_learned", "Rise of other modules' error when learned"),
    Column("forgetting/adaptation_steps", "Steps until learned"),
    Column("forgetting/module_1", "Module 1's error after adaptation"),
    needs=("output_modules",),
    seconds=lambda probes: _SECONDS_PER_STEP * probes.adaptation_steps,
)
def measure_forgetting(probe: Probe) -> dict[str, Float[Tensor, " member"]]:
    """Return how far the other modules' errors rise while module 1 learns another function, and how long it takes.

    Module 1 counts as learned from the first look at which its error is below `probes.adaptation_error` of
    that of a constant answer: a mark that depends on the task alone and so is the same for all arms, where a
    share of a network's own error at the change would be a lower one for networks that start off better.

    - `forgetting/others_rise`: rise of the other modules' mean error by the last step.
    - `forgetting/others_rise_at_learned`: the same by the step at which module 1 is learned, so that members
      are compared at equal adaptation.
    - `forgetting/adaptation_steps`: that step; the last one, which then means "at least", if it never is.
    - `forgetting/module_1`: module 1's error after the last step.

    No rises with one module, and nothing for tasks that have no other function (`Task.changed`).
    """
    adaptation = adapt(probe)
    if adaptation is None:
        return {}
    own, others = adaptation.errors[:, :, 0], adaptation.errors[:, :, 1:]
    learned = own < probe.settings.adaptation_error * adaptation.constant_errors
    first = torch.where(learned.any(dim=0), learned.int().argmax(dim=0), len(learned) - 1)
    steps = torch.tensor(adaptation.steps, device=own.device)[first].double()
    measures = {
        "forgetting/adaptation_steps": torch.where(own[-1].isfinite(), steps, torch.nan),
        "forgetting/module_1": own[-1],
    }
    if probe.task.modules > 1:
        rises = others.mean(dim=2) - others[0].mean(dim=1)
        measures["forgetting/others_rise"] = rises[-1]
        measures["forgetting/others_rise_at_learned"] = rises.gather(0, first[None])[0]
    return measures


def adapt(probe: Probe) -> Adaptation | None:
    """Train each member of a probe on with module 1's function changed; None where the task has no other."""
    task, settings, network = probe.task, probe.settings, probe.network.network
    tested = task.changed(drawn_samples(task, probe.keys, settings.num_samples, "train"))
    if tested is None:
        return None
    seen = _as_seen(task, tested)

    def errors_of(parameters: Tensor) -> Tensor:
        outputs = network.forward(parameters, seen.inputs)
        return task.loss_function.errors(outputs, seen.targets, task.partition)

    def loss_of(parameters: Tensor, minibatch: Samples) -> Tensor:
        outputs = network.forward(parameters, minibatch.inputs)
        return task.loss_function.by_module(outputs, minibatch.targets, task.partition)[:, 0].sum()

    parameters = probe.seen_network.parameters
    moments = (torch.zeros_like(parameters), torch.zeros_like(parameters))
    coefficients = _adam_coefficients(parameters.device)
    rows = _adam_rows(settings).to(parameters.device)
    minibatches = _minibatches(probe)
    last = settings.adaptation_steps
    steps = [*range(0, last, settings.adaptation_every), last]
    errors = [errors_of(parameters)]
    for begin, end in pairwise(steps):
        for row in rows[begin:end]:
            gradients = _gradients(loss_of, parameters, next(minibatches)) * probe.mask
            parameters, moments = UPDATES["adam"](parameters, gradients, moments, coefficients, row)
        errors.append(errors_of(parameters))
    constant = task.loss_function.constant_errors(tested.targets, task.partition)[:, 0]
    return Adaptation(steps, torch.stack(errors), constant)


def _gradients(
    loss_of: Callable[[Tensor, Samples], Tensor], parameters: Tensor, minibatch: Samples
) -> Tensor:
    # Not torch.func.grad as in a training step: op by op it takes nearly twice as long.
    with torch.enable_grad():
        leaf = parameters.detach().requires_grad_()
        return torch.autograd.grad(loss_of(leaf, minibatch), leaf)[0]


def _adam_rows(settings: Probes) -> Float[Tensor, "step 3 1"]:
    """Return each step's learning rate and bias corrections, as `UPDATES` take them, one for all members."""
    numbers = torch.arange(1, settings.adaptation_steps + 1, dtype=torch.float64)
    rates = torch.full_like(numbers, settings.adaptation_learning_rate)
    columns = [rates, 1 - _BETA1**numbers, (1 - _BETA2**numbers).sqrt()]
    return torch.stack(columns, dim=1).float().unsqueeze(2)


def _adam_coefficients(device: torch.device) -> dict[str, Tensor]:
    values = {"beta1": _BETA1, "beta2": _BETA2, "epsilon": _EPSILON, "weight_decay": 0.0}
    return {name: torch.tensor([value], device=device) for name, value in values.items()}


def _minibatches(probe: Probe) -> Iterator[Samples]:
    """Yield minibatches of the changed task as the network sees it, each of fresh points, for ever."""
    task, batch = probe.task, probe.settings.adaptation_batch_size
    keys = fold_in(probe.keys, Stream.ADAPTATION)
    count = batch * min(probe.settings.adaptation_steps, max(1, _DRAWN_POINTS // batch))
    for first in itertools.count(0, count):
        counters = torch.arange(first, first + count, dtype=torch.int32, device=keys.device)
        drawn = task.changed(task.draw(keys, counters.expand(len(keys), count), "train", "train"))
        assert drawn is not None
        seen = _as_seen(task, drawn)
        for inputs, targets in zip(seen.inputs.split(batch, 1), seen.targets.split(batch, 1), strict=True):
            yield Samples(inputs, targets)


def _as_seen(task: Task, samples: Samples) -> Samples:
    """Return points as the network sees them, and laid out with the batch innermost as `forward` reads it."""
    inputs = as_seen(task, samples.inputs).transpose(1, 2).contiguous().transpose(1, 2)
    return Samples(inputs, samples.targets)
