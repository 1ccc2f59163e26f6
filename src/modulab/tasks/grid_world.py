"""A grid world whose best policy is known in closed form, so a network can learn it by imitation: walk to a goal.

A state is where the goal lies, dx and dy squares away with |dx|, |dy| <= n and |dx| != |dy|, and flags that mean
nothing. The best policy steps along the larger of |dx| and |dy|, towards the goal. One action of four is right in each
state, and the largest of the values

    (-dx, dx, -dy, dy) / n    for left, right, down, up

is that action's, as it is |dx| or |dy|. So the axes are two modules: each gives the values of its own actions without
the other coordinate, and only the choice of the largest joins them. Networks that imitate values (squared error) learn
these. Those that imitate actions, as in behaviour cloning (cross-entropy), need not: an action is also determined by
the signs of dx + dy and dx - dy, which belong to no axis.

There is no reward, and nothing to explore.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int32, Int64
from pydantic import Field, model_validator
from torch import Tensor

from modulab.errors import ConfigError
from modulab.losses import CrossEntropyLoss, Loss
from modulab.partition import SHARED, Partition
from modulab.schema import STRUCTURAL
from modulab.streams import fold_in, integers, random_bits
from modulab.tasks import supports
from modulab.tasks.base import Region, Samples, Split, Task

ACTIONS = ("left", "right", "down", "up")
"""The actions in the order of outputs, which is that of class numbers."""
_CHOICE = CrossEntropyLoss()
_STATE, _FLAGS = 0, 1
"""The draws from a point's key. Part of every result: never change one."""


@dataclass(frozen=True)
class PolicyLoss(Loss):
    """Cross-entropy in nats of one choice among all outputs. The target is the number of the output to choose.

    Of d modules, each has d times the part of the batch mean that comes from points at which an output of its own is
    to be chosen: the mean over these points, if all modules' are equally frequent.
    """

    @property
    def error_label(self) -> str:
        """Return `Share of wrong actions`."""
        return "Share of wrong actions"

    @property
    def takes_logits(self) -> bool:
        """Return True: a softmax does not see what is added to all of its logits."""
        return True

    def num_targets(self, partition: Partition) -> int:
        """Return 1."""
        del partition
        return 1

    def by_module(self, outputs: Tensor, targets: Tensor, partition: Partition) -> Tensor:
        """Return each module's part of the cross-entropy."""
        losses = _CHOICE.by_module(*_point_by_point(outputs, targets), _one_choice(partition))
        return _parts(losses.view(targets.shape), targets, partition)

    def total(self, outputs: Tensor, targets: Tensor, partition: Partition) -> Tensor:
        """Return the mean over samples."""
        return _CHOICE.total(outputs, targets, _one_choice(partition))

    def errors(self, outputs: Tensor, targets: Tensor, partition: Partition) -> Tensor:
        """Return each module's part of the share of points at which another output is chosen, or several are."""
        wrong = _CHOICE.errors(*_point_by_point(outputs, targets), _one_choice(partition))
        return _parts(wrong.view(targets.shape), targets, partition)

    def constant_errors(self, targets: Tensor, partition: Partition) -> Tensor:
        """Return the errors of always choosing the output that is to be chosen most often."""
        outputs = torch.arange(len(partition.outputs), device=targets.device)
        shares = (targets == outputs).float().mean(dim=1, keepdim=True)
        return self.errors(shares.expand(-1, targets.shape[1], -1), targets, partition)

    def resolution(self, num_samples: int, partition: Partition) -> float:
        """Return the share that one wrong choice is."""
        del partition
        return 1 / num_samples


def _one_choice(partition: Partition) -> Partition:
    return Partition(1, (), (0,) * len(partition.outputs))


def _point_by_point(
    outputs: Float[Tensor, "member batch out_features"], targets: Float[Tensor, "member batch 1"]
) -> tuple[Float[Tensor, "point 1 out_features"], Float[Tensor, "point 1 1"]]:
    return outputs.flatten(0, 1).unsqueeze(1), targets.flatten(0, 1).unsqueeze(1)


