"""Training without measures, for tests that look at weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from modulab.config.settings import Member
from modulab.training.data import PopulationData
from modulab.training.engine import Engine
from modulab.training.learner import PopulationLearner
from modulab.training.program import Program
from modulab.training.step import population_update

CPU = torch.device("cpu")


def prepared_learner(
    members: Sequence[Member], engine: Engine = "eager", threads: int = 1, device: torch.device = CPU
) -> tuple[PopulationLearner, PopulationData]:
    """Return a learner ready for its first chunk of steps, and its data."""
    learner = PopulationLearner(members, engine, device, threads)
    data = PopulationData(learner.row_members, 0, device)
    learner.read_data(data.offsets, data.counts)
    learner.to(device)
    learner.on_fit_start()
    return learner, data


def train_learner(
    members: Sequence[Member], engine: Engine = "eager", threads: int = 1, device: torch.device = CPU
) -> PopulationLearner:
    """Return a learner trained through all chunks of its members."""
    learner, data = prepared_learner(members, engine, threads, device)
    for index in range(data.num_chunks):
        learner.training_step(data.chunk(index))
    return learner


def trained_parameters(
    members: Sequence[Member], engine: Engine = "eager", threads: int = 1, device: torch.device = CPU
) -> torch.Tensor:
    """Return the parameters of members trained in one population, in the order given."""
    return train_learner(members, engine, threads, device).member_parameters()


def compiled_stand_in(program: Program) -> Callable[..., Any]:
    """Return a step in place of the compiled one: ready at once, and with other bits than any engine's."""

    def step(*block: Any) -> tuple[torch.Tensor, list[torch.Tensor]]:
        losses, [parameters, *moments] = population_update(program, *block)
        return losses, [parameters * (1 + 1e-5), *moments]

    return step
