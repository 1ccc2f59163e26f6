"""Modular arithmetic: each module reads two numbers below p and must name their sum modulo p.

Networks that are trained on a share of the pairs show whether they found the rule or remember its table (A. Power et
al., "Grokking: Generalization beyond overfitting on small algorithmic datasets", 2022).
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float, Int32, Int64
from pydantic import Field, model_validator
from torch import Tensor

from modulab.schema import STRUCTURAL
from modulab.streams import fold_in
from modulab.tasks import supports
from modulab.tasks.base import Region, Samples, Split, Task, own_columns, with_targets_of

_NUMBERS = 2
"""How many numbers a module reads."""


class ModularArithmeticTask(Task):
    """Module m reads two one-hot numbers a and b below the modulus p and names (a + b) mod p.

    `pairs` support withholds a share of the p^2 pairs, the same ones in every module: a network whose modules share
    weights cannot see in one module what is withheld in another. In the withheld region the pairs of all modules are
    withheld ones.
    """

    modulus: int = Field(
        ge=2,
        le=1024,
        description="p, the modulus; numbers are below it",
        json_schema_extra=STRUCTURAL,
    )
    support: Literal["full", "pairs"] = Field(
        description="which pairs of numbers a module sees in training; pairs withholds some of them"
    )
    withheld_fraction: float = Field(
        gt=0, lt=1, description="pairs support: share of the modulus^2 pairs that is withheld"
    )
    withheld_seed: int = Field(ge=0, lt=2**63, description="pairs support: seed of the withheld pairs")

    @model_validator(mode="after")
    def _check_support(self) -> ModularArithmeticTask:
        if self.support == "pairs":
            supports.check_withholding(self.modulus, _NUMBERS, self.withheld_fraction, "numbers")
        return self

    @property
    def inputs_per_module(self) -> int:
        """Return 2 p."""
        return _NUMBERS * self.modulus

    @property
    def input_shape(self) -> tuple[int, int]:
        """Return (2, p): two numbers, one-hot."""
        return (_NUMBERS, self.modulus)

    @property
    def outputs_per_module(self) -> int:
        """Return p."""
        return self.modulus

    @property
    def loss(self) -> str:
        """Return `cross_entropy`."""
        return "cross_entropy"

    @property
    def withholds(self) -> bool:
        """Return whether the support is other than `full`."""
        return self.support != "full"

    def changed(self, samples: Samples, module: int = 0) -> Samples:
        """Return the same numbers with a module's sum raised by 1 modulo p."""
        sums = samples.targets[:, :, own_columns(module, 1)]
        return with_targets_of(samples, module, (sums + 1) % self.modulus)

    def draw(
        self,
        keys: Int32[Tensor, "member 2"],
        counters: Int32[Tensor, "member batch"],
        region: Region,
        split: Split,  # noqa: ARG002 all numbers are in both splits
        scales: Float[Tensor, " module"] | None = None,
    ) -> Samples:
        """Return pairs of numbers, each as likely as the others of the region and independent over modules."""
        if scales is not None:
            raise supports.nothing_to_widen("one-hot numbers", "modular_arithmetic")
        numbers = self._numbers(keys, counters, region)
        inputs = numbers.unsqueeze(4) == torch.arange(self.modulus, device=counters.device)
        return Samples(inputs.float().flatten(2), (numbers.sum(dim=3) % self.modulus).float())

    def _numbers(
        self, keys: Tensor, counters: Tensor, region: Region
    ) -> Int64[Tensor, "member batch module number"]:
        if self.support == "full" and region == "withheld":
            raise supports.nothing_withheld()
        if self.support == "full" or region == "full":
            weights = torch.ones(self.modulus**_NUMBERS, dtype=torch.float64)
        else:
            weights = supports.region_weights(
                self.modulus, _NUMBERS, self.withheld_fraction, self.withheld_seed, region == "withheld"
            )
        pairs = [
            supports.combinations(fold_in(keys, module), counters, weights, self.modulus, _NUMBERS)
            for module in range(self.modules)
        ]
        return torch.stack(pairs, dim=2)
