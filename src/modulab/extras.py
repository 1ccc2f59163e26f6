"""Packages that only some runs need: extras of modulab, named where they are missing."""

from __future__ import annotations

import importlib.util

from modulab.errors import ConfigError


def require_extra(extra: str, packages: tuple[str, ...], for_what: str) -> None:
    """Raise ConfigError, with the command that installs the extra, unless one of its packages is there."""
    if not any(is_there(name) for name in packages):
        raise ConfigError(
            f"{for_what} needs {packages[0]}, which is not installed. "
            f"Install it with: pip install 'modulab[{extra}]'"
        )


def is_there(name: str) -> bool:
    """Return whether a package is installed."""
    return importlib.util.find_spec(name) is not None
