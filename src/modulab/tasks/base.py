"""The contract of a task: modules with their inputs, functions and outputs, and the distribution of training points."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int32
from pydantic import Field, model_validator
from torch import Tensor

from modulab.errors import ConfigError
from modulab.foreign import check_tensor, dotted_name, kind_of, own_draws_only, wrong_result
from modulab.losses import Loss, find_loss
from modulab.partition import Partition
from modulab.schema import STRUCTURAL, Settings
from modulab.streams import Stream, fold_in, member_keys, orthogonal_matrices

Region = Literal["train", "full", "withheld"]
"""`train`: the training support. `full`: independent modules. `withheld`: combinations withheld from training."""
Split = Literal["train", "test"]
"""Which images or other recorded examples are drawn; for synthetic inputs both splits are the same."""


@dataclass(frozen=True)
class Samples:
    """Points of a task. The loss determines what `targets` are: outputs, or a class number for each module."""

    inputs: Float[Tensor, "member batch in_features"]
    targets: Float[Tensor, "member batch target"]


class Task(Settings):
    """A modular task. Derive a class from it, define sizes, `loss` and `draw`, and name the class in a config."""

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
        """Return the values that `code` may have; `bump` only if `encode` implements it."""
        return ("coordinate", "mixed")

    @property
    def mixing(self) -> bool:
        """Return whether the network sees Qx."""
        return self.code == "mixed"

    @property
    @abstractmethod
    def inputs_per_module(self) -> int:
        """Return the number of inputs of each module."""

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Return the shape of the inputs of one module: by default they are features without an order.

        (step, feature) is a sequence, for recurrent networks, and (row, column) an image, for convolutional ones.
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
        """Return `loss` as an object. Raises: ConfigError if no loss has this name."""
        return find_loss(self.loss)

    @property
    def partition(self) -> Partition:
        """Return the module of each input and output: by default equal numbers for each module, in order."""
        return Partition.of_equal_shares(self.modules, self.inputs_per_module, self.outputs_per_module)

    @property
    def withholds(self) -> bool:
        """Return whether combinations are withheld from training, so the region `withheld` exists."""
        return False

    @property
    def ranges(self) -> bool:
        """Return whether inputs can exceed the training range, with `scales` of `draw`."""
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
        """Return the same points with another function for a module, or None if the task has no other function.

        Inputs and the targets of other modules do not change, so the functions of several modules can be changed one
        after the other. Modules are numbered from 0. Your own task need not define this, or may define it without
        `module` for the first module only.
        """
        del samples, module
        return None

    def widened(self, samples: Samples, scales: Float[Tensor, " module"]) -> Samples | None:
        """Return what `draw` returns for the same points with these `scales`, or None if they must be drawn again.

        `samples` are encoded points of the region `full` without `scales`. Your own task need not define this.
        """
        del samples, scales
        return None

    def check_training(self, num_samples: int | None, batch_size: int) -> None:
        """Raise ConfigError if the task does not support this number of points (None: new ones) or this batch size.

        For tasks whose points depend on their index in training.
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

        A point must not depend on how many others are drawn with it, not even in its rounding: members with the same
        task and seed share one data set, which is drawn in parts.

        `scales` multiplies each module's inputs by a factor; it is only used if `ranges` is true.
        """

    def covers(self, inputs: Float[Tensor, "member batch coordinate"]) -> Bool[Tensor, "member batch"] | None:
        """Return which inputs, drawn from the `full` region, lie on the training support.

        None if the task does not implement this.
        """
        if self.withholds:
            return None
        return torch.ones(inputs.shape[:2], dtype=torch.bool, device=inputs.device)

    def encode(
        self, inputs: Float[Tensor, "member batch coordinate"]
    ) -> Float[Tensor, "member batch in_features"]:
        """Return drawn inputs in the task's `code`, before any mixing. A pure function of each point."""
        return inputs

    def points_per_coordinate(self, num_samples: int) -> int:
        """Return the number of values of each coordinate in a grid of `num_samples` points, for data.sampling=grid.

        Raises: ConfigError if the task has no grids, or no grid of this size.
        """
        del num_samples
        raise ConfigError(
            f"data.sampling=grid needs inputs that are coordinates in [-1, 1], and those of task.name={self.name} are "
            "not. Set data.sampling=random."
        )

    def grid(self, counters: Int32[Tensor, "member batch"], points_per_coordinate: int) -> Samples:
        """Return points of the grid by their indices, before they are encoded or mixed."""
        raise NotImplementedError


def draw_points(
    task: Task,
    keys: Int32[Tensor, "member 2"],
    counters: Int32[Tensor, "member batch"],
    region: Region,
    split: Split,
    scales: Float[Tensor, " module"] | None = None,
) -> Samples:
    """Return what `task.draw` returns.

    Raises: ForeignError where that is something else than samples for each key and counter, or was drawn from a global
    random generator.
    """
    with own_draws_only(task):
        samples = task.draw(keys, counters, region, split, scales)
    return checked_samples(samples, counters.shape, task, "draw")


def encode_points(
    task: Task, inputs: Float[Tensor, "member batch coordinate"]
) -> Float[Tensor, "member batch in_features"]:
    """Return what `task.encode` returns. Raises: ForeignError where that is something else than inputs of networks."""
    with own_draws_only(task):
        encoded = task.encode(inputs)
    source = f"{dotted_name(task)}.{'draw' if encoded is inputs else 'encode'}"
    check_tensor(encoded, (*inputs.shape[:2], task.in_features), source, "inputs")
    return encoded


def checked_samples(samples: object, points: torch.Size, task: Task, method: str) -> Samples:
    """Return samples that a method of a task returned for so many members and points.

    Raises: ForeignError where they are something else.
    """
    source = f"{dotted_name(task)}.{method}"
    if not isinstance(samples, Samples):
        raise wrong_result(f"it is {kind_of(samples)}", "modulab.tasks.base.Samples(inputs, targets)", source)
    check_tensor(samples.inputs, (*points, None), source, "inputs")
    check_tensor(samples.targets, (*points, task.num_targets), source, "targets")
    return samples


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
        return encode_points(task, inputs)
    check_tensor(inputs, (*inputs.shape[:2], task.in_features), f"{dotted_name(task)}.draw", "inputs")
    rotation = mixing_matrix(task).T.contiguous().to(inputs.dtype)
    # One product per member: a product of all rows at once rounds by a row's place among them.
    return torch.stack([points @ rotation for points in inputs])
