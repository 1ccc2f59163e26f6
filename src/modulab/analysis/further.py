"""Networks that are trained further: the members' own data, optimiser, noise and penalty, from given parameters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from modulab.config.settings import Member


def train_further(
    members: Sequence[Member],
    parameters: Float[Tensor, "member parameter"],
    masks: Float[Tensor, "member parameter"],
    steps: int,
    every: int,
    held: Bool[Tensor, "member parameter"] | None = None,
) -> Iterator[Float[Tensor, "member parameter"]]:
    """Yield the parameters after each `every` steps, until there were `steps`.

    The optimiser and its schedule begin again, in float32, as networks are measured. Parameters that are `held` keep
    their values. Weight decay acts on them beside the gradient, and a mask acts on gradients alone, so decay is
    undone after each `every` steps.
    """
    # Not above: importing Lightning takes seconds, and labels of columns are read without it.
    from modulab.training.data import PopulationData
    from modulab.training.learner import PopulationLearner

    changes = {"steps": steps, "curve_every": min(every, steps), "precision": "float32"}
    going_on = [
        member.model_copy(update={"training": member.training.model_copy(update=changes)})
        for member in members
    ]
    learner = PopulationLearner(going_on, "eager", parameters.device)
    rows = learner.member_of_row
    start = parameters[rows]
    fixed = torch.zeros_like(start, dtype=torch.bool) if held is None else held[rows]
    learner.parameters_by_row.data.copy_(start)
    learner.get_buffer("mask").copy_(torch.where(fixed, 0.0, masks[rows]))
    data = PopulationData(learner.row_members, 0, parameters.device)
    learner.read_data(data.offsets, data.counts)
    learner.on_fit_start()
    for index in range(data.num_chunks):
        learner.training_step(data.chunk(index))
        learner.parameters_by_row.data.copy_(torch.where(fixed, start, learner.parameters_by_row.data))
        yield learner.member_parameters()
