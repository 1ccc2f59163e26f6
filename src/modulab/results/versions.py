"""The versions of the programs that made a result."""

from __future__ import annotations

import platform
import subprocess
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


@lru_cache(maxsize=1)
def versions() -> dict[str, str | None]:
    """Return what made these results: modulab, torch, python and, from a checkout, the git commit."""
    return {
        "modulab": _installed("modulab"),
        "torch": _installed("torch"),
        "python": platform.python_version(),
        "git_commit": _git_commit(),
    }


def _installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _git_commit() -> str | None:
    """Return the commit of the checkout that this package runs from, with `-dirty` where files differ."""
    checkout = Path(__file__).resolve().parents[3]
    if not (checkout / ".git").exists() or not (checkout / "src" / "modulab").is_dir():
        return None
    # Without locks: --dirty would else refresh the index, which can disturb another git command of the user.
    command = ["git", "--no-optional-locks", "-C", str(checkout)]
    try:
        described = subprocess.run(
            [*command, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return described.stdout.strip() or None
