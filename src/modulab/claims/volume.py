"""How rare modular networks are among networks without a preference for any axes: the volume that they take up.

Suppose that training only aligns units, so each writes in the direction n in which it reads, and that directions
are isotropic in the space of d modules: nothing that training minimises distinguishes the module axes. All H units
having equal strength, structural modularity is at least s where

    sum_j X_j >= 0,  X_j = 1 - t |n_j|_1^2,  t = 1 / d + s (1 - 1 / d),

because a unit's paths within modules add up to |n|_2^2 = 1, and all its paths to |n|_1^2. The mean of X is negative, so
this is a large deviation of independent terms (H. Cramer, 1938): with I = -min_theta ln E exp(theta X),

    P <= exp(-H I),  and  P = exp(-H I) / (theta* sigma* sqrt(2 pi H)) (1 + o(1)),

where theta* attains the minimum and sigma* is the standard deviation of X under the tilted law (R. Bahadur and
R. Ranga Rao, "On deviations of the sample mean", 1960). It is exponential in the number of units. I grows with d,
because a direction in d dimensions has to lie near one of d axes: with h units for each module, H = h d, ln P falls
faster than in proportion to the number of modules.

The expectation is over the sphere. By symmetry it is that over directions whose first component is the largest,
n = (1, r) / |(1, r)| with r in [0, 1]^(d - 1), of density (1 + |r|^2)^(-d / 2) (the gnomonic projection).
"""

from __future__ import annotations

import math
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

Array = NDArray[np.float64]

_POINTS = 2**16
_STEEPNESS = 3.0
"""The rate of the exponential distribution from which components of r are drawn: most volume is near the axis."""


def aligned_modularity(modules: int) -> float:
    """Return S_0(d), the structural modularity of many aligned units of isotropic directions (metrics.frame_null)."""
    mixed = 2 / math.pi
    return (1 - mixed) / (1 + (modules - 1) * mixed)


class ModularVolume:
    """The probability that units of isotropic directions are modular, in one number of modules."""

    def __init__(self, modules: int, scaled_excess: float) -> None:
        """Take from where on a network counts as modular: scaled excess (S - S_0) / (1 - S_0)."""
        null = aligned_modularity(modules)
        share = null + scaled_excess * (1 - null)
        self.modules = modules
        self.threshold = 1 / modules + share * (1 - 1 / modules)
        """t, the least share of path strength within modules."""

    @cached_property
    def sphere(self) -> tuple[Array, Array]:
        """Return |n|_1^2 at directions n, and the directions' weights, which are those of the uniform law."""
        dimensions = self.modules - 1
        uniform = np.random.default_rng(0).random((_POINTS, dimensions))
        whole = -math.expm1(-_STEEPNESS)
        r = -np.log1p(-uniform * whole) / _STEEPNESS
        drawn = np.prod(_STEEPNESS * np.exp(-_STEEPNESS * r) / whole, axis=1)
        squares = 1 + (r**2).sum(axis=1)
        half = self.modules / 2
        area = 2 * math.pi**half / math.gamma(half)
        faces = 2 * self.modules * 2**dimensions
        weights = faces / area * squares**-half / drawn / _POINTS
        return (1 + r.sum(axis=1)) ** 2 / squares, weights

    def _log_moment(self, tilt: float) -> float:
        norms, weights = self.sphere
        return math.log(float(weights @ np.exp(tilt * (1 - self.threshold * norms))))

    @cached_property
    def tilt(self) -> float:
        """Return theta*, at which the moment generating function of X is least."""
        found = minimize_scalar(self._log_moment, bounds=(0, 200), method="bounded")
        return float(found.x)

    @property
    def rate(self) -> float:
        """Return I, in nats for each unit."""
        return -self._log_moment(self.tilt)

    def probability(self, units: int) -> float:
        """Return the probability that `units` units are modular, to the leading order in their number."""
        norms, weights = self.sphere
        terms = 1 - self.threshold * norms
        tilted = weights * np.exp(self.tilt * terms)
        tilted /= tilted.sum()
        deviation = math.sqrt(float(tilted @ terms**2) - float(tilted @ terms) ** 2)
        prefactor = self.tilt * deviation * math.sqrt(2 * math.pi * units)
        return math.exp(-units * self.rate) / max(1.0, prefactor)
