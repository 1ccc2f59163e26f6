"""Supports: the joint distributions of the modules' inputs seen in training, and those withheld from it.

Inputs lie in [-1, 1], one or more coordinates per module. A support leaves every single module's range covered
and withholds combinations of modules. Its withheld region is the `full` (independent) distribution given that
the combination is withheld:

- `band` of width w: x_m = clip(u + w v_m), u and v_m uniform on [-1, 1]: modules differ by 2w at most.
  Withheld: max_m x_m - min_m x_m >= 1 in some coordinate; disjoint from the band while w < 1/2.
- `corner`: `full` less the orthant where all inputs are positive, which is withheld.
- `cross`: one module varies at a time and the others rest at 0. Withheld: two or more modules away from 0,
  which `full` gives with probability 1.
- `cells`: each input's range is cut into equal cells and a seeded share of their combinations is withheld.

Everything is a pure function of a point's key and counter. Where a conditional distribution is drawn by
rejection, the number of the attempt is part of the key, and only points not yet accepted are drawn again, so
the distribution is exact and no point depends on another.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import torch
from jaxtyping import Bool, Float, Float32, Float64, Int32, Int64
from torch import Tensor

from modulab.errors import ConfigError
from modulab.schema import LARGEST_COUNT
from modulab.streams import Stream, fold_in, member_keys, random_bits, uniforms
from modulab.tasks.base import Region

MAX_COMBINATIONS = 2**20
"""The largest number of combinations in a table: 10^6, the joint labels of six digits."""

ContinuousSupport = Literal["full", "band", "corner", "cross", "cells"]


@dataclass(frozen=True)
class SupportLaw:
    """A joint distribution of inputs. `band_width` matters to `band` only, the fields after it to `cells`."""

    support: ContinuousSupport
    modules: int
    coordinates: int
    band_width: float
    cells: int
    withheld_fraction: float
    withheld_seed: int

    @property
    def num_values(self) -> int:
        """Return the number of cells of a module."""
        return self.cells**self.coordinates


Source = Callable[[int], Float32[Tensor, "member batch"]]
"""Gives the uniform draws of every point for one word; different words are independent."""

# Words folded into a point's key. Coordinates take the words from 0; these lie beyond any number of inputs.
# They are part of every result: never change or reuse one.
_COMMON = 1 << 24
_CELL = 2 << 24
_CELL_FINE = 3 << 24
_CHOICE = 4 << 24
_ATTEMPT = 5 << 24

_WITHHELD = 2
"""Sub-stream of Stream.TASK that orders combinations; 1 is that of random functions, 3 of image splits."""


def point_source(keys: Int32[Tensor, "member 2"], counters: Int32[Tensor, "member batch"]) -> Source:
    """Return the source of uniform draws for each key and counter."""
    return lambda word: uniforms(fold_in(keys, word), counters)


def rejection(
    keys: Int32[Tensor, "member 2"],
    counters: Int32[Tensor, "member batch"],
    propose: Callable[[Source], Float[Tensor, "member batch *features"]],
    accept: Callable[[Tensor, Tensor], Tensor],
) -> Float[Tensor, "member batch *features"]:
    """Return proposals given that they are accepted, by drawing the refused ones again until none is left.

    `accept` is given proposals (n, 1, ...) and the (member, batch) indices (n, 2) of the points they are for,
    and returns n truth values. Attempt 0 is the unconditional draw, so accepted points are those of `full`.
    """
    draws = propose(point_source(keys, counters))
    num_batch = counters.shape[1]
    everything = torch.arange(counters.numel(), device=counters.device)
    points = torch.stack([everything // num_batch, everything % num_batch], dim=1)
    points = points[~accept(draws.flatten(0, 1).unsqueeze(1), points)]
    attempt = 0
    while len(points) > 0:
        attempt += 1
        proposals = propose(_pending_source(fold_in(keys, _ATTEMPT + attempt), counters, points))
        accepted = accept(proposals, points)
        draws[points[accepted, 0], points[accepted, 1]] = proposals[accepted, 0]
        points = points[~accepted]
    return draws


def _pending_source(keys: Tensor, counters: Tensor, points: Tensor) -> Source:
    members = points[:, 0]
    pending_counters = counters[members, points[:, 1]].unsqueeze(1)
    return lambda word: uniforms(fold_in(keys, word)[members], pending_counters)


def module_inputs(source: Source, module: int, coordinates: int) -> Float[Tensor, "member batch coordinate"]:
    """Return one module's inputs, uniform on [-1, 1]; none is exactly 0."""
    words = range(module * coordinates, (module + 1) * coordinates)
    return torch.stack([source(word) * 2.0 - 1.0 for word in words], dim=2)


