"""Text from files and users, made safe to show."""

from __future__ import annotations

import fnmatch
import functools
import sys
from contextlib import suppress


def printable(text: str) -> str:
    """Return text in which control characters, which a terminal would interpret, are written as escapes."""
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode("ascii") for each in text
    )


def matches(name: str, pattern: str) -> bool:
    """Return whether a pattern such as modularity/* stands for a name; a name, whatever is in it, stands for itself."""
    return name == pattern or fnmatch.fnmatchcase(name, pattern)


def to_stderr(line: str) -> None:
    """Print a line to standard error, unless nobody can read it: a terminal that was closed must not end training."""
    with suppress(OSError):
        print(line, file=sys.stderr, flush=True)


@functools.cache
def say_once(message: str) -> None:
    """Print a notice to standard error, once per process."""
    to_stderr(f"notice: {printable(message)}")
