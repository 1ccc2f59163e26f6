"""A task during whose training Ctrl-C is pressed."""

from __future__ import annotations

import signal
from typing import Any

from torch import Tensor

from modulab.tasks.base import Region, Samples, Split
from modulab.tasks.regression import RegressionTask


class InterruptedTask(RegressionTask):
    """Presses Ctrl-C when the points of a chunk after the first are drawn."""

    def draw(
        self, keys: Tensor, counters: Tensor, region: Region, split: Split, scales: Any = None
    ) -> Samples:
        """Return the points of the task that this one is."""
        if split == "train" and int(counters[0, 0]) > 0:
            signal.raise_signal(signal.SIGINT)
        return super().draw(keys, counters, region, split, scales)