def _parts(
    values: Float[Tensor, "member batch 1"], targets: Float[Tensor, "member batch 1"], partition: Partition
) -> Float[Tensor, "member module"]:
    module_of = torch.tensor(partition.outputs, device=targets.device)[targets.long()]
    own = module_of == torch.arange(partition.modules, device=targets.device)
    return partition.modules * (values * own).mean(dim=1)


class GridWorldTask(Task):
    """Two modules, the axes x and y of a grid: which of four steps leads to the goal, or the value of each."""

    size: int = Field(
        ge=1, le=1000, description="n, the largest distance between start and goal along an axis"
    )
    flags: int = Field(
        ge=0,
        le=16,
        description="number of irrelevant inputs with values 1 or -1",
        json_schema_extra=STRUCTURAL,
    )

    imitate: Literal["actions", "values"] = Field(
        description="what a network learns: the best action, or the values of all four",
        json_schema_extra=STRUCTURAL,
    )

    @model_validator(mode="after")
    def _check_axes(self) -> GridWorldTask:
        if self.modules != 2:
            raise ConfigError(
                f"task.modules={self.modules}: a grid has two axes, each a module. Set task.modules=2."
            )
        return self

    @property
    def inputs_per_module(self) -> int:
        """Return 1, the distance along an axis."""
        return 1

    @property
    def outputs_per_module(self) -> int:
        """Return 2, the actions along an axis."""
        return 2

    @property
    def partition(self) -> Partition:
        """Return the axis of each distance and action; flags belong to none."""
        return Partition(2, (0, 1, *[SHARED] * self.flags), (0, 0, 1, 1))

    @property
    def loss(self) -> Loss | str:
        """Return the loss of one choice among all actions, or `squared` for values."""
        return PolicyLoss() if self.imitate == "actions" else "squared"

    @property
    def num_states(self) -> int:
        """Return 4 n^2, the number of distances (dx, dy): the squares of the grid without its diagonals."""
        return 4 * self.size**2

    def draw(
        self,
        keys: Int32[Tensor, "member 2"],
        counters: Int32[Tensor, "member batch"],
        region: Region,
        split: Split,
        scales: Float[Tensor, " module"] | None = None,
    ) -> Samples:
        """Return states, all equally likely, with distances divided by n, and the best action or all values."""
        del split
        if scales is not None:
            raise supports.nothing_to_widen("distances", self.name)
        if region == "withheld":
            raise supports.nothing_withheld(self.name)
        limits = torch.full((len(keys),), self.num_states, dtype=torch.int32, device=keys.device)
        states = integers(fold_in(keys, _STATE), counters, limits)
        distances = state_distances(states.long())
        places = torch.arange(self.flags, dtype=torch.int32, device=keys.device)
        flags = (random_bits(fold_in(keys, _FLAGS), counters)[:, :, None] >> places) & 1
        values = action_values(distances / self.size)
        inputs = torch.cat([distances / self.size, flags * 2.0 - 1.0], dim=2)
        return Samples(
            inputs, values if self.imitate == "values" else values.argmax(dim=2, keepdim=True).float()
        )


def state_distances(states: Int64[Tensor, "member batch"]) -> Float[Tensor, "member batch 2"]:
    """Return dx and dy of states by their numbers, from 0; the first 4 n^2 are those with |dx|, |dy| <= n.

    State 4 i + j has the larger distance a with (a - 1)^2 <= i < a^2, one way or the other along either axis by j, and
    the smaller i - (a - 1)^2 - (a - 1), which runs from -(a - 1) to a - 1.
    """
    number, way = states // 4, states % 4
    before = number.double().sqrt().floor().long()
    larger = torch.where(way % 2 == 0, -1, 1) * (before + 1)
    smaller = number - before.square() - before
    along_x: Bool[Tensor, "member batch"] = way < 2
    return torch.stack(
        [torch.where(along_x, larger, smaller), torch.where(along_x, smaller, larger)], dim=2
    ).float()


def action_values(distances: Float[Tensor, "member batch 2"]) -> Float[Tensor, "member batch action"]:
    """Return the distance to the goal in the direction of each of `ACTIONS`: -dx, dx, -dy, dy."""
    dx, dy = distances.unbind(dim=2)
    return torch.stack([-dx, dx, -dy, dy], dim=2)
