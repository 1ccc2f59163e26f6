"""Agreement of partitions: 0 in expectation over permutations, 1 for equal ones, and nodes left out do not count."""

from itertools import permutations

import numpy as np
import pytest

from modulab.metrics.communities.agreement import adjusted_mutual_information, adjusted_rand, stability


@pytest.mark.parametrize("agreement", [adjusted_mutual_information, adjusted_rand])
def test_agreement_is_zero_on_average_over_all_permutations_and_one_for_equal_partitions(agreement) -> None:
    one, other = np.array([0, 0, 1, 1, 2]), np.array([0, 1, 1, 1, 1])
    assert np.mean([agreement(one, other[list(order)]) for order in permutations(range(5))]) == pytest.approx(
        0, abs=1e-12
    )
    assert agreement(one, np.array([5, 5, 3, 3, 4])) == pytest.approx(1)


@pytest.mark.parametrize("agreement", [adjusted_mutual_information, adjusted_rand])
def test_agreement_is_over_nodes_that_both_partitions_label(agreement) -> None:
    one, other = np.array([0, 0, 1, 1, -1, 0]), np.array([1, 1, 0, 0, 0, -1])
    assert agreement(one, other) == pytest.approx(1)
    assert np.isnan(agreement(np.array([-1, -1]), np.array([0, 1])))


def test_stability_is_the_mean_agreement_of_pairs() -> None:
    one, other = np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1])
    pair = adjusted_mutual_information(one, other)
    assert stability([one, one, other]) == pytest.approx((1 + 2 * pair) / 3)
    assert stability([one]) == 1
