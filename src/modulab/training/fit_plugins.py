"""The outputs of a fit of a user's LightningModule: its checkpoints, and its `self.logger`."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch

from modulab.errors import describe
from modulab.lightning import Logger, TorchCheckpointIO
from modulab.training.checkpoints import read_checkpoint
from modulab.training.recorder import not_written


class CannotSave(Exception):
    """Lightning's state cannot be kept as data."""


@runtime_checkable
class Kept(Protocol):
    """A fit, in the form of its checkpoints."""

    is_done: bool

    def content(self, lightning: Mapping[str, Any] | None) -> dict[str, Any]:
        """Return what a checkpoint holds, with Lightning's state or, at the end of a fit, without it."""
        ...

    def say(self, sentence: str) -> None:
        """Report a message to the user."""
        ...


class FitCheckpoints(TorchCheckpointIO):
    """Stores Lightning's state with the network's parameters, in types that can be read without running code.

    Checkpoints that callbacks of the user's own write elsewhere are Lightning's, for `load_from_checkpoint`.
    """

    def __init__(self, kept: Kept, path: Path) -> None:
        """Keep a fit in the file `path`."""
        super().__init__()
        self._kept = kept
        self._path = path
        self._refused = False

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write a checkpoint; before the end of a fit none where it could not be read again."""
        if not self._is_own(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        buffer = io.BytesIO()
        if self._kept.is_done:
            torch.save(self._kept.content(None), buffer)
            self._write(Path(path), buffer)
            return
        # What the config says already, or what Lightning keeps for its own use alone.
        state = {
            name: value for name, value in checkpoint.items() if not name.startswith(("hparams", "hyper_"))
        }
        content = self._kept.content(state)
        try:
            torch.save(content, buffer)
            buffer.seek(0)
            torch.load(buffer, weights_only=True)
        except Exception as error:  # pickle and torch raise many kinds
            if not self._refused:
                self._kept.say(
                    "no checkpoint can be saved, so it starts from the first step again if interrupted: its state, "
                    f"such as what on_save_checkpoint adds, holds more than tensors, numbers, text and "
                    f"lists ({describe(error)})"
                )
            self._refused = True
            raise CannotSave from error
        self._write(Path(path), buffer)

    def load_checkpoint(
        self, path: Any, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Return Lightning's state."""
        if not self._is_own(path):
            return super().load_checkpoint(path, map_location, weights_only)
        return dict(read_checkpoint(Path(path))["modulab"]["alone"]["lightning"])

    def _write(self, path: Path, content: io.BytesIO) -> None:
        try:
            path.write_bytes(content.getvalue())
        except OSError as error:
            raise not_written(self._path, error) from error

    def _is_own(self, path: Any) -> bool:
        # It is written to the same folder under another name, and then renamed.
        return Path(path).parent == self._path.parent


class FitLogger(Logger):
    """The object that `self.logger` is: its numbers are stored like those of `self.log`."""

    def __init__(self, say: Callable[[str], None]) -> None:
        super().__init__()
        self._experiment = _Dropped(say)
        self._given: dict[str, float] = {}

    @property
    def name(self) -> str:
        """Return no name: a member's files lie in its own folder."""
        return ""

    @property
    def version(self) -> str:
        """Return no version."""
        return ""

    @property
    def experiment(self) -> Any:
        """Return an object that accepts any call and keeps nothing."""
        return self._experiment

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Keep the last number of each name."""
        del step
        self._given |= {name: float(value) for name, value in metrics.items() if name != "epoch"}

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Keep nothing: the config says what the constructor was given."""

    def take(self) -> dict[str, float]:
        """Return the numbers that were logged since the last call."""
        given, self._given = self._given, {}
        return given


class _Dropped:
    """Accepts calls of any method, in place of a logger."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._has_said = False

    def __getattr__(self, name: str) -> Callable[..., None]:
        if name.startswith("__"):
            raise AttributeError(name)
        return self._drop

    def _drop(self, *args: Any, **kwargs: Any) -> None:
        del args, kwargs
        if not self._has_said:
            self._say(
                "what it gives to self.logger.experiment is not kept: use self.log or self.logger.log_metrics"
            )
        self._has_said = True
