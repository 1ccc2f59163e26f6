from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from modulab.schema import read_settings
from modulab.streams import Stream, fold_in, member_keys
from modulab.tasks.base import Task

TASK_CONFIGS = Path(__file__).parents[2] / "configs" / "task"


@pytest.fixture
def make_task() -> Callable[..., Task]:
    """Read a task from its config file, as the command line would, with some keys changed."""

    def make(name: str, **changes: Any) -> Task:
        config = yaml.safe_load((TASK_CONFIGS / f"{name}.yaml").read_text())
        return read_settings({**config, **changes}, "task", Task)

    return make


@pytest.fixture
def points() -> Callable[..., tuple[torch.Tensor, torch.Tensor]]:
    """Give keys and counters of some members and their first points."""

    def make(num_members: int, num_points: int) -> tuple[torch.Tensor, torch.Tensor]:
        keys = fold_in(member_keys(range(num_members)), Stream.DATA)
        counters = torch.arange(num_points, dtype=torch.int32).repeat(num_members, 1)
        return keys, counters

    return make
