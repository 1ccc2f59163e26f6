"""What a task is: modules, each with its inputs, function and outputs, and the inputs seen in training."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int32
from pydantic import Field, model_validator
from torch import Tensor

from modulab.errors import ConfigError
from modulab.losses import Loss, find_loss
from modulab.partition import Partition
from modulab.schema import STRUCTURAL, Settings
from modulab.streams import Stream, fold_in, member_keys, orthogonal_matrices

Region = Literal["train", "full", "withheld"]
"""`train`: the training support. `full`: independent modules. `withheld`: combinations never trained on."""
Split = Literal["train", "test"]
"""Which images or other recorded examples may be drawn; synthetic inputs are the same in both."""


@dataclass(frozen=True)
class Samples:
    """Points of a task. What `targets` are, the task's loss says: outputs, or a class's number for each module."""

    inputs: Float[Tensor, "member batch in_features"]
    targets: Float[Tensor, "member batch target"]


class Task(Settings):
    """A modular task. Derive from it, state its sizes, loss and `draw`, and name the class in a config."""

    name: str = Field(description="name in tables and figures")
    modules: int = Field(ge=1, description="d, the number of modules", json_schema_extra=STRUCTURAL)
    code: Literal["coordinate", "mixed", "bump"] = Field(
        description="how the network sees inputs: coordinate is x itself, mixed is Qx with a fixed random "
        "rotation Q, bump the responses of Gaussian tuning curves on a grid over all coordinates jointly",
        json_schema_extra=STRUCTURAL,
    )
    mixing_seed: int = Field(ge=0, lt=2**63, description="seed of the rotation for mixed code")

    @model_validator(mode="after")
    def _check_code(self) -> Task:
        if self.code not in self.codes:
            raise ConfigError(
                f"task.code={self.code} needs inputs that are coordinates in [-1, 1], and those of "
                f"task.name={self.name} are not. Choose one of {', '.join(self.codes)}."
            )
        return self

    @property
    def codes(self) -> tuple[str, ...]:
        """Return the values that `code` may have; `bump` only where `encode` knows it."""
        return ("coordinate", "mixed")

    @property
    def mixing(self) -> bool:
        """Return whether the network sees Qx."""
        return self.code == "mixed"

    @property
    @abstractmethod
    def inputs_per_module(self) -> int:
        """Return how many inputs each module reads."""

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Return how the inputs of one module are arranged: by default they are features without an order.

        (step, feature) is a sequence, and (row, column) an image: what recurrent and convolutional networks read.
        """
        return (self.inputs_per_module,)

    @property
    @abstractmethod
    def outputs_per_module(self) -> int:
        """Return the number of outputs of each module: values for squared loss, classes for cross-entropy."""

    @property
    @abstractmethod
    def loss(self) -> Loss | str:
        """Return the loss, or the name of one of `losses.LOSSES`: `squared` or `cross_entropy`."""

    @property
    def loss_function(self) -> Loss:
        """Return `loss` as an object. Raises: ConfigError where it names none."""
        return find_loss(self.loss)

    @property
    def partition(self) -> Partition:
        """Return which module each input and output belongs to: equal shares in order, unless a task says otherwise."""
        return Partition.of_equal_shares(self.modules, self.inputs_per_module, self.outputs_per_module)

    @property
    def withholds(self) -> bool:
        """Return whether the training support leaves out combinations, so that a `withheld` region exists."""
        return False

    @property
    def ranges(self) -> bool:
        """Return whether inputs can range beyond the training range, as `draw`'s scales ask."""
        return False

    @property
    def in_features(self) -> int:
        """Return the number of network inputs."""
        return len(self.partition.inputs)

    @property
    def out_features(self) -> int:
        """Return the number of network outputs."""
        return len(self.partition.outputs)

    @property
    def num_targets(self) -> int:
        """Return the number of target values of one sample."""
        return self.loss_function.num_targets(self.partition)

    def changed(self, samples: Samples, module: int = 0) -> Samples | None:
        """Return the same points with another function for a module, or None for a task that has no other.

        Inputs and the other modules' targets stay, so that the functions of several modules are changed one after the
        other. Modules count from 0. A user's task need not change, or may take no `module` and change the first.
        """
        del samples, module
        return None

    def check_training(self, num_samples: int | None, batch_size: int) -> None:
        """Raise ConfigError where a network cannot be trained on this many points, None if fresh, or such minibatches.

        For tasks whose points depend on their place in training.
        """
        del num_samples, batch_size

    @abstractmethod
    def draw(
        self,
        keys: Int32[Tensor, "member 2"],
        counters: Int32[Tensor, "member batch"],
        region: Region,
        split: Split,
        scales: Float[Tensor, " module"] | None = None,
    ) -> Samples:
        """Return one point for each key and counter, a pure function of both, before it is encoded or mixed.

        How many others are drawn with it must not change a point, not even its rounding: members of the same task
        and seed read their points from one data set, the largest, which is drawn in parts.

        `scales` multiplies each module's inputs by a factor; only where `ranges` says that it can.
        """

    def covers(self, inputs: Float[Tensor, "member batch coordinate"]) -> Bool[Tensor, "member batch"] | None:
        """Return which inputs, as `draw` gives them in the `full` region, lie on the training support.

        None for a task that does not say.
        """
        if self.withholds:
            return None
        return torch.ones(inputs.shape[:2], dtype=torch.bool, device=inputs.device)

    def encode(
        self, inputs: Float[Tensor, "member batch coordinate"]
    ) -> Float[Tensor, "member batch in_features"]:
        """Return what `draw` gives as inputs in the task's `code`, before any mixing. A pure function of each point."""
        return inputs

    def points_per_coordinate(self, num_samples: int) -> int:
        """Return how many values of each coordinate a grid of `num_samples` points has, for data.sampling=grid.

        Raises: ConfigError where the task has no grids, or none of this size.
        """
        del num_samples
        raise ConfigError(
            f"data.sampling=grid needs inputs that are coordinates in [-1, 1], and those of task.name={self.name} are "
            "not. Set data.sampling=random."
        )

    def grid(self, counters: Int32[Tensor, "member batch"], points_per_coordinate: int) -> Samples:
        """Return points of the grid by their numbers, before they are encoded or mixed."""
        raise NotImplementedError


