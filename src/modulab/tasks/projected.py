"""Projections: each module reads a projection of the inputs to few dimensions, and the target is a sum over modules.

    x ~ N(0, I_m),  y(x) = sum_i f_i(U_i x),  f_i(z) = (sum_j sin(w_ij . z + p_ij) - mean) / (d variance)^(1/2)

with d modules and U_i of b orthonormal rows, orthogonal to those of other modules. It follows the modular sine wave
regression of A. Boopathy et al., "Breaking neural network scaling laws with modularity" (arXiv 2409.05780), who ask how
the number of samples that a network needs depends on m.

A task draws z_1 to z_m ~ N(0, 1), of which module i reads b, and in mixed code shows the rotation x = Q z: then U_i is
the rows of Q' that belong to module i, in no way singled out in x. In coordinate code they are known. What a module
reads does not depend on m: larger tasks have the same z_1 to z_db, and more z that no module reads.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Float64, Int32
from pydantic import Field, model_validator
from torch import Tensor

from modulab.errors import ConfigError
from modulab.partition import SHARED, Partition
from modulab.schema import STRUCTURAL
from modulab.streams import Stream, fold_in, member_keys, normals, uniforms
from modulab.tasks.base import Region, Samples, Split, Task
from modulab.tasks.supports import nothing_to_widen, nothing_withheld

_SINES = 60
"""Sub-stream of Stream.TASK from which directions and phases of sines are drawn."""


def gaussians(
    keys: Int32[Tensor, "member 2"], counters: Int32[Tensor, "member batch"], columns: int
) -> Float[Tensor, "member batch column"]:
    """Return standard normal draws, of which a column depends on its place and on no other column.

    The transform of G. Box and M. Muller (1958), two columns at a time.
    """
    drawn: list[Tensor] = []
    for column in range(0, columns, 2):
        radius = torch.sqrt(-2.0 * torch.log(uniforms(fold_in(keys, column), counters)))
        angle = uniforms(fold_in(keys, column + 1), counters) * (2.0 * math.pi)
        drawn += [radius * torch.cos(angle), radius * torch.sin(angle)]
    return torch.stack(drawn[:columns], dim=2)


def sine_moments(
    waves: Float64[Tensor, "sine coordinate"], phases: Float64[Tensor, " sine"]
) -> tuple[float, float]:
    """Return mean and variance of sum_j sin(w_j . z + p_j) under z ~ N(0, I).

    Both follow from E cos(w . z + p) = cos(p) exp(-|w|^2 / 2) and E sin(w . z + p) = sin(p) exp(-|w|^2 / 2), as
    2 sin(s) sin(t) = cos(s - t) - cos(s + t).
    """
    mean = float((phases.sin() * (-waves.square().sum(dim=1) / 2).exp()).sum())
    total = 0.0
    for sign in (1.0, -1.0):
        squares = (waves[:, None] - sign * waves).square().sum(dim=2)
        total += sign * float(((phases[:, None] - sign * phases).cos() * (-squares / 2).exp()).sum())
    return mean, total / 2 - mean**2


class ProjectedTask(Task):
    """The only output is the sum over modules of a function of the b inputs that a module reads; it belongs to none."""

    features: int = Field(ge=1, description="m, the number of inputs", json_schema_extra=STRUCTURAL)
    module_features: int = Field(
        ge=1,
        description="b, the number of directions of the inputs that each module reads",
        json_schema_extra=STRUCTURAL,
    )
    sines: int = Field(ge=1, description="J, the number of sines that the function of a module sums")
    frequency: float = Field(
        gt=0,
        description="length of the frequency vector w of the last sine of each module; sine j has j / "
        "J of it",
    )
    function_seed: int = Field(ge=0, lt=2**63, description="seed of the directions and phases of the sines")

    @model_validator(mode="after")
    def _check_features(self) -> ProjectedTask:
        read = self.modules * self.module_features
        if read > self.features:
            raise ConfigError(
                f"task.features={self.features} inputs have no room for task.modules={self.modules} modules of "
                f"task.module_features={self.module_features} directions each. Set task.features to {read} or more."
            )
        return self

    @property
    def inputs_per_module(self) -> int:
        """Return b."""
        return self.module_features

    @property
    def outputs_per_module(self) -> int:
        """Return 1, which all modules share."""
        return 1

    @property
    def partition(self) -> Partition:
        """Return b inputs for each module, in order, further inputs that belong to none, and one shared output."""
        own = [module for module in range(self.modules) for _ in range(self.module_features)]
        return Partition(self.modules, (*own, *[SHARED] * (self.features - len(own))), (SHARED,))

    @property
    def loss(self) -> str:
        """Return `squared`; a constant answer has an error of 1."""
        return "squared"

    def waves(self, module: int) -> tuple[Float64[Tensor, "sine coordinate"], Float64[Tensor, " sine"]]:
        """Return w and p of a module's sines; directions and phases are drawn uniformly."""
        keys = fold_in(fold_in(fold_in(member_keys([self.function_seed]), Stream.TASK), _SINES), module)
        directions = normals(fold_in(keys, 0), self.sines, self.module_features)[0].double()
        lengths = self.frequency * torch.arange(1, self.sines + 1, dtype=torch.float64) / self.sines
        counters = torch.arange(self.sines, dtype=torch.int32)[None]
        phases = 2 * math.pi * uniforms(fold_in(keys, 1), counters)[0].double()
        return directions / directions.norm(dim=1, keepdim=True) * lengths[:, None], phases

    def module_values(
        self, module: int, read: Float[Tensor, "member batch coordinate"]
    ) -> Float[Tensor, "member batch"]:
        """Return f_i of what a module reads: of mean 0 and variance 1 / d."""
        waves, phases = self.waves(module)
        mean, variance = sine_moments(waves, phases)
        total = torch.full_like(read[:, :, 0], -mean)
        # Contiguous columns, so sines always take the same path, however the inputs are strided.
        columns = [column.contiguous() for column in read.unbind(dim=2)]
        for wave, phase in zip(waves.tolist(), phases.tolist(), strict=True):
            angle = columns[0] * wave[0] + phase
            for column, weight in zip(columns[1:], wave[1:], strict=True):
                angle = angle + column * weight
            total = total + torch.sin(angle)
        return total * (1.0 / math.sqrt(self.modules * variance))

    def draw(
        self,
        keys: Int32[Tensor, "member 2"],
        counters: Int32[Tensor, "member batch"],
        region: Region,
        split: Split,  # noqa: ARG002 synthetic points are the same in both splits
        scales: Float[Tensor, " module"] | None = None,
    ) -> Samples:
        """Return points of N(0, I_m), of which each module reads its own coordinates, and the sum of their values."""
        if scales is not None:
            raise nothing_to_widen("normal inputs", self.name)
        if region == "withheld":
            raise nothing_withheld(self.name)
        inputs = gaussians(keys, counters, self.features)
        read = inputs[:, :, : self.modules * self.module_features].split(self.module_features, dim=2)
        total = self.module_values(0, read[0])
        for module in range(1, self.modules):
            total = total + self.module_values(module, read[module])
        return Samples(inputs, total[:, :, None])
