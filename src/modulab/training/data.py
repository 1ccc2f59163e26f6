"""The data module: the training points of a population in one table, and the chunks of steps that read it.

Members whose points are equal read the same rows, so a population holds one data set per task and seed, however
many members it has.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate
from typing import NamedTuple

import torch
from jaxtyping import Float, Int32, Int64
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from modulab.config.settings import Member
from modulab.errors import foreign_code
from modulab.lightning import LightningDataModule
from modulab.streams import member_keys
from modulab.tasks.base import Task
from modulab.training.engine import Chunk
from modulab.training.points import training_points
from modulab.training.program import dtype_of

DRAWN_AT_ONCE = 1 << 20
"""Numbers drawn at once, of several data sets or of a part of one: drawing holds some ten tensors of their size."""
_LEAST_ROWS = 2
"""Compiled steps are traced for tables of two rows or more."""


class DataSet(NamedTuple):
    """The arguments that determine the training points of a member; see `data_set`."""

    task: Task
    seed: int
    size: int | None
    is_grid: bool = False

    def at(self, seed: int) -> DataSet:
        """Return the data set of a member with another seed and the same settings."""
        return self if self.is_grid else self._replace(seed=seed)


def data_set(member: Member) -> DataSet:
    """Return what identifies a member's training points: members with equal data sets read the same rows.

    The size is None for points that are fresh at every step. It is 0 for a finite number of points, as smaller data
    sets are prefixes of larger ones, unless the task mixes its inputs: a matrix product rounds by its number of rows,
    so there only members with the same number of points share them. A grid depends on its size and on no seed.
    """
    size = member.data.num_samples
    if member.data.sampling == "grid":
        return DataSet(member.task, 0, size, is_grid=True)
    if size is not None and not member.task.mixing:
        size = 0
    return DataSet(member.task, member.seed, size)


def num_points(member: Member) -> int:
    """Return how many training points of a member the table holds: those of one chunk where they are fresh."""
    training = member.training
    if member.data.num_samples is None:
        return min(training.curve_every, training.steps) * training.batch_size
    return member.data.num_samples


def points_of_data_sets(members: Sequence[Member]) -> dict[DataSet, int]:
    """Return the data sets of a population, each once, with the number of points that its largest reader needs."""
    found: dict[DataSet, int] = {}
    for member in members:
        name = data_set(member)
        found[name] = max(found.get(name, 0), num_points(member))
    return found


class _Piece(NamedTuple):
    """Points to draw at once: `length` of each of some data sets of one task, from `start` on."""

    task: Task
    names: list[DataSet]
    start: int
    length: int
    grid_size: int | None


def _pieces(wanted: Mapping[DataSet, int], most: int) -> Iterator[_Piece]:
    """Yield pieces of at most `most` points, where a task's points can be drawn in parts (see `data_set`)."""
    groups: defaultdict[tuple[Task, int, bool], list[DataSet]] = defaultdict(list)
    for name, count in wanted.items():
        groups[name.task, count, name.is_grid].append(name)
    for (task, count, is_grid), names in groups.items():
        length = count if task.mixing else min(count, most)
        size = max(1, most // length)
        for begin in range(0, len(names), size):
            for start in range(0, count, length):
                some = names[begin : begin + size]
                yield _Piece(task, some, start, min(length, count - start), count if is_grid else None)


class PopulationData(LightningDataModule):
    """Points and chunks for the members of a population, in the order given.

    Finite data sets are drawn once. Members that take fresh points at every step get the next chunk's points drawn
    with each chunk, into the same rows.
    """

    def __init__(
        self, members: Sequence[Member], first_step: int, device: torch.device, threads: int = 1
    ) -> None:
        """`first_step` is the step to begin at, above 0 when resuming; `threads` draw points."""
        super().__init__()
        self._members = members
        self._first_step = first_step
        self._threads = threads
        training, task = members[0].training, members[0].task
        self._chunk_steps = min(training.curve_every, training.steps)
        self._points = points_of_data_sets(members)
        ends = list(accumulate(self._points.values()))
        self._starts = {
            name: end - count for (name, count), end in zip(self._points.items(), ends, strict=True)
        }
        self.offsets: Int64[Tensor, " member"] = torch.tensor(
            [self._starts[data_set(member)] for member in members], dtype=torch.int64
        )
        self.counts: Int32[Tensor, " member"] = torch.tensor(
            [member.data.num_samples or 0 for member in members], dtype=torch.int32
        )
        self._table = torch.empty(
            max(ends[-1], _LEAST_ROWS), task.in_features + task.num_targets, dtype=dtype_of(members)
        )
        self._fresh = {name: count for name, count in self._points.items() if name.size is None}
        self._draw({name: count for name, count in self._points.items() if name.size is not None}, 0)
        self._table = self._table.to(device)

    def _draw(self, wanted: Mapping[DataSet, int], first: int) -> None:
        """Draw the points of data sets from `first` on into the table, about `DRAWN_AT_ONCE` numbers at a time."""
        pieces = list(_pieces(wanted, max(1, DRAWN_AT_ONCE // self._table.shape[1])))

        def draw(piece: _Piece) -> None:
            keys = member_keys([name.seed for name in piece.names])
            drawn = training_points(piece.task, keys, first + piece.start, piece.length, piece.grid_size)
            for name, points in zip(piece.names, drawn, strict=True):
                start = self._starts[name] + piece.start
                self._table[start : start + len(points)] = points

        if self._threads > 1 and len(pieces) > 1:
            with ThreadPoolExecutor(self._threads) as pool:
                list(pool.map(draw, pieces))
        else:
            for piece in pieces:
                draw(piece)

    @property
    def num_chunks(self) -> int:
        """Return how many chunks are left from the first step on."""
        left = self._members[0].training.steps - self._first_step
        return -(-left // self._chunk_steps)

    def chunk(self, index: int) -> Chunk:
        """Return chunk `index` from the first step on, with its fresh points drawn."""
        training = self._members[0].training
        first = self._first_step + index * self._chunk_steps
        return Chunk(first, min(self._chunk_steps, training.steps - first), self.points(first))

    def points(self, first_step: int) -> Float[Tensor, "row feature"]:
        """Return the table that steps from this one on read, with the fresh points of a chunk drawn."""
        self._draw(self._fresh, first_step * self._members[0].training.batch_size)
        return self._table

    def train_dataloader(self) -> DataLoader[Chunk]:
        """Return a loader of one chunk, that of the trainer's current epoch: an epoch is a chunk."""
        # A generator of its own: without one, a loader draws from torch's, which is the user's.
        return DataLoader(_OneChunk(self), batch_size=None, generator=torch.Generator())


class _OneChunk(IterableDataset[Chunk]):
    def __init__(self, data: PopulationData) -> None:
        super().__init__()
        self._data = data

    def __iter__(self) -> Iterator[Chunk]:
        assert self._data.trainer is not None
        with foreign_code():  # Lightning takes StopIteration for the end of training.
            chunk = self._data.chunk(self._data.trainer.current_epoch)
        yield chunk
