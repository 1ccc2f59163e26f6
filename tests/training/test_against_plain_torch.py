"""A population of one follows a loop written with torch.nn and torch.optim alone."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from modulab.config.settings import Member
from modulab.streams import member_keys
from modulab.training.data import PopulationData, training_points
from modulab.training.learner import PopulationLearner
from tests.members import make_member
from tests.training.fitting import CPU
from tests.training.plain_torch import check_follows_plain_torch

STEPS = 200


def module_of(member: Member) -> nn.Module:
    """Return torch.nn layers of a tanh perceptron, their parameters named as in the layout."""
    task, depth = member.task, member.architecture.depth
    sizes = [task.in_features, *[member.architecture.width] * depth, task.out_features]

    class Layers(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            layers = [nn.Linear(sizes[index], sizes[index + 1]) for index in range(depth + 1)]
            self.weight = nn.ParameterList([layer.weight for layer in layers])
            self.bias = nn.ParameterList([layer.bias for layer in layers])

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            values = nn.functional.linear(inputs, self.weight[0], self.bias[0])
            for weight, bias in list(zip(self.weight, self.bias, strict=True))[1:]:
                values = nn.functional.linear(torch.tanh(values), weight, bias)
            return values

    return Layers()


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
    check_follows_plain_torch(member, module_of(member))


def test_population_of_one_follows_torch_cross_entropy() -> None:
    member = make_member(
        {"task": "classification"}, training__steps=STEPS, architecture__activation="tanh", seed=6
    )
    check_follows_plain_torch(member, module_of(member))


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
