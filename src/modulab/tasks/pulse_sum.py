"""Pulse sums: each module counts pulses of different size modulo p, in its memory, as they come.

A module reads p channels. A pulse in channel c, counted from 0, adds c, and the module must name the sum of all pulses
modulo p at the end. Pulses last a few steps and lie a gap apart at least; they end some steps before the sequence does,
so the sum has to be kept. K. Murray ("Phase codes emerge in recurrent neural networks optimized for modular
arithmetic", arXiv 2310.07711) has p = 3 and three pulses of amplitude 5 and two steps, in the first 40 of 50 steps and
5 apart; there the question is whether the sum is 0.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int32, Int64
from pydantic import Field, model_validator
from torch import Tensor

from modulab.errors import ConfigError
from modulab.schema import STRUCTURAL
from modulab.streams import fold_in, integers
from modulab.tasks import supports
from modulab.tasks.base import Region, Samples, Split, Task, own_columns, with_targets_of


class PulseSumTask(Task):
    """Module m reads pulses in p channels and names the sum of their channels modulo p."""

    modulus: int = Field(
        ge=2, le=64, description="p, the number of channels and of classes", json_schema_extra=STRUCTURAL
    )
    length: int = Field(ge=1, description="number of steps of a sequence", json_schema_extra=STRUCTURAL)
    pulses: int = Field(ge=1, le=64, description="number of pulses")
    pulse_steps: int = Field(ge=1, description="number of steps that a pulse lasts")
    gap: int = Field(ge=0, description="minimum number of steps between the end of a pulse and the next one")
    window: int = Field(ge=1, description="all pulses lie within this many first steps")
    amplitude: float = Field(gt=0, description="input during a pulse; 0 otherwise")

    @model_validator(mode="after")
    def _check_room(self) -> PulseSumTask:
        if self.window > self.length:
            raise ConfigError(
                f"task.window={self.window} is longer than task.length={self.length}. Set it to {self.length} or less."
            )
        if self._free_steps < 0:
            raise ConfigError(
                f"task.window={self.window} has no room for {self.pulses} pulses of {self.pulse_steps} steps with gaps "
                f"of {self.gap}. Set it to {self.window - self._free_steps} or more."
            )
        return self

    @property
    def _free_steps(self) -> int:
        """Return by how many steps pulses can be moved within their window."""
        return self.window - self.pulses * self.pulse_steps - (self.pulses - 1) * self.gap

    @property
    def inputs_per_module(self) -> int:
        """Return the number of steps times channels."""
        return self.length * self.modulus

    @property
    def input_shape(self) -> tuple[int, int]:
        """Return (step, channel)."""
        return (self.length, self.modulus)

    @property
    def outputs_per_module(self) -> int:
        """Return p."""
        return self.modulus

    @property
    def loss(self) -> str:
        """Return `cross_entropy`."""
        return "cross_entropy"

    def changed(self, samples: Samples, module: int = 0) -> Samples:
        """Return the same pulses with each sum of a module named as the next one, and the last as the first."""
        names = samples.targets[:, :, own_columns(module, 1)]
        return with_targets_of(samples, module, (names + 1) % self.modulus)

    def draw(
        self,
        keys: Int32[Tensor, "member 2"],
        counters: Int32[Tensor, "member batch"],
        region: Region,
        split: Split,  # noqa: ARG002 synthetic points are the same in both splits
        scales: Float[Tensor, " module"] | None = None,
    ) -> Samples:
        """Return channels that are all equally likely, pulses at sorted random places, and the sums."""
        if scales is not None:
            raise supports.nothing_to_widen("pulses", "pulse_sum")
        if region == "withheld":
            raise supports.nothing_withheld(self.name)
        drawn = [self._module(keys, counters, module) for module in range(self.modules)]
        inputs, sums = zip(*drawn, strict=True)
        return Samples(torch.cat(inputs, dim=2), torch.stack(sums, dim=2))

    def _module(
        self, keys: Tensor, counters: Tensor, module: int
    ) -> tuple[Float[Tensor, "member batch input"], Float[Tensor, "member batch"]]:
        numbers = range(2 * self.pulses * module, 2 * self.pulses * module + self.pulses)
        channels = torch.stack([_below(self.modulus, keys, counters, number) for number in numbers], dim=2)
        moved = torch.stack(
            [
                _below(self._free_steps + 1, keys, counters, number + self.pulses)
                for number in numbers
            ],
            dim=2,
        )  # fmt: skip
        # In order and moved apart by what a pulse and a gap take.
        places = torch.arange(self.pulses, device=counters.device) * (self.pulse_steps + self.gap)
        starts = moved.sort(dim=2).values + places
        steps = torch.arange(self.length, device=counters.device)
        lasting = (steps >= starts[..., None]) & (steps < starts[..., None] + self.pulse_steps)
        own = channels[..., None] == torch.arange(self.modulus, device=counters.device)
        inputs = (lasting[..., :, None] & own[..., None, :]).any(dim=2).float() * self.amplitude
        return inputs.flatten(2), (channels.sum(dim=2) % self.modulus).float()


def _below(
    limit: int, keys: Int32[Tensor, "member 2"], counters: Int32[Tensor, "member batch"], word: int
) -> Int64[Tensor, "member batch"]:
    """Return draws from 0 to limit - 1 for each point; different words are independent."""
    limits = torch.full((len(keys),), limit, dtype=torch.int32, device=counters.device)
    return integers(fold_in(keys, word), counters, limits).long()
