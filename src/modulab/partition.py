"""Partitions: which module of a task each network input and output belongs to."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int64
from torch import Tensor

SHARED = -1
"""The label of inputs and outputs that belong to no module, because several modules share them."""


def even_shares(num_features: int, modules: int) -> tuple[int, ...]:
    """Return the module of each of `num_features` units that are divided evenly among modules, in order."""
    return tuple(feature * modules // num_features for feature in range(num_features))


@dataclass(frozen=True)
class Partition:
    """The module, from 0, of each input and output of a network, or `SHARED`."""

    modules: int
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]

    def __post_init__(self) -> None:
        """Check the labels.

        Raises: ValueError for an unknown label, or a module without outputs if others have outputs.
        """
        labels = {*self.inputs, *self.outputs}
        if not labels <= {SHARED, *range(self.modules)}:
            raise ValueError(
                f"{sorted(labels)}: a partition's labels are modules from 0 to {self.modules - 1}, or {SHARED} "
                "for what is shared."
            )
        missing = sorted(set(range(self.modules)) - set(self.outputs))
        if missing and set(self.outputs) != {SHARED}:
            raise ValueError(
                f"modules {missing} have no output. Label at least one output with each module, or all as "
                f"shared, {SHARED}."
            )

    @staticmethod
    @functools.cache
    def of_equal_shares(modules: int, inputs_per_module: int, outputs_per_module: int) -> Partition:
        """Return the partition with equal numbers of inputs and outputs for each module, in order."""
        return Partition(
            modules,
            even_shares(modules * inputs_per_module, modules),
            even_shares(modules * outputs_per_module, modules),
        )

    def outputs_of(self, module: int) -> tuple[int, ...]:
        """Return the numbers of a module's outputs, in order."""
        return tuple(output for output, label in enumerate(self.outputs) if label == module)

    def judged_outputs(self, module: int) -> tuple[int, ...]:
        """Return the outputs that count for a module's error: its own or, if all outputs are shared, all of them."""
        return self.outputs_of(module) or tuple(range(len(self.outputs)))

    def inputs_of(self, module: int) -> tuple[int, ...]:
        """Return the numbers of a module's inputs, in order."""
        return tuple(feature for feature, label in enumerate(self.inputs) if label == module)

    @property
    def outputs_per_module(self) -> int | None:
        """Return the number of outputs of each module if they are equal and in order, else None."""
        return _equal_share(self.outputs, self.modules)

    @property
    def inputs_per_module(self) -> int | None:
        """Return the number of inputs of each module if they are equal and in order, else None."""
        return _equal_share(self.inputs, self.modules)


def _equal_share(labels: Sequence[int], modules: int) -> int | None:
    share, left = divmod(len(labels), modules)
    return share if left == 0 and tuple(labels) == even_shares(len(labels), modules) else None


def within_modules(targets: Sequence[int], sources: Sequence[int]) -> Bool[Tensor, "target source"]:
    """Return which pairs of units belong to the same module; shared units belong to all modules."""
    rows, columns = _labels(targets)[:, None], _labels(sources)[None, :]
    return (rows == columns) | (rows == SHARED) | (columns == SHARED)


def _labels(labels: Sequence[int]) -> Int64[Tensor, " unit"]:
    return torch.tensor(labels, dtype=torch.int64)
