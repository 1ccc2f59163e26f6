"""How many members fit in one population."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from modulab.errors import ConfigError
from modulab.memory import free_bytes
from modulab.settings import Member, Trainer
from modulab.training.program import network_shape

_COPIES_OF_PARAMETERS = 8
"""Parameters, two moments, the mask, and what initialisation, checkpoints and measures hold beside them."""
_COPIES_OF_POINTS = 3
"""The data table, and what drawing it holds beside it."""
_COPIES_OF_ACTIVITY = 3
_LARGEST_ON_CPU = 1024
_LARGEST_ON_ACCELERATOR = 16384


def member_bytes(member: Member) -> int:
    """Return about how much memory one more member of a population takes, besides the block being trained."""
    training, task = member.training, member.task
    points = member.data.num_samples
    if points is None:
        points = min(training.curve_every, training.steps) * training.batch_size
    features = task.in_features + task.num_targets
    parameters = network_shape(member).num_parameters
    curve_points = 4 * -(-training.steps // training.curve_every)
    return (
        4 * (_COPIES_OF_POINTS * points * features + _COPIES_OF_PARAMETERS * parameters) + 32 * curve_points
    )


def available_bytes(trainer: Trainer, device: torch.device) -> float:
    """Return the memory that a population may take: what the config says, or half of what is free."""
    if trainer.memory_gib is not None:
        return trainer.memory_gib * 2**30
    if device.type == "cpu":
        return free_bytes() / 2
    # Planned here for another machine's device, whose memory is looked up there.
    return torch.cuda.mem_get_info()[0] / 2 if torch.cuda.is_available() else math.inf


def check_fits(member: Member, trainer: Trainer, device: torch.device) -> None:
    """Raise: ConfigError where not even this member alone fits in memory; it says how much that would take."""
    room = available_bytes(trainer, device) * (1 if trainer.memory_gib is not None else 2)
    architecture, training, task = member.architecture, member.training, member.task
    units = architecture.depth * architecture.width + task.in_features + task.out_features
    # A block has two members at least, and a step holds its activity, the gradients of it and what noise needs.
    activity = 4 * 2 * _COPIES_OF_ACTIVITY * units * training.batch_size
    tables = 16 * task.modules**2  # of modularity, module by module
    needed = member_bytes(member) + activity + tables
    if needed > room:
        samples = "" if member.data.num_samples is None else f", data.num_samples={member.data.num_samples}"
        raise ConfigError(
            f"A single network with architecture.width={architecture.width}, architecture.depth={architecture.depth}, "
            f"task.modules={task.modules}, training.batch_size={training.batch_size}{samples} needs about "
            f"{needed / 2**30:,.1f} GiB of memory, and {room / 2**30:,.1f} GiB may be used. Lower one of these."
        )


def population_size(members: Sequence[Member], trainer: Trainer, device: torch.device) -> int:
    """Return how many of these members may train in one population, at least 1.

    Each counts as the largest of them. On a CPU a population gains nothing beyond some dozens of members, and
    its results come only at its end; an accelerator is filled by thousands.
    """
    largest = _LARGEST_ON_CPU if device.type == "cpu" else _LARGEST_ON_ACCELERATOR
    fitting = available_bytes(trainer, device) / max(member_bytes(member) for member in members)
    return max(1, int(min(trainer.largest_population or largest, fitting)))
