"""Bit memory: each module reads a sequence of bits, 0 or 1, and is asked for its last N bits.

The questions are N-bit parity (is their sum odd?) and delayed match (is the last bit the same as the first of the N?),
which S. Khajehabdollahi et al. ("Emergent mechanisms for long timescales depend on training curriculum and affect
performance in memory tasks", 2024) teach with N that grows. Bits before the last N do not count, so a network has
to forget them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from jaxtyping import Bool, Float, Int32
from pydantic import Field, model_validator
from torch import Tensor

from modulab.errors import ConfigError
from modulab.schema import STRUCTURAL
from modulab.tasks import supports
from modulab.tasks.base import Region, Samples, Split, Task, own_columns, with_targets_of

Bits = Bool[Tensor, "member batch module bit"]

_ANSWERS: dict[str, Callable[[Tensor], Tensor]] = {
    "parity": lambda bits: bits.sum(dim=3) % 2 == 1,
    "match": lambda bits: bits[:, :, :, 0] == bits[:, :, :, -1],
}


class BitMemoryTask(Task):
    """Module m reads `length` bits and must give the class, 0 or 1, that the last `recent` of them have."""

    length: int = Field(ge=2, description="length of each module's sequence", json_schema_extra=STRUCTURAL)
    recent: int = Field(ge=2, description="N, the number of last bits that the question is about")
    question: Literal["parity", "match"] = Field(
        description="parity: is the sum of the last N bits odd? match: are the first and last of them equal?"
    )

    @model_validator(mode="after")
    def _check_recent(self) -> BitMemoryTask:
        if self.recent > self.length:
            raise ConfigError(
                f"task.recent={self.recent} is more than the number of bits, task.length={self.length}. Set "
                f"task.length={self.recent} or more."
            )
        return self

    @property
    def inputs_per_module(self) -> int:
        """Return the number of bits."""
        return self.length

    @property
    def input_shape(self) -> tuple[int, int]:
        """Return (step, feature) of a sequence with one bit at each step."""
        return (self.length, 1)

    @property
    def outputs_per_module(self) -> int:
        """Return 2."""
        return 2

    @property
    def loss(self) -> str:
        """Return `cross_entropy`."""
        return "cross_entropy"

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
        """Return fair bits, independent over modules, and the answers."""
        if scales is not None:
            raise supports.nothing_to_widen("bits", "bit_memory")
        if region == "withheld":
            raise supports.nothing_withheld(self.name)
        bits = supports.full(keys, counters, self.modules, self.length) > 0
        answers = _ANSWERS[self.question](bits[:, :, :, -self.recent :])
        return Samples(bits.flatten(2).float(), answers.float())
