"""Atomic file replacement."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from modulab.errors import ConfigError, naming

_UNFINISHED = ".unfinished"


@contextmanager
def replacing(path: Path, mark: str | None = None) -> Generator[Path]:
    """Yield a path next to `path` to write to; at the end it replaces `path` atomically.

    After an error, `path` is unchanged and no other file is left. Its folder is made where there is none.
    The name of the temporary path contains this process, so several processes may write at once. A file with one writer
    at a time has a fixed mark, so the remains of a killed writer are overwritten. After a power failure the file is
    either the complete earlier one or the complete new one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{mark or process_mark()}")
    try:
        with naming(path, beside):
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


def process_mark() -> str:
    """Return the end of the names of what this process writes for a while: its machine and its number."""
    return f"{socket.gethostname()}.{os.getpid()}{_UNFINISHED}"


def remove_abandoned(folder: Path) -> None:
    """Remove, at any depth, the hidden files and folders that killed processes of this machine left unfinished."""
    machine = socket.gethostname()
    for place, folders, files in os.walk(folder):
        for name in (*folders, *files):
            if not (name.startswith(".") and name.endswith(_UNFINISHED)):
                continue
            start, _, process = name.removesuffix(_UNFINISHED).rpartition(".")
            if start.endswith(f".{machine}") and process.isdigit() and not _runs(int(process)):
                path = Path(place, name)
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path, ignore_errors=True)
                    folders.remove(name)
                else:
                    path.unlink(missing_ok=True)


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it belongs to another user
        return True
    return True


def _reach_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_whole(path: Path, content: bytes) -> None:
    """Write a file, replacing an earlier one."""
    with replacing(path) as beside:
        beside.write_bytes(content)
