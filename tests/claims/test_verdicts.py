"""The rules uphold no claim by chance, and every claim that is plainly true."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from functools import cache

import numpy as np
import pytest

from modulab.claims import evidence
from modulab.claims.claim import Claim
from modulab.claims.evidence import Evidence
from modulab.claims.judgement import Judgement, judge
from modulab.claims.registry import CLAIMS
from modulab.claims.spending import networks_of
from modulab.results import intervals
from tests.claims.worlds import null_world, planned, shuffle_arms, simulate, true_world

REPEATS = 100


@pytest.fixture
def fewer_draws(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Take a quarter of the usual draws for an interval: noise of its own, in no arm's favour, for speed."""
    for module in (intervals, evidence):
        monkeypatch.setattr(module, "DRAWS", 1000)
    intervals.multiplier_weights.cache_clear()
    yield
    intervals.multiplier_weights.cache_clear()


def verdicts(claim: Claim, make) -> Counter[str]:
    """Return how often each verdict is given over repeats of a claim's experiments."""
    random = np.random.default_rng(7)
    return Counter(
        judge(claim, {name: Evidence(make(name, random)) for name in claim.experiments}).verdict
        for _ in range(REPEATS)
    )


@cache
def judged(name: str, world) -> Judgement:
    claim = next(claim for claim in CLAIMS if claim.name == name)
    random = np.random.default_rng(3)
    tables = {name: Evidence(simulate(name, world, random, spread=0.01)) for name in claim.experiments}
    return judge(claim, tables)


@pytest.mark.slow
@pytest.mark.usefixtures("fewer_draws")
@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.name)
def test_identical_arms_are_called_supported_in_at_most_5_of_100_repeats(claim: Claim) -> None:
    found = verdicts(claim, lambda name, random: simulate(name, null_world, random))
    assert found["supported"] <= 5


@pytest.mark.slow
@pytest.mark.usefixtures("fewer_draws")
@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.name)
def test_shuffled_arms_are_called_supported_in_at_most_5_of_100_repeats(claim: Claim) -> None:
    found = verdicts(claim, lambda name, random: shuffle_arms(simulate(name, true_world, random), random))
    assert found["supported"] <= 5


@pytest.mark.slow
@pytest.mark.usefixtures("fewer_draws")
@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.name)
def test_large_effects_are_called_supported_in_at_least_95_of_100_repeats(claim: Claim) -> None:
    found = verdicts(claim, lambda name, random: simulate(name, true_world, random, spread=0.01))
    assert found["supported"] >= 95


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.name)
def test_every_criterion_finds_its_arms_and_gives_an_interval(claim: Claim) -> None:
    for finding in judged(claim.name, true_world).findings:
        assert math.isfinite(finding.estimate.value), finding.criterion.statement
        assert finding.estimate.low <= finding.estimate.value <= finding.estimate.high
        assert finding.estimate.seeds >= 5


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.name)
def test_every_criterion_that_decides_names_its_networks_before_they_are_trained(claim: Claim) -> None:
    evidence = {name: Evidence(planned(name, "quick").assign(status="missing")) for name in claim.experiments}
    for criterion in claim.deciding:
        assert len(networks_of([criterion], evidence)) >= 10, criterion.statement


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.name)
def test_a_claim_that_is_plainly_true_is_supported_and_one_without_effect_is_not(claim: Claim) -> None:
    assert judged(claim.name, true_world).verdict == "supported"
    assert judged(claim.name, null_world).verdict != "supported"
