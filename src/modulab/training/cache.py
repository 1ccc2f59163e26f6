"""The user's cache folder, and whether the files in a folder can be trusted.

Code that is loaded from a folder runs as this user. So a folder counts as private only if nobody but this user and
root can put a file into it, or put another folder in place of one on the way to it.
"""

from __future__ import annotations

import errno
import functools
import os
import shutil
import stat
import tempfile
from pathlib import Path

from modulab.errors import FULL
from modulab.text import say_once

VARIABLES = ("MODULAB_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR")
"""Environment variables that name another cache folder, the first that is set."""
_MOST_LINKS = 40
_OTHERS_MAY_WRITE = stat.S_IWGRP | stat.S_IWOTH


def unsafe_part(path: Path) -> str | None:
    """Return why a folder cannot be trusted, or None if only this user and root can change what lies in it.

    Every folder on the way counts, and so do links and the folders that they lead through.

    Raises: OSError if a part of the path does not exist or cannot be looked at.
    """
    waiting = list(reversed(Path(os.path.abspath(path)).parts))
    at = Path(waiting.pop())
    links = 0
    while True:
        facts = at.lstat()
        if not _is_ours(facts):
            return f"{at} belongs to another user"
        if facts.st_mode & _OTHERS_MAY_WRITE and not (waiting and facts.st_mode & stat.S_ISVTX):
            return f"other users may write to {at} (chmod go-w {at})"
        if not waiting:
            return None if stat.S_ISDIR(facts.st_mode) else f"{at} is not a folder"
        name = waiting.pop()
        if name == "..":  # only from links: `abspath` has removed those of the path itself
            at = at.parent
            continue
        inner = at / name
        if not stat.S_ISLNK(inner.lstat().st_mode):
            at = inner
            continue
        if not _is_ours(inner.lstat()):
            return f"{inner} is a link of another user"
        links += 1
        if links > _MOST_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
        target = inner.readlink()
        waiting.extend(part for part in reversed(target.parts) if part != target.anchor)
        if target.is_absolute():
            at = Path(target.anchor)


def _is_ours(facts: os.stat_result) -> bool:
    return facts.st_uid in (os.geteuid(), 0)


def unsafe_file(descriptor: int) -> str | None:
    """Return why an open file cannot be trusted, or None if it is a file that only this user and root can change."""
    facts = os.fstat(descriptor)
    if not stat.S_ISREG(facts.st_mode):
        return "it is not a regular file"
    if not _is_ours(facts):
        return "it belongs to another user"
    return "other users may write to it" if facts.st_mode & _OTHERS_MAY_WRITE else None


def cache_folder() -> Path:
    """Return the private folder in which to keep what can be made again; it is made where there is none.

    It is the one that an environment variable names, else modulab/ in XDG_CACHE_HOME or ~/.cache. One that is not
    private is not used, with a notice.

    Raises: OSError if no folder can be made.
    """
    for folder in (*_named_folders(), _default_folder()):
        _make(folder)
        reason = unsafe_part(folder)
        if reason is None:
            return folder
        say_once(f"the cache folder {folder} is not used: {reason}.")
    return _folder_of_process(os.getpid())


def _make(folder: Path) -> None:
    for each in (*reversed(folder.parents), folder):
        if not each.is_dir():
            each.mkdir(mode=0o700, exist_ok=True)


def _named_folders() -> list[Path]:
    from modulab.training.torch_private import default_cache_dir

    # torch sets its variable to its own default, below /tmp, as soon as it looks for the folder.
    named = [os.path.abspath(os.environ[name]) for name in VARIABLES if os.environ.get(name)]
    return [Path(name) / "modulab" for name in named if name != os.path.abspath(default_cache_dir())][:1]


def _default_folder() -> Path:
    named = os.environ.get("XDG_CACHE_HOME", "")
    # The standard has relative paths ignored.
    return (Path(named) if os.path.isabs(named) else Path("~/.cache").expanduser()) / "modulab"


@functools.cache
def _folder_of_process(process: int) -> Path:
    """Return a private folder that is removed when this process ends."""
    import multiprocessing.util

    folder = Path(tempfile.mkdtemp(prefix="modulab-"))
    # Unlike those of atexit, these are also called in processes of multiprocessing.
    multiprocessing.util.Finalize(None, _remove_own, args=(folder, process), exitpriority=0)
    if (reason := unsafe_part(folder)) is not None:
        raise PermissionError(errno.EPERM, f"no private folder can be made, as {reason}", str(folder))
    return folder


def _remove_own(folder: Path, process: int) -> None:
    if os.getpid() == process:
        shutil.rmtree(folder, ignore_errors=True)


def full_folder(error: BaseException, folder: Path) -> bool:
    """Return whether an error was caused by a full disk or quota in `folder`."""
    cause: BaseException | None = error
    while cause is not None:
        full = isinstance(cause, OSError) and cause.errno in FULL
        if full or "No space left on device" in str(cause):
            return True
        cause = cause.__cause__ or cause.__context__
    return shutil.disk_usage(folder).free < 1 << 16
