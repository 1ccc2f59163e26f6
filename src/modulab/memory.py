"""How much memory this process may still take: what the machine has free, and what its container leaves."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

from modulab.control_groups import group_folders, lines_of, number_in
from modulab.errors import ConfigError

_BYTES_OF_A_PLANNED_MEMBER = 4_000
"""The memory per member if all members differ in more than the seed; a tenth of that with many seeds per setting."""
_NOTICEABLE = 16 << 20
"""Less than this fits wherever the program has started: to ask what is free takes time, for each job of a sweep."""
_FILES = {
    2: ("memory.max", "memory.current", "inactive_file"),
    1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}
"""The files of a memory limit and of what is used, and the statistic of what of that is only cached."""
_UNLIMITED = 1 << 60
"""Limits from here on stand for none: cgroups of version 1 write the largest number of pages."""


def free_bytes(root: Path = Path("/")) -> float:
    """Return the memory that can still be taken here, in bytes; infinite where the system does not say.

    Cached files count as free, as the kernel gives them up. `root` is the folder that holds proc and sys.
    """
    return min(_machine_bytes(root), *_container_bytes(root), math.inf)


def gibibytes(number: float) -> str:
    """Return a number of bytes in GiB, with a digit or more that is not 0."""
    size = number / 2**30
    return f"{size:,.1f} GiB" if size >= 0.05 or size == 0 else f"{size:.1g} GiB"


def check_plan(members: int, what: str) -> None:
    """Raise ConfigError if the plan of this many members does not fit in memory; `what` names their keys."""
    needed = members * _BYTES_OF_A_PLANNED_MEMBER
    if needed > _NOTICEABLE and needed > (room := free_bytes()):
        raise ConfigError(
            f"{what} gives {members:,} networks, and planning them takes about {needed / 2**30:,.0f} GiB of memory, "
            f"where {room / 2**30:,.1f} GiB are free. Give fewer, and the others in a separate command."
        )


def _machine_bytes(root: Path) -> float:
    for line in lines_of(root / "proc/meminfo"):
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            return int(value.split()[0]) * 1024
    return math.inf


def _container_bytes(root: Path) -> Iterator[float]:
    """Yield what each memory limit that holds for this process leaves."""
    for version, folder in group_folders("memory", root):
        limit, used, cached = _FILES[version]
        most, taken = number_in(folder / limit), number_in(folder / used)
        if most is not None and taken is not None and most < _UNLIMITED:
            yield max(0, most - taken + _statistic(folder / "memory.stat", cached))


def _statistic(file: Path, name: str) -> int:
    words = (line.split() for line in lines_of(file))
    return next((int(value) for key, value in words if key == name), 0)
