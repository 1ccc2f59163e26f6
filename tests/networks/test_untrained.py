"""Parts of a network that keep the values that they begin with."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from modulab.networks.base import Parameter
from modulab.networks.perceptron import PerceptronArchitecture
from modulab.tasks.base import Task
from modulab.training.learner import initialise
from modulab.training.program import network_of
from tests.members import make_member
from tests.networks.repeated import Repeated
from tests.training.fitting import train_learner


@dataclass(frozen=True)
class FixedReading(Repeated):
    """Its first weights are drawn and never trained."""

    @property
    def layout(self) -> tuple[Parameter, ...]:
        first, *others = super().layout
        return (replace(first, trained=False), *others)

    def initialise(self, *arguments: Any) -> tuple[Tensor, Tensor]:
        mask, parameters = super().initialise(*arguments)
        mask[:, : self.layout[0].size] = 0
        return mask, parameters


class FixedReadingArchitecture(PerceptronArchitecture):
    """A config of it, which takes the width from the keys of a perceptron."""

    def network(self, task: Task) -> FixedReading:  # pyright: ignore[reportIncompatibleMethodOverride]
        return FixedReading(task.in_features, task.out_features, self.width)


@pytest.mark.parametrize("optimiser", ["sgd", "adam", "adamw"])
def test_parts_that_are_not_trained_keep_their_values_under_weight_decay_and_clipping(optimiser: str) -> None:
    members = [
        make_member(
            seed=seed, architecture___target_=f"{__name__}.FixedReadingArchitecture", architecture__width=5,
            training__optimiser=optimiser, training__weight_decay=0.1, training__gradient_clip=1.0,
            training__steps=5,
        )
        for seed in range(2)
    ]  # fmt: skip
    network = network_of(members[0])
    before = network.split(initialise(members, network)[1])
    after = network.split(train_learner(members).member_parameters())
    assert before["read"].abs().min() > 0
    assert torch.equal(after["read"], before["read"])
    assert not torch.equal(after["again"], before["again"])
    assert not torch.equal(after["write"], before["write"])
