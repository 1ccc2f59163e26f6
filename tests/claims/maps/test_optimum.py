"""A planted least place of a surface lies among those that are not shown to be worse, and within its interval."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from modulab.claims.maps.optimum import optimum
from modulab.claims.maps.surface import Kernel, Surface, fit_surface

TICKS = np.linspace(0, 1, 11)
PLANE = np.stack([each.ravel() for each in np.meshgrid(TICKS, TICKS)], axis=1)
CELLS = np.stack([each.ravel() for each in np.meshgrid(TICKS[::2], TICKS[::2])], axis=1)
LEAST = np.array([0.7, 0.4])


def bowl(places: NDArray[np.float64]) -> NDArray[np.float64]:
    return 2 * ((places - LEAST) ** 2).sum(axis=1)


def test_a_planted_optimum_is_found_within_its_intervals_and_never_shown_to_be_worse() -> None:
    true = int(np.abs(PLANE - LEAST).sum(axis=1).argmin())
    within, kept, shares = 0, 0, []
    for world in range(12):
        random = np.random.default_rng(world)
        places = np.repeat(CELLS, 3, axis=0)
        values = bowl(places) + 0.2 * random.normal(size=len(places))
        found = optimum(fit_surface(places, values, [PLANE], replicates=60, seed=world), PLANE)
        within += bool(((found.low <= LEAST) & (found.high >= LEAST)).all())
        kept += bool(found.not_worse[true])
        shares.append(found.not_worse.mean())
        assert (np.abs(found.place - LEAST) <= 0.3).all()
    assert within >= 8  # both intervals, at 95% each, of 12 maps: fewer would have probability .0005
    assert kept >= 10
    assert np.mean(shares) < 0.4  # and most of the map is shown to be worse


def test_what_is_equally_good_is_not_shown_to_be_worse_and_what_every_replicate_has_above_is() -> None:
    replicates = np.array([[0.0, 0.1, 5.0], [0.1, 0.0, 5.2], [0.0, 0.2, 4.9], [0.2, 0.0, 5.1]])
    surface = Surface(np.array([0.05, 0.06, 5.0]), replicates, Kernel(1.0, np.ones(1), 0.1))
    found = optimum(surface, np.array([[1.0], [2.0], [3.0]]))
    assert found.place == [1.0]
    assert found.not_worse.tolist() == [True, True, False]
    assert 1.0 <= found.low[0] < found.high[0] <= 2.0
