"""What an experiment says, against answers that were found otherwise."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from modulab.claims.evidence import (
    Estimate,
    Evidence,
    at_matched_error,
    difference,
    double_difference,
    estimate,
    rank_correlation,
)
from modulab.claims.rules import Criterion, Finding, Region, decide, describe_region, judge_criterion
from modulab.claims.samples import crossing, exponent, exponential_fits_better, growth
from modulab.results.intervals import mean_interval


def table(**columns) -> pd.DataFrame:
    rows = pd.DataFrame(columns)
    return rows.assign(status=rows.get("status", "completed"))


def test_interval_of_a_difference_is_that_of_the_mean_of_paired_differences() -> None:
    first, second = np.random.default_rng(1).normal(size=(2, 12))
    found = estimate(np.stack([first, second], axis=1), difference)
    low, high = mean_interval((first - second)[:, None])
    assert found.value == pytest.approx((first - second).mean())
    assert found.low == pytest.approx(low[0], abs=0.05)
    assert found.high == pytest.approx(high[0], abs=0.05)
    assert found.seeds == 12


def test_what_seeds_have_in_common_cancels() -> None:
    random = np.random.default_rng(1)
    shared = random.normal(scale=100, size=10)
    own = random.normal(scale=0.1, size=(10, 2))
    found = estimate(shared[:, None] + own + np.array([1.0, 0.0]), difference)
    assert 0.8 < found.low < found.high < 1.2


def test_an_arm_with_too_few_seeds_has_no_estimate() -> None:
    columns = np.array([[1.0, np.nan], [2.0, np.nan], [3.0, 1.0], [4.0, 2.0], [5.0, np.nan]])
    found = estimate(columns, difference)
    assert math.isnan(found.value)
    assert found.seeds == 2


def test_missing_seeds_are_left_out_of_their_arm_alone() -> None:
    columns = np.array([[1.0, 0.0], [2.0, np.nan], [3.0, 1.0]])
    assert estimate(columns, difference).value == pytest.approx(2.0 - 0.5)


def test_double_difference_is_a_difference_of_gains() -> None:
    assert double_difference(np.array([[5.0, 1.0, 3.0, 2.0]])) == 3.0


def test_rank_correlation_is_spearmans() -> None:
    values = np.random.default_rng(0).normal(size=(5, 7))
    expected = [stats.spearmanr(row, np.arange(7)).statistic for row in values]
    assert rank_correlation(values) == pytest.approx(expected)


def test_value_at_matched_error_lies_on_the_path_of_an_arm() -> None:
    # error e^-6 to e^-2 by steps of 1, modularity by squares
    log_errors = np.array([[-6.0, -5.0, -4.0, -3.0, -2.0]])
    values = np.array([[0.0, 1.0, 4.0, 9.0, 16.0]])
    assert at_matched_error(log_errors, values, -4.0) == 4.0
    assert at_matched_error(log_errors, values, -3.5) == 6.5
    assert at_matched_error(log_errors, values, -1.0) == 16.0  # never spends the budget
    assert np.isnan(at_matched_error(log_errors, values, -7.0))  # above it from the start


def test_an_arm_is_taken_at_the_most_strength_that_its_budget_pays_for() -> None:
    log_errors = np.array([[-6.0, -3.0, -5.0, -1.0]])  # above the budget for a while, and below it again
    assert at_matched_error(log_errors, np.array([[0.0, 1.0, 2.0, 3.0]]), -4.0) == 2.25


def test_arms_are_found_by_their_settings_and_paired_by_seed() -> None:
    rows = table(
        **{
            "config.seed": [2, 0, 1, 0, 1],
            "config.noise.scale": [0.2, 0.2, 0.2, 0.0, 0.0],
            "error/test": [3.0, 1.0, 2.0, 5.0, 6.0],
        },
        status=["completed", "completed", "failed", "completed", "completed"],
    )
    evidence = Evidence(rows)
    columns = evidence.columns("error/test", [{"noise.scale": 0.2}, {"noise.scale": 0.0}])
    assert evidence.seeds == [0, 1, 2]
    np.testing.assert_array_equal(columns, [[1.0, 5.0], [np.nan, 6.0], [3.0, np.nan]])


def test_what_an_experiment_does_not_have_is_an_error_and_not_a_verdict() -> None:
    rows = table(**{"config.seed": [0, 0], "config.noise.scale": [0.0, 0.1], "error/test": [1.0, 2.0]})
    with pytest.raises(ValueError, match="is not an arm"):
        Evidence(rows).values("error/test", {"noise.scale": 0.3})
    with pytest.raises(ValueError, match="not measured"):
        Evidence(rows).values("error/tset", {"noise.scale": 0.1})
    with pytest.raises(ValueError, match="several members"):
        Evidence(rows).values("error/test", {})


def test_sample_size_is_read_where_a_curve_crosses_half_its_plateau() -> None:
    log_samples = np.log([8.0, 16.0, 32.0, 64.0])
    assert np.exp(crossing(log_samples, np.array([[0.0, 0.2, 0.6, 0.8]]))) == pytest.approx(16 * 2**0.5)
    assert np.exp(crossing(log_samples, np.array([[0.5, 0.6, 0.7, 0.8]]))) == pytest.approx(8)  # at most


def test_exponential_and_power_law_are_told_apart() -> None:
    modules = np.arange(2.0, 8.0)
    exponential, power = np.log(3 * 1.7**modules)[None], np.log(5 * modules**2.3)[None]
    assert np.exp(growth(modules, exponential)) == pytest.approx(1.7)
    assert exponent(modules, power) == pytest.approx(2.3)
    assert exponential_fits_better(modules, exponential) > np.log(100)
    assert exponential_fits_better(modules, power) < -np.log(100)


def judged(low: float, high: float, region: Region | None, scale="difference") -> Finding:
    criterion = Criterion("", "", lambda _: Estimate((low + high) / 2, low, high, 10), region, scale)
    return judge_criterion(criterion, {})


@pytest.mark.parametrize(
    ("low", "high", "outcome"),
    [(0.11, 0.2, "holds"), (0.05, 0.2, "unclear"), (-0.1, 0.1, "fails"), (math.nan, math.nan, "unclear")],
)
def test_a_criterion_holds_only_if_its_whole_interval_matters(low: float, high: float, outcome: str) -> None:
    assert judged(low, high, Region(low=0.1)).outcome == outcome


def test_regions_of_a_factor_are_in_the_factor_itself() -> None:
    finding = judged(math.log(0.4), math.log(0.6), Region(high=0.8), "factor")
    assert finding.outcome == "holds"
    assert finding.estimate.low == pytest.approx(0.4)
    assert describe_region(finding.criterion) == "below 0.8 times"


def test_a_verdict_needs_every_criterion_and_falls_with_any() -> None:
    holds, fails = judged(1, 2, Region(low=0)), judged(-2, -1, Region(low=0))
    unclear, reported = judged(-1, 1, Region(low=0)), judged(-2, -1, None)
    assert decide([holds, reported]) == "supported"
    assert decide([holds, unclear]) == "inconclusive"
    assert decide([holds, unclear, fails]) == "not supported"
    with pytest.raises(ValueError, match="at least one criterion"):
        decide([reported])
