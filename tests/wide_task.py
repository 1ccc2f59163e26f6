"""A task as wide as a common image data set, which counts how often its training points are drawn."""

from __future__ import annotations

from torch import Tensor

from modulab.streams import fold_in, uniforms
from modulab.tasks.base import Region, Samples, Split
from modulab.tasks.regression import RegressionTask

DRAWN: list[tuple[int, int]] = []
"""The members and points of each draw for training."""


class WideTask(RegressionTask):
    """Each module reads 392 numbers in [-1, 1] and must give the mean of the first two."""

    @property
    def inputs_per_module(self) -> int:
        """Return 392: two modules have 784."""
        return 392

    @property
    def ranges(self) -> bool:
        """Return False."""
        return False

    def draw(
        self, keys: Tensor, counters: Tensor, region: Region, split: Split, scales: Tensor | None = None
    ) -> Samples:
        """Return points whose features are stretched from one random number a feature."""
        if split == "train":
            DRAWN.append((len(keys), counters.shape[1]))
        features = counters.new_tensor(range(self.in_features))
        offsets = counters[:, :, None] * self.in_features + features
        inputs = uniforms(fold_in(keys, 1), offsets) * 2.0 - 1.0
        firsts = inputs.unflatten(2, (self.modules, -1))
        return Samples(inputs, (firsts[..., 0] + firsts[..., 1]) * 0.5)
