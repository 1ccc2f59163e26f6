"""A sweep of a task that tests slow down and break while it trains elsewhere, and that writes down what it draws."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from modulab.results.store import load_curves, load_results
from tests.command_line import SMALL, last_given

SWITCHED = '''
"""A task that files in the current folder slow down and break, and that writes down what it draws."""

import os
import time
from pathlib import Path

from modulab.tasks.regression import RegressionTask


class SwitchedTask(RegressionTask):
    def draw(self, keys, counters, region, split, scales=None):
        if split == "train":
            shard = "_".join(os.environ.get(f"SLURM_ARRAY_{name}_ID", "") for name in ("JOB", "TASK"))
            with open("drawn", "a") as file:
                file.write(f"{shard} {os.getpid()} {self.function_seed} {int(counters[0, 0])}\\n")
            if Path("broken").exists() and self.function_seed == 2:
                raise RuntimeError("no such function")
            if Path("slow").exists():
                time.sleep(1)
        return super().draw(keys, counters, region, split, scales)
'''
SWEEP = last_given(
    "train", "-m", *SMALL, "task._target_=switched.SwitchedTask", "task.function_seed=range(6)",
    "data.num_samples=null", "training.steps=160", "training.curve_every=2", "trainer.progress=lines",
    "hydra.sweep.dir=sweep",
)  # fmt: skip
"""Six members, one a function seed; every chunk of two steps draws its points again."""


@dataclass(frozen=True)
class Drawn:
    """A chunk of training points that a member's task drew."""

    shard: str
    process: int
    member: int
    first: int


def drawn() -> list[Drawn]:
    lines = Path("drawn").read_text().splitlines() if Path("drawn").exists() else []
    return [Drawn(shard, *map(int, numbers)) for shard, *numbers in map(str.split, lines)]


def assert_same_bits(one: str | Path, other: str | Path) -> None:
    """Compare all that sweeps found: tables but for time and version, and curves."""
    tables = []
    for path in (one, other):
        table = load_results(path).set_index("run_id").sort_index()
        assert table["error"].isna().all()  # in a column of text or of nothing, which is no difference here
        apart = ("seconds", "error", "version.")
        tables.append(table[[name for name in table if not name.startswith(apart)]])
    pd.testing.assert_frame_equal(*tables, check_exact=True)
    order = ["run_id", "measure", "step"]
    curves = [load_curves(path).sort_values(order, ignore_index=True) for path in (one, other)]
    pd.testing.assert_frame_equal(*curves, check_exact=True)
