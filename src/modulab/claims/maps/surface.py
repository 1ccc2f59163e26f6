"""An effect as a smooth function of settings, fitted to one noisy value per setting, with a band that holds everywhere.

The fit is Gaussian-process regression with its own length scale for each axis and a noise level, both fitted by
maximum likelihood (C. Rasmussen and C. Williams, "Gaussian Processes for Machine Learning", 2006, sections 2.2, 5.4).

The band is by bootstrap. Each replicate draws settings with replacement, and starts from a random function g of the
prior instead of from zero: it is g plus the fit to the drawn y - g (I. Osband et al., "Randomized Prior Functions for
Deep Reinforcement Learning", 2018). What replicates differ in is therefore both what other settings and seeds would
have given, and what the fit smooths away or cannot know where settings are few; resampling alone misses the latter.
The band is simultaneous: half as wide as the 95% quantile, over replicates, of the largest deviation anywhere on the
map, in units of the replicates' standard deviation at each place (L. Wasserman, "All of Nonparametric Statistics",
2006, section 5.7). What it promises is the side of the threshold: a map of an effect that is nowhere above it has a
part called supported in about 1 of 40, however large the map is (tests simulate that). Where an effect jumps, as a
smooth function cannot, the band may miss its height beside the jump.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

REPLICATES = 200
LEVEL = 0.95
_FITTED_SETTINGS = 400
"""The first settings, which cover the space evenly, are enough to fit length scales to: at most this number."""
_LENGTHS = (0.2, 20.0)
"""Bounds of length scales, in units of an axis's range. Below the lower one, noise appears as boundaries."""
_NOISES = (0.02, 2.0)
"""Bounds of the noise's variance, in units of the variance of the values."""
_MEAN_VARIANCE = 1.0
"""The prior variance of the function's mean over the map, in units of the variance of the values."""
_FEATURES = 200
"""Random Fourier features of a function of the prior."""


@dataclass(frozen=True)
class Kernel:
    """Variance of the function about its mean, length scale of each column of places, and variance of the noise."""

    variance: float
    lengths: Array
    noise: float

    def between(self, first: Array, second: Array) -> Array:
        """Return the covariance of the function at each of the first places with that at each of the second."""
        one, other = first / self.lengths, second / self.lengths
        squares = (one**2).sum(1)[:, None] + (other**2).sum(1)[None] - 2 * one @ other.T
        return _MEAN_VARIANCE + self.variance * np.exp(-np.maximum(squares, 0.0) / 2)


@dataclass(frozen=True)
class Surface:
    """A fitted effect at places of a map, with its replicates: one row per replicate, one column per place."""

    effect: Array
    replicates: Array
    kernel: Kernel

    @cached_property
    def half_width(self) -> Array:
        """Return half the width of the simultaneous band at each place."""
        return simultaneous_half_width(self.replicates, self.effect)

    @property
    def low(self) -> Array:
        """Return the lower end of the band."""
        return self.effect - self.half_width

    @property
    def high(self) -> Array:
        """Return the upper end of the band."""
        return self.effect + self.half_width

    def profile(self, places: slice, shape: tuple[int, int], over: int) -> Surface:
        """Return the means over one axis of places, which are a plane of this shape, with a band of their own."""
        effect = self.effect[places].reshape(shape).mean(axis=over)
        replicates = self.replicates[:, places].reshape(-1, *shape).mean(axis=over + 1)
        return Surface(effect, replicates, self.kernel)


def simultaneous_half_width(replicates: Array, centre: Array) -> Array:
    """Return half-widths such that a share LEVEL of replicates lies within them of the centre at every place."""
    spread = replicates.std(axis=0)
    scaled = np.abs(replicates - centre) / np.maximum(spread, 1e-12)
    return np.quantile(scaled.max(axis=1), LEVEL) * spread


def fit_surface(
    places: Array, values: Array, shown: Sequence[Array], replicates: int = REPLICATES, seed: int = 0
) -> Surface:
    """Return the effect at the places shown, fitted to values at other places; an axis's range is 1 wide.

    Of several arrays of places shown, as where an axis is averaged over, it is the mean.
    """
    centre, scale = float(values.mean()), max(float(values.std()), 1e-12)
    standardised = (values - centre) / scale
    kernel = fit_kernel(places[:_FITTED_SETTINGS], standardised[:_FITTED_SETTINGS])
    covariance = kernel.between(places, places)
    towards = np.mean([kernel.between(each, places) for each in shown], axis=0)
    fitted = towards @ _solve(covariance, np.full(len(places), kernel.noise), standardised)

    random = np.random.default_rng(seed)
    found = np.empty((replicates, len(towards)))
    for row in found:
        counts = np.bincount(random.integers(len(places), size=len(places)), minlength=len(places))
        drawn = np.flatnonzero(counts)
        prior = prior_function(kernel, random)
        # A value that was drawn twice counts as two measurements of it, whose mean has half the noise.
        weights = _solve(
            covariance[np.ix_(drawn, drawn)],
            kernel.noise / counts[drawn],
            standardised[drawn] - prior(places[drawn]),
        )
        row[:] = np.mean([prior(each) for each in shown], axis=0) + towards[:, drawn] @ weights
    return Surface(centre + scale * fitted, centre + scale * found, kernel)


def fit_kernel(places: Array, values: Array) -> Kernel:
    """Return the kernel under which standardised values are most likely."""
    # Half a second to import, which only those who fit need spend.
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

    columns = places.shape[1]
    function = ConstantKernel(0.5, (1e-2, 1e2)) * RBF([0.7] * columns, _LENGTHS)
    model = ConstantKernel(_MEAN_VARIANCE, "fixed") + function + WhiteKernel(0.5, _NOISES)
    with warnings.catch_warnings():
        # A scale that ends at its bound, as that of an axis without effect does, is an answer.
        warnings.simplefilter("ignore", ConvergenceWarning)
        found: Any = GaussianProcessRegressor(model, alpha=1e-10).fit(places, values).kernel_
    product, noise = found.k1.k2, found.k2
    lengths = np.broadcast_to(np.asarray(product.k2.length_scale, dtype=np.float64), (columns,)).copy()
    return Kernel(float(product.k1.constant_value), lengths, float(noise.noise_level))


def _solve(covariance: Array, noise: Array, values: Array) -> Array:
    return np.asarray(np.linalg.solve(covariance + np.diag(noise), values), dtype=np.float64)


def prior_function(kernel: Kernel, random: np.random.Generator) -> Callable[[Array], Array]:
    """Return a random function of the prior, by random Fourier features (A. Rahimi and B. Recht, 2007, algorithm 1)."""
    frequencies = random.normal(size=(len(kernel.lengths), _FEATURES)) / kernel.lengths[:, None]
    phases = random.uniform(0, 2 * np.pi, _FEATURES)
    amplitudes = random.normal(size=_FEATURES) * np.sqrt(2 * kernel.variance / _FEATURES)
    mean = np.sqrt(_MEAN_VARIANCE) * random.normal()
    return lambda places: mean + np.cos(places @ frequencies + phases) @ amplitudes
