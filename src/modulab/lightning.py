"""What modulab uses of Lightning, imported without what Lightning imports but this does not use (`postponed`)."""

from modulab.postponed import import_lightning

import_lightning()

from lightning.fabric.plugins.environments.lightning import LightningEnvironment  # noqa: E402
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer, seed_everything  # noqa: E402
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger  # noqa: E402
from lightning.pytorch.plugins.io import TorchCheckpointIO  # noqa: E402

__all__ = [
    "CSVLogger",
    "Callback",
    "LightningDataModule",
    "LightningEnvironment",
    "LightningModule",
    "Logger",
    "TensorBoardLogger",
    "TorchCheckpointIO",
    "Trainer",
    "seed_everything",
]