def own_columns(module: int, width: int) -> slice:
    """Return the columns of a module, counted from 0, where each has `width` of them, in order."""
    return slice(module * width, (module + 1) * width)


def with_targets_of(samples: Samples, module: int, targets: Float[Tensor, "member batch output"]) -> Samples:
    """Return the same points with other targets for a module; modules have equal numbers of columns, in order."""
    own = own_columns(module, targets.shape[2])
    before, after = samples.targets[:, :, : own.start], samples.targets[:, :, own.stop :]
    return Samples(samples.inputs, torch.cat([before, targets, after], dim=2))


def mixing_matrix(task: Task) -> Float[Tensor, "in_features in_features"]:
    """Return Q, the rotation through which the network sees inputs: Qx. The identity without `mixing`.

    Q is drawn uniformly: see `orthogonal_matrices`.
    """
    if not task.mixing:
        return torch.eye(task.in_features)
    keys = fold_in(member_keys([task.mixing_seed]), Stream.TASK)
    return orthogonal_matrices(keys, task.in_features)[0].float()


def as_seen(
    task: Task, inputs: Float[Tensor, "member batch coordinate"]
) -> Float[Tensor, "member batch in_features"]:
    """Return drawn inputs as the network sees them: encoded, and Qx where the task mixes."""
    if not task.mixing:
        return task.encode(inputs)
    rotation = mixing_matrix(task).T.contiguous()
    # One product per member: a product of all rows at once rounds by a row's place among them.
    return torch.stack([points @ rotation for points in inputs])
