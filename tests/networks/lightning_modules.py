"""LightningModules of a user, for tests: well-behaved ones, and one that fails where it is told to."""

from __future__ import annotations

import os
import random
import signal
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningDataModule, LightningModule
from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from modulab.training.learner import initialise
from modulab.training.program import network_of
from tests.members import make_member


class Regressor(LightningModule):
    """Two layers, with dropout, Adam and a schedule; draws from all three generators as it trains."""

    def __init__(self, in_features: int, out_features: int, lr: float = 0.01, width: int = 8) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.net = nn.Sequential(
            nn.Linear(in_features, width), nn.ReLU(), nn.Dropout(0.1), nn.Linear(width, out_features)
        )
        self.lr = lr

    def forward(self, inputs: Tensor) -> Tensor:
        return self.net(inputs)

    def training_step(self, batch: list[Tensor], batch_index: int) -> Tensor:
        inputs, targets = batch
        loss = (self.net(inputs) - targets).square().mean()
        self.log("loss", loss)
        self.log("draws", random.random() + np.random.random() + float(torch.rand(())))  # noqa: NPY002
        return loss

    def configure_optimizers(self) -> Any:
        optimiser = torch.optim.Adam(self.parameters(), lr=self.lr)
        return [optimiser], [torch.optim.lr_scheduler.StepLR(optimiser, 1, gamma=0.9)]


class OwnData(Regressor):
    """Trains on a loader of its own, shuffled by torch's generator."""

    def train_dataloader(self) -> Any:
        inputs = torch.linspace(-1, 1, 24)[:, None].repeat(1, self.net[0].in_features)
        return DataLoader(
            TensorDataset(inputs, inputs[:, : self.net[-1].out_features].sin()), 8, shuffle=True
        )


class Points(LightningDataModule):
    """Points of a plane of any width."""

    def __init__(self, features: int, outputs: int) -> None:
        super().__init__()
        self.features, self.outputs = features, outputs

    def train_dataloader(self) -> Any:
        return DataLoader(
            TensorDataset(torch.rand(16, self.features), torch.rand(16, self.outputs)), 4, shuffle=True
        )


class Equipped(Regressor):
    """Brings callbacks that log and save, and gives numbers to its logger."""

    def training_step(self, batch: list[Tensor], batch_index: int) -> Tensor:
        if self.logger is not None:
            self.logger.log_metrics({"batch": batch_index})
            self.logger.experiment.add_text("a text")
        return super().training_step(batch, batch_index)

    def configure_callbacks(self) -> Any:
        return [LearningRateMonitor(logging_interval="epoch"), ModelCheckpoint(every_n_train_steps=5)]


class Recurrent(LightningModule):
    """A recurrent layer of torch, which cannot be vectorised over networks."""

    def __init__(self, out_features: int) -> None:
        super().__init__()
        self.steps = nn.GRU(1, 4, batch_first=True)
        self.write = nn.Linear(4, out_features)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.write(self.steps(inputs[..., None])[0][:, -1])

    def training_step(self, batch: list[Tensor], batch_index: int) -> Tensor:
        return (self(batch[0]) - batch[1]).square().mean()

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class LikeModulab(LightningModule):
    """What modulab's perceptron is, begun from the same weights."""

    def __init__(self, seed: int, lr: float, width: int) -> None:
        super().__init__()
        member = make_member(seed=seed, architecture__width=width)
        network = network_of(member)
        parts = network.split(initialise([member], network)[1])
        self.first = nn.Linear(network.in_features, width)
        self.last = nn.Linear(width, network.out_features)
        for number, layer in enumerate((self.first, self.last)):
            layer.weight.data = parts[f"weight.{number}"][0].clone()
            layer.bias.data = parts[f"bias.{number}"][0].clone()
        self.lr = lr

    def forward(self, inputs: Tensor) -> Tensor:
        return self.last(self.first(inputs).relu())

    def training_step(self, batch: list[Tensor], batch_index: int) -> Tensor:
        return (self(batch[0]) - batch[1]).square().mean()

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=self.lr)


class Failing(Regressor):
    """Fails in the phase that it is told."""

    def __init__(self, in_features: int, out_features: int, where: str) -> None:
        super().__init__(in_features, out_features)
        self.where = where
        self._fail("constructor")

    def _fail(self, phase: str) -> None:
        if self.where == phase:
            raise RuntimeError(f"my {phase} is broken")

    def setup(self, stage: str) -> None:
        self._fail("setup")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self._fail("on_save_checkpoint")

    def configure_optimizers(self) -> Any:
        self._fail("configure_optimizers")
        if self.where == "no_optimiser":
            return None
        return super().configure_optimizers()

    def training_step(self, batch: list[Tensor], batch_index: int) -> Tensor:
        self._fail("training_step")
        if self.where == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        loss = super().training_step(batch, batch_index)
        return loss * float("nan") if self.where == "diverging" else loss
