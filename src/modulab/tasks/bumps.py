"""Bump codes: the responses of Gaussian tuning curves whose centres are a grid over all coordinates jointly.

Cell j of a grid of g^D responds with r_j(x) = prod_i s exp(-(x_i - c_ji)^2 / (2 w^2)): it is active where all
coordinates are near its centre, so no cell belongs to one coordinate. s is the constant that makes the mean of
r_j^2 over cells and over x uniform on [-1, 1]^D equal to 1: however many cells there are, units that read them begin
with sums as large as those that read as many standardised inputs.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor

from modulab.errors import ConfigError

MOST_CELLS = 2**14
"""The largest number of cells: 25^3 and 6^5 fit. A data set of 4,096 points then takes 256 MiB."""


def check_size(grid: int, coordinates: int) -> None:
    """Raise ConfigError if a grid has more than `MOST_CELLS` cells."""
    if coordinates * math.log2(grid) <= math.log2(MOST_CELLS) + 1e-9:
        return
    largest = math.floor(MOST_CELLS ** (1 / coordinates) + 1e-9)
    lower = f"task.bump_grid to {largest} or less, or " if largest > 1 else ""
    raise ConfigError(
        f"task.bump_grid={grid}: with {coordinates} coordinates the network would have {grid}^{coordinates} inputs, "
        f"and bump code allows at most {MOST_CELLS}. Set {lower}task.modules lower, or choose another "
        "task.code."
    )


def responses(
    inputs: Float[Tensor, "member batch coordinate"], grid: int, width: float
) -> Float[Tensor, "member batch cell"]:
    """Return r_j(x) of every cell, the last coordinate's place in the grid varying fastest.

    `width` is in spacings of the grid, whose outer centres are -1 and 1.
    """
    centres = torch.linspace(-1.0, 1.0, grid, dtype=torch.float64).float().to(inputs.device)
    deviation = width * 2.0 / (grid - 1)
    scale = _scale(grid, deviation)
    joint = torch.ones_like(inputs[..., :1])
    for coordinate in inputs.unbind(dim=2):
        distances = (coordinate.unsqueeze(2) - centres) * (1.0 / deviation)
        along = torch.exp(distances.square() * -0.5) * scale
        joint = (joint.unsqueeze(3) * along.unsqueeze(2)).flatten(2)
    return joint


@lru_cache(maxsize=64)
def _scale(grid: int, deviation: float) -> float:
    """Return s: with u = (1 -+ c) / w, E[exp(-(x - c)^2 / w^2)] = (w sqrt(pi) / 4) (erf(u_1) + erf(u_2))."""
    centres = [2.0 * place / (grid - 1) - 1.0 for place in range(grid)]
    powers = [
        (math.erf((1.0 - centre) / deviation) + math.erf((1.0 + centre) / deviation)) for centre in centres
    ]
    return (deviation * math.sqrt(math.pi) / 4.0 * math.fsum(powers) / grid) ** -0.5
