"""Stock Lightning, a network a Trainer.fit, with automatic optimisation and without any logger, checkpoint or bar.

`prepare` feeds it as tutorials do: a DataLoader with its default collation over a TensorDataset.
`prepare_tuned` is what an expert would do: a bare-bones Trainer, and a DataLoader that indexes a whole
batch at once.

Only steps count, timed from the first minibatch to the last; what fit needs before and after them is
reported apart, as start-up per network.
"""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Iterable

import lightning
import torch
from torch import Tensor, nn
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, TensorDataset

from benchmark_contenders.plain_torch import NoisyPerceptron, draw_points, stopped_clock, summarise
from benchmark_contenders.workload import BATCH_SIZE, LEARNING_RATE, Repeat, Timing, Workload


class TimedLearner(lightning.LightningModule):
    """Notes when the first step of a fit begins and the last one ends, and keeps the losses."""

    def __init__(self) -> None:
        super().__init__()
        self.losses: list[Tensor] = []
        self.started = self.ended = 0.0

    def on_train_epoch_start(self) -> None:
        self.started = stopped_clock(self.device.type)

    def on_train_epoch_end(self) -> None:
        self.ended = stopped_clock(self.device.type)


class Learner(TimedLearner):
    def __init__(self, workload: Workload) -> None:
        super().__init__()
        self.network = NoisyPerceptron(workload.noise)
        self.sigma = workload.sigma

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=LEARNING_RATE, fused=True)

    def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        inputs, targets = batch
        loss = nn.functional.mse_loss(self.network(inputs, self.sigma), targets)
        self.losses.append(loss.detach())
        return loss


def default_loader(
    dataset: TensorDataset, steps: int, batch_size: int = BATCH_SIZE
) -> Iterable[list[Tensor]]:
    sampler = RandomSampler(dataset, replacement=True, num_samples=steps * batch_size)
    return DataLoader(dataset, batch_size=batch_size, sampler=sampler)


def stock_trainer(device: str = "cpu") -> lightning.Trainer:
    return lightning.Trainer(
        accelerator=device,
        devices=1,
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def _batched_loader(dataset: TensorDataset, steps: int) -> Iterable[list[Tensor]]:
    sampler = RandomSampler(dataset, replacement=True, num_samples=steps * BATCH_SIZE)
    return DataLoader(dataset, batch_size=None, sampler=BatchSampler(sampler, BATCH_SIZE, drop_last=False))


def _prepare(workload: Workload, tuned: bool) -> Repeat:
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    networks = 1 if workload.quick else 2

    def fit() -> tuple[Learner, float]:
        inputs, targets = draw_points(1)
        start = time.perf_counter()
        dataset = TensorDataset(inputs[0], targets[0])
        loader = (_batched_loader if tuned else default_loader)(dataset, workload.steps)
        learner = Learner(workload)
        trainer = (
            lightning.Trainer(accelerator=workload.device, devices=1, max_epochs=1, barebones=True)
            if tuned
            else stock_trainer(workload.device)
        )
        trainer.fit(learner, loader)
        whole = time.perf_counter() - start
        return learner, whole - (learner.ended - learner.started)

    def repeat(number: int) -> Timing:
        torch.manual_seed(number)
        fits = [fit() for _ in range(networks)]
        steps = [torch.stack(each) for each in zip(*(learner.losses for learner, _ in fits), strict=True)]
        return summarise(
            steps,
            sum(learner.ended - learner.started for learner, _ in fits),
            networks * workload.steps,
            sum(startup for _, startup in fits) / networks,
        )

    return repeat


def prepare(workload: Workload) -> Repeat:
    return _prepare(workload, tuned=False)


def prepare_tuned(workload: Workload) -> Repeat:
    return _prepare(workload, tuned=True)
