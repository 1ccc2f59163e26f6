"""A loop written with torch.nn and torch.optim alone, from the start and on the minibatches of a member."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from modulab.config.settings import Member
from modulab.networks.base import split_parameters
from modulab.streams import Stream, fold_in, integers, member_keys
from modulab.training.data import training_points
from modulab.training.learner import PopulationLearner
from tests.training.fitting import CPU, trained_parameters


def initial_parts(member: Member) -> dict[str, Tensor]:
    """Return a member's parameters before training, by the names of its network's layout."""
    learner = PopulationLearner([member], "eager", CPU)
    parts = split_parameters(learner.member_parameters(), learner.network.layout)
    return {name: part[0].clone() for name, part in parts.items()}


def train_plainly(member: Member, module: nn.Module) -> None:
    """Train a module, which begins as it is, through a member's steps without noise and regulariser.

    `module` takes a (batch, feature) tensor and returns (batch, feature).
    """
    training, task = member.training, member.task
    keys = member_keys([member.seed])
    assert member.data.num_samples is not None
    points = training_points(task, keys, 0, member.data.num_samples)[0].to(next(module.parameters()).dtype)
    common = {"lr": training.learning_rate, "weight_decay": training.weight_decay}
    parameters = list(module.parameters())
    optimiser = {
        "adam": lambda: torch.optim.Adam(parameters, betas=(0.9, 0.999), **common),
        "adamw": lambda: torch.optim.AdamW(parameters, betas=(0.9, 0.999), **common),
        "sgd": lambda: torch.optim.SGD(parameters, momentum=training.momentum, **common),
    }[training.optimiser]()
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=training.steps)
    limits = torch.tensor([member.data.num_samples], dtype=torch.int32)
    counters = torch.arange(training.batch_size, dtype=torch.int32)[None]
    for step in range(training.steps):
        rows = integers(fold_in(fold_in(keys, Stream.MINIBATCH), step), counters, limits)[0].long()
        inputs, targets = points[rows, : task.in_features], points[rows, task.in_features :]
        outputs = module(inputs)
        if task.loss == "squared":
            loss = nn.functional.mse_loss(outputs, targets)
        else:
            loss = nn.functional.cross_entropy(
                outputs.reshape(-1, task.outputs_per_module), targets.flatten().long()
            )
        optimiser.zero_grad()
        loss.backward()
        if training.gradient_clip is not None:
            nn.utils.clip_grad_norm_(parameters, training.gradient_clip)
        optimiser.step()
        schedule.step()


def check_follows_plain_torch(member: Member, module: nn.Module) -> None:
    """Train a member, and a module whose parameters have the names of its layout, and compare all parameters."""
    start = initial_parts(member)
    double = member.training.precision == "float64"
    module = module.double() if double else module
    named = dict(module.named_parameters())
    assert set(named) == set(start)
    with torch.no_grad():
        for name, values in start.items():
            named[name].copy_(values)
    train_plainly(member, module)
    learner = PopulationLearner([member], "eager", CPU)
    ours = split_parameters(trained_parameters([member]), learner.network.layout)
    moved = 0.0
    for name, values in ours.items():
        torch.testing.assert_close(
            values[0], named[name].detach(), rtol=0, atol=1e-12 if double else 1e-5, msg=name
        )
        moved = max(moved, float((values[0] - start[name]).abs().max()))
    assert moved > 0.01
