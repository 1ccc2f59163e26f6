"""Programs: what a training step computes for a member, as opposed to the numbers it computes with.

Members of one population may differ in noise, regulariser, optimiser coefficients and much else, which are
numbers, one a member. What remains decides which operations run: a program. A member's program depends on
its own settings alone, and a block of members never mixes programs, so that company cannot change the
order in which a member's numbers are added up.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from modulab.config.settings import Member
from modulab.losses import Loss
from modulab.networks import NetworkShape
from modulab.noise import Distribution
from modulab.partition import Partition
from modulab.regularisers import Regulariser


@dataclass(frozen=True)
class Program:
    """Everything about a training step that is not a number a member."""

    shape: NetworkShape
    partition: Partition
    loss: Loss
    batch_size: int
    optimiser: str
    noise: Distribution | None
    """What noise is drawn from, None without noise."""
    noisy_layers: tuple[int, ...]
    """The hidden layers that it acts on, from 0."""
    regulariser: type[Regulariser] | None
    variant: str
    coefficient_names: tuple[str, ...]


def network_shape(member: Member) -> NetworkShape:
    """Return the sizes of a member's network."""
    architecture, task = member.architecture, member.task
    hidden = (architecture.width,) * architecture.depth
    return NetworkShape(task.in_features, hidden, task.out_features, architecture.activation)


def _coefficients(member: Member) -> dict[str, float]:
    training, noise = member.training, member.noise
    values = {
        "momentum": training.momentum,
        "beta1": training.beta1,
        "beta2": training.beta2,
        "epsilon": training.epsilon,
        "weight_decay": training.weight_decay,
        "gradient_clip": math.inf if training.gradient_clip is None else training.gradient_clip,
    }
    if _is_noisy(member):
        values |= {
            "noise.scale": noise.scale,
            "noise.constant": noise.constant,
            "noise.linear": noise.linear,
            "noise.quadratic": noise.quadratic,
        }
    if member.regulariser.strength > 0:
        values |= {f"regulariser.{name}": value for name, value in member.regulariser.coefficients().items()}
    return values


def _is_noisy(member: Member) -> bool:
    noise = member.noise
    return (
        member.architecture.depth > 0
        and noise.scale > 0
        and noise.constant + noise.linear + noise.quadratic > 0
    )


def _noisy_layers(member: Member) -> tuple[int, ...]:
    if not _is_noisy(member):
        return ()
    layers = tuple(range(member.architecture.depth))
    return {"all": layers, "first": layers[:1], "last": layers[-1:]}[member.noise.sites]


def program_of(member: Member) -> Program:
    """Return the program that trains a member."""
    regularised = member.regulariser.strength > 0
    return Program(
        shape=network_shape(member),
        partition=member.task.partition,
        loss=member.task.loss_function,
        batch_size=member.training.batch_size,
        optimiser=member.training.optimiser,
        noise=member.noise.distribution if _is_noisy(member) else None,
        noisy_layers=_noisy_layers(member),
        regulariser=type(member.regulariser) if regularised else None,
        variant=member.regulariser.variant if regularised else "",
        coefficient_names=tuple(_coefficients(member)),
    )


def stack_coefficients(members: Sequence[Member]) -> Float[Tensor, "coefficient member"]:
    """Return the coefficients of members of one program, in the order of its `coefficient_names`."""
    return torch.tensor(
        [list(_coefficients(member).values()) for member in members], dtype=torch.float32
    ).T.contiguous()