def independent(
    source: Source, modules: int, coordinates: int
) -> Float[Tensor, "member batch module coordinate"]:
    """Return inputs uniform on [-1, 1], independent over modules and coordinates."""
    return module_inputs(source, 0, modules * coordinates).unflatten(2, (modules, coordinates))


def full(
    keys: Int32[Tensor, "member 2"], counters: Int32[Tensor, "member batch"], modules: int, coordinates: int
) -> Float[Tensor, "member batch module coordinate"]:
    """Return inputs of `full` support."""
    return independent(point_source(keys, counters), modules, coordinates)


def band(
    keys: Int32[Tensor, "member 2"],
    counters: Int32[Tensor, "member batch"],
    modules: int,
    coordinates: int,
    width: float,
) -> Float[Tensor, "member batch module coordinate"]:
    """Return inputs x_m = clip(u + w v_m), each coordinate on its own, with u and v_m uniform on [-1, 1]."""
    source = point_source(keys, counters)
    common = torch.stack([source(_COMMON + word) * 2.0 - 1.0 for word in range(coordinates)], dim=2)
    deviations = independent(source, modules, coordinates)
    return torch.clamp(common.unsqueeze(2) + width * deviations, -1.0, 1.0)


def spread(
    inputs: Float[Tensor, "member batch module coordinate"],
) -> Float[Tensor, "member batch"]:
    """Return max_m x_m - min_m x_m, the largest over coordinates; `band` withholds 1 and more."""
    return (inputs.amax(dim=2) - inputs.amin(dim=2)).amax(dim=2)


def band_complement(
    keys: Int32[Tensor, "member 2"], counters: Int32[Tensor, "member batch"], modules: int, coordinates: int
) -> Float[Tensor, "member batch module coordinate"]:
    """Return inputs of `full` support whose modules lie at least 1 apart."""
    return rejection(
        keys,
        counters,
        lambda source: independent(source, modules, coordinates),
        lambda inputs, _: (spread(inputs) >= 1.0)[:, 0],
    )


def corner(
    keys: Int32[Tensor, "member 2"], counters: Int32[Tensor, "member batch"], modules: int, coordinates: int
) -> Float[Tensor, "member batch module coordinate"]:
    """Return inputs of `full` support that are not all positive."""
    return rejection(
        keys,
        counters,
        lambda source: independent(source, modules, coordinates),
        lambda inputs, _: (inputs <= 0.0).flatten(1).any(dim=1),
    )


def corner_complement(
    keys: Int32[Tensor, "member 2"], counters: Int32[Tensor, "member batch"], modules: int, coordinates: int
) -> Float[Tensor, "member batch module coordinate"]:
    """Return inputs that are all positive, uniform on (0, 1); drawn directly, because they are rare in `full`."""
    return full(keys, counters, modules, coordinates) * 0.5 + 0.5


def cross(
    keys: Int32[Tensor, "member 2"], counters: Int32[Tensor, "member batch"], modules: int, coordinates: int
) -> Float[Tensor, "member batch module coordinate"]:
    """Return inputs of which one module, every one equally often, is as in `full` and the others are 0."""
    source = point_source(keys, counters)
    varying = (source(_CHOICE) * modules).long()
    chosen = varying.unsqueeze(2) == torch.arange(modules, device=counters.device)
    return torch.where(chosen.unsqueeze(3), independent(source, modules, coordinates), 0.0)


def check_withholding(num_values: int, modules: int, fraction: float, meaning: str) -> int:
    """Return how many of num_values^modules combinations a share withholds; `meaning` says of what.

    Raises: ConfigError if the table would be too large, or the share withholds nothing or hides a value.
    """
    if modules * math.log2(num_values) > math.log2(MAX_COMBINATIONS) + 1e-9:
        largest = int(math.log2(MAX_COMBINATIONS) / math.log2(num_values) + 1e-9)
        change = f"task.modules to {largest} or less" if largest > 1 else f"fewer {meaning}"
        raise ConfigError(
            f"task.modules={modules}: {num_values}^{modules} combinations of {meaning} are more than the "
            f"{MAX_COMBINATIONS} that can be tabulated. Set {change}, or choose another task.support."
        )
    total = num_values**modules
    most = total - num_values
    if most < 1:
        raise ConfigError(
            f"task.modules={modules}: no combination of {meaning} can be withheld while each is still seen. "
            "Set task.modules to 2 or more, or task.support=full."
        )
    count = math.floor(fraction * total + 0.5)
    if not 1 <= count <= most:
        what = "nothing" if count < 1 else f"so many that not all {meaning} of a module could still be seen"
        raise ConfigError(
            f"task.withheld_fraction={fraction} of {total} combinations of {meaning} withholds {what}. "
            f"Choose it from {1 / total:.7g} to {most / total:.7g}."
        )
    return count


