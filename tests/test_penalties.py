"""The comparison of scripts/penalties finds strengths, ratios and least powers that were planted in rows."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from penalty_contest import (
    REFERENCE,
    SEED,
    SHOWN,
    STRENGTH,
    P,
    Q,
    choose_strengths,
    chosen_strength,
    contest_of,
)

from modulab.results.intervals import mean_interval

POWERS = [(p, q) for p in (1.0, 1.5, 2.0, 2.5, 3.0) for q in (0.0, 1.0, 1.5, 2.0, 3.0)]
STRENGTHS = (1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0)


def planted_strength(p: float, q: float) -> float:
    return 0.045 * 2.0 ** (p + q - 3)


def planted_error(p: float, q: float, strength: float, least: tuple[float, float]) -> float:
    off = np.log(strength / planted_strength(p, q))
    return float(0.2 * (p - least[0]) ** 2 + 0.1 * (q - least[1]) ** 2 + 0.05 * off**2)


def planted_rows(least: tuple[float, float], strengths: list[float] | None, seeds: range) -> pd.DataFrame:
    """Return logarithms of errors that powers, strengths, seeds and noise add up to; strengths None: those planted."""
    random = np.random.default_rng(0)
    of_seeds = random.normal(size=len(seeds))
    return pd.DataFrame(
        [
            {
                P: p, Q: q, STRENGTH: strength, SEED: seed,
                "error": np.exp(planted_error(p, q, strength, least) + shift + 0.01 * random.normal()),
            }
            for p, q in POWERS
            for strength in (strengths or [planted_strength(p, q)])
            for seed, shift in zip(seeds, of_seeds, strict=True)
        ]
    )  # fmt: skip


def test_the_vertex_of_a_parabola_is_found_between_the_strengths_that_were_tried() -> None:
    strengths = np.log(STRENGTHS)
    errors = 0.3 * (strengths - np.log(0.017)) ** 2 + np.array([[0.0], [1.0]])
    assert np.exp(chosen_strength(strengths, errors)) == pytest.approx(0.017, rel=1e-6)
    errors[1, 3] = np.nan  # a network that diverged
    assert np.isfinite(chosen_strength(strengths, errors))


@pytest.mark.parametrize(("slope", "chosen"), [(1.0, 1e-3), (-1.0, 1.0)])
def test_where_error_is_least_at_an_end_that_strength_is_chosen(slope: float, chosen: float) -> None:
    strengths = np.log(STRENGTHS)
    assert np.exp(chosen_strength(strengths, slope * strengths[None])) == pytest.approx(chosen)


def test_planted_strengths_are_chosen_for_all_powers() -> None:
    chosen = choose_strengths(planted_rows((1.6, 1.4), list(STRENGTHS), range(3)), "error")
    assert set(chosen) == set(POWERS)
    for powers, strength in chosen.items():
        assert strength == pytest.approx(planted_strength(*powers), rel=0.35)


def test_the_contest_finds_planted_powers_and_what_is_better_than_the_reference() -> None:
    least = (1.6, 1.4)
    contest = contest_of(planted_rows(least, None, range(8)), "error", replicates=60)
    assert (np.abs(contest.best.place - least) <= 0.35).all()
    assert (
        (contest.best.low - 0.06 <= least) & (least <= contest.best.high + 0.06)
    ).all()  # ticks are .1 apart
    nearest = int(np.abs(SHOWN - least).sum(axis=1).argmin())
    assert contest.best.not_worse[nearest]
    assert not contest.best.not_worse[int(np.abs(SHOWN - (3.0, 3.0)).sum(axis=1).argmin())]
    of_reference = 0.048  # 0.2 (2 - 1.6)^2 + 0.1 (1 - 1.4)^2
    expected = {own: planted_error(*own, planted_strength(*own), least) - of_reference for own in POWERS}
    for powers in POWERS:
        middle, low, high = contest.ratio(powers)
        assert np.log(middle) == pytest.approx(expected[powers], abs=0.05)
        if powers != REFERENCE:
            assert low < middle < high
    better = {powers for powers, value in expected.items() if value < -0.03}
    assert {(1.5, 1.5), (1.5, 1.0)} <= better
    assert better <= set(contest.better()) <= {powers for powers, value in expected.items() if value < 0}


def test_the_intervals_of_a_contest_are_those_of_paired_differences() -> None:
    rows = planted_rows((2.0, 1.0), None, range(5))
    one, other = (
        np.log(rows[(rows[P] == p) & (rows[Q] == q)].sort_values(SEED)["error"].to_numpy())
        for p, q in ((3.0, 3.0), REFERENCE)
    )
    low, high = mean_interval((one - other)[:, None])
    found = contest_of(rows, "error", replicates=2).ratio((3.0, 3.0))
    assert found == pytest.approx((np.exp((one - other).mean()), np.exp(low[0]), np.exp(high[0])))
