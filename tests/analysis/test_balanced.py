from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch

from modulab.analysis.balanced import (
    BalancedClusters,
    balanced_assignment,
    balanced_clusters,
    best_of_starts,
    sum_of_squares,
)
from modulab.networks.base import INPUT, OUTPUT
from modulab.partition import SHARED
from modulab.training.program import network_of
from tests.analysis.blocks import block, clusters, members
from tests.networks.opaque import Opaque


def balanced_partitions(units: int, experts: int) -> list[np.ndarray]:
    """Return all partitions of units into experts of sizes that are equal or differ by one, by brute force."""
    least, left = divmod(units, experts)
    found: list[np.ndarray] = []

    def fill(labels: np.ndarray, expert: int, larger: int) -> None:
        if expert == experts:
            found.append(labels.copy())
            return
        free = np.flatnonzero(labels < 0)
        for size in {least, least + 1} if larger else {least}:
            if len(free) - size > (experts - expert - 1) * (least + 1) or size > len(free):
                continue
            for chosen in combinations(free, size):
                labels[list(chosen)] = expert
                fill(labels, expert + 1, larger - (size > least))
                labels[list(chosen)] = -1

    fill(np.full(units, -1), 0, left)
    return [labels for labels in found if (labels >= 0).all()]


@pytest.mark.parametrize(("units", "experts"), [(6, 2), (6, 3), (7, 3), (5, 4)])
def test_an_assignment_costs_no_more_than_any_other_of_such_sizes(units: int, experts: int) -> None:
    costs = np.random.default_rng(units * experts).normal(size=(units, experts)) ** 2
    labels = balanced_assignment(costs)
    sizes = np.bincount(labels, minlength=experts)
    assert sizes.max() - sizes.min() <= 1
    every = balanced_partitions(units, experts)
    least = min(costs[np.arange(units), own].sum() for own in every)
    assert costs[np.arange(units), labels].sum() == pytest.approx(least, rel=1e-12)


def test_the_best_of_many_starts_is_the_best_balanced_partition() -> None:
    rows = np.random.default_rng(3).normal(size=(7, 2))
    starts = np.array(list(combinations(range(7), 3)))
    least = min(sum_of_squares(rows, own) for own in balanced_partitions(7, 3))
    assert sum_of_squares(rows, best_of_starts(rows, starts)) == pytest.approx(least, rel=1e-12)


def test_planted_directions_are_found_and_sizes_are_equal_though_directions_are_not_equally_frequent() -> (
    None
):
    rows = np.repeat(np.eye(3), [4, 4, 4], axis=0)
    labels = best_of_starts(rows, np.array([[0, 1, 2], [0, 4, 8]]))
    assert sum_of_squares(rows, labels) == 0
    uneven = np.repeat(np.eye(3), [6, 4, 2], axis=0)
    assert np.bincount(balanced_clusters(uneven, np.eye(3))).tolist() == [4, 4, 4]


def test_scaling_a_unit_or_exchanging_units_changes_no_cluster() -> None:
    trained = block(members(2, architecture__width=8))
    probe, network = trained.probe, trained.probe.network.network
    find = BalancedClusters(**{key: value for key, value in clusters(4).items() if key != "_target_"})
    labels = find(probe)
    assert (labels[INPUT] == SHARED).all()
    assert (labels[OUTPUT] == SHARED).all()
    assert all(torch.bincount(own).tolist() == [2, 2, 2, 2] for own in labels["hidden.0"])
    weight, bias, *rest = (part.clone() for part in network.split(probe.network.parameters).values())
    weight[:, 3], bias[:, 3] = 2 * weight[:, 3], 2 * bias[:, 3]
    scaled = block(
        list(trained.members), torch.cat([part.flatten(1) for part in (weight, bias, *rest)], dim=1)
    )
    assert torch.equal(find(scaled.probe)["hidden.0"], labels["hidden.0"])


def test_networks_whose_units_cannot_be_clustered_are_skipped_with_the_reason() -> None:
    [member] = members(1, architecture__width=4)
    network = network_of(member)
    find = BalancedClusters(**{key: value for key, value in clusters(5).items() if key != "_target_"})
    assert find.lacking(network, member.task) == "it has 4 units at a site, fewer than experts"
    opaque = Opaque(network.in_features, network.out_features, network)
    assert "the network is not a sequence of layers" in (find.lacking(opaque, member.task) or "")
