"""How many members fit in one population, and how much memory it takes.

The numbers were measured on processes with one population each. Tests check that their peaks are at most 1.3 times the
estimate.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from modulab.config.settings import Member, Run, Trainer, structural_values
from modulab.errors import ConfigError
from modulab.memory import free_bytes, gibibytes
from modulab.metrics.probe import BLOCK_BYTES, bytes_per_member
from modulab.tasks.base import Task
from modulab.training.data import DRAWN_AT_ONCE, DataSet, data_set, num_points, points_of_data_sets
from modulab.training.engine import block_size
from modulab.training.execution import Execution
from modulab.training.program import network_of, program_of

PROCESS_BYTES = 560 << 20
"""Memory of a process before it trains: torch, Lightning, and what the C library reserves."""
COMPILER_BYTES = 320 << 20
"""Additional memory for compiling training steps."""
_FLOAT = 4
_COPIES_OF_PARAMETERS = 10
"""Parameters, two moments, the mask, and the copies that initialisation, checkpoints and measures hold."""
_COPIES_IN_A_STEP = 8
"""Gradients, and the copies that clipping and the optimiser's update hold."""
_COPIES_OF_ACTIVITY = 8
"""Activity of a step, and the gradients of it. Of what follows, compiled steps store nothing."""
_COPIES_FOR_NOISE = 20
_COPIES_FOR_PENALTY = 16
_COPIES_OF_DRAWS = 7
"""Random bits, and the intermediate values from which points are computed."""
_CURVES = 4
"""At least as many as the default probes record."""
_BYTES_OF_A_CURVE_VALUE = 120
"""A number of Python in a list, and its row of the table that is written at the end."""
_OF_MEASURING = 1.5
"""Times what measures count themselves: measured one after another, they leave gaps."""
_LARGEST_ON_CPU = 1024
_LARGEST_ON_ACCELERATOR = 16384


def population_bytes(members: Sequence[Member], execution: Execution) -> float:
    """Return about how much memory a population takes at its peak, besides the process itself.

    Each data set counts once, however many members read it.
    """
    points = points_of_data_sets(members)
    data = sum(count * _bytes_of_a_point(name.task, members[0]) for name, count in points.items())
    return _shared_bytes(members, execution) + data + len(members) * _bytes_on(members, execution)


def member_bytes(member: Member) -> int:
    """Return about how much memory a member takes whose points no other reads, besides the block being trained."""
    return _own_bytes(member) + num_points(member) * _bytes_of_a_point(member.task, member)


