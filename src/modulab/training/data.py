"""The data module: every member's training points in one table, and the chunks of steps that read it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float, Int32, Int64
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from modulab.config.settings import Member
from modulab.errors import foreign_code
from modulab.streams import Stream, fold_in, member_keys
from modulab.tasks.base import Task, mix
from modulab.training.engine import Chunk

DRAWN_AT_ONCE = 1 << 20
"""Numbers drawn at once where several members fit into so many: drawing holds some ten tensors of their size."""


def training_points(
    task: Task, keys: Int32[Tensor, "member 2"], first: int, count: int
) -> Float[Tensor, "member point feature"]:
    """Return points `first` to `first + count - 1` of each key's training data: mixed inputs, then targets.

    Point i of a member does not depend on how many points it has: smaller data sets are prefixes of larger.
    """
    counters = torch.arange(first, first + count, dtype=torch.int32).expand(keys.shape[0], count)
    samples = task.draw(fold_in(keys, Stream.DATA), counters, "train", "train")
    return torch.cat([mix(task, samples.inputs), samples.targets], dim=2)


def _by_task(members: Sequence[Member], wanted: Sequence[int]) -> dict[tuple[Task, int | None], list[int]]:
    groups: defaultdict[tuple[Task, int | None], list[int]] = defaultdict(list)
    for place in wanted:
        groups[members[place].task, members[place].data.num_samples].append(place)
    return groups


class PopulationData(LightningDataModule):
    """Points and chunks for the members of a population, in the order given.

    Finite data sets are drawn once. Members that take fresh points at every step get the next chunk's worth
    drawn with each chunk, in rows of their own at the end of the table.
    """

    def __init__(self, members: Sequence[Member], first_step: int, device: torch.device) -> None:
        """`first_step` is the step to begin at, above 0 when resuming."""
        super().__init__()
        self._members = members
        self._first_step = first_step
        self._device = device
        self._keys = member_keys([member.seed for member in members])
        counts = [member.data.num_samples for member in members]
        self._fresh = [place for place, count in enumerate(counts) if count is None]
        training = members[0].training
        self._chunk_steps = min(training.curve_every, training.steps)
        self._fresh_rows = self._chunk_steps * training.batch_size
        sizes = torch.tensor([self._fresh_rows if count is None else count for count in counts])
        finite = [place for place, count in enumerate(counts) if count is not None]
        order = torch.tensor([*finite, *self._fresh])
        self.offsets: Int64[Tensor, " member"] = torch.zeros(len(members), dtype=torch.int64)
        self.offsets[order] = torch.cumsum(sizes[order], dim=0) - sizes[order]
        self.counts: Int32[Tensor, " member"] = torch.tensor(
            [count or 0 for count in counts], dtype=torch.int32
        )
        task = members[0].task
        self._table = torch.empty(int(sizes.sum()), task.in_features + task.num_targets)
        for (group_task, count), places in _by_task(members, finite).items():
            assert count is not None
            self._draw(group_task, places, 0, count)
        self._table = self._table.to(device)

    def _draw(self, task: Task, places: Sequence[int], first: int, count: int) -> None:
        """Draw points of members that share a task into the table, a few members at a time."""
        size = max(1, DRAWN_AT_ONCE // (count * self._table.shape[1]))
        for begin in range(0, len(places), size):
            some = places[begin : begin + size]
            for place, points in zip(
                some, training_points(task, self._keys[some], first, count), strict=True
            ):
                start = int(self.offsets[place])
                self._table[start : start + count] = points

    @property
    def num_chunks(self) -> int:
        """Return how many chunks are left from the first step on."""
        left = self._members[0].training.steps - self._first_step
        return -(-left // self._chunk_steps)

    def chunk(self, index: int) -> Chunk:
        """Return chunk `index` from the first step on, with its fresh points drawn."""
        training = self._members[0].training
        first = self._first_step + index * self._chunk_steps
        for (task, _), places in _by_task(self._members, self._fresh).items():
            self._draw(task, places, first * training.batch_size, self._fresh_rows)
        return Chunk(first, min(self._chunk_steps, training.steps - first), self._table)

    def train_dataloader(self) -> DataLoader[Chunk]:
        """Return a loader of one chunk, that of the trainer's current epoch: an epoch is a chunk."""
        return DataLoader(_OneChunk(self), batch_size=None)


class _OneChunk(IterableDataset[Chunk]):
    def __init__(self, data: PopulationData) -> None:
        super().__init__()
        self._data = data

    def __iter__(self) -> Iterator[Chunk]:
        assert self._data.trainer is not None
        with foreign_code():  # Lightning takes StopIteration for the end of training.
            chunk = self._data.chunk(self._data.trainer.current_epoch)
        yield chunk
