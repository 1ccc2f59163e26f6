"""Checkpoints: one file a population, written in one move and read with care."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer as LightningTrainer

from modulab.errors import ConfigError
from modulab.results.files import replacing

CHECKPOINT_FORMAT = 1
"""Goes up when a checkpoint changes its meaning; files of another version are refused."""

_KEYS = {"members", "row_of_member", "shape", "curve_steps", "curves", "seconds"}
_STATE = {"parameters_by_row", "first_moments", "second_moments", "next_step", "diverged_at"}


def save_checkpoint(trainer: LightningTrainer, path: Path) -> None:
    """Write the trainer's state, in the place of an earlier one."""
    with replacing(path, mark="partial") as beside:
        trainer.save_checkpoint(beside)


def read_checkpoint(path: Path) -> Mapping[str, Any]:
    """Return a population's checkpoint. Raises: ConfigError where it is damaged or of another version."""
    try:
        _check_sums(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises a different kind for each way a file can be broken
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ConfigError(
            f"{path} is damaged and cannot be read ({reason}). It is left as it is. "
            "Restore it from a copy, or move it away and run the same command again to train its members anew."
        ) from error
    saved = content.get("modulab") if isinstance(content, dict) else None
    found = saved.get("format") if isinstance(saved, dict) else None
    if found != CHECKPOINT_FORMAT:
        raise ConfigError(
            f"{path} was written by another version of modulab (checkpoint format {found}; this one reads "
            f"{CHECKPOINT_FORMAT}). Use that version for it, or another folder for new runs."
        )
    assert isinstance(saved, dict)
    state = content.get("state_dict")
    missing = sorted(_KEYS - set(saved)) + sorted(_STATE - set(state if isinstance(state, dict) else {}))
    if missing:
        raise ConfigError(
            f"{path} is damaged: it lacks {', '.join(missing)}. Restore it from a copy, or move it away and run the "
            "same command again to train its members anew."
        )
    return content


def _check_sums(path: Path) -> None:
    """Check every record of a checkpoint against its sum, which torch writes and does not compare."""
    with zipfile.ZipFile(path) as archive:
        broken = archive.testzip()
    if broken is not None:
        raise ValueError(f"the sum of {broken} does not fit")