def _own_bytes(member: Member) -> int:
    """Return about how much memory one more member takes, besides its training points and the block being trained."""
    training = member.training
    parameters = network_of(member).num_parameters
    curve_values = _CURVES * -(-training.steps // training.curve_every)
    return _float_bytes(member) * _COPIES_OF_PARAMETERS * parameters + _BYTES_OF_A_CURVE_VALUE * curve_values


def _float_bytes(member: Member) -> int:
    return _FLOAT * (2 if member.training.precision == "float64" else 1)


def _bytes_of_a_point(task: Task, member: Member) -> int:
    """Return the size of a point of a task in the table of a population that the member is of."""
    return _float_bytes(member) * (task.in_features + task.num_targets)


def _drawing_bytes(member: Member) -> int:
    """Return about how much memory drawing a member's training points takes at its peak, besides the points."""
    points = num_points(member) if member.task.mixing else 1  # else they are drawn in parts
    return _COPIES_OF_DRAWS * max(points * _bytes_of_a_point(member.task, member), _FLOAT * DRAWN_AT_ONCE)


def _step_bytes(member: Member, engine: str) -> int:
    """Return about how much memory one member of a block takes in a step."""
    program = program_of(member)
    network = program.network
    units = network.in_features + network.total_values + network.out_features
    copies = _COPIES_OF_ACTIVITY
    if engine == "eager":
        copies += _COPIES_FOR_NOISE * (program.noise is not None)
        copies += _COPIES_FOR_PENALTY * (program.regulariser is not None)
        copies += network.activation_cost
    activity = copies * units * member.training.batch_size
    return _float_bytes(member) * (activity + _COPIES_IN_A_STEP * network.num_parameters)


def _largest_step(members: Sequence[Member], engine: str) -> int:
    """Return `_step_bytes` of the member that needs most; compiled, all need the same."""
    return max(_step_bytes(member, engine) for member in (members if engine == "eager" else members[:1]))


def _bytes_on(members: Sequence[Member], execution: Execution) -> int:
    """Return the largest `_own_bytes` of members, with those of a step where all members are one block."""
    own = max(map(_own_bytes, members))
    return own + (0 if execution.device.type == "cpu" else _largest_step(members, execution.engine))


def _shared_bytes(members: Sequence[Member], execution: Execution) -> float:
    """Return about how much memory a population takes however few members it has: blocks, measuring and drawing.

    The members agree in every structural setting.
    """
    if execution.device.type != "cpu":
        return 0  # points are drawn, and networks measured, in the machine's memory
    member = members[0]
    measured = bytes_per_member(network_of(member), member.probes)
    measuring = _OF_MEASURING * max(2 * measured, BLOCK_BYTES)
    steps = block_size(program_of(member), execution.device) * _largest_step(members, execution.engine)
    drawing = max(map(_drawing_bytes, members))
    return execution.threads * (steps + measuring + drawing)


def available_bytes(trainer: Trainer, device: torch.device) -> float:
    """Return the memory that a population may take: what the config says, or half of what is free."""
    if trainer.memory_gib is not None:
        return trainer.memory_gib * 2**30
    if device.type == "cpu":
        return free_bytes() / 2
    # Planned here for another machine's device, whose memory is looked up there.
    return torch.cuda.mem_get_info()[0] / 2 if torch.cuda.is_available() else math.inf


def check_fits(member: Member, trainer: Trainer, device: torch.device) -> None:
    """Raise ConfigError if not even this member alone fits in memory; it says how much that would take."""
    room = available_bytes(trainer, device) * (1 if trainer.memory_gib is not None else 2)
    training, task = member.training, member.task
    tables = 16 * task.modules**2  # of modularity, module by module
    # A block has two members at least, as has a block that is measured.
    measuring = _OF_MEASURING * 2 * bytes_per_member(network_of(member), member.probes)
    drawing = _drawing_bytes(member)
    needed = member_bytes(member) + max(2 * _step_bytes(member, "compiled"), measuring + tables, drawing)
    if needed > room:
        samples = "" if member.data.num_samples is None else f", data.num_samples={member.data.num_samples}"
        sizes = ", ".join(
            f"architecture.{key}={value}" for key, value in structural_values(member.architecture)
        )
        raise ConfigError(
            f"A single network with {sizes}, task.modules={task.modules}, "
            f"training.batch_size={training.batch_size}{samples} needs about "
            f"{gibibytes(needed)} of memory, and {gibibytes(room)} may be used. Lower one of these."
        )


def population_sizes(runs: Sequence[Run], trainer: Trainer, execution: Execution) -> list[int]:
    """Return into how many members each to cut these, in their order, so each population fits in memory.

    Each population has at least 1. On a CPU a population gains nothing beyond some dozens of members, and its
    results come only at its end; an accelerator is filled by thousands.
    """
    most = trainer.largest_population or (
        _LARGEST_ON_CPU if execution.device.type == "cpu" else _LARGEST_ON_ACCELERATOR
    )
    examples = {run.condition: run.condition.example for run in runs}
    members = list(examples.values())
    room = available_bytes(trainer, execution.device) - _shared_bytes(members, execution)
    own = _bytes_on(members, execution)
    data = {
        condition: (data_set(member), num_points(member), _bytes_of_a_point(member.task, member))
        for condition, member in examples.items()
    }
    sizes: list[int] = []
    points: dict[DataSet, int] = {}
    taken = 0
    for run in runs:
        of_example, needed, point_bytes = data[run.condition]
        name = of_example.at(run.seed)
        more = own + max(0, needed - points.get(name, 0)) * point_bytes
        if sizes and sizes[-1] < most and taken + more <= room:
            sizes[-1] += 1
            taken += more
            points[name] = max(needed, points.get(name, 0))
        else:
            sizes.append(1)
            taken = own + needed * point_bytes
            points = {name: needed}
    return sizes
