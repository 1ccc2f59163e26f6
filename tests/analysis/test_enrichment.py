from __future__ import annotations

import numpy as np
import pytest
import torch

from modulab.analysis.enrichment import richest
from modulab.networks.perceptron import flatten
from tests.analysis.blocks import block, clusters, members, shipped


def test_richest_expert_is_counted_against_the_expected_number() -> None:
    labels = np.array([0, 0, 0, 0, 1, 1, 2, 2, -1])
    scores = np.array([[9, 9, 0, 0, 0, 0, 0, 0, 99], [0, 0, 0, 0, 9, 9, 0, 0, 99]], dtype=float).T
    # Two of eight units are drawn: an expert of four is expected to hold one of them, an expert of two a half.
    assert richest(labels, scores, 0.25) == pytest.approx((2 / 1 + 2 / 0.5) / 2)
    assert np.isnan(richest(np.full(3, -1), scores[:3], 0.25))


def test_experts_that_each_hold_the_units_of_one_modules_function_are_all_enriched() -> None:
    # Sine and parabola of x_1 and x_2: units that read x_1 alone tell the first, and those of |x_2| the second.
    some = members(2, architecture__width=16, probes__num_samples=256)
    generator = torch.Generator().manual_seed(0)
    reads = torch.cat([torch.eye(2)[:1].expand(8, -1), torch.eye(2)[1:].expand(8, -1)])
    reads = (reads + 0.01 * torch.randn(16, 2, generator=generator)).expand(2, -1, -1).contiguous()
    weights = [reads, torch.ones(2, 2, 16)]
    biases = [torch.cat([torch.full((8,), 1.5), torch.full((8,), -0.5)]).expand(2, -1), torch.zeros(2, 2)]
    trained = block(some, flatten(weights, biases))
    fields = {"labels": clusters(2, restarts=4), "top_fraction": 0.4, "partitions": 40}
    found = shipped("enrichment", **fields).take(trained)
    assert found["share"].tolist() == [1, 1]
    # All 6 of the most predictive units of each function are in one expert, where 3 are expected.
    assert found["times"].tolist() == [2, 2]
    assert (found["times_random"] < 1.6).all()
    assert (found["share_random"] < 0.2).all()
    assert (found["p"] < 0.1).all()
