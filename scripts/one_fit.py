"""What training costs packed, and by stock Lightning with one fit per network: scripts print the ratio."""

from __future__ import annotations

import logging
import time
import warnings
from typing import Any

import lightning
import pandas as pd
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, RandomSampler, TensorDataset

from modulab.config.composing import compose_checked, hydra_composer, plan_run
from modulab.config.settings import Member
from modulab.regularisers import Pass
from modulab.streams import member_keys
from modulab.training.data import training_points
from modulab.training.program import initialise, network_of, program_of

STEPS = 200
"""Of the fit that is timed, and as many before it."""


class Learner(lightning.LightningModule):
    """One member as a separate module: the same network, points, loss and penalty, without noise."""

    def __init__(self, member: Member) -> None:
        super().__init__()
        self.member, self.program = member, program_of(member)
        self.mask, start = initialise([member], network_of(member))
        self.weights = nn.Parameter(start)

    def configure_optimizers(self) -> Any:
        """Return Adam with a cosine schedule."""
        optimiser = torch.optim.Adam([self.weights], lr=self.member.training.learning_rate)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, self.member.training.steps)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Return the loss of a minibatch with its penalty."""
        inputs, targets = batch[0][None], batch[1][None]
        program, regulariser = self.program, self.member.regulariser
        recording = program.network.record(self.weights, inputs)
        loss = program.loss.total(recording.outputs, targets, program.partition)
        if program.regulariser is not None:
            own = {name: torch.tensor([value]) for name, value in regulariser.coefficients().items()}
            run = Pass(program.network, self.weights, self.mask, inputs, recording)
            loss = loss + own["strength"] * program.regulariser.penalty(run, own, program.variant)
        return loss.sum()


def microseconds_per_step(overrides: list[str]) -> float:
    """Return the time of a step of the first member that the overrides ask for, start-up not counted."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    with hydra_composer() as compose:
        member = plan_run(compose_checked(compose, overrides), overrides, compose).runs[0].member
    size = member.data.num_samples or member.training.batch_size * STEPS
    points = training_points(member.task, member_keys([member.seed]), 0, size)[0]
    network = network_of(member)
    dataset = TensorDataset(points[:, : network.in_features], points[:, network.in_features :])
    batch = member.training.batch_size
    loader = DataLoader(dataset, batch, sampler=RandomSampler(dataset, True, 2 * STEPS * batch))
    times: list[float] = []

    class Clock(lightning.Callback):
        def on_train_batch_end(self, *_: Any) -> None:
            times.append(time.perf_counter())

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        lightning.Trainer(
            accelerator="cpu", max_epochs=1, callbacks=[Clock()], logger=False, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False,
        ).fit(Learner(member), loader)  # fmt: skip
    return (times[-1] - times[STEPS - 1]) / STEPS * 1e6


def packed_against_one_fit(rows: pd.DataFrame, overrides: list[str]) -> str:
    """Return a sentence with the time of a network and step in rows that were trained, and that of a fit."""
    packed = float((rows["seconds"] / rows["config.training.steps"]).mean()) * 1e6
    alone = microseconds_per_step(overrides)
    return (
        f"A network and step take {packed:.2f} us packed, and {alone:.0f} us with one Lightning fit per network: "
        f"{alone / packed:.0f} times as long, {alone * float(rows['config.training.steps'].sum()) / 3.6e9:.1f} hours "
        f"for all {len(rows)}."
    )
