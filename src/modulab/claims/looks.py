"""Seeds look by look: more of them where a criterion is undecided, by a plan that leaves verdicts valid.

The design is group sequential (Pocock, Biometrika 64, 1977, 191-199). A preset plans a few looks, each with more
seeds than the one before; the first has the seeds that were asked for, and the last is the ceiling. A criterion is
judged at each look until it is decided, by an interval whose error rate is 5% divided by the number of looks. By
Bonferroni's inequality the intervals of all looks then cover together with at least 95% (repeated confidence
intervals: Jennison and Turnbull, Journal of the Royal Statistical Society B 51, 1989, 305-361), whatever rule stops
them, so both error rates of modulab.claims.rules hold. Boundaries that use how looks are correlated would be
4% narrower (an error rate of 2.2% instead of 1.7% at each of three looks), but are derived for means of normal data.
Many statistics of claims are not means: the greater of two, a rank correlation, the place where a curve crosses a
level. Confidence sequences, which hold at every number of seeds (Waudby-Smith et al., Annals of Statistics 52, 2024,
2613-2640), are for means too, hold asymptotically, and would be wider at the few looks that are taken.

Seeds are not spent where they cannot be expected to decide. A criterion whose estimate lies nearer to an end of its
region than half of the half-width that its interval would have at the ceiling would be decided there with a probability
of about one in ten at most, if the estimate were the truth (stochastic curtailment: Lan, Simon and Halperin,
Communications in Statistics C 1, 1982, 207-219). It stays undecided, which errs to neither side.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from modulab.claims.rules import Finding, decide

_SHARE_OF_HALF_WIDTH = 0.5


@dataclass(frozen=True)
class Look:
    """One of the planned looks, and the number of seeds at each over that at the first."""

    number: int = 1
    multiples: tuple[int, ...] = (1,)

    @property
    def planned(self) -> int:
        """Return how many looks there may be."""
        return len(self.multiples)

    @property
    def seeds(self) -> int:
        """Return the number of seeds of this look over that of the first."""
        return self.multiples[self.number - 1]

    @property
    def growth(self) -> float:
        """Return the number of seeds at the ceiling over that of this look."""
        return self.multiples[-1] / self.seeds


@dataclass(frozen=True)
class Spent:
    """How many networks a verdict took, at how many looks, and how many of each there might have been."""

    networks: int
    looks: int
    most_networks: int
    most_looks: int

    def __str__(self) -> str:
        """Return the four numbers in words."""
        looks = f"{self.looks} of {self.most_looks} looks" if self.most_looks > 1 else "1 look"
        return f"{self.networks} in {looks}, at most {self.most_networks}"


def worth_more_seeds(findings: Sequence[Finding], look: Look) -> list[int]:
    """Return the places of a setting's findings that seeds of later looks may decide, and the setting by them.

    Where one finding can no longer be decided, the setting cannot be supported; only a criterion whose estimate lies
    outside its region may still decide it.
    """
    if look.growth == 1 or decide(findings) != "inconclusive":
        return []
    unclear = [place for place, finding in enumerate(findings) if finding.outcome == "unclear"]
    able = [place for place in unclear if _may_be_decided(findings[place], look.growth)]
    if len(able) == len(unclear):
        return able
    return [place for place in able if _leans_to_fail(findings[place])]


def _may_be_decided(finding: Finding, growth: float) -> bool:
    """Return whether a later interval may be expected to lie to one side of the end of the region it now contains."""
    region, found = finding.criterion.region, finding.estimate
    assert region is not None
    value, low, high, *ends = (
        _on_fitted_scale(finding, number)
        for number in (found.value, found.low, found.high, region.low, region.high)
    )
    end = min(ends, key=lambda each: abs(each - value))
    half_width = high - value if end > value else value - low
    return abs(end - value) >= _SHARE_OF_HALF_WIDTH * half_width / math.sqrt(growth)


def _on_fitted_scale(finding: Finding, number: float) -> float:
    """Return a number on the scale that intervals are symmetric on: of a factor, its logarithm."""
    if finding.criterion.scale != "factor" or not math.isfinite(number):
        return number
    return math.log(number) if number > 0 else -math.inf


def _leans_to_fail(finding: Finding) -> bool:
    region = finding.criterion.region
    assert region is not None
    return not region.low < finding.estimate.value < region.high
