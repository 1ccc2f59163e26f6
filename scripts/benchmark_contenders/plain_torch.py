"""A plain torch loop, one network after the other: data in memory, one indexing per step, fused Adam."""

from __future__ import annotations

import time

import torch
from torch import Tensor, nn

from benchmark_contenders.workload import (
    BATCH_SIZE,
    HIDDEN_FEATURES,
    IN_FEATURES,
    LEARNING_RATE,
    LOSS_WINDOW,
    NUM_SAMPLES,
    OUT_FEATURES,
    Repeat,
    Timing,
    Workload,
)


class NoisyPerceptron(nn.Module):
    """The reference network; `sigma` is a float, or a tensor where networks are stacked.

    Noise is drawn here unless `draws` brings it.
    """

    def __init__(self, noise: bool) -> None:
        super().__init__()
        self.first = nn.Linear(IN_FEATURES, HIDDEN_FEATURES)
        self.readout = nn.Linear(HIDDEN_FEATURES, OUT_FEATURES)
        self.noise = noise
        for layer in (self.first, self.readout):
            nn.init.normal_(layer.weight, std=layer.in_features**-0.5)
            nn.init.zeros_(layer.bias)

    def forward(self, inputs: Tensor, sigma: float | Tensor, draws: Tensor | None = None) -> Tensor:
        activity = torch.relu(self.first(inputs))
        if self.noise:
            draws = torch.randn_like(activity) if draws is None else draws
            activity = activity + sigma * torch.sqrt(activity) * draws
        return self.readout(activity)


def draw_points(networks: int, samples: int = NUM_SAMPLES, device: str = "cpu") -> tuple[Tensor, Tensor]:
    """Return inputs and targets, both (network, sample, feature)."""
    inputs = torch.rand(networks, samples, IN_FEATURES, device=device) * 2 - 1
    targets = torch.stack([torch.sin(torch.pi * inputs[..., 0]), 2 * inputs[..., 1].square() - 1], dim=-1)
    return inputs, targets


def stopped_clock(device: str) -> float:
    """Return the time, once a device has done what it was given."""
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def summarise(
    losses: list[Tensor], seconds: float, network_steps: int, startup_seconds: float = 0.0
) -> Timing:
    """Return a timing from the losses of every step, of one network or of many."""
    return Timing(
        seconds,
        network_steps,
        torch.stack(losses[:LOSS_WINDOW]).mean().item(),
        torch.stack(losses[-LOSS_WINDOW:]).mean().item(),
        startup_seconds,
    )


def prepare(workload: Workload) -> Repeat:
    def train(inputs: Tensor, targets: Tensor) -> list[Tensor]:
        network = NoisyPerceptron(workload.noise).to(workload.device)
        optimiser = torch.optim.Adam(network.parameters(), lr=LEARNING_RATE, fused=True)
        losses: list[Tensor] = []
        for _ in range(workload.steps):
            chosen = torch.randint(NUM_SAMPLES, (BATCH_SIZE,), device=workload.device)
            loss = nn.functional.mse_loss(network(inputs[chosen], workload.sigma), targets[chosen])
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            losses.append(loss.detach())
        return losses

    networks = 1 if workload.quick else 4

    def repeat(number: int) -> Timing:
        torch.manual_seed(number)
        points = [draw_points(1, device=workload.device) for _ in range(networks)]
        start = stopped_clock(workload.device)
        losses = [train(inputs[0], targets[0]) for inputs, targets in points]
        seconds = stopped_clock(workload.device) - start
        steps = [torch.stack(each) for each in zip(*losses, strict=True)]
        return summarise(steps, seconds, networks * workload.steps)

    return repeat
