"""Regression tasks: each module reads one number in [-1, 1] and must give a function of it."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from modulab.streams import Stream, fold_in, member_keys, normals
from modulab.tasks.base import Samples, with_targets_of
from modulab.tasks.continuous import ContinuousTask

FunctionName = Literal["sine", "parabola", "absolute", "cosine", "identity", "legendre", "fourier", "teacher"]
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


def legendre(inputs: Tensor, degree: int) -> Tensor:
    """Return the Legendre polynomial P_k(x), of degree k >= 1 and range [-1, 1] on [-1, 1].

    Bonnet's recursion: n P_n(x) = (2n - 1) x P_(n-1)(x) - (n - 1) P_(n-2)(x), with P_0 = 1 and P_1 = x.
    """
    before, polynomial = torch.ones_like(inputs), inputs
    for number in range(2, degree + 1):
        following = inputs * polynomial * ((2 * number - 1) / number) - before * ((number - 1) / number)
        before, polynomial = polynomial, following
    return polynomial


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
_RANDOM: dict[str, Callable[[Tensor], Function]] = {"fourier": _fourier, "teacher": _teacher}


@lru_cache(maxsize=256)
def module_function(name: FunctionName, seed: int, module: int, degree: int = 1) -> Function:
    """Return a module's function; random ones are mapped to just fill [-1, 1] on the training range."""
    if name in _FIXED:
        return _FIXED[name]
    if name == "legendre":
        return partial(legendre, degree=degree)
    keys = fold_in(fold_in(member_keys([seed]), Stream.TASK), _RANDOM_FUNCTIONS)
    raw = _RANDOM[name](fold_in(keys, module))
    values = raw(torch.linspace(-1.0, 1.0, 8193, dtype=torch.float64))
    low, high = values.min().item(), values.max().item()
    middle, half_range = (high + low) / 2.0, (high - low) / 2.0
    return lambda inputs: (raw(inputs) - middle) * (1.0 / half_range)


class RegressionTask(ContinuousTask):
    """Module m reads x_m in [-1, 1] and must give f_m(x_m), or a mean of x_m and f_m(x_m)."""

    functions: list[FunctionName] = Field(
        min_length=1, description="the modules' functions, repeated in order when there are more modules"
    )
    degree: int = Field(ge=1, le=20, description="degree of the Legendre polynomial for legendre")
    nonlinearity: float = Field(
        ge=0,
        le=1,
        description="b of the targets (1 - b) x + b f(x): with 0 the task is linear, with 1 targets are the "
        "functions themselves",
    )
    function_seed: int = Field(ge=0, lt=2**63, description="seed of the random functions fourier and teacher")

    @property
    def inputs_per_module(self) -> int:
        """Return 1."""
        return 1

    @property
    def outputs_per_module(self) -> int:
        """Return 1."""
        return 1

    def module_values(
        self, module: int, inputs: Float[Tensor, "member batch"]
    ) -> Float[Tensor, "member batch"]:
        """Return (1 - b) x + b f(x), f the function of a module and b the nonlinearity."""
        name = self.functions[module % len(self.functions)]
        # Contiguous columns, so sines always take the same path, however the inputs are strided.
        inputs = inputs.contiguous()
        values = module_function(name, self.function_seed, module, self.degree)(inputs)
        if self.nonlinearity == 1:
            return values
        return inputs * (1.0 - self.nonlinearity) + values * self.nonlinearity

    def targets_at(
        self, inputs: Float[Tensor, "member batch module coordinate"]
    ) -> Float[Tensor, "member batch target"]:
        """Return each module's value."""
        values = [self.module_values(module, inputs[:, :, module, 0]) for module in range(self.modules)]
        return torch.stack(values, dim=1).transpose(1, 2)  # the order in memory in which networks read points

    def other_function(self, module: int = 0) -> Function:
        """Return a function that is uncorrelated, over the range, with what a module computes.

        A parabola where that is odd. Otherwise it is a mean of x and an even function: the sine is uncorrelated with
        an even one alone, and the third Legendre polynomial with x as well. A random function, which is neither odd
        nor even, gives way to the same, and is not quite uncorrelated with it.
        """
        name = self.functions[module % len(self.functions)]
        odd = name in ("sine", "identity") or (name == "legendre" and self.degree % 2 == 1)
        if odd:
            return _parabola
        return _sine if self.nonlinearity == 1 else partial(legendre, degree=3)

    def changed(self, samples: Samples, module: int = 0) -> Samples | None:
        """Return the same points with a module's function changed to one that is uncorrelated with it.

        Knowing the old function neither helps nor harms.
        """
        targets = self.other_function(module)(samples.inputs[..., module].contiguous())
        return with_targets_of(samples, module, targets.unsqueeze(2))
