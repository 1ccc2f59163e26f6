"""Files that are there whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from modulab.errors import ConfigError


@contextmanager
def replacing(path: Path, mark: str | None = None) -> Generator[Path]:
    """Give a path beside `path` to write to; in the end it takes the place of `path` in one move.

    After an error, `path` is as it was and nothing is left beside it. Its folder is made where there is none.
    The path beside is marked with this process's number, so that several may write at once; a file with one writer
    at a time has a mark of its own, so that what a killed writer left is written over. After a power cut the file
    is either the earlier or the new one, whole.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{mark or os.getpid()}")
    try:
        yield beside
        _reach_disk(beside)
        beside.replace(path)
        _reach_disk(path.parent)
    finally:
        beside.unlink(missing_ok=True)


def check_links(folder: Path) -> None:
    """Check that nothing written below a folder of results ends up elsewhere.

    Raises: ConfigError for a symbolic link in the folder, at any depth, that leads out of it.
    """
    root = folder.resolve()
    for place, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(place, name)
            if path.is_symlink() and not path.resolve().is_relative_to(root):
                raise ConfigError(
                    f"{path} is a link that leads out of {folder}, and writing there would change files elsewhere. "
                    "Remove the link, or work on a copy of the folder."
                )
        if "wandb" in folders:  # holds links of W&B's own to its logs, and is only added to
            folders.remove("wandb")


def _reach_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_whole(path: Path, content: bytes) -> None:
    """Write a file, in the place of an earlier one."""
    with replacing(path) as beside:
        beside.write_bytes(content)
