"""Parity tasks: each module reads a sequence of bits, 0 or 1, and must say whether the number of ones is odd.

No proper part of a sequence predicts its parity. A recurrent network needs two states per module: it inverts one
bit of memory at each 1 that it reads.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float, Int32
from pydantic import Field, model_validator
from torch import Tensor

from modulab.schema import STRUCTURAL
from modulab.tasks import supports
from modulab.tasks.base import Region, Samples, Split, Task, own_columns, with_targets_of


class ParityTask(Task):
    """Module m reads a sequence of bits and must give their sum modulo 2, class 0 or 1."""

    bits: int = Field(ge=1, description="length of each module's sequence", json_schema_extra=STRUCTURAL)
    support: Literal["full", "labels"] = Field(
        description="joint distribution of the modules' sequences in training; labels withholds joint parities"
    )
    withheld_fraction: float = Field(
        gt=0, lt=1, description="labels support: share of the 2^modules joint parities that is withheld"
    )
    withheld_seed: int = Field(
        ge=0, lt=2**63, description="labels support: seed of the withheld joint parities"
    )

    @model_validator(mode="after")
    def _check_support(self) -> ParityTask:
        if self.support == "labels":
            supports.check_withholding(2, self.modules, self.withheld_fraction, "labels")
        return self

    @property
    def inputs_per_module(self) -> int:
        """Return the number of bits."""
        return self.bits

    @property
    def input_shape(self) -> tuple[int, int]:
        """Return (step, feature) of a sequence with one bit at each step."""
        return (self.bits, 1)

    @property
    def outputs_per_module(self) -> int:
        """Return 2."""
        return 2

    @property
    def loss(self) -> str:
        """Return `cross_entropy`."""
        return "cross_entropy"

    @property
    def withholds(self) -> bool:
        """Return whether the support is other than `full`."""
        return self.support != "full"

    def changed(self, samples: Samples, module: int = 0) -> Samples:
        """Return the same sequences with a module's classes exchanged."""
        return with_targets_of(samples, module, 1 - samples.targets[:, :, own_columns(module, 1)])

    def draw(
        self,
        keys: Int32[Tensor, "member 2"],
        counters: Int32[Tensor, "member batch"],
        region: Region,
        split: Split,  # noqa: ARG002 synthetic points are the same in both splits
        scales: Float[Tensor, " module"] | None = None,
    ) -> Samples:
        """Return fair bits, independent over modules given that their joint parity is in the region."""
        if scales is not None:
            raise supports.nothing_to_widen("bits", "parity")
        if self.support == "full" and region == "withheld":
            raise supports.nothing_withheld()
        bits = (supports.full(keys, counters, self.modules, self.bits) > 0).long()
        if self.support == "labels" and region != "full":
            weights = supports.region_weights(
                2, self.modules, self.withheld_fraction, self.withheld_seed, region == "withheld"
            )
            parities = supports.combinations(keys, counters, weights, 2, self.modules)
            # All bits but one are free, whatever the parity: the last one brings it about.
            last = (parities - bits[:, :, :, :-1].sum(dim=3)) % 2
            bits = torch.cat([bits[:, :, :, :-1], last[:, :, :, None]], dim=3)
        return Samples(bits.flatten(2).float(), (bits.sum(dim=3) % 2).float())