def check_support(law: SupportLaw) -> None:
    """Raise ConfigError if a support asks for what its modules, cells or labels cannot give."""
    if law.support == "full":
        return
    if law.modules == 1:
        raise ConfigError(
            f"task.support={law.support} withholds combinations of modules, and task.modules=1 has none. "
            "Set task.modules to 2 or more, or task.support=full."
        )
    if law.support == "cells":
        check_withholding(law.num_values, law.modules, law.withheld_fraction, "cells")


@lru_cache(maxsize=8)
def withheld_combinations(
    num_values: int, modules: int, fraction: float, seed: int
) -> Bool[Tensor, " combination"]:
    """Return which combinations of the modules' values are withheld: a seeded share, each value still seen.

    A combination's place in the table is the number whose digits, in base num_values, are the modules'
    values, module 0 first. To keep each value seen, num_values combinations that between them hold every
    value of every module once (a random generalised diagonal) are never withheld; of the rest, a random
    choice is. The table is cached: do not write into it.

    Raises: ConfigError if the table would be too large, or the share withholds nothing or hides a value.
    """
    count = check_withholding(num_values, modules, fraction, "values")
    keys = fold_in(fold_in(member_keys([seed]), Stream.TASK), _WITHHELD)
    kept = torch.zeros(num_values, dtype=torch.int64)
    for module in range(modules):
        kept = kept * num_values + _random_order(fold_in(keys, 1 + module), num_values)
    order = _random_order(fold_in(keys, 0), num_values**modules)
    candidates = order[~torch.isin(order, kept)]
    withheld = torch.zeros(num_values**modules, dtype=torch.bool)
    withheld[candidates[:count]] = True
    return withheld


def region_weights(
    num_values: int, modules: int, fraction: float, seed: int, withheld: bool
) -> Float64[Tensor, " combination"]:
    """Return 1 for each combination in the region and 0 for the others, where under `full` support all are alike."""
    return (withheld_combinations(num_values, modules, fraction, seed) == withheld).double()


def _random_order(keys: Tensor, length: int) -> Tensor:
    bits = random_bits(keys, torch.arange(length, dtype=torch.int32).unsqueeze(0))[0]
    return torch.argsort(bits, stable=True)


def combination_weights(
    values: Float64[Tensor, "module value"],
) -> Float64[Tensor, " combination"]:
    """Return the probability of each combination of independent modules, given those of their values."""
    weights = torch.ones(1, dtype=torch.float64)
    for row in values:
        weights = (weights[:, None] * row).flatten()
    return weights


