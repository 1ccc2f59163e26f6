"""What verdicts do at true effects that lie on a threshold, far from it, and on either side in different settings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import get_args

import numpy as np
import pytest

from modulab.claims.claim import Claim, Setting
from modulab.claims.evidence import Estimate, estimate
from modulab.claims.judgement import describe_settings, judge, verdict_words
from modulab.claims.rules import Criterion, Region, Verdict, decide, decide_settings, judge_all

REPEATS = 200
AT_MOST = 0.05 + 2 * np.sqrt(0.05 * 0.95 / REPEATS)
CLEAR = 20.0


def criterion(found: Estimate) -> Criterion:
    return Criterion("", "", lambda _: found, Region(low=0.0))


def sure(value: float) -> Criterion:
    return criterion(estimate(np.full((5, 1), value), lambda means: means[..., 0]))


def rates(effects: Sequence[float], seeds: int, repeats: int = REPEATS) -> dict[str, float]:
    """Return how often each verdict is given, at effects in standard deviations from their thresholds."""
    random = np.random.default_rng(seeds)
    counts: Counter[str] = Counter()
    for _ in range(repeats):
        values = np.array(effects) + random.normal(size=(seeds, len(effects)))
        found = [estimate(column[:, None], lambda means: means[..., 0]) for column in values.T]
        counts[decide(judge_all([criterion(each) for each in found], {}))] += 1
    return {verdict: counts[verdict] / repeats for verdict in get_args(Verdict)}


@pytest.mark.parametrize("seeds", [5, 10, 20])
@pytest.mark.parametrize("criteria", [1, 2, 4, 7])
def test_effects_on_their_thresholds_give_either_answer_in_at_most_5_of_100(
    criteria: int, seeds: int
) -> None:
    for others in (0.0, CLEAR):
        found = rates([0.0, *[others] * (criteria - 1)], seeds)
        assert found["supported"] <= AT_MOST
        assert found["not supported"] <= AT_MOST


@pytest.mark.parametrize("seeds", [5, 10, 20])
@pytest.mark.parametrize("criteria", [1, 2, 4, 7])
def test_clear_effects_are_supported_and_one_that_clearly_fails_is_not(criteria: int, seeds: int) -> None:
    assert rates([CLEAR] * criteria, seeds, 50)["supported"] > 0.95
    assert rates([-CLEAR, *[CLEAR] * (criteria - 1)], seeds, 50)["not supported"] > 0.95


def test_one_failing_interval_of_several_needs_a_higher_level() -> None:
    values = np.array([-2.9, -1.8, -1.2, -2.4, -0.5])[:, None]
    alone = criterion(estimate(values, lambda means: means[..., 0]))
    assert decide(judge_all([alone], {})) == "not supported"
    assert decide(judge_all([alone, *[sure(1.0)] * 6], {})) == "inconclusive"


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        (["supported", "supported"], "supported"),
        (["not supported", "not supported"], "not supported"),
        (["supported", "not supported", "inconclusive"], "depends"),
        (["supported", "inconclusive"], "inconclusive"),
        (["not supported", "inconclusive"], "inconclusive"),
    ],
)
def test_verdict_over_settings_depends_only_where_both_answers_are_found(
    verdicts: list[Verdict], expected: str
) -> None:
    assert decide_settings(verdicts) == expected


def claim(settings: Sequence[Setting], criteria: Sequence[Criterion] = ()) -> Claim:
    return Claim("C0", "", "", "", "", (), tuple(criteria), lambda _: [], (), settings=tuple(settings))


def test_a_claim_that_holds_in_some_settings_says_in_which() -> None:
    values = {"2": -1.0, "4": 1.0, "8": 1.0}
    settings = [Setting("d", name, (sure(value),), "equal width") for name, value in values.items()]
    found = judge(claim(settings), {})
    assert found.verdict == "depends"
    assert verdict_words(found) == "depends: supported at d = 4 and 8, not at d = 2 (equal width)"
    assert len(found.deciding) == 3


def test_settings_that_differ_in_more_than_one_axis_are_told_apart() -> None:
    settings = [
        Setting("d", "2", (), "equal width"),
        Setting("d", "2", (), "equal parameters"),
        Setting("d", "4", (), "equal parameters"),
    ]
    assert (
        describe_settings(settings, ["not supported", "supported", "inconclusive"])
        == "supported at d = 2 (equal parameters), not at d = 2 (equal width), undecided at d = 4 (equal parameters)"
    )
    assert describe_settings(settings[:1], ["not supported"]) == "not supported at d = 2 (equal width)"


def test_criteria_that_decide_stand_in_settings_or_beside_none() -> None:
    with pytest.raises(ValueError, match="no region"):
        claim([Setting("d", "2", (sure(1.0),))], [sure(1.0)])
