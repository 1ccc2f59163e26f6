"""How many members fit in one population, and how much memory it takes.

What is counted was measured, on processes of one population each, and is checked in tests: their peaks stay within
1.3 times what is estimated here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from modulab.config.settings import Member, Trainer, structural_values
from modulab.errors import ConfigError
from modulab.memory import free_bytes
from modulab.metrics.probe import BLOCK_BYTES, bytes_per_member
from modulab.training.data import DRAWN_AT_ONCE
from modulab.training.engine import block_size
from modulab.training.fit import thread_count
from modulab.training.program import network_of, program_of

PROCESS_BYTES = 560 << 20
"""What a process takes before it trains anything: torch, Lightning, and what the C library sets aside."""
COMPILER_BYTES = 320 << 20
"""What compiling training steps takes beside it."""
_FLOAT = 4
_COPIES_OF_PARAMETERS = 10
"""Parameters, two moments, the mask, and what initialisation, checkpoints and measures hold beside them."""
_COPIES_IN_A_STEP = 8
"""Gradients, and what clipping them and the optimiser's update hold beside them."""
_COPIES_OF_ACTIVITY = 8
"""Activity of a step, and the gradients of it. Of what follows, compiled steps store nothing."""
_COPIES_FOR_NOISE = 20
_COPIES_FOR_PENALTY = 16
_COPIES_OF_DRAWS = 7
"""Random bits, and what they become before they are points."""
_OF_MEASURING = 1.5
"""Times what measures count themselves: measured one after another, they leave gaps."""
_LARGEST_ON_CPU = 1024
_LARGEST_ON_ACCELERATOR = 16384


def population_bytes(members: Sequence[Member], trainer: Trainer, device: torch.device) -> float:
    """Return about how much memory a population takes at its peak, besides the process itself.

    Each member counts as the largest of them. `trainer.engine` is the one chosen for them.
    """
    largest = max(members, key=member_bytes)
    shared = _shared_bytes(largest, trainer, device)
    return shared + len(members) * _bytes_on(largest, trainer.engine, device)


def member_bytes(member: Member) -> int:
    """Return about how much memory one more member of a population takes, besides the block being trained."""
    training = member.training
    parameters = network_of(member).num_parameters
    curve_points = 4 * -(-training.steps // training.curve_every)
    return _FLOAT * (_drawn(member) + _COPIES_OF_PARAMETERS * parameters) + 32 * curve_points


def _drawn(member: Member) -> int:
    """Return how many numbers a member's training points are, those of one chunk where they are fresh."""
    training, task = member.training, member.task
    points = member.data.num_samples
    if points is None:
        points = min(training.curve_every, training.steps) * training.batch_size
    return points * (task.in_features + task.num_targets)


def _step_bytes(member: Member, engine: str) -> int:
    """Return about how much memory one member of a block takes in a step."""
    program = program_of(member)
    network = program.network
    units = network.in_features + network.total_units + network.out_features
    copies = _COPIES_OF_ACTIVITY
    if engine == "eager":
        copies += _COPIES_FOR_NOISE * (program.noise is not None)
        copies += _COPIES_FOR_PENALTY * (program.regulariser is not None)
        copies += network.activation_cost
    activity = copies * units * member.training.batch_size
    return _FLOAT * (activity + _COPIES_IN_A_STEP * network.num_parameters)


def _bytes_on(member: Member, engine: str, device: torch.device) -> int:
    """Return `member_bytes`, with those of a step where all members are one block."""
    return member_bytes(member) + (0 if device.type == "cpu" else _step_bytes(member, engine))


def _shared_bytes(member: Member, trainer: Trainer, device: torch.device) -> float:
    """Return about how much memory a population takes however few members it has: blocks, measuring and drawing."""
    measured = bytes_per_member(network_of(member), member.probes)
    measuring = _OF_MEASURING * max(2 * measured, BLOCK_BYTES)
    on_cpu = device.type == "cpu"
    steps = block_size(program_of(member), device) * _step_bytes(member, trainer.engine) if on_cpu else 0
    drawing = _COPIES_OF_DRAWS * _FLOAT * max(_drawn(member), DRAWN_AT_ONCE)
    return thread_count(trainer, trainer.engine, device) * (steps + measuring) + drawing


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
    training, task = member.training, member.task
    tables = 16 * task.modules**2  # of modularity, module by module
    # A block has two members at least, as has a block that is measured.
    measuring = _OF_MEASURING * 2 * bytes_per_member(network_of(member), member.probes)
    drawing = _COPIES_OF_DRAWS * _FLOAT * _drawn(member)
    needed = member_bytes(member) + max(2 * _step_bytes(member, "compiled"), measuring + tables, drawing)
    if needed > room:
        samples = "" if member.data.num_samples is None else f", data.num_samples={member.data.num_samples}"
        sizes = ", ".join(
            f"architecture.{key}={value}" for key, value in structural_values(member.architecture)
        )
        raise ConfigError(
            f"A single network with {sizes}, task.modules={task.modules}, "
            f"training.batch_size={training.batch_size}{samples} needs about "
            f"{needed / 2**30:,.1f} GiB of memory, and {room / 2**30:,.1f} GiB may be used. Lower one of these."
        )


def population_size(members: Sequence[Member], trainer: Trainer, device: torch.device) -> int:
    """Return how many of these members may train in one population, at least 1.

    Each counts as the largest of them. On a CPU a population gains nothing beyond some dozens of members, and
    its results come only at its end; an accelerator is filled by thousands.
    """
    most = trainer.largest_population or (
        _LARGEST_ON_CPU if device.type == "cpu" else _LARGEST_ON_ACCELERATOR
    )
    largest = max(members, key=member_bytes)
    room = available_bytes(trainer, device) - _shared_bytes(largest, trainer, device)
    return max(1, int(min(most, room / _bytes_on(largest, trainer.engine, device))))
