"""Boundaries that were planted are found within their bands, and a map without an effect is blank."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from modulab.claims.maps.boundary import NOT_SUPPORTED, SUPPORTED, crossings, regions
from modulab.claims.maps.surface import Kernel, Surface, fit_surface, prior_function
from modulab.config.sobol import sobol_points

Array = NDArray[np.float64]

TICKS = np.linspace(0, 1, 9)
PLANE = np.stack([each.ravel() for each in np.meshgrid(TICKS, TICKS)], axis=1)


def simulated(
    effect: Callable[[Array], Array], noise: float, world: int, settings: int = 64, skewed: bool = False
) -> Surface:
    """Fit a known effect, measured once in each of so many settings of a plane."""
    random = np.random.default_rng(world)
    places = sobol_points(settings, 2, shift_seed=world).numpy()
    errors = random.exponential(size=settings) - 1 if skewed else random.normal(size=settings)
    return fit_surface(places, effect(places) + noise * errors, [PLANE], replicates=60, seed=world)


def straight(places: Array) -> Array:
    return places[:, 0] - 0.3 - 0.4 * places[:, 1]


def step(places: Array) -> Array:
    return 0.5 * np.tanh(straight(places) / 0.15)


def test_a_null_map_is_blank() -> None:
    # The threshold is where the true effect is: the hardest null. Away from it, fewer maps still have a region.
    supported = sum(
        bool((regions(simulated(lambda places: 0 * places[:, 0], 1.0, world, 40), 0.0) == SUPPORTED).any())
        for world in range(100)
    )
    assert supported <= 5


@pytest.mark.parametrize("effect", [straight, step])
def test_a_planted_boundary_lies_within_its_band(effect: Callable[[Array], Array]) -> None:
    wrong, decided = 0, []
    truth = effect(PLANE) > 0
    for world in range(20):
        found = regions(simulated(effect, 0.2, world), 0.0)
        wrong += bool(((found == SUPPORTED) & ~truth).any() or ((found == NOT_SUPPORTED) & truth).any())
        decided.append(np.mean(found != 0))
    assert wrong <= 3  # of 20 bands at 95%: more would have probability .016
    assert np.mean(decided) > 0.4  # and the bands are narrow enough to say something


def test_a_planted_crossing_lies_within_its_interval() -> None:
    held = 0
    for world in range(20):
        surface = simulated(step, 0.3, world)
        profile = surface.profile(slice(0, 81), (9, 9), over=0)
        [found] = crossings(TICKS, profile, 0.0)
        assert found.rises
        held += found.low <= 0.5 <= found.high  # 0.3 + 0.4 * 0.5, by symmetry
        assert found.low < found.place < found.high
    assert held >= 17


def test_more_settings_narrow_the_band() -> None:
    few, many = (simulated(straight, 0.3, 1, settings).half_width.mean() for settings in (32, 256))
    assert many < 0.7 * few


def test_a_surface_without_noise_interpolates_what_it_was_given() -> None:
    surface = simulated(lambda places: np.sin(3 * places[:, 0]) * places[:, 1], 0.0, 0, 128)
    np.testing.assert_allclose(surface.effect, np.sin(3 * PLANE[:, 0]) * PLANE[:, 1], atol=0.03)


def test_functions_of_the_prior_have_the_kernel_as_their_covariance() -> None:
    kernel = Kernel(1.5, np.array([0.3, 2.0]), 0.1)
    places = np.array([[0.0, 0.0], [0.2, 0.5], [0.9, 0.1]])
    random = np.random.default_rng(0)
    drawn = np.stack([prior_function(kernel, random)(places) for _ in range(4000)])
    np.testing.assert_allclose(drawn.T @ drawn / 4000, kernel.between(places, places), atol=0.12)


def test_places_shown_are_averaged_over_their_arrays() -> None:
    places = sobol_points(32, 2, 3).numpy()
    values = straight(places)
    one, other = (fit_surface(places, values, [shown], 20) for shown in (PLANE, PLANE[::-1]))
    both = fit_surface(places, values, [PLANE, PLANE[::-1]], 20)
    np.testing.assert_allclose(both.effect, (one.effect + other.effect) / 2, rtol=0, atol=1e-8)
    np.testing.assert_allclose(both.replicates, (one.replicates + other.replicates) / 2, rtol=0, atol=1e-8)


def plain(effect: list[float], half_width: float) -> Surface:
    """Return a profile whose simultaneous band is as wide as said: all replicates deviate by that, up or down."""
    centre = np.array(effect)
    return Surface(centre, np.stack([centre + half_width, centre - half_width]), Kernel(1.0, np.ones(1), 1.0))


def test_a_crossing_and_its_interval_are_where_straight_lines_cross() -> None:
    [found] = crossings(np.linspace(0, 1, 5), plain([-2.0, -1.0, 0.0, 1.0, 2.0], 0.5), 0.25)
    assert (found.place, found.low, found.high) == pytest.approx((0.5625, 0.4375, 0.6875))
    [falling] = crossings(np.linspace(0, 1, 5), plain([2.0, 1.0, 0.0, -1.0, -2.0], 0.5), 0.25)
    assert (falling.place, falling.rises) == (pytest.approx(0.4375), False)


def test_an_interval_that_no_decided_place_bounds_reaches_the_end_of_the_axis() -> None:
    [found] = crossings(np.linspace(0, 1, 5), plain([-2.0, -1.0, 0.0, 1.0, 2.0], 1.5), 0.0)
    assert (found.low, found.high) == pytest.approx((0.125, 0.875))
    [open_ended] = crossings(np.linspace(0, 1, 5), plain([-2.0, -1.0, 0.0, 1.0, 2.0], 3.0), 0.0)
    assert (open_ended.low, open_ended.high) == (0.0, 1.0)


def test_an_effect_that_stays_on_one_side_has_no_crossing() -> None:
    assert crossings(np.linspace(0, 1, 5), plain([1.0, 2.0, 1.0, 2.0, 1.0], 0.1), 0.0) == []


def test_two_crossings_have_intervals_of_their_own() -> None:
    first, second = crossings(np.linspace(0, 1, 5), plain([-1.0, 1.0, 1.0, 1.0, -1.0], 0.5), 0.0)
    assert (first.place, first.rises, second.place, second.rises) == (0.125, True, 0.875, False)
    assert first.high < second.low
