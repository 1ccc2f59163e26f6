"""Where settings lie on a map: each axis as columns of width 1, and planes of two axes for each level of the others.

The axes are those of the experiment's Sobol settings, in their order: the first is drawn from left to right, the second
from bottom to top, a list of values after them gives one panel per value, and a range after them is averaged over.
So an axis is added to a map in its config alone.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from modulab.config.sobol import Axis
from modulab.errors import ConfigError

Array = NDArray[np.float64]

RESOLUTION = 25
"""Places on each axis of a plane."""
_AVERAGED_OVER = 6
"""Settings over whose values of the axes that are not shown an effect is averaged."""
_MOST_PANELS = 12


@dataclass(frozen=True)
class Panel:
    """A plane of a map: the levels of the axes that it is cut at, and where its places stand among all places."""

    levels: Mapping[str, Any]
    places: slice


@dataclass(frozen=True)
class Plan:
    """The axes of a map, what each is for, and the places at which its effect is shown."""

    axes: Mapping[str, Axis]
    """The axes that vary, in order."""
    fixed: Mapping[str, Axis]
    """The axes with a single value, which may be multiplied by the value of another axis."""

    @classmethod
    def of(cls, axes: Mapping[str, Axis]) -> Plan:
        """Return the plan of a map with these axes.

        Raises: ConfigError if fewer than two vary, if one of the first two has values that are not rising
        numbers, or if there would be more panels than a figure can show.
        """
        fixed = {key: axis for key, axis in axes.items() if axis.values is not None and len(axis.values) == 1}
        plan = cls({key: axis for key, axis in axes.items() if key not in fixed}, fixed)
        if len(plan.axes) < 2:
            raise ConfigError("population.sobol.axes: a map needs at least two axes that vary.")
        for key in (plan.x, plan.y):
            if not is_ordered(plan.axes[key]):
                raise ConfigError(
                    f"population.sobol.axes.{key}: the first two axes of a map are drawn as its plane, and have a "
                    "range or rising numbers. Write it after them to get one panel per value."
                )
        if len(plan.panels) > _MOST_PANELS:
            raise ConfigError(
                f"population.sobol.axes: the values of {', '.join(plan.panel_keys)} give {len(plan.panels)} panels, "
                f"where a figure has {_MOST_PANELS} at most. Give ranges, which are averaged over, or fewer values."
            )
        return plan

    @property
    def x(self) -> str:
        """Return the key drawn from left to right."""
        return next(iter(self.axes))

    @property
    def y(self) -> str:
        """Return the key drawn from bottom to top."""
        return list(self.axes)[1]

    @property
    def panel_keys(self) -> list[str]:
        """Return the keys of whose values each has a panel."""
        return [key for key in list(self.axes)[2:] if self.axes[key].values is not None]

    @property
    def averaged(self) -> list[str]:
        """Return the keys that the figure averages over."""
        return [key for key in list(self.axes)[2:] if self.axes[key].values is None]

    @cached_property
    def panels(self) -> list[Panel]:
        """Return the panels, the last key's values varying fastest."""
        size = RESOLUTION**2
        levels = itertools.product(*(self.axes[key].values or [] for key in self.panel_keys))
        return [
            Panel(dict(zip(self.panel_keys, each, strict=True)), slice(number * size, (number + 1) * size))
            for number, each in enumerate(levels)
        ]

    @cached_property
    def ticks(self) -> Array:
        """Return the places on an axis at which a plane has points, from 0 to 1."""
        return np.linspace(0, 1, RESOLUTION)

    @cached_property
    def shown(self) -> list[dict[str, NDArray[Any]]]:
        """Return the settings at all places of all panels, once per setting of the axes that are averaged over.

        Within a panel, x varies fastest.
        """
        across, up = np.meshgrid(self.ticks, self.ticks)
        number = len(self.panels)
        size = number * RESOLUTION**2
        own: dict[str, NDArray[Any]] = {
            self.x: np.tile(value_at(self.axes[self.x], across.ravel()), number),
            self.y: np.tile(value_at(self.axes[self.y], up.ravel()), number),
        }
        for key in self.panel_keys:
            own[key] = np.repeat([panel.levels[key] for panel in self.panels], RESOLUTION**2)
        for key, axis in self.fixed.items():
            own[key] = np.full(size, (axis.values or [])[0])
        found: list[dict[str, NDArray[Any]]] = []
        # The middle of each of the equal parts of every axis, in an order of its own for each.
        middles = (np.arange(_AVERAGED_OVER) + 0.5) / _AVERAGED_OVER
        orders = [np.random.default_rng(axis).permutation(middles) for axis in range(len(self.averaged))]
        for each in range(_AVERAGED_OVER if self.averaged else 1):
            for key, order in zip(self.averaged, orders, strict=True):
                own[key] = np.full(size, value_at(self.axes[key], order[[each]])[0])
            tied = {key: own[key] * self._factor(key, own) for key in own if self._times(key)}
            found.append(own | tied)
        return found

    def columns(self, settings: Mapping[str, NDArray[Any]] | pd.DataFrame) -> Array:
        """Return the columns in which a fit sees settings: one per axis that is ordered, one per value of others."""
        found: list[Array] = []
        for key, axis in self.axes.items():
            if is_ordered(axis):
                found.append(self.places_on(key, settings)[:, None])
            else:
                # Different values are as far apart as the ends of a range.
                values = np.asarray(settings[key])
                found.append(np.stack([values == level for level in axis.values or []], axis=1) / np.sqrt(2))
        return np.hstack(found)

    def places_on(self, key: str, settings: Mapping[str, NDArray[Any]] | pd.DataFrame) -> Array:
        """Return where settings lie on an ordered axis, from 0 to 1."""
        own = np.asarray(settings[key], dtype=np.float64) / self._factor(key, settings)
        return place_of(self.axes[key], own)

    def _times(self, key: str) -> Mapping[str, int]:
        return {**self.axes, **self.fixed}[key].times

    def _factor(self, key: str, settings: Mapping[str, NDArray[Any]] | pd.DataFrame) -> Array | float:
        """Return what an axis's own value is multiplied by in each setting."""
        powers = self._times(key).items()
        factors = [np.asarray(settings[other], dtype=np.float64) ** power for other, power in powers]
        return np.prod(factors, axis=0) if factors else 1.0


