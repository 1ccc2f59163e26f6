"""Architectures that train themselves: each member is a LightningModule with its own optimisers and data."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar

from torch import nn

from modulab.networks.base import Architecture
from modulab.tasks.base import Task

if TYPE_CHECKING:
    from lightning.pytorch import LightningDataModule, LightningModule
else:
    # Annotations are checked in tests. Every command imports this module, and most do without Lightning, which takes
    # seconds to import.
    LightningDataModule = LightningModule = object


class SelfTrained(Architecture):
    """The settings of a network whose training is not modulab's: one fit per member, in its own process.

    Nothing is built before that process runs, so what fails there fails for that member alone.
    """

    engine: ClassVar[str]
    """The name of the engine in the column `engine` of results."""

    @abstractmethod
    def check(self) -> None:
        """Check what can be checked without building anything. Raises: ConfigError."""

    @property
    @abstractmethod
    def brings_data(self) -> bool:
        """Return whether it has its own training data instead of the task's points."""

    @abstractmethod
    def build(self, task: Task) -> LightningModule:
        """Return a new module, which draws from the process's random state."""

    @abstractmethod
    def build_data(self) -> LightningDataModule | None:
        """Return the data that it trains on, or None if the module or the task gives it."""

    @abstractmethod
    def described(self, module: LightningModule) -> nn.Module:
        """Return the part of a module whose parameters and buffers `network` lays out."""
