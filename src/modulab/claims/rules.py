"""How a claim is decided: criteria that were fixed before anything was run, and verdicts that follow from them.

A criterion is a quantity, and the region in which it must lie for the claim to hold. Its region leaves out
not only 0 but every effect too small to matter, so a claim cannot be upheld by many seeds alone.

The rule errs to either side with a probability of at most 5%, whatever the number of criteria:

- *Supported* says that every criterion is true. This is an intersection-union test (Berger, Technometrics 24, 1982,
  295-300): if any criterion is false, its own interval must err for the claim to be supported, so each criterion is
  tested at the full level. For a region with two ends it is Schuirmann's two one-sided tests (1987).
- *Not supported* says that at least one criterion is false. Any of K intervals may err, so each has the level
  1 - 5% / K (Bonferroni; to find whether there is any false criterion, Holm's procedure is the same).

Where one criterion lies on its threshold and the others clearly hold, both errors are 2.5% at most, the second divided
by K. Where several lie on their thresholds, "supported" becomes rarer still, and "not supported" stays below
its bound; most verdicts are then "inconclusive".

Where seeds are added look by look (modulab.claims.looks), each look has an equal share of the 5%.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from modulab.claims.evidence import Estimate, Evidence
from modulab.measure_names import Better
from modulab.results.intervals import LEVEL

Outcome = Literal["holds", "fails", "unclear", "not decided"]
Verdict = Literal["supported", "not supported", "depends", "inconclusive"]
Scale = Literal["difference", "factor"]

ERROR_RATE = 1 - LEVEL

RULE = (
    "A claim is supported if the 95% interval over seeds of every criterion lies entirely inside the criterion's "
    "region. It is not supported if the interval of any criterion lies entirely outside, where the error of 5% is "
    "divided by the number of criteria. Otherwise it is inconclusive. A claim that is stated for several settings "
    "depends on the setting if it is supported in some settings and not supported in others; settings have equal "
    "shares of the 5%. Networks are trained in a planned number of looks, and only criteria that are undecided, but "
    "may still be decided, get more seeds. Looks have equal shares of the 5%, so the intervals of all looks hold "
    "together. Quantities without a region are estimated with the seeds of the first look and decide nothing."
)


@dataclass(frozen=True)
class Region:
    """The values of a quantity for which a criterion holds, ends left out."""

    low: float = -math.inf
    high: float = math.inf


@dataclass(frozen=True)
class Criterion:
    """One thing that a claim says about a quantity; without a region it is reported only."""

    statement: str
    quantity: str
    find: Callable[[Mapping[str, Evidence]], Estimate]
    """Estimates the quantity from each experiment's evidence; of a factor, its logarithm."""
    region: Region | None = None
    """In the quantity's own units: of a factor, not its logarithm."""
    scale: Scale = "difference"
    predicted: str = ""
    """What theory says of the quantity, in words or numbers; empty if it says nothing."""
    better: Better | None = None
    """Which way the quantity is better, as a smaller error is; None if neither way is."""


@dataclass(frozen=True)
class Finding:
    """A criterion after the experiment, in the quantity's own units."""

    criterion: Criterion
    estimate: Estimate
    outcome: Outcome | None
    """None where the criterion decides nothing."""


def judge_all(
    criteria: Sequence[Criterion],
    evidence: Mapping[str, Evidence],
    settings: int = 1,
    looks: int = 1,
    kept: Sequence[Finding | None] = (),
) -> tuple[Finding, ...]:
    """Judge the criteria of a claim, or of one of several settings of it, by the evidence of a look.

    `kept` has a place for each criterion, with its finding of an earlier look where that one stays.
    """
    deciding = sum(criterion.region is not None for criterion in criteria)
    share = ERROR_RATE / looks
    holds, fails = 1 - share / settings, 1 - share / settings / max(1, deciding)
    return tuple(
        before or judge_criterion(criterion, evidence, holds, fails, 1 - share)
        for criterion, before in zip(criteria, kept or [None] * len(criteria), strict=True)
    )


def judge_criterion(
    criterion: Criterion,
    evidence: Mapping[str, Evidence],
    holds: float = LEVEL,
    fails: float = LEVEL,
    shown: float = LEVEL,
) -> Finding:
    """Judge a criterion by intervals at the levels at which it holds and fails.

    The finding has the interval at the level to be shown; of a quantity without a region, the 95% interval.
    """
    found = criterion.find(evidence)
    inner, outer = (_shown(criterion, found.interval(level)) for level in (holds, fails))
    if criterion.region is not None:
        low, high = found.interval(shown)
        found = replace(found, low=low, high=high)
    if criterion.scale == "factor":
        value, low, high = _shown(criterion, (found.value, found.low, found.high))
        found = Estimate(value, low, high, found.seeds)
    if criterion.region is None:
        return Finding(criterion, found, None)
    region = criterion.region
    outcome: Outcome = "unclear"
    if region.low < inner[0] and inner[1] < region.high:
        outcome = "holds"
    elif outer[1] <= region.low or outer[0] >= region.high:
        outcome = "fails"
    return Finding(criterion, found, outcome)


def _shown(criterion: Criterion, values: tuple[float, ...]) -> tuple[float, ...]:
    """Return values in the quantity's own units."""
    return tuple(_exp(value) for value in values) if criterion.scale == "factor" else values


def _exp(value: float) -> float:
    return math.exp(value) if value < 700 else math.inf


def decide(findings: Sequence[Finding]) -> Verdict:
    """Return the verdict that criteria add up to. Raises: ValueError if none of them decides anything."""
    outcomes = [finding.outcome for finding in findings if finding.outcome is not None]
    if not outcomes:
        raise ValueError("a claim needs at least one criterion with a region")
    if "fails" in outcomes:
        return "not supported"
    return "supported" if set(outcomes) == {"holds"} else "inconclusive"


def decide_settings(verdicts: Sequence[Verdict]) -> Verdict:
    """Return the verdict that those of a claim's settings add up to."""
    found = set(verdicts)
    if {"supported", "not supported"} <= found:
        return "depends"
    return verdicts[0] if len(found) == 1 else "inconclusive"


def describe_region(criterion: Criterion) -> str:
    """Return a criterion's region in words."""
    region = criterion.region
    if region is None:
        return "reported only"
    times = " times" if criterion.scale == "factor" else ""
    if math.isinf(region.high):
        return f"above {region.low:.3g}{times}"
    if math.isinf(region.low):
        return f"below {region.high:.3g}{times}"
    return f"between {region.low:.3g} and {region.high:.3g}{times}"
