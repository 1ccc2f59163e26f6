"""Runs of the sweep benchmark as a stock Lightning script does them: one fit after the other, then the measures.

Takes runs as JSON lines on standard input and answers each with its time and clean error. The measures are
modulab's own, taken on one network at a time, so that every way of running the grid gives the same table.
"""

from __future__ import annotations

import json
import logging
import sys
import time
import warnings
from typing import Any

import lightning
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from benchmark_contenders.plain_torch import NoisyPerceptron, draw_points
from benchmark_contenders.stock_lightning import default_loader, stock_trainer
from benchmark_contenders.workload import HIDDEN_FEATURES, IN_FEATURES, LEARNING_RATE, OUT_FEATURES
from modulab.config.composing import compose_checked, hydra_composer, plan_run
from modulab.metrics.taking import measure_population
from modulab.networks.base import NetworkPopulation
from modulab.networks.perceptron import Perceptron, architecture_mask, flatten
from modulab.streams import member_keys


class Learner(lightning.LightningModule):
    def __init__(self, sigma: float, masks: list[Tensor] | None, steps: int) -> None:
        super().__init__()
        self.network = NoisyPerceptron(sigma > 0)
        self.sigma, self.masks, self.steps = sigma, masks, steps

    def configure_optimizers(self) -> Any:
        optimiser = torch.optim.Adam(self.parameters(), lr=LEARNING_RATE)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, self.steps)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        inputs, targets = batch
        return nn.functional.mse_loss(self.network(inputs, self.sigma), targets)

    def on_train_start(self) -> None:
        self.apply_masks()

    def on_train_batch_end(self, *_: Any) -> None:
        self.apply_masks()

    def apply_masks(self) -> None:
        if self.masks is not None:
            with torch.no_grad():
                for layer, mask in zip((self.network.first, self.network.readout), self.masks, strict=True):
                    layer.weight.mul_(mask)


def main() -> None:
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    with hydra_composer() as compose:
        [run] = plan_run(compose_checked(compose, []), [], compose).runs
    member = run.member
    shape = Perceptron(IN_FEATURES, (HIDDEN_FEATURES,), OUT_FEATURES, "relu")
    for line in sys.stdin:
        run = json.loads(line)
        start = time.perf_counter()
        error = train_and_measure(run, member, shape)
        print(json.dumps({"seconds": time.perf_counter() - start, "error": error}), flush=True)


def train_and_measure(run: dict[str, Any], member: Any, shape: Perceptron) -> float:
    torch.manual_seed(run["seed"])
    inputs, targets = draw_points(1, run["samples"])
    loader = default_loader(TensorDataset(inputs[0], targets[0]), run["steps"])
    masks = None
    if run["architecture"] == "premodular":
        mask = architecture_mask(shape, member.task.partition, [0.0], member_keys([0]))
        masks = [layer[0] for layer in shape.unflatten(mask)[0]]
    learner = Learner(run["noise"], masks, run["steps"])
    stock_trainer().fit(learner, loader)
    network = learner.network
    layers = (network.first, network.readout)
    parameters = flatten([layer.weight[None] for layer in layers], [layer.bias[None] for layer in layers])
    keys = member_keys([run["seed"]])
    measures = measure_population(
        member.task, NetworkPopulation(shape, parameters.detach()), keys, member.probes
    )
    return float(measures["error/test"])


if __name__ == "__main__":
    main()
