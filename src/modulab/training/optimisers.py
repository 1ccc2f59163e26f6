"""Optimisers as pure functions of flat parameters, one row and one set of coefficients a member.

They follow torch.optim.SGD, Adam (Kingma and Ba, 2015) and AdamW (Loshchilov and Hutter, 2019), with the
two moment estimates kept as (member, parameter) tensors; SGD keeps its momentum in the first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from modulab.config.settings import Member

Moments = tuple[Tensor, Tensor]
Update = Callable[[Tensor, Tensor, Moments, Mapping[str, Tensor], Tensor], tuple[Tensor, Moments]]


def clip_gradients(
    gradients: Float[Tensor, "member parameter"], largest_norms: Float[Tensor, " member"]
) -> Float[Tensor, "member parameter"]:
    """Return gradients scaled down where a member's own norm exceeds its limit, as torch's clip_grad_norm_ does."""
    norms = gradients.square().sum(dim=1).sqrt()
    return gradients * (largest_norms / (norms + 1e-6)).clamp(max=1.0)[:, None]


def _sgd(
    parameters: Tensor, gradients: Tensor, moments: Moments, coefficients: Mapping[str, Tensor], row: Tensor
) -> tuple[Tensor, Moments]:
    gradients = gradients + coefficients["weight_decay"][:, None] * parameters
    velocity = coefficients["momentum"][:, None] * moments[0] + gradients
    return parameters - row[0][:, None] * velocity, (velocity, moments[1])


def _adam_step(
    parameters: Tensor, gradients: Tensor, moments: Moments, coefficients: Mapping[str, Tensor], row: Tensor
) -> tuple[Tensor, Moments]:
    mean = moments[0] + (gradients - moments[0]) * (1 - coefficients["beta1"])[:, None]
    decay = coefficients["beta2"][:, None]
    square = moments[1] * decay + gradients.square() * (1 - decay)
    denominator = square.sqrt() / row[2][:, None] + coefficients["epsilon"][:, None]
    return parameters - (row[0] / row[1])[:, None] * (mean / denominator), (mean, square)


def _adam(
    parameters: Tensor, gradients: Tensor, moments: Moments, coefficients: Mapping[str, Tensor], row: Tensor
) -> tuple[Tensor, Moments]:
    gradients = gradients + coefficients["weight_decay"][:, None] * parameters
    return _adam_step(parameters, gradients, moments, coefficients, row)


def _adamw(
    parameters: Tensor, gradients: Tensor, moments: Moments, coefficients: Mapping[str, Tensor], row: Tensor
) -> tuple[Tensor, Moments]:
    parameters = parameters * (1 - row[0] * coefficients["weight_decay"])[:, None]
    return _adam_step(parameters, gradients, moments, coefficients, row)


UPDATES: dict[str, Update] = {"sgd": _sgd, "adam": _adam, "adamw": _adamw}


def schedule_rows(
    members: Sequence[Member], first_step: int, num_steps: int
) -> Float[Tensor, "step 3 member"]:
    """Return, for each step, each member's learning rate and Adam's bias corrections 1 - beta1^t and sqrt(1 - beta2^t).

    With S steps of which w warm up, the learning rate at step s = 0, 1, ... is its peak times (s + 1) / (w + 1)
    while s < w, and then constant, 1 - u, or (1 + cos(pi u)) / 2 with u = (s - w) / (S - w).
    """
    steps = torch.arange(first_step, first_step + num_steps, dtype=torch.float64)
    cache: dict[tuple[object, ...], Tensor] = {}
    columns: list[Tensor] = []
    for member in members:
        training = member.training
        key = (
            training.schedule, training.steps, training.warmup_steps,
            training.learning_rate, training.beta1, training.beta2,
        )  # fmt: skip
        if key not in cache:
            warmup = training.warmup_steps
            progress = (steps - warmup) / max(training.steps - warmup, 1)
            shapes = {
                "constant": torch.ones_like(steps),
                "linear": 1 - progress,
                "cosine": 0.5 * (1 + torch.cos(torch.pi * progress)),
            }
            factor = torch.where(steps < warmup, (steps + 1) / (warmup + 1), shapes[training.schedule])
            first_correction = 1 - training.beta1 ** (steps + 1)
            second_correction = (1 - training.beta2 ** (steps + 1)).sqrt()
            cache[key] = torch.stack(
                [training.learning_rate * factor, first_correction, second_correction], dim=1
            )
        columns.append(cache[key])
    return torch.stack(columns, dim=2).float()
