"""Overrides that a script and its user give: each key may be given once, and the user's takes its place."""

from collections.abc import Sequence


def with_given(own: Sequence[str], given: Sequence[str]) -> list[str]:
    """Return the overrides of a script, less those whose keys the user gives, and then the user's."""
    keys = {_key(override) for override in given}
    return [override for override in own if _key(override) not in keys] + list(given)


def _key(override: str) -> str:
    return override.partition("=")[0].lstrip("+~")
