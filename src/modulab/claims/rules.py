"""How a claim is decided: criteria that were fixed before anything was run, and verdicts that follow from them.

A criterion is a quantity, and the region in which it must lie for the claim to hold. Its region leaves out
not only 0 but every effect too small to matter, so that a claim cannot be upheld by many seeds alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from modulab.claims.evidence import Estimate, Evidence

Outcome = Literal["holds", "fails", "unclear"]
Verdict = Literal["supported", "not supported", "inconclusive"]
Scale = Literal["difference", "factor"]

RULE = (
    "A criterion holds if the 95% bootstrap interval over seeds lies wholly inside its region, and fails if "
    "wholly outside. The claim is supported if every criterion holds, not supported if any fails, and "
    "inconclusive otherwise. Quantities without a region are reported and decide nothing."
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
    """What theory says of the quantity, in words or numbers; empty where it says nothing."""
    condition: Mapping[str, str] = field(default_factory=dict[str, str])
    """Of a claim that is asked under several conditions: the one that this criterion is about, by axis."""


@dataclass(frozen=True)
class Finding:
    """A criterion after the experiment, in the quantity's own units."""

    criterion: Criterion
    estimate: Estimate
    outcome: Outcome | None
    """None where the criterion decides nothing."""


def judge_criterion(criterion: Criterion, evidence: Mapping[str, Evidence]) -> Finding:
    """Return what the evidence says of a criterion."""
    found = criterion.find(evidence)
    if criterion.scale == "factor":
        found = Estimate(_exp(found.value), _exp(found.low), _exp(found.high), found.seeds)
    if criterion.region is None:
        return Finding(criterion, found, None)
    region = criterion.region
    outcome: Outcome = "unclear"
    if region.low < found.low and found.high < region.high:
        outcome = "holds"
    elif found.high <= region.low or found.low >= region.high:
        outcome = "fails"
    return Finding(criterion, found, outcome)


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


def describe_region(criterion: Criterion) -> str:
    """Return a criterion's region in words."""
    region = criterion.region
    if region is None:
        return "reported only"
    times = " times" if criterion.scale == "factor" else ""
    if math.isinf(region.high):
        return f"above {region.low:g}{times}"
    if math.isinf(region.low):
        return f"below {region.high:g}{times}"
    return f"between {region.low:g} and {region.high:g}{times}"
