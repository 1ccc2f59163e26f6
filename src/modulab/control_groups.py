"""Limits of a container on this process: the files of Linux's control groups, of versions 2 and 1."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path


def group_folders(controller: str, root: Path = Path("/")) -> Iterator[tuple[int, Path]]:
    """Yield the version and the folder of each group that holds this process, the innermost first.

    Limits of all of them apply. `controller` is memory or cpu; `root` is the folder that holds proc and sys. There are
    none on systems other than Linux.
    """
    for line in lines_of(root / "proc/self/cgroup"):
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            version, mount = 2, root / "sys/fs/cgroup"
        elif controller in controllers.split(","):
            version, mount = 1, root / "sys/fs/cgroup" / controller
        else:
            continue
        # Within a container the path may be that of the host, and not be there.
        inner = Path(path.lstrip("/"))
        for place in (inner, *inner.parents):
            yield version, mount / place


def lines_of(file: Path) -> list[str]:
    """Return the lines of a file, none where it cannot be read."""
    try:
        return file.read_text("utf-8").splitlines()
    except OSError:
        return []


def number_in(file: Path) -> int | None:
    """Return the number that a file holds, or None where it holds a word or cannot be read."""
    lines = lines_of(file)
    return int(lines[0]) if lines and lines[0].isdigit() else None
