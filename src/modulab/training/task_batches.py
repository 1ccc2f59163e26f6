"""A task's points as batches for a module that trains itself: the minibatches that a packed member would see."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from modulab.config.settings import Member
from modulab.streams import Stream, fold_in, member_keys
from modulab.training.data import PopulationData
from modulab.training.step import Block, draw_minibatch

Batch = tuple[Float[Tensor, "batch in_features"], Float[Tensor, "batch num_targets"]]


class TaskBatches(IterableDataset[Batch]):
    """One epoch is `training.curve_every` batches of (inputs, targets); `epoch` says which."""

    def __init__(self, member: Member) -> None:
        super().__init__()
        self.epoch = 0
        self._member = member
        self._data = PopulationData([member], 0, torch.device("cpu"))
        empty = torch.empty(1, 0)
        keys = member_keys([member.seed])
        self._block = Block(
            parameters=empty,
            first_moments=empty,
            second_moments=empty,
            mask=empty,
            coefficients=empty.T,
            minibatch_keys=fold_in(keys, Stream.MINIBATCH),
            noise_keys=fold_in(keys, Stream.NOISE),
            offsets=self._data.offsets,
            counts=self._data.counts,
        )

    def __len__(self) -> int:
        return min(self._member.training.curve_every, self._member.training.steps)

    def __iter__(self) -> Iterator[Batch]:
        """Yield the batches of the epoch, each at the step that it belongs to."""
        size, features = self._member.training.batch_size, self._member.task.in_features
        first = self.epoch * len(self)
        table = self._data.points(first)
        for number in range(len(self)):
            step = torch.tensor(first + number, dtype=torch.int32)
            position = torch.tensor(number * size, dtype=torch.int32)
            (samples,) = draw_minibatch(self._block, table, size, step, position)
            yield samples[:, :features].contiguous(), samples[:, features:].contiguous()

    def loader(self) -> DataLoader[Batch]:
        """Return a loader of the batches as they are, which draws nothing from the process's random state."""
        return DataLoader(self, batch_size=None, generator=torch.Generator())
