"""What verdicts do at true effects that lie on a threshold, far from it, and on either side in different settings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import get_args

import numpy as np
import pytest

from modulab.claims.claim import Claim, Setting
from modulab.claims.evidence import Estimate, estimate
from modulab.claims.judgement import judge, verdict_words
from modulab.claims.rules import Criterion, Region, Verdict, decide, decide_settings, judge_all
from modulab.claims.where import describe_settings

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
    settings = [
        Setting({"modules": name, "compared at": "equal width"}, (sure(value),))
        for name, value in values.items()
    ]
    found = judge(claim(settings), {})
    assert found.verdict == "depends"
    assert verdict_words(found) == "depends: modules 2: not supported; modules 4 and 8: supported"
    assert len(found.deciding) == 3


def test_the_axis_that_tells_verdicts_apart_is_named_first() -> None:
    settings = [
        Setting({"modules": modules, "compared at": match, "noise": noise}, ())
        for modules in ("2", "4")
        for match in ("width", "parameters")
        for noise in ("0", "0.2")
    ]
    by_match: list[Verdict] = [
        "supported" if setting.at["compared at"] == "parameters" else "not supported" for setting in settings
    ]
    assert describe_settings(settings, by_match) == (
        "compared at width: not supported; compared at parameters: supported"
    )
    by_both: list[Verdict] = [
        "supported"
        if setting.at["compared at"] == "parameters" or setting.at["modules"] == "4"
        else "not supported"
        for setting in settings
    ]
    assert describe_settings(settings, by_both) == (
        "modules 2 (compared at width: not supported; compared at parameters: supported); modules 4: supported"
    )
    assert describe_settings(settings, ["supported"] * 8) == ""
    by_three: list[Verdict] = ["not supported", *["supported"] * 7]
    assert "supported in 1 and not supported in 1 of 2 settings" in describe_settings(settings, by_three)


def test_criteria_that_decide_stand_in_settings_or_beside_none() -> None:
    with pytest.raises(ValueError, match="no region"):
        claim([Setting({"modules": "2"}, (sure(1.0),))], [sure(1.0)])
