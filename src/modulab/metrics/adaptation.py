"""Adaptation: trained networks learn one module's new function, under one rule for all of them.

Every member continues from its weights, whatever it was trained with: `probes.adaptation_optimiser` at a constant
learning rate on fresh points of its training support, without noise or penalty, its mask kept. The comparison
is of how the networks adapt to a change, not of their training settings: with noise or a penalty an arm would also
learn at another speed and change other weights.

The loss is that of one module. Nothing in it keeps the other modules' outputs unchanged, so their errors change to the
extent that modules share the weights that are moved; in a premodular network they do not change at all. Adam divides
each gradient by its usual size, and so moves a weight that hardly serves the module about as far as one that serves it
alone; gradient descent moves it in proportion. Errors are those on test points of the training support, where all that
was learned can be forgotten.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Bool, Float, Float64, Int32, Int64
from torch import Tensor

from modulab.config.settings import Probes
from modulab.foreign import own_draws_only
from modulab.metrics.probe import Probe, drawn_samples
from modulab.optimisers import UPDATES
from modulab.tasks.base import Samples, Task, as_seen, checked_samples, draw_points

SECONDS_PER_STEP = 2e-4
"""Time of one step of adapting one network; twice that for classes, five times that for digits."""
_BETA1, _BETA2, _EPSILON = 0.9, 0.999, 1e-8
"""Adam's coefficients, those of D. Kingma and J. Ba, 2015."""
_DRAWN_POINTS = 4096
"""About how many points per member are drawn at once, which bounds memory and changes no result."""


@dataclass(frozen=True)
class Adaptation:
    """Each module's error on the changed task while one module learns, and the criterion for that module."""

    module: int
    """The module that is trained, counted from 0."""
    steps: list[int]
    """The numbers of steps after which errors were evaluated, from 0."""
    errors: Float[Tensor, "look member module"]
    constant_errors: Float[Tensor, " member"]
    """The trained module's error if it gave the best answer that does not depend on its input."""
    parameters: Float[Tensor, "member parameter"]
    """After the last step."""

    @property
    def own(self) -> Float[Tensor, "look member"]:
        """Return the error of the module that is trained."""
        return self.errors[:, :, self.module]

    def learned(self, share: float) -> Bool[Tensor, "look member"]:
        """Return whether the module's error is below a share of that of a constant answer.

        That mark depends on the task alone and so is the same for all arms, where a share of a network's own error at
        the change would be a lower one for networks that start off better.
        """
        return self.own < share * self.constant_errors

    def first_look(self, share: float) -> Int64[Tensor, " member"]:
        """Return the first look at which the module has learned; the last one if it never has."""
        learned = self.learned(share)
        return torch.where(learned.any(dim=0), learned.int().argmax(dim=0), len(learned) - 1)

    def steps_until_learned(self, share: float) -> Float64[Tensor, " member"]:
        """Return the number of steps until then; "at least" if it never has. NaN for networks that diverged."""
        steps = torch.tensor(self.steps, device=self.own.device)[self.first_look(share)].double()
        return torch.where(self.own[-1].isfinite(), steps, torch.nan)


