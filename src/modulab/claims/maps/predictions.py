"""Where each claim is predicted to hold, written before its map was trained.

A prediction is a margin: above 0 where the claim is predicted to hold, below where not, NaN where nothing is predicted.
Its zero is the predicted line. Each is from algebra, or from earlier runs at a few settings other than those of the
map; which of the two is said beside it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modulab.claims import thresholds

Array = NDArray[np.float64]
Settings = Mapping[str, NDArray[Any]]
"""Values of keys at places of a map: of its axes, and of every other key of its experiment."""


@dataclass(frozen=True)
class Prediction:
    """Where a claim should hold, in words and as a margin."""

    words: str
    source: str
    margin: Callable[[Settings], Array]


def _numbers(settings: Settings, key: str) -> Array:
    return np.asarray(settings[key], dtype=np.float64)


_NOISE_AT_ONE_LAYER = 0.19, 1200
_NOISE_AT_TWO_LAYERS = 0.87, 4000


def _noise(settings: Settings) -> Array:
    """Return log(sigma / sigma*), with sigma* proportional to 1 / steps.

    Runs of d = 2 with 4,096 points gained .1 in structural modularity at noise .19 after 1,200 steps and at .057 after
    4,000, which is a power of -1.0 of the steps. With two hidden layers and 4,000 steps, modularity was .13, .17 and
    .26 at noise .3, .6 and 1: a gain of .1 by .87 at the earliest.
    """
    depth, steps = _numbers(settings, "architecture.depth"), _numbers(settings, "training.steps")
    scale, of_steps = (
        np.select(
            [depth == 1, depth == 2],
            [
                np.full_like(depth, _NOISE_AT_ONE_LAYER[0] * _NOISE_AT_ONE_LAYER[1]),
                np.full_like(depth, _NOISE_AT_TWO_LAYERS[0] * _NOISE_AT_TWO_LAYERS[1]),
            ],
            np.nan,
        ),
        steps,
    )
    return np.log(_numbers(settings, "noise.scale") * of_steps / scale)


NOISE = Prediction(
    "Noise above 228 / steps with one hidden layer, and above 3480 / steps with two, however many training points.",
    "Earlier runs: boundaries at 1,200 and 4,000 steps with one layer, at 4,000 with two, all with 4,096 points.",
    _noise,
)

_HALF_MODULAR = 20.0, 2.3


def _samples(settings: Settings) -> Array:
    """Return log(N / N50), with N50 = 20 (d / 2)^2.3.

    Structural modularity passed .5 at 20, 46, 96, 171 and 253 points for d = 2 to 6 under the same regulariser. Theory
    gives an exponent between 1 and the degree of the functions.
    """
    at_two, exponent = _HALF_MODULAR
    expected = at_two * (_numbers(settings, "task.modules") / 2) ** exponent
    return np.log(_numbers(settings, "data.num_samples") / expected)


SAMPLES = Prediction(
    "More training points than 20 (d / 2)^2.3, whether inputs are mixed or not.",
    "Earlier runs at d = 2 to 6, unmixed; a rotation of the inputs leaves this regulariser as it is (algebra).",
    _samples,
)

_POINTS_OF_A_MODULE = 64
_LAZY_FROM = math.sqrt(3)
"""Midway between the initial scales 1 and 3, of which the latter was called lazy."""


def _robustness(settings: Settings) -> Array:
    """Return the largest of three margins: matched parameters, fewer points than 64 d, or lazy with degree 2 or more.

    At equal width the premodular networks are among the dense ones, so that they can be more robust only where data or
    optimisation fall short of the optimum. At equal parameters they have d times the units with one hidden layer, and
    copying a unit n times with its readout divided by n divides the variance that noise adds by n. In the lazy regime
    the ratio for a part of degree k is about d^(k - 1).
    """
    points = np.log(
        _POINTS_OF_A_MODULE * _numbers(settings, "task.modules") / _numbers(settings, "data.num_samples")
    )
    lazy = np.log(_numbers(settings, "architecture.initial_scale") / _LAZY_FROM)
    if "task.degree" in settings:
        lazy = np.where(_numbers(settings, "task.degree") >= 2, lazy, -np.inf)
    margin = np.maximum(points, lazy)
    if "architecture.match" in settings:
        margin = np.where(np.asarray(settings["architecture.match"]) == "parameters", np.inf, margin)
    return margin


ROBUSTNESS = Prediction(
    "At equal parameters everywhere; at equal width with fewer training points than 64 d, or from an initial scale of "
    "1.7 on, unless the functions are of degree 1.",
    "Algebra (inclusion, splitting, the lazy regime); the 64 is from earlier runs at d = 4.",
    _robustness,
)

_RISE_AT_24_UNITS = {0.3: 0.26, 1.0: 0.042, 2.0: 0.10}


def _forgetting(settings: Settings) -> Array:
    """Return log(rise / least rise that matters), with a rise proportional to 1 / H.

    The rise of module 2's error while module 1 learns is, to first order, the square of the cross block of the tangent
    kernel, whose random signs make it 1 / H of module 1's own. With 24 units a module it was .26, .042 and .10 at
    initial scales .3, 1 and 2; between them the rise is interpolated as a power, and beyond them held.
    """
    scale = np.log(_numbers(settings, "architecture.initial_scale"))
    measured = np.array(list(_RISE_AT_24_UNITS.values()))
    at_24 = np.exp(np.interp(scale, np.log(list(_RISE_AT_24_UNITS)), np.log(measured)))
    units = _numbers(settings, "architecture.width") / _numbers(settings, "task.modules")
    least = thresholds.FORGETTING * thresholds.CONSTANT_ERROR["regression"]
    margin = np.log(at_24 * 24 / units / least)
    return np.where(_numbers(settings, "architecture.depth") == 1, margin, np.nan)


FORGETTING = Prediction(
    "Fewer units than a number proportional to the rise at 24 units a module, which falls with the initial scale up to "
    "1 and rises again beyond. Nothing is predicted for two hidden layers.",
    "Algebra (a rise as 1 / units); its height is from earlier runs with 24 units a module.",
    _forgetting,
)
