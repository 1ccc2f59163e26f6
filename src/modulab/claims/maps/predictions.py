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


def _are_legendre(settings: Settings) -> bool:
    """Return whether `task.degree` is the degree of the targets: other functions have the key, but do not use it."""
    functions = settings.get("task.functions")
    return functions is None or all("legendre" in str(each) for each in np.asarray(functions).ravel())


def _robustness(settings: Settings) -> Array:
    """Return the largest of three margins: matched parameters, fewer points than 64 d, or lazy with degree 2 or more.

    At equal width the premodular networks are among the dense ones, so they can be more robust only where data or
    optimisation fall short of the optimum. At equal parameters they have d times the units with one hidden layer, and
    copying a unit n times with its readout divided by n divides the variance that noise adds by n. In the lazy regime
    the ratio for a part of degree k is about d^(k - 1).
    """
    points = np.log(
        _POINTS_OF_A_MODULE * _numbers(settings, "task.modules") / _numbers(settings, "data.num_samples")
    )
    lazy = np.log(_numbers(settings, "architecture.initial_scale") / _LAZY_FROM)
    if "task.degree" in settings and _are_legendre(settings):
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
    kernel, whose random signs make it 1 / H of module 1's own. With 24 units per module it was .26, .042 and .10 at
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
    "Fewer units than a number proportional to the rise at 24 units per module, which falls with initial scales up to "
    "1 and rises again beyond. Nothing is predicted for two hidden layers.",
    "Algebra (a rise as 1 / units); its height is from earlier runs with 24 units per module.",
    _forgetting,
)

_DOSES = np.array([0.0, 0.1, 0.25, 0.5, 1.0])
_DOSED_NOISES = np.array([0.0, 0.2, 0.4])
_DOSED_EXCESS = np.array(
    [[-0.01, 0.01, 0.06, 0.11, 0.18], [0.0, 0.04, 0.12, 0.20, 0.24], [0.01, 0.05, 0.18, 0.35, 0.40]]
)
"""Excess of structural modularity of relu networks by noise (rows) and share b of nonlinear targets (columns)."""


def _nonlinearity(settings: Settings) -> Array:
    """Return the excess predicted, less the least that matters: in linear networks 0 at every noise.

    For isotropic inputs the noise that a linear unit adds depends on the lengths of what it reads and writes alone, so
    nothing distinguishes the module axes. Relu networks had the excesses of the table after 1,200 steps with
    d = 2 and unlimited data. Between them it is interpolated, and beyond noise .4 held.
    """
    share, noise = _numbers(settings, "task.nonlinearity"), _numbers(settings, "noise.scale")
    by_noise = np.stack([np.interp(share, _DOSES, row) for row in _DOSED_EXCESS], axis=-1)
    place = np.interp(noise, _DOSED_NOISES, np.arange(len(_DOSED_NOISES), dtype=np.float64))
    below = np.minimum(place.astype(np.intp), len(_DOSED_NOISES) - 2)
    ends = [np.take_along_axis(by_noise, (below + step)[..., None], axis=-1)[..., 0] for step in (0, 1)]
    excess = ends[0] + (place - below) * (ends[1] - ends[0])
    linear = np.asarray(settings["architecture.activation"]) == "linear"
    return np.where(linear, 0.0, excess) - thresholds.MODULARITY


NONLINEARITY = Prediction(
    "In relu networks where targets are nonlinear by more than b = .16 at noise .4, .21 at .2 and .45 without noise; "
    "in linear networks nowhere.",
    "Algebra (linear networks); earlier runs at five values of b and three of noise.",
    _nonlinearity,
)

_NOISES_SEEN = np.array([0.0, 0.05, 0.1, 0.2, 0.4, 0.8])
_MODULARITY_SEEN = np.array([0.40, 0.48, 0.62, 0.81, 0.92, 0.94])
_ERROR_SEEN = np.array([0.0002, 0.0003, 0.0004, 0.0011, 0.0065, 0.038])
_STEPS_SEEN = 4000
_WITHHELD_ERROR = 0.153, 0.082
"""On combinations outside a band of width .3: dense networks, and networks trained under noise .2."""


def _generalisation(settings: Settings) -> Array:
    """Return ln(ratio / 2), with an error outside the band as a power of the paths between modules, plus clean error.

    Errors outside the band come from paths between modules, a share 1 - S of all. Their power is that which leads from
    .153 at S = .40 to .082 at S = .81. S settles as noise times steps grows; clean error depends on noise alone, and
    grows as its square beyond the table. Dense and noisy errors grow alike as the band narrows, so neither its
    width nor the number of modules counts.
    """
    dense, noisy = _WITHHELD_ERROR
    power = math.log(dense / (noisy - _ERROR_SEEN[3])) / math.log(
        (1 - _MODULARITY_SEEN[0]) / (1 - _MODULARITY_SEEN[3])
    )
    scale = _numbers(settings, "noise.scale")
    settled = scale * _numbers(settings, "training.steps") / _STEPS_SEEN
    mixed = 1 - np.interp(settled, _NOISES_SEEN, _MODULARITY_SEEN)
    beyond = np.maximum(scale / _NOISES_SEEN[-1], 1.0) ** 2
    error = np.interp(scale, _NOISES_SEEN, _ERROR_SEEN) * beyond
    expected = dense * (mixed / (1 - _MODULARITY_SEEN[0])) ** power + error
    return np.log(dense / expected / thresholds.GENERALISATION)


GENERALISATION = Prediction(
    "After 4,000 steps under noise between .25 and .73, whatever the band and the number of modules; after 2,000 steps "
    "or fewer nowhere.",
    "Earlier runs with a band of width .3, and how modularity rose with noise there.",
    _generalisation,
)

_GAIN_OF_DIGITS = {"noise": 1.5, "cost": 0.0004}
_POWERS_OF_DIGITS = {"noise": 1.5, "cost": 0.54}


def _digits(settings: Settings) -> Array:
    """Return the logarithm of the gain over .1, with a gain as powers of noise and of the cost on activity.

    Excess modularity at noise 1.5 after 1,000 steps was .051, .090 and .176 at costs of .0001, .0003 and .001, and
    structural modularity without a cost was .020 at noise .5, .109 at 1.5, and, after 2,000 steps, .164 at 2: a power
    of 1.5 of noise, and none of steps.
    """
    noise = np.log(_numbers(settings, "noise.scale") / _GAIN_OF_DIGITS["noise"])
    cost = np.log(_numbers(settings, "regulariser.strength") / _GAIN_OF_DIGITS["cost"])
    return _POWERS_OF_DIGITS["noise"] * noise + _POWERS_OF_DIGITS["cost"] * cost


DIGITS = Prediction(
    "Where (noise / 1.5)^1.5 (cost / 0.0004)^.54 is above 1, however many steps. No gain of .1 at an error of .09 or "
    "less, a tenth of a constant answer's; one at .18, two tenths.",
    "Earlier runs at four scales of noise without a cost, and of eight networks at noise 0 and 1.5 with four costs.",
    _digits,
)