def adapt_module(
    probe: Probe,
    parameters: Float[Tensor, "member parameter"],
    module: int,
    changed: Sequence[int],
    keys: Int32[Tensor, "member 2"],
    every: int,
) -> Adaptation | None:
    """Train one module of each member of a probe, from given parameters, on the task with some modules changed.

    Modules count from 0; `keys` are those of the fresh points, and `every` is the number of steps between looks.
    None where the task has no other function for one of the changed modules.
    """
    task, settings, network = probe.task, probe.settings, probe.network.network
    tested = _changed(task, drawn_samples(task, probe.keys, settings.num_samples, "train"), changed)
    if tested is None:
        return None
    seen = _as_seen(task, tested)

    def errors_of(parameters: Tensor) -> Tensor:
        outputs = network.forward(parameters, seen.inputs)
        return task.loss_function.errors(outputs, seen.targets, task.partition)

    def loss_of(parameters: Tensor, minibatch: Samples) -> Tensor:
        outputs = network.forward(parameters, minibatch.inputs)
        return task.loss_function.by_module(outputs, minibatch.targets, task.partition)[:, module].sum()

    moments = (torch.zeros_like(parameters), torch.zeros_like(parameters))
    update = UPDATES[settings.adaptation_optimiser]
    coefficients = _coefficients(parameters.device)
    rows = _rows(settings).to(parameters.device)
    minibatches = _minibatches(task, settings, changed, keys)
    last = settings.adaptation_steps
    steps = [*range(0, last, every), last]
    errors = [errors_of(parameters)]
    for begin, end in pairwise(steps):
        for row in rows[begin:end]:
            gradients = _gradients(loss_of, parameters, next(minibatches)) * probe.mask
            parameters, moments = update(parameters, gradients, moments, coefficients, row)
        errors.append(errors_of(parameters))
    constant = task.loss_function.constant_errors(tested.targets, task.partition)[:, module]
    return Adaptation(module, steps, torch.stack(errors), constant, parameters)


def _changed(task: Task, samples: Samples, modules: Sequence[int]) -> Samples | None:
    """Return points with other functions for some modules, or None if the task has none for one of them."""
    for module in modules:
        # A user's task may change only the first module.
        with own_draws_only(task):
            changed = task.changed(samples, module) if module else task.changed(samples)
        if changed is None:
            return None
        samples = checked_samples(changed, samples.inputs.shape[:2], task, "changed")
    return samples


def _gradients(
    loss_of: Callable[[Tensor, Samples], Tensor], parameters: Tensor, minibatch: Samples
) -> Tensor:
    # Not torch.func.grad as in a training step: op by op it takes nearly twice as long.
    with torch.enable_grad():
        leaf = parameters.detach().requires_grad_()
        return torch.autograd.grad(loss_of(leaf, minibatch), leaf)[0]


def _rows(settings: Probes) -> Float[Tensor, "step 3 1"]:
    """Return each step's learning rate and bias corrections, as `UPDATES` take them, one for all members."""
    numbers = torch.arange(1, settings.adaptation_steps + 1, dtype=torch.float64)
    rates = torch.full_like(numbers, settings.adaptation_learning_rate)
    columns = [rates, 1 - _BETA1**numbers, (1 - _BETA2**numbers).sqrt()]
    return torch.stack(columns, dim=1).float().unsqueeze(2)


def _coefficients(device: torch.device) -> dict[str, Tensor]:
    values = {"beta1": _BETA1, "beta2": _BETA2, "epsilon": _EPSILON, "weight_decay": 0.0, "momentum": 0.0}
    return {name: torch.tensor([value], device=device) for name, value in values.items()}


def _minibatches(
    task: Task, settings: Probes, changed: Sequence[int], keys: Int32[Tensor, "member 2"]
) -> Iterator[Samples]:
    """Yield an endless sequence of minibatches of the changed task as the network sees it, each with fresh points."""
    batch = settings.adaptation_batch_size
    count = batch * min(settings.adaptation_steps, max(1, _DRAWN_POINTS // batch))
    for first in itertools.count(0, count):
        counters = torch.arange(first, first + count, dtype=torch.int32, device=keys.device)
        drawn = _changed(
            task, draw_points(task, keys, counters.expand(len(keys), count), "train", "train"), changed
        )
        assert drawn is not None
        seen = _as_seen(task, drawn)
        for inputs, targets in zip(seen.inputs.split(batch, 1), seen.targets.split(batch, 1), strict=True):
            yield Samples(inputs, targets)


def _as_seen(task: Task, samples: Samples) -> Samples:
    """Return points as the network sees them, and laid out with the batch innermost as `forward` reads it."""
    inputs = as_seen(task, samples.inputs).transpose(1, 2).contiguous().transpose(1, 2)
    return Samples(inputs, samples.targets)
