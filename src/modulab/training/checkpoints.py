"""Checkpoints: one file per population, written atomically and checked when read."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch

from modulab.errors import ConfigError
from modulab.networks.base import Network, Parameter
from modulab.networks.perceptron import Perceptron
from modulab.results.files import replacing

if TYPE_CHECKING:
    from lightning.pytorch import Trainer as LightningTrainer
else:
    # Annotations are checked in tests. A checkpoint is read without Lightning, which takes seconds to import.
    LightningTrainer = object

CHECKPOINT_FORMAT = 2
"""Increased when the meaning of a checkpoint changes. Format 1, of perceptrons alone, is read as well."""

_KEYS = {"members", "row_of_member", "layout", "curve_steps", "curves", "seconds"}
_STATE = {"parameters_by_row", "first_moments", "second_moments", "next_step", "diverged_at"}


def save_checkpoint(trainer: LightningTrainer, path: Path) -> None:
    """Write the trainer's state, replacing an earlier one."""
    with replacing(path, mark="partial") as beside:
        trainer.save_checkpoint(beside)


def read_checkpoint(path: Path) -> Mapping[str, Any]:
    """Return a population's checkpoint. Raises: ConfigError if it is damaged or of another version."""
    try:
        _check_sums(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises a different kind for each way a file can be broken
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ConfigError(
            f"{path} is damaged and cannot be read ({reason}). It was not changed. "
            "Restore it from a copy, or move it away and run the same command again to train its members again."
        ) from error
    saved = content.get("modulab") if isinstance(content, dict) else None
    found = saved.get("format") if isinstance(saved, dict) else None
    if found == 1 and isinstance(saved, dict):
        saved = content["modulab"] = _from_format_1(path, saved)
    elif found != CHECKPOINT_FORMAT:
        raise ConfigError(
            f"{path} was written by another version of modulab (checkpoint format {found}; this one reads "
            f"1 to {CHECKPOINT_FORMAT}). Use that version for it, or another folder for new runs."
        )
    assert isinstance(saved, dict)
    state = content.get("state_dict")
    missing = sorted(_KEYS - set(saved)) + sorted(_STATE - set(state if isinstance(state, dict) else {}))
    if missing:
        raise ConfigError(
            f"{path} is damaged: it lacks {', '.join(missing)}. Restore it from a copy, or move it away and run the "
            "same command again to train its members again."
        )
    if not _is_consistent(content):
        raise ConfigError(
            f"{path} is damaged: its layout, rows and parameters do not go together. Restore it from a copy, or move "
            "it away and run the same command again to train its members again."
        )
    return content


def _is_consistent(content: Mapping[str, Any]) -> bool:
    """Return whether the layout describes the parameters, and every member has a row of them."""
    parameters, rows = content["state_dict"]["parameters_by_row"], content["modulab"]["row_of_member"]
    try:
        written: list[Any] = content["modulab"]["layout"]
        sizes = [size for _, shape, _ in written for size in shape]
        return (
            all(isinstance(name, str) for name, _, _ in written)
            and all(isinstance(size, int) and size > 0 for size in sizes)
            and (len(parameters), sum(part.size for part in layout_of(content))) == tuple(parameters.shape)
            and bool(((rows >= 0) & (rows < len(parameters))).all())
            and len(rows) == len(content["modulab"]["members"])
            and int(content["state_dict"]["next_step"]) >= 0
        )
    except (AttributeError, RuntimeError, TypeError, ValueError):
        return False


def member_engines(saved: Mapping[str, Any]) -> list[str | None]:
    """Return the engine that trained each member, from the data of a checkpoint other than its tensors.

    Earlier versions kept one for all members, or none.
    """
    engines = saved.get("engines", saved.get("engine"))
    members = len(saved["members"])
    if not isinstance(engines, list):
        return [engines if isinstance(engines, str) else None] * members
    named = cast("list[Any]", engines)
    known = len(named) == members and all(isinstance(name, str) for name in named)
    return list(named) if known else [None] * members


def engines_of(path: Path) -> set[str | None]:
    """Return the engines that a checkpoint names, with None for members of which it names none.

    The tensors are not read. One that is damaged has no engines here: resuming it reports the error.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        return set(member_engines(content["modulab"]))
    except Exception:  # torch.load raises a different kind for each way a file can be broken
        return set()


def layout_of(checkpoint: Mapping[str, Any]) -> tuple[Parameter, ...]:
    """Return the layout of a checkpoint's rows of parameters."""
    return tuple(
        Parameter(name, tuple(shape), is_weight) for name, shape, is_weight in checkpoint["modulab"]["layout"]
    )


def check_layout(path: Path, checkpoint: Mapping[str, Any], network: Network) -> None:
    """Raise ConfigError if a checkpoint holds other parameters than a network, whose code may have changed."""
    there, wanted = (
        [(part.name, part.shape) for part in layout] for layout in (layout_of(checkpoint), network.layout)
    )
    if there != wanted:
        name = next(one or other for one, other in zip_longest(there, wanted) if one != other)[0]
        raise ConfigError(
            f"{path}: it contains different parameters than the network has now, from '{name}' on, because "
            "its code has changed. Undo the change, or train in another folder."
        )


def _from_format_1(path: Path, saved: dict[str, Any]) -> dict[str, Any]:
    """Return a checkpoint of format 1, which kept the sizes of a perceptron, in the current form."""
    try:
        in_features, hidden, out_features, activation = saved["shape"]
        layout = Perceptron(in_features, tuple(hidden), out_features, activation).layout
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(
            f"{path} is damaged: it lacks its networks' sizes. Restore it from a copy."
        ) from error
    parts = [[part.name, list(part.shape), part.is_weight] for part in layout]
    return {key: value for key, value in saved.items() if key != "shape"} | {"layout": parts}


def _check_sums(path: Path) -> None:
    """Check every record of a checkpoint against its checksum, which torch writes and does not compare."""
    with zipfile.ZipFile(path) as archive:
        broken = archive.testzip()
    if broken is not None:
        raise ValueError(f"the sum of {broken} does not fit")
