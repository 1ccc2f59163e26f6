"""How much memory this process may still take: what the machine has free, and what its container leaves."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

from modulab.errors import ConfigError

_BYTES_OF_A_PLANNED_MEMBER = 4_000
"""The memory per member if all members differ in more than the seed; a tenth of that with many seeds per setting."""
_NOTICEABLE = 16 << 20
"""Less than this fits wherever the program has started: to ask what is free takes time, for each job of a sweep."""
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
    for line in _lines(root / "proc/meminfo"):
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            return int(value.split()[0]) * 1024
    return math.inf


def _container_bytes(root: Path) -> Iterator[float]:
    """Yield what each memory limit that holds for this process leaves (control groups of version 2 and 1)."""
    for line in _lines(root / "proc/self/cgroup"):
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            mount, limit, used, cached = "sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"
        elif "memory" in controllers.split(","):
            mount, limit, used = "sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
            cached = "total_inactive_file"
        else:
            continue
        # Limits of outer groups hold too. Within a container the path may be that of the host, and not be there.
        for place in (Path(path.lstrip("/")), *Path(path.lstrip("/")).parents):
            folder = root / mount / place
            most, taken = _number(folder / limit), _number(folder / used)
            if most is not None and taken is not None and most < _UNLIMITED:
                yield max(0, most - taken + _statistic(folder / "memory.stat", cached))


def _statistic(file: Path, name: str) -> int:
    words = (line.split() for line in _lines(file))
    return next((int(value) for key, value in words if key == name), 0)


def _number(file: Path) -> int | None:
    lines = _lines(file)
    return int(lines[0]) if lines and lines[0].isdigit() else None


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text("utf-8").splitlines()
    except OSError:
        return []
