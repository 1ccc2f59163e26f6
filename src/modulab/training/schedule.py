"""Learning-rate schedules: the numbers that each optimiser step of each member reads."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from modulab.config.settings import Member, Training


def schedule_factor(
    schedule: str, num_steps: int, warmup: int, steps: Float[Tensor, " step"]
) -> Float[Tensor, " step"]:
    """Return the learning rate at each of these steps, as a share of its peak.

    That of a plateau, which depends on a curve, is the constant one here; `training.stopping` has its factor.

    With S steps of which w warm up, it is (s + 1) / (w + 1) at step s = 0, 1, ... while s < w, and then 1, 1 - u, or
    (1 + cos(pi u)) / 2 with u = (s - w) / (S - w).
    """
    progress = (steps - warmup) / max(num_steps - warmup, 1)
    shapes = {
        "constant": torch.ones_like(steps),
        "plateau": torch.ones_like(steps),
        "linear": 1 - progress,
        "cosine": 0.5 * (1 + torch.cos(torch.pi * progress)),
    }
    return torch.where(steps < warmup, (steps + 1) / (warmup + 1), shapes[schedule])


def schedule_rows(
    members: Sequence[Member], first_step: int, num_steps: int
) -> Float[Tensor, "step 3 member"]:
    """Return, for each step, each member's learning rate and Adam's bias corrections 1 - beta1^t and sqrt(1 - beta2^t).

    The learning rate is its peak times `schedule_factor`.
    """
    schedules, places = distinct_schedules(members)
    return schedule_columns(schedules, first_step, num_steps).index_select(2, places)


def distinct_schedules(members: Sequence[Member]) -> tuple[list[Training], Int64[Tensor, " member"]]:
    """Return settings of training with different rows, each once, and the place of each member's among them."""
    found: dict[tuple[object, ...], int] = {}
    schedules: list[Training] = []
    places: list[int] = []
    for member in members:
        training = member.training
        key = (
            training.schedule, training.steps, training.warmup_steps,
            training.learning_rate, training.beta1, training.beta2,
        )  # fmt: skip
        if key not in found:
            found[key] = len(schedules)
            schedules.append(training)
        places.append(found[key])
    return schedules, torch.tensor(places)


def schedule_columns(
    schedules: Sequence[Training], first_step: int, num_steps: int
) -> Float[Tensor, "step 3 schedule"]:
    """Return the rows of `schedule_rows`, with one column for each of these settings of training."""
    steps = torch.arange(first_step, first_step + num_steps, dtype=torch.float64)
    columns: list[Tensor] = []
    for training in schedules:
        factor = schedule_factor(training.schedule, training.steps, training.warmup_steps, steps)
        first_correction = 1 - training.beta1 ** (steps + 1)
        second_correction = (1 - training.beta2 ** (steps + 1)).sqrt()
        columns.append(
            torch.stack([training.learning_rate * factor, first_correction, second_correction], dim=1)
        )
    dtype = torch.float64 if schedules[0].precision == "float64" else torch.float32
    return torch.stack(columns, dim=2).to(dtype)
