"""The reports of a run to its loggers. An error of a logger does not stop the run."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, runtime_checkable

from modulab.config.loggers import CsvLogger, Loggers, TensorboardLogger, wandb_folder
from modulab.errors import ConfigError, ForeignError, foreign_code
from modulab.logger.journal import Heads, Journal
from modulab.logger.ledger import Ledger
from modulab.logger.records import outcomes
from modulab.logger.wandb_process import WandbProcess
from modulab.progress import Style
from modulab.text import printable, to_stderr


@runtime_checkable
class Channel(Protocol):
    """A channel to one logger: a `Journal` in this process, or one in another process."""

    def begin(self, members: Heads) -> None:
        """Take note of a population that is about to train."""
        ...

    def point(self, step: int, values: Mapping[str, Sequence[float]]) -> None:
        """Take a point of its curves: one value per member for each measure."""
        ...

    def catch_up(self) -> None:
        """Take note that the folder has new results."""
        ...

    def end(self) -> None:
        """Log what is left, and the sweep as a whole."""
        ...

    def abandon(self) -> None:
        """Take note that the run was interrupted."""
        ...


class RunLog:
    """Reports to all loggers of a run. One that fails is named once, and gets no further reports."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._channels: dict[str, Channel] = {}

    def open(self, name: str, make: Callable[[], Channel]) -> None:
        """Add a logger."""
        with self._guard(name):
            self._channels[name] = make()

    def begin(self, members: Heads) -> None:
        """Report a population that is about to train: each member's run_id and config."""
        self._tell(lambda channel: channel.begin(members))

    def point(self, step: int, values: Mapping[str, Sequence[float]]) -> None:
        """Report a point of the population's curves: one value per member for each measure."""
        self._tell(lambda channel: channel.point(step, values))

    def catch_up(self) -> None:
        """Report that the folder has new results."""
        self._tell(lambda channel: channel.catch_up())

    def end(self) -> None:
        """Wait until everything is logged."""
        self._tell(lambda channel: channel.catch_up())
        self._tell(lambda channel: channel.end())

    def abandon(self) -> None:
        """Report that the run was interrupted."""
        self._tell(lambda channel: channel.abandon())

    @property
    def names(self) -> list[str]:
        """Return the loggers that have not failed."""
        return list(self._channels)

    def _tell(self, what: Callable[[Channel], None]) -> None:
        for name, channel in list(self._channels.items()):
            with self._guard(name):
                what(channel)

    @contextmanager
    def _guard(self, name: str) -> Generator[None]:
        try:
            with foreign_code():
                yield
        except (ForeignError, ConfigError) as error:  # Results do not depend on loggers.
            self._channels.pop(name, None)
            say(
                f"logger={name} failed and is not used any more ({error}). "
                f"To log everything later: modulab log {self._folder} logger={name}"
            )


def logged_so_far(folder: Path, names: Sequence[str]) -> list[str]:
    """Return one sentence per logger: how many members were exported, where, and how to upload what waits."""
    if not names:
        return []
    ended = outcomes(folder)
    sentences: list[str] = []
    for name in names:
        known = len(ended) - len(Ledger(folder, name).lacks(ended))
        place = wandb_folder(folder) if name == "wandb" else folder / name
        sentences.append(f"{name}: {known} of {len(ended)} members logged, in {place}")
    waiting = [run for run in wandb_folder(folder).glob("offline-run-*") if not list(run.glob("*.synced"))]
    if "wandb" in names and waiting:
        upload = shlex.join(["wandb", "sync", str(wandb_folder(folder))])
        sentences.append(f"wandb: {len(waiting)} runs are kept offline. To upload them: {upload}")
    return sentences


def say(sentence: str) -> None:
    """Print a message for the user."""
    to_stderr(printable(sentence))


@contextmanager
def open_log(settings: Loggers, folder: Path, style: Style) -> Generator[RunLog]:
    """Yield the log of a run in a folder; at the end it waits until all is logged, unless the run was interrupted."""
    log = RunLog(folder)
    csv, tensorboard = settings.csv, settings.tensorboard
    wandb = None if settings.wandb is None else settings.wandb.with_environment(os.environ)
    if csv is not None:
        log.open("csv", lambda: _csv(csv, folder))
    if tensorboard is not None:
        log.open("tensorboard", lambda: _tensorboard(tensorboard, folder))
    if wandb is not None and wandb.mode != "disabled":
        log.open("wandb", lambda: WandbProcess(wandb, folder, style, say))
    try:
        yield log
    except BaseException:
        log.abandon()
        raise
    log.end()


def _csv(settings: CsvLogger, folder: Path) -> Journal:
    from modulab.logger.lightning_backends import CsvBackend

    return Journal(folder, CsvBackend(folder), Ledger(folder, "csv"), settings.live_up_to)


def _tensorboard(settings: TensorboardLogger, folder: Path) -> Journal:
    from modulab.logger.lightning_backends import TensorboardBackend

    return Journal(folder, TensorboardBackend(folder), Ledger(folder, "tensorboard"), settings.live_up_to)
