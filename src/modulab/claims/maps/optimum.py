"""Where a fitted effect is least, and how far that is known.

Coordinates of the least place have the quantiles of those of the replicates. The set of places that may be the best
has another question: at which places is the effect not shown to be above that of the place found? It compares each
place with that one, by a simultaneous band of the differences, as J. Hsu's multiple comparisons with the best do for
means of groups ("Simultaneous confidence intervals for all distances from the best", Annals of Statistics 9, 1981,
1026-1034).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from modulab.claims.maps.surface import LEVEL, Surface

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Optimum:
    """The place at which an effect is least, the ends of an interval of each of its coordinates, and its rivals."""

    index: int
    """The index of the place among those that the surface shows."""
    place: Array
    low: Array
    high: Array
    not_worse: NDArray[np.bool_]
    """For each place, whether its effect is not shown to be above the least one."""


def optimum(surface: Surface, places: Array) -> Optimum:
    """Return where a surface, shown at these places (one row per place), is least."""
    index = int(surface.effect.argmin())
    least = places[surface.replicates.argmin(axis=1)]
    low, high = np.quantile(least, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    above = Surface(
        surface.effect - surface.effect[index],
        surface.replicates - surface.replicates[:, [index]],
        surface.kernel,
    )
    return Optimum(index, places[index], low, high, above.low <= 0)
