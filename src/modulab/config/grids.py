"""Grids: the points of a run, each a set of changes to the run's own settings."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from modulab.config.overrides import GROUPS, override_key
from modulab.errors import ConfigError


@dataclass(frozen=True)
class Point:
    """Members that differ in the seed alone, as changes to a run's own settings."""

    choices: tuple[tuple[str, str], ...]
    leaves: tuple[tuple[str, Any], ...]
    seeds: range


def expand(
    grids: Sequence[Mapping[str, Sequence[Any]]],
    seeds: int,
    first_seed: Any,
    settings: Sequence[Mapping[str, Any]] = ({},),
) -> Iterator[Point]:
    """Yield every point of a union of grids in every one of several settings, at `seeds` consecutive seeds each.

    Each setting has its own seeds, which are the same for all points of the grid. Results over many settings then do
    not depend on the data and initial weights of a few seeds. A key of the grid overrides that of a setting.
    """
    for (number, setting), grid in itertools.product(enumerate(settings), grids or [{}]):
        for values in itertools.product(*grid.values()):
            point = {**setting, **dict(zip(grid, values, strict=True))}
            choices = tuple((key, value) for key, value in point.items() if key in GROUPS)
            leaves = tuple((key, value) for key, value in point.items() if key not in (*GROUPS, "seed"))
            seed = point.get("seed", first_seed)
            if not isinstance(seed, int) or isinstance(seed, bool):
                raise ConfigError(f"seed={seed!r} should be a whole number, 0 or more.")
            first = seed + number * seeds
            yield Point(choices, leaves, range(first, first + seeds))


def read_grids(grid: Any) -> list[dict[str, list[Any]]]:
    """Return a grid, or a list of grids, as a list. Raises: ConfigError that says what is wrong with it."""
    grids: list[Any] = (
        cast("list[Any]", grid) if isinstance(grid, list) else [] if grid in (None, "none") else [grid]
    )
    for each in grids:
        if not isinstance(each, dict):
            raise ConfigError(
                f"population.grid: {each!r} is not a grid. Write {{noise.scale: [0, 0.1], architecture: "
                "[dense, premodular]}, or a list of such grids."
            )
        for key, values in cast("dict[str, Any]", each).items():
            if not isinstance(values, list) or not values:
                raise ConfigError(
                    f"population.grid: {key} should have a list of values, such as [0, 0.1], not {values!r}."
                )
            if key in GROUPS:
                for value in cast("list[Any]", values):
                    if not isinstance(value, str) or value == "???":
                        raise ConfigError(
                            f"population.grid: {key}={value!r} is not the name of a file in configs/{key}/. "
                            f"To vary one of its settings, write {key}.KEY."
                        )
    return grids


def check_conflicts(
    grids: Sequence[Mapping[str, Any]], axes: Collection[str], overrides: Sequence[str]
) -> None:
    """Raise ConfigError for an override that every grid, or an axis of Sobol settings, replaces."""
    for override in overrides:
        key = override_key(override)
        if key in axes:
            raise ConfigError(
                f"{override} has no effect, because population.sobol.axes draws {key} for every setting. "
                "Leave it out."
            )
        if grids and all(key in grid for grid in grids):
            raise ConfigError(
                f"{override} has no effect, because population.grid sets {key} for every member. "
                f"Leave one of them out; population.grid=none clears an experiment's grid."
            )


def without(overrides: Sequence[str], choices: Iterable[tuple[str, str]]) -> list[str]:
    """Return the overrides that do not choose a group that `choices` choose."""
    chosen = {group for group, _ in choices}
    return [override for override in overrides if override_key(override) not in chosen]
