"""Training points of a member, as a pure function of its task and seed."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int32
from torch import Tensor

from modulab.config.settings import Member
from modulab.streams import Stream, fold_in
from modulab.tasks.base import Task, as_seen, checked_samples, draw_points


def training_points(
    task: Task, keys: Int32[Tensor, "member 2"], first: int, count: int, grid_size: int | None = None
) -> Float[Tensor, "member point feature"]:
    """Return points `first` to `first + count - 1` of each key's training data: inputs as seen, then targets.

    Point i of a member does not depend on how many points it has: smaller data sets are prefixes of larger. Only the
    points of a grid do, which are the same for all keys; `grid_size` is their number.
    """
    counters = torch.arange(first, first + count, dtype=torch.int32).expand(keys.shape[0], count)
    if grid_size is None:
        samples = draw_points(task, fold_in(keys, Stream.DATA), counters, "train", "train")
    else:
        grid = task.grid(counters, task.points_per_coordinate(grid_size))
        samples = checked_samples(grid, counters.shape, task, "grid")
    return torch.cat([as_seen(task, samples.inputs), samples.targets], dim=2)


def first_points(
    member: Member, keys: Int32[Tensor, "member 2"], most: int
) -> Float[Tensor, "member point feature"]:
    """Return the first `most` training points of each key under a member's settings, or all if there are fewer."""
    size = member.data.num_samples
    grid_size = size if member.data.sampling == "grid" else None
    return training_points(member.task, keys, 0, most if size is None else min(most, size), grid_size)
