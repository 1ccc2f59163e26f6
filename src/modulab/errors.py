"""Errors that users can cause, and errors of code that is not part of modulab."""

from __future__ import annotations

import errno
import os
import traceback
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

_PACKAGE = f"{Path(__file__).parent}{os.sep}"

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Errors of a disk, a quota or a limit on files that is used up."""


class _Short(BaseException):
    """An error whose message is complete: a notebook shows it without the frames of modulab's own code."""

    def _render_traceback_(self) -> list[str]:
        """Return the lines that IPython shows, in a notebook and on a terminal: the user's own, and the message."""
        frames = list(traceback.extract_tb(self.__traceback__))
        own = next((place for place, each in enumerate(frames) if each.filename.startswith(_PACKAGE)), None)
        callers = [each for each in frames[:own] if f"{os.sep}IPython{os.sep}" not in each.filename]
        lines = [f"line {each.lineno}: {each.line}" for each in callers if each.line]
        return [*lines, f"{type(self).__name__}: {self}"]


class ConfigError(ValueError, _Short):
    """A setting or argument is invalid; the message says what is wrong, where, and how to fix it."""

    is_of_unknown_key = False
    """Whether a key does not exist: other values of it are invalid, too."""


class Interrupted(KeyboardInterrupt, _Short):
    """Ctrl-C, or a notebook's interrupt; the message says where finished results are, and how to resume."""


class ForeignError(Exception):
    """Code outside modulab failed: a task, measure, regulariser or logger. The message names the type of the error."""


class MeasureFailed(ForeignError):
    """A measure failed; the network was trained, and its other measures are not affected."""

    def __init__(self, key: str, reason: str, by_itself: bool = True) -> None:
        """`key` is the measure's, below `probes.measures`; `by_itself` is false if it only fails beside another."""
        super().__init__(f"probes.measures.{key}: {reason}")
        self.key = key
        self.reason = reason
        self.by_itself = by_itself


class foreign_code:
    """Turn whatever other people's code raises within, `SystemExit` too, into ForeignError.

    A class, because a generator that GeneratorExit is thrown into may be closed and lose what the error says.

    Raises: ConfigError and KeyboardInterrupt as they are.
    """

    def __enter__(self) -> None:
        """Begin."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Raise ForeignError for what was raised."""
        if error is not None and not isinstance(error, ConfigError | ForeignError | KeyboardInterrupt):
            raise ForeignError(describe(error)) from error


def describe(error: BaseException) -> str:
    """Return an error's type and the first line of its message."""
    reason = next(iter(str(error).strip().splitlines()), "")
    return f"{type(error).__name__}: {reason}" if reason else type(error).__name__


@contextmanager
def naming(path: Path, written: Path | None = None) -> Generator[None]:
    """Let errors of the system name the file that is written within.

    An error of a full disk names none, and others may name the file that is `written` for a while in its place.
    """
    try:
        yield
    except OSError as error:
        unnamed = error.filename is None and error.errno in FULL
        if error.errno is None or not (unnamed or str(error.filename) == str(written)):
            raise
        raise OSError(error.errno, os.strerror(error.errno), str(path)) from error
