"""Regression tasks: each module reads one number in [-1, 1] and must give a function of it."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Literal

import torch
from jaxtyping import Float, Int32
from pydantic import Field, model_validator
from torch import Tensor

from modulab.streams import Stream, fold_in, member_keys, normals
from modulab.tasks import supports
from modulab.tasks.base import Region, Samples, Split, Task, with_targets_of_module_1

FunctionName = Literal["sine", "parabola", "absolute", "cosine", "identity", "fourier", "teacher"]
Function = Callable[[Tensor], Tensor]

_RANDOM_FUNCTIONS = 1
"""Sub-stream of Stream.TASK from which random functions are drawn."""
_FOURIER_HARMONICS = 4
_TEACHER_UNITS = 16
_TEACHER_GAIN = 3.0


def _sine(inputs: Tensor) -> Tensor:
    return torch.sin(math.pi * inputs)


def _parabola(inputs: Tensor) -> Tensor:
    return 2.0 * inputs.square() - 1.0


def _absolute(inputs: Tensor) -> Tensor:
    return 2.0 * inputs.abs() - 1.0


def _cosine(inputs: Tensor) -> Tensor:
    return torch.cos(math.pi * inputs)


def _identity(inputs: Tensor) -> Tensor:
    return inputs


def _fourier(keys: Tensor) -> Function:
    """Return sum_k (a_k sin(k pi x) + b_k cos(k pi x)) with a_k, b_k ~ N(0, 1/k^2)."""
    coefficients = normals(keys, _FOURIER_HARMONICS, 2)[0].tolist()

    def series(inputs: Tensor) -> Tensor:
        total = torch.zeros_like(inputs)
        for harmonic, (sine, cosine) in enumerate(coefficients, start=1):
            angle = inputs * (harmonic * math.pi)
            total = total + torch.sin(angle) * (sine / harmonic) + torch.cos(angle) * (cosine / harmonic)
        return total

    return series


def _teacher(keys: Tensor) -> Function:
    """Return sum_j c_j tanh(a_j x + b_j), with a_j of standard deviation 3 and b_j, c_j of 1."""
    weights = normals(keys, _TEACHER_UNITS, 3)[0].tolist()

    def network(inputs: Tensor) -> Tensor:
        total = torch.zeros_like(inputs)
        for slope, offset, readout in weights:
            total = total + torch.tanh(inputs * (slope * _TEACHER_GAIN) + offset) * readout
        return total

    return network


_FIXED: dict[str, Function] = {
    "sine": _sine,
    "parabola": _parabola,
    "absolute": _absolute,
    "cosine": _cosine,
    "identity": _identity,
}
_ODD = ("sine", "identity")
_RANDOM: dict[str, Callable[[Tensor], Function]] = {"fourier": _fourier, "teacher": _teacher}


@lru_cache(maxsize=256)
def module_function(name: FunctionName, seed: int, module: int) -> Function:
    """Return a module's function; random ones are mapped to just fill [-1, 1] on the training range."""
    if name in _FIXED:
        return _FIXED[name]
    keys = fold_in(fold_in(member_keys([seed]), Stream.TASK), _RANDOM_FUNCTIONS)
    raw = _RANDOM[name](fold_in(keys, module))
    values = raw(torch.linspace(-1.0, 1.0, 8193, dtype=torch.float64))
    low, high = values.min().item(), values.max().item()
    middle, half_range = (high + low) / 2.0, (high - low) / 2.0
    return lambda inputs: (raw(inputs) - middle) * (1.0 / half_range)


class RegressionTask(Task):
    """Module m reads x_m in [-1, 1] and must give f_m(x_m)."""

    functions: list[FunctionName] = Field(
        min_length=1, description="the modules' functions, repeated in order when there are more modules"
    )
    function_seed: int = Field(
        ge=0, lt=2**63, description="which random functions fourier and teacher stand for"
    )
    support: supports.ContinuousSupport = Field(
        description="joint distribution of the modules' inputs in training; all but full withhold some"
    )
    band_width: float = Field(
        ge=0,
        lt=0.5,
        description="w of band support: modules differ by 2w at most, which must stay below the 1 where "
        "the withheld region begins",
    )
    cells: int = Field(ge=2, description="cells that cells support cuts each input's range into")
    withheld_fraction: float = Field(
        gt=0, lt=1, description="share of the combinations that cells support withholds"
    )
    withheld_seed: int = Field(ge=0, lt=2**63, description="which combinations cells support withholds")

    @model_validator(mode="after")
    def _check_support(self) -> RegressionTask:
        supports.check_support(self._law)
        return self

    @property
    def _law(self) -> supports.SupportLaw:
        return supports.SupportLaw(
            support=self.support,
            modules=self.modules,
            coordinates=self.inputs_per_module,
            band_width=self.band_width,
            cells=self.cells,
            withheld_fraction=self.withheld_fraction,
            withheld_seed=self.withheld_seed,
        )

    @property
    def inputs_per_module(self) -> int:
        """Return 1."""
        return 1

    @property
    def outputs_per_module(self) -> int:
        """Return 1."""
        return 1

    @property
    def loss(self) -> str:
        """Return `squared`."""
        return "squared"

    @property
    def withholds(self) -> bool:
        """Return whether the support is other than `full`."""
        return self.support != "full"

    @property
    def ranges(self) -> bool:
        """Return True: the functions are defined everywhere."""
        return True

    def changed(self, samples: Samples) -> Samples:
        """Return the same points with module 1's function changed: a parabola for an odd one, for others the sine.

        Of the fixed functions, old and new are then uncorrelated over the range: whoever knows the old one is
        neither helped nor misled. A random function, which is neither odd nor even, gives way to the sine too.
        """
        name: FunctionName = "parabola" if self.functions[0] in _ODD else "sine"
        targets = module_function(name, self.function_seed, 0)(samples.inputs[..., 0].contiguous())
        return with_targets_of_module_1(samples, targets.unsqueeze(2))

    def draw(
        self,
        keys: Int32[Tensor, "member 2"],
        counters: Int32[Tensor, "member batch"],
        region: Region,
        split: Split,  # noqa: ARG002 synthetic points are the same in both splits
        scales: Float[Tensor, " module"] | None = None,
    ) -> Samples:
        """Return points of a region, widened by `scales`, with the functions' values there."""
        inputs = supports.region_inputs(keys, counters, region, self._law)
        inputs = supports.widen(inputs, scales)[..., 0]
        # Contiguous columns, so that sines always take the same path, however the inputs are strided.
        targets = [
            module_function(self.functions[module % len(self.functions)], self.function_seed, module)(
                inputs[..., module].contiguous()
            )
            for module in range(self.modules)
        ]
        return Samples(inputs, torch.stack(targets, dim=2))
