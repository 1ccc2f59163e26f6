"""A population of one follows a loop written with torch.nn and torch.optim alone."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from modulab.networks.base import NetworkPopulation
from modulab.streams import Stream, fold_in, integers, member_keys
from modulab.training.data import PopulationData, training_points
from modulab.training.learner import PopulationLearner
from tests.members import make_member
from tests.perceptrons import perceptrons
from tests.training.fitting import CPU, trained_parameters

STEPS = 200


def plain_loop(member, task_loss: str) -> torch.Tensor:
    """Train torch.nn layers with torch.optim from the same start on the same minibatches; return flat parameters."""
    training, task = member.training, member.task
    learner = PopulationLearner([member], "eager", CPU)
    start = perceptrons(NetworkPopulation(learner.network, learner.member_parameters()))
    sizes = [task.in_features, *[member.architecture.width] * member.architecture.depth, task.out_features]
    layers: list[nn.Module] = []
    for index, (weight, bias) in enumerate(zip(start.weights, start.biases, strict=True)):
        linear = nn.Linear(sizes[index], sizes[index + 1])
        with torch.no_grad():
            linear.weight.copy_(weight[0])
            linear.bias.copy_(bias[0])
        layers += [linear, nn.Tanh()]
    network = nn.Sequential(*layers[:-1])
    keys = member_keys([member.seed])
    points = training_points(task, keys, 0, member.data.num_samples)[0]
    common = {"lr": training.learning_rate, "weight_decay": training.weight_decay}
    optimiser = {
        "adam": lambda: torch.optim.Adam(network.parameters(), betas=(0.9, 0.999), **common),
        "adamw": lambda: torch.optim.AdamW(network.parameters(), betas=(0.9, 0.999), **common),
        "sgd": lambda: torch.optim.SGD(network.parameters(), momentum=training.momentum, **common),
    }[training.optimiser]()
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=STEPS)
    limits = torch.tensor([member.data.num_samples], dtype=torch.int32)
    counters = torch.arange(training.batch_size, dtype=torch.int32)[None]
    for step in range(STEPS):
        rows = integers(fold_in(fold_in(keys, Stream.MINIBATCH), step), counters, limits)[0].long()
        inputs, targets = points[rows, : task.in_features], points[rows, task.in_features :]
        outputs = network(inputs)
        if task_loss == "squared":
            loss = nn.functional.mse_loss(outputs, targets)
        else:
            loss = nn.functional.cross_entropy(
                outputs.view(-1, task.outputs_per_module), targets.flatten().long()
            )
        optimiser.zero_grad()
        loss.backward()
        if training.gradient_clip is not None:
            nn.utils.clip_grad_norm_(network.parameters(), training.gradient_clip)
        optimiser.step()
        schedule.step()
    return torch.cat([value.detach().flatten() for value in network.parameters()])


@pytest.mark.parametrize(
    ("optimiser", "learning_rate", "weight_decay", "clip", "depth"),
    [
        ("adam", 3e-3, 0.0, None, 1),
        ("adam", 3e-3, 1e-3, 0.05, 2),
        ("adamw", 3e-3, 0.1, None, 2),
        ("sgd", 0.1, 1e-3, None, 1),
        ("sgd", 0.1, 0.0, 0.1, 2),
    ],
)
def test_population_of_one_follows_torch_optim(
    optimiser: str, learning_rate: float, weight_decay: float, clip: float | None, depth: int
) -> None:
    member = make_member(
        training__steps=STEPS, training__optimiser=optimiser, training__learning_rate=learning_rate,
        training__weight_decay=weight_decay, training__gradient_clip=clip, training__momentum=0.9,
        training__curve_every=70, architecture__depth=depth, architecture__activation="tanh", seed=5,
    )  # fmt: skip
    ours = trained_parameters([member])[0]
    plain = plain_loop(member, "squared")
    torch.testing.assert_close(ours, plain, rtol=0, atol=1e-5)
    start = PopulationLearner([member], "eager", CPU).member_parameters()[0]
    assert (ours - start).abs().max() > 0.01


def test_population_of_one_follows_torch_cross_entropy() -> None:
    member = make_member(
        {"task": "classification"}, training__steps=STEPS, architecture__activation="tanh", seed=6
    )
    torch.testing.assert_close(
        trained_parameters([member])[0], plain_loop(member, "cross_entropy"), rtol=0, atol=1e-5
    )


def test_minibatch_points_are_those_the_data_module_lays_out() -> None:
    members = [make_member(seed=1, data__num_samples=5), make_member(seed=2, data__num_samples=9)]
    data = PopulationData(members, 0, CPU)
    table = data.chunk(0).table
    for place, member in enumerate(members):
        start, count = int(data.offsets[place]), int(data.counts[place])
        expected = training_points(member.task, member_keys([member.seed]), 0, member.data.num_samples)[0]
        assert torch.equal(table[start : start + count], expected)


def test_flat_parameters_unflatten_to_torch_layout() -> None:
    learner = PopulationLearner([make_member()], "eager", CPU)
    parts = learner.network.split(learner.member_parameters())
    shapes = {name: tuple(part.shape[1:]) for name, part in parts.items()}
    assert shapes == {"weight.0": (48, 2), "bias.0": (48,), "weight.1": (2, 48), "bias.1": (2,)}
