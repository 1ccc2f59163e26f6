"""`modulab init`: a small project to begin with, whose task, measure and experiment run as they are."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from modulab.errors import ConfigError, naming

STARTER = Path(str(files("modulab").joinpath("starter")))
"""The folder that is copied."""


def begin_project(folder: Path) -> list[Path]:
    """Copy the starting project to a folder; return the files that were written, relative to it.

    Raises: ConfigError if one of them is there already, before anything is written; OSError if one cannot be written,
    after removing the others.
    """
    names = [path.relative_to(STARTER) for path in sorted(STARTER.rglob("*")) if _belongs(path)]
    there = [str(folder / name) for name in names if (folder / name).exists()]
    if there:
        raise ConfigError(f"{', '.join(there)}: there already. Choose another folder: modulab init FOLDER.")
    try:
        for name in names:
            target = folder / name
            with naming(target):
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes((STARTER / name).read_bytes())
                target.chmod((STARTER / name).stat().st_mode)
    except OSError:
        for name in names:
            (folder / name).unlink(missing_ok=True)
        raise
    return names


def _belongs(path: Path) -> bool:
    return path.is_file() and "__pycache__" not in path.parts
