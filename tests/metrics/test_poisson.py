import numpy as np
import pytest
import torch
from scipy import stats

from modulab.metrics.poisson import poisson_quantiles
from modulab.streams import member_keys, normals


@pytest.mark.parametrize(
    ("low", "high"), [(1e-8, 1.0), (1.0, 7.99), (7.99, 8.01), (8.0, 12.0), (12.0, 100.0), (100.0, 1e5)]
)
def test_quantiles_equal_those_of_scipy(low: float, high: float) -> None:
    generator = np.random.default_rng(5)
    rates = np.exp(generator.uniform(np.log(low), np.log(high), 20_000))
    scores = np.concatenate([generator.normal(size=10_000), generator.uniform(-5.8, 5.8, 10_000)])
    counts = poisson_quantiles(torch.from_numpy(rates), torch.from_numpy(scores)).numpy()
    np.testing.assert_array_equal(counts, stats.poisson.ppf(stats.norm.cdf(scores), rates))


def test_quantiles_of_large_rates_equal_those_of_scipy_where_it_is_exact() -> None:
    # Beyond 4.5 standard deviations scipy's incomplete gamma function leaves its asymptotic series.
    generator = np.random.default_rng(6)
    rates = np.exp(generator.uniform(np.log(1e5), np.log(1e7), 10_000))
    scores = generator.uniform(-4.4, 4.4, 10_000)
    counts = poisson_quantiles(torch.from_numpy(rates), torch.from_numpy(scores)).numpy()
    np.testing.assert_array_equal(counts, stats.poisson.ppf(stats.norm.cdf(scores), rates))


@pytest.mark.parametrize(("low", "high"), [(0.01, 8.0), (8.0, 1e3), (1e3, 1e5)])
def test_counts_change_exactly_where_the_distribution_function_reaches_the_probability(
    low: float, high: float
) -> None:
    generator = np.random.default_rng(7)
    rates = np.exp(generator.uniform(np.log(low), np.log(high), 20_000))
    numbers = stats.poisson.ppf(stats.norm.cdf(generator.uniform(-4, 4, 20_000)), rates)
    edges = torch.from_numpy(stats.norm.ppf(stats.poisson.cdf(numbers, rates)))
    for score, expected in ((edges - 1e-7, numbers), (edges + 1e-7, numbers + 1)):
        found = poisson_quantiles(torch.from_numpy(rates), score).numpy()
        inside = np.abs(edges.numpy()) < 5
        np.testing.assert_array_equal(found[inside], expected[inside])


def test_quantiles_at_round_rates_and_scores_equal_those_of_scipy() -> None:
    # The table's cells begin there, and single precision rounds what lies just beside onto them.
    edges = np.arange(0, 8 * 64 + 1, 7) / 64
    rates = np.concatenate([edges, edges * (1 + 1e-12), edges * (1 - 1e-12), [1e-12, 8 + 1e-12]])
    scores = np.concatenate([np.arange(-400, 401, 5) / 64, [-6 - 1e-12, 6 + 1e-12]])
    pairs = np.meshgrid(rates, scores)
    counts = poisson_quantiles(*(torch.from_numpy(values) for values in pairs)).numpy()
    np.testing.assert_array_equal(counts, stats.poisson.ppf(stats.norm.cdf(pairs[1]), pairs[0]))


@pytest.mark.parametrize("rate", [0.3, 4.0, 9.0, 60.0])
def test_counts_are_poisson_distributed(rate: float) -> None:
    scores = normals(member_keys([11]), 1, 40_000)
    counts = poisson_quantiles(torch.full_like(scores, rate), scores).flatten().numpy()
    low, high = (int(stats.poisson.ppf(share, rate)) for share in (0.01, 0.99))
    observed = np.bincount(np.clip(counts, low, high).astype(int) - low, minlength=high - low + 1)
    expected = stats.poisson.pmf(np.arange(low, high + 1), rate)
    expected[0], expected[-1] = stats.poisson.cdf(low, rate), stats.poisson.sf(high - 1, rate)
    assert stats.chisquare(observed, expected * observed.sum()).pvalue > 1e-3


def test_silent_units_count_nothing_and_lost_ones_count_nan() -> None:
    rates = torch.tensor([0.0, torch.inf, torch.nan, 1e30])
    for score in (-5.0, 0.0, 5.0):
        counts = poisson_quantiles(rates, torch.full((4,), score))
        assert counts[0] == 0
        assert counts[1:3].isnan().all()
        assert counts[3] == pytest.approx(1e30)


def test_counts_rise_with_rate_and_score() -> None:
    rates = torch.linspace(0, 40, 4001)[:, None].expand(-1, 41)
    scores = torch.linspace(-5, 5, 41).expand(4001, -1)
    counts = poisson_quantiles(rates, scores)
    assert (counts.diff(dim=0) >= 0).all()
    assert (counts.diff(dim=1) >= 0).all()