def combinations(
    keys: Int32[Tensor, "member 2"],
    counters: Int32[Tensor, "member batch"],
    weights: Float64[Tensor, " combination"],
    num_values: int,
    modules: int,
) -> Int64[Tensor, "member batch module"]:
    """Return the modules' values: combinations drawn in proportion to weights, those of weight 0 never."""
    source = point_source(keys, counters)
    # Two draws make a uniform number of 46 bits: one of 23 would favour some combinations of a large table.
    draws = source(_CELL).double() + (source(_CELL_FINE).double() - 0.5) * 2.0**-23
    cumulative = torch.cumsum(weights, dim=0).to(counters.device)
    chosen = torch.searchsorted(cumulative, draws * cumulative[-1], right=True)
    powers = [num_values ** (modules - 1 - module) for module in range(modules)]
    return torch.stack([chosen // power % num_values for power in powers], dim=2)


def cell_edges(cells: int) -> Float32[Tensor, " edge"]:
    """Return the edges of equal cells of [-1, 1]."""
    return (torch.arange(cells + 1, dtype=torch.float64) * (2.0 / cells) - 1.0).float()


def cells_region(
    keys: Int32[Tensor, "member 2"],
    counters: Int32[Tensor, "member batch"],
    law: SupportLaw,
    allowed: Bool[Tensor, " combination"],
) -> Float[Tensor, "member batch module coordinate"]:
    """Return inputs of `full` support given that their combination of cells is allowed, drawn directly.

    Each coordinate is cut into cells; the number of a module's cell has its coordinates' cells as digits.
    """
    cells, coordinates = law.cells, law.coordinates
    values = combinations(keys, counters, allowed.double(), law.num_values, law.modules)
    powers = [cells ** (coordinates - 1 - coordinate) for coordinate in range(coordinates)]
    places = torch.stack([values // power % cells for power in powers], dim=3)
    edges = cell_edges(cells).to(counters.device)
    offsets = full(keys, counters, law.modules, coordinates) * 0.5 + 0.5
    inputs = (places + offsets) * (2.0 / cells) - 1.0
    # Rounding could carry a point onto an edge, and so into the next cell.
    lower = torch.nextafter(edges[:-1], torch.full_like(edges[:-1], 2.0))
    upper = torch.nextafter(edges[1:], torch.full_like(edges[1:], -2.0))
    return torch.minimum(torch.maximum(inputs, lower[places]), upper[places])


def region_inputs(
    keys: Int32[Tensor, "member 2"], counters: Int32[Tensor, "member batch"], region: Region, law: SupportLaw
) -> Float[Tensor, "member batch module coordinate"]:
    """Return inputs of a support's region. Raises: ConfigError if it has no such region."""
    if region == "withheld":
        return _withheld_inputs(keys, counters, law)
    shape = (law.modules, law.coordinates)
    match law.support if region == "train" else "full":
        case "full":
            return full(keys, counters, *shape)
        case "band":
            return band(keys, counters, *shape, law.band_width)
        case "corner":
            return corner(keys, counters, *shape)
        case "cross":
            return cross(keys, counters, *shape)
        case "cells":
            return cells_region(keys, counters, law, ~_withheld_cells(law))


def _withheld_inputs(keys: Tensor, counters: Tensor, law: SupportLaw) -> Tensor:
    match law.support:
        case "full":
            raise nothing_withheld()
        case "band":
            return band_complement(keys, counters, law.modules, law.coordinates)
        case "corner":
            return corner_complement(keys, counters, law.modules, law.coordinates)
        case "cross":
            return full(keys, counters, law.modules, law.coordinates)
        case "cells":
            return cells_region(keys, counters, law, _withheld_cells(law))


def covers(
    inputs: Float[Tensor, "member batch module coordinate"], law: SupportLaw
) -> Bool[Tensor, "member batch"]:
    """Return which inputs, each in [-1, 1], lie on a support."""
    match law.support:
        case "full":
            return torch.ones(inputs.shape[:2], dtype=torch.bool, device=inputs.device)
        case "band":
            return spread(inputs) <= 2 * law.band_width
        case "corner":
            return (inputs <= 0.0).flatten(2).any(dim=2)
        case "cross":
            return (inputs != 0.0).any(dim=3).sum(dim=2) <= 1
        case "cells":
            inner = cell_edges(law.cells)[1:-1].to(inputs.device)
            places = torch.bucketize(inputs.contiguous(), inner, right=True).flatten(2)
            combination = torch.zeros_like(places[:, :, 0])
            for place in places.unbind(2):
                combination = combination * law.cells + place
            return ~_withheld_cells(law).to(inputs.device)[combination]


def _withheld_cells(law: SupportLaw) -> Tensor:
    return withheld_combinations(law.num_values, law.modules, law.withheld_fraction, law.withheld_seed)


def exact_root(num_samples: int, coordinates: int) -> int:
    """Return n, 2 or more, with n^coordinates = num_samples.

    Raises: ConfigError if there is none, which names the nearest sizes.
    """
    root = max(2, round(num_samples ** (1.0 / coordinates)))
    if root**coordinates == num_samples:
        return root
    below = root if root**coordinates < num_samples else root - 1
    near = [each for each in (below, below + 1) if each >= 2 and each**coordinates <= LARGEST_COUNT]
    sizes = [f"data.num_samples to {each**coordinates} (that is {each}^{coordinates})" for each in near]
    raise ConfigError(
        f"data.num_samples={num_samples} is not a grid of {coordinates} coordinates, which has as many points along "
        f"each, two or more. Set {' or '.join([*sizes, 'data.sampling=random'])}."
    )


def grid_points(
    counters: Int32[Tensor, "member batch"], points_per_coordinate: int, coordinates: int
) -> Float32[Tensor, "member batch coordinate"]:
    """Return points of a regular grid over [-1, 1]^coordinates by their numbers, the last coordinate fastest."""
    values = torch.linspace(-1.0, 1.0, points_per_coordinate, dtype=torch.float64).float()
    powers = [points_per_coordinate ** (coordinates - 1 - place) for place in range(coordinates)]
    places = [counters.long() // power % points_per_coordinate for power in powers]
    return values.to(counters.device)[torch.stack(places, dim=2)]


def nothing_withheld(task: str | None = None) -> ConfigError:
    """Return the error for a withheld region of a task without support, or of `full` support."""
    if task is not None:
        return ConfigError(f"task.name={task} withholds nothing, so it has no withheld region.")
    return ConfigError(
        "task.support=full withholds nothing, so it has no withheld region. Choose another task.support."
    )


def nothing_to_widen(inputs: str, task: str) -> ConfigError:
    """Return the error for asking a task whose inputs have no range for other ranges."""
    return ConfigError(
        f"probes.ranges: {inputs} have no range to widen. Leave range measures out for task.name={task}."
    )


def widen(
    inputs: Float[Tensor, "member batch module coordinate"], scales: Float[Tensor, " module"] | None
) -> Float[Tensor, "member batch module coordinate"]:
    """Return inputs multiplied by each module's scale, so they range beyond [-1, 1]."""
    return inputs if scales is None else inputs * scales[:, None]