def is_ordered(axis: Axis) -> bool:
    """Return whether an axis is a range, or a list of rising numbers."""
    if axis.values is None:
        return True
    numbers = [
        value for value in axis.values if isinstance(value, int | float) and not isinstance(value, bool)
    ]
    return len(numbers) == len(axis.values) and sorted(set(numbers)) == numbers


def place_of(axis: Axis, values: Array) -> Array:
    """Return where values lie on an ordered axis, from 0 to 1; numbers of a list lie at equal distances."""
    if axis.values is not None:
        return np.interp(values, _numbers(axis.values), np.linspace(0, 1, len(axis.values)))
    assert axis.low is not None
    assert axis.high is not None
    if axis.scale == "log":
        return np.log(values / axis.low) / np.log(axis.high / axis.low)
    return (values - axis.low) / (axis.high - axis.low)


def value_at(axis: Axis, places: Array) -> Array:
    """Return the values at places of an ordered axis, from 0 to 1; between numbers of a list, in proportion."""
    if axis.values is not None:
        numbers = _numbers(axis.values)
        ends = np.linspace(0, 1, len(numbers))
        if numbers[0] > 0:
            return np.exp(np.interp(places, ends, np.log(numbers)))
        return np.interp(places, ends, numbers)
    assert axis.low is not None
    assert axis.high is not None
    if axis.scale == "log":
        return axis.low * (axis.high / axis.low) ** places
    return axis.low + (axis.high - axis.low) * places


def _numbers(values: Sequence[Any]) -> Array:
    return np.asarray(values, dtype=np.float64)
