"""Text from files and users, made safe to show."""

from __future__ import annotations


def printable(text: str) -> str:
    """Return text in which control characters, which a terminal would obey, are written as escapes."""
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode("ascii") for each in text
    )
