"""Units that predict functions, and modules enriched for them, against scikit-learn and by enumeration."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score

from modulab.metrics.communities.predictivity import (
    average_precision,
    enrichment,
    enrichment_p_values,
    holm,
    predictivity,
)


def test_average_precision_is_that_of_scikit_learn_with_ties_too() -> None:
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(2, 3, 50, generator=generator).mul(2).round().relu()
    labels = torch.rand(2, 4, 50, generator=generator) < 0.3
    found, either = average_precision(scores, labels), predictivity(scores, labels)
    for member in range(2):
        for unit in range(3):
            for function in range(4):
                own, score = labels[member, function].numpy(), scores[member, unit].numpy()
                expected = average_precision_score(own, score)
                assert float(found[member, unit, function]) == pytest.approx(expected, abs=1e-12)
                best = max(expected, average_precision_score(~own, score))
                assert float(either[member, unit, function]) == pytest.approx(best, abs=1e-12)


def test_enrichment_p_values_are_shares_of_all_draws() -> None:
    sizes, drawn = np.array([3, 5]), 4
    draws = [sum(unit < 3 for unit in draw) for draw in combinations(range(8), drawn)]
    for count in range(4):
        found = enrichment_p_values(np.array([[count], [drawn - count]]), sizes, drawn)
        assert found[0, 0] == pytest.approx(np.mean([number >= count for number in draws]))
        assert found[1, 0] == pytest.approx(np.mean([number <= count for number in draws]))


def test_holm_multiplies_the_smallest_by_the_number_of_tests_and_keeps_the_order() -> None:
    assert holm(np.array([[0.01, 0.04], [0.03, 0.005]])) == pytest.approx(
        np.array([[0.03, 0.06], [0.06, 0.02]])
    )
    assert holm(np.array([0.5, 0.9])).tolist() == [1.0, 1.0]


def test_modules_are_enriched_for_the_functions_planted_in_them_only() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], 16)
    scores = rng.random((48, 2))
    share, times = enrichment(labels, scores, 0.25, 0.05)
    assert share == 0
    assert np.isnan(times)
    scores[labels == 0, 0] += 1
    scores[labels == 1, 1] += 1
    share, times = enrichment(labels, scores, 0.25, 0.05)
    assert share == pytest.approx(2 / 3)
    assert times == pytest.approx(3)  # all 12 of the best are in a third of the units
