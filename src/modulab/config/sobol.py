"""Settings drawn from a Sobol sequence: points that cover the space of several axes evenly, however many there are.

A grid of five axes at five values each has 3,125 points, and varies each axis at five values only. A Sobol sequence
gives every point its own value on every axis, and any number of its first points cover the space evenly, so more
settings can be added later and none is trained twice (I. Sobol, "On the distribution of points in a cube and the
approximate evaluation of integrals", 1967). Torch's generator is used, with the direction numbers of S. Joe and
F. Kuo ("Constructing Sobol sequences with better two-dimensional projections", 2008): it needs no further dependency.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, cast

import torch
from jaxtyping import Float
from pydantic import Field, field_validator, model_validator
from torch import Tensor

from modulab.schema import Settings, read_settings

_BITS = 30
"""The number of bits of torch's Sobol numbers, which are multiples of 2^-30."""
_SHIFT_SEED = 2013
"""Part of every drawn setting: never change it."""


class Axis(Settings):
    """The range of a key: a list of values, or an interval on a linear or logarithmic scale."""

    values: list[Any] | None = Field(default=None, description="the values of the key, drawn equally often")
    low: float | None = Field(default=None, description="the lower end of the key's range")
    high: float | None = Field(default=None, description="the upper end of the key's range")
    scale: Literal["linear", "log"] = Field(
        default="linear", description="scale on which values are distributed evenly"
    )
    integer: bool = Field(default=False, description="round values of a range to whole numbers")
    times: dict[str, int] = Field(
        default={}, description="other axes by whose values this one is multiplied, each raised to a power"
    )

    @model_validator(mode="after")
    def _values_or_range(self) -> Axis:
        if (self.values is None) == (self.low is None and self.high is None):
            raise ValueError("give either values, or low and high.")
        if self.values is not None:
            if not self.values:
                raise ValueError("values: give at least one.")
            return self
        if self.low is None or self.high is None or self.low >= self.high:
            raise ValueError(f"low={self.low} and high={self.high}: give both, low below high.")
        if self.scale == "log" and self.low <= 0:
            raise ValueError(f"low={self.low}: a logarithmic scale begins above 0.")
        return self

    def at(self, place: float) -> Any:
        """Return the value at a place in [0, 1) of the axis."""
        if self.values is not None:
            return self.values[int(place * len(self.values))]
        assert self.low is not None
        assert self.high is not None
        if self.scale == "log":
            value = math.exp(math.log(self.low) + place * math.log(self.high / self.low))
        else:
            value = self.low + place * (self.high - self.low)
        return round(value) if self.integer else _four_digits(value)


def _four_digits(value: float) -> float:
    # Equal on all machines, whose exponentials differ in the last bit.
    return float(f"{value:.4g}")


class Sobol(Settings):
    """Settings to draw over axes. Without axes there is one: the run's own."""

    settings: int = Field(ge=1, description="number of settings drawn from the Sobol sequence over the axes")
    axes: dict[str, Axis] = Field(description="for each key, its values or range")

    @field_validator("axes", mode="before")
    @classmethod
    def _read(cls, axes: Any) -> Any:
        # One by one, so errors name what an axis may have, and not what this group may have.
        if not isinstance(axes, dict):
            return axes
        named = cast("dict[str, Any]", axes).items()
        return {
            key: axis if isinstance(axis, Axis) else read_settings(axis, f"population.sobol.axes.{key}", Axis)
            for key, axis in named
        }

    @model_validator(mode="after")
    def _axes_are_there(self) -> Sobol:
        if not self.axes and self.settings > 1:
            raise ValueError(
                f"settings={self.settings} has no effect without axes. Give axes, or set it to 1."
            )
        for key, axis in self.axes.items():
            for other in axis.times:
                if other not in self.axes or self.axes[other].times:
                    raise ValueError(
                        f"axes.{key}.times: {other} is not another axis without times of its own."
                    )
        return self

    def draw(self) -> list[dict[str, Any]]:
        """Return the settings, each a value for every axis."""
        if not self.axes:
            return [{}]
        return [self._setting(places) for places in sobol_points(self.settings, len(self.axes)).tolist()]

    def _setting(self, places: list[float]) -> dict[str, Any]:
        own = {key: axis.at(place) for (key, axis), place in zip(self.axes.items(), places, strict=True)}
        return {key: _multiplied(own[key], axis, own) for key, axis in self.axes.items()}


def _multiplied(value: Any, axis: Axis, values: Mapping[str, Any]) -> Any:
    if not axis.times:
        return value
    product = value * math.prod(values[key] ** power for key, power in axis.times.items())
    return product if isinstance(product, int) else _four_digits(product)


def sobol_points(number: int, dimensions: int, shift_seed: int = _SHIFT_SEED) -> Float[Tensor, "point axis"]:
    """Return the first points of a Sobol sequence in [0, 1), moved by a random digital shift.

    The shift (an exclusive or of each dimension's bits with bits of its own) keeps the points as evenly spread, and
    moves the first one, which is otherwise 0 on every axis (A. Owen, "On dropping the first Sobol' point", 2022).
    A dimension's numbers do not depend on how many dimensions follow.
    """
    points = torch.quasirandom.SobolEngine(dimensions, scramble=False).draw(number, dtype=torch.float64)
    digits = (points * 2**_BITS).round().to(torch.int64)
    generator = torch.Generator().manual_seed(shift_seed)
    shift = torch.stack(
        [torch.randint(2**_BITS, (1,), generator=generator, dtype=torch.int64) for _ in range(dimensions)],
        dim=1,
    )
    return (digits ^ shift).double() / 2**_BITS
