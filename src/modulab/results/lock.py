"""One process at a time in a folder of results."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import IO

from modulab.errors import ConfigError
from modulab.results.files import remove_abandoned

LOCK = ".lock"


class FolderLock:
    """Locks a folder for this process. The system releases the lock when the process ends for any reason."""

    def __init__(self, folder: Path) -> None:
        """Lock the folder, and remove files that killed processes left in it.

        Raises: ConfigError if another process holds it.
        """
        self._folder = folder
        file = _take(folder)
        while os.fstat(file.fileno()).st_nlink == 0:  # its holder has just released it
            file.close()
            file = _take(folder)
        self._file: IO[str] | None = file
        file.seek(0)
        file.truncate()
        json.dump(
            {
                "process": os.getpid(),
                "host": socket.gethostname(),
                "since": f"{datetime.now():%Y-%m-%d %H:%M}",
            },
            file,
        )
        file.flush()
        remove_abandoned(folder)

    def release(self) -> None:
        """Release the folder."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def withdraw(self) -> None:
        """Release the folder, and remove it if it contains nothing else."""
        if self._file is not None and [path.name for path in self._folder.iterdir()] == [LOCK]:
            (self._folder / LOCK).unlink()
        self.release()

    def __enter__(self) -> FolderLock:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def _take(folder: Path) -> IO[str]:
    file = _open_own(folder / LOCK)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = _holder(file)
        file.close()
        raise ConfigError(
            f"{folder}: {holder} is using this folder. Wait until it ends, stop it, or choose another folder."
        ) from None
    except OSError as error:
        # Some network file systems have no locks; refusing to run there would not help.
        if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
            raise
    return file


def _open_own(path: Path) -> IO[str]:
    """Open a file for reading and writing, but not one elsewhere that a link leads to."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise ConfigError(
            f"{path} is a link, and a lock is never one. Remove it, or work on a copy of the folder."
        ) from error
    return os.fdopen(descriptor, "a+")


def _holder(file: IO[str]) -> str:
    file.seek(0)
    try:
        found = json.load(file)
        return f"process {found['process']} on {found['host']}, since {found['since']},"
    except (ValueError, KeyError, TypeError):
        return "another process"
