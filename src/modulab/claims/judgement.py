"""What a run found about each claim, as records from which claims.json and the page are made."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from modulab.claims.claim import Claim
from modulab.claims.evidence import Estimate, Evidence
from modulab.claims.looks import Look, Spent, worth_more_seeds
from modulab.claims.presets import not_decided
from modulab.claims.rules import (
    RULE,
    Criterion,
    Finding,
    Verdict,
    decide,
    decide_settings,
    describe_region,
    judge_all,
)
from modulab.claims.where import describe_settings
from modulab.measure_names import arrow_key, with_arrow
from modulab.results.summary import cells, summarise

_ONLY_LOOK = Look()


@dataclass(frozen=True)
class Judgement:
    """A claim with its findings and the verdict that follows from them."""

    claim: Claim
    findings: tuple[Finding, ...]
    verdict: str
    """A `Verdict`, or that a preset decides none."""
    where: str = ""
    """For a claim that is stated for several settings: in which of them it is supported and in which not."""
    look: Look = _ONLY_LOOK
    """The last look that it needed."""
    networks: frozenset[tuple[str, str]] = frozenset()
    """The networks that the judgement used, by experiment and run_id."""
    spent: Spent | None = None

    @property
    def deciding(self) -> list[Finding]:
        """Return the findings that the verdict rests on."""
        return [finding for finding in self.findings if finding.outcome is not None]

    @property
    def open(self) -> list[Criterion]:
        """Return the criteria that seeds of later looks may decide."""
        return [self.findings[place].criterion for place in self._open_places()]

    @property
    def kept(self) -> list[Finding | None]:
        """Return the findings that stay at later looks, and None where later seeds are still to be judged."""
        places = self._open_places()
        return [None if place in places else finding for place, finding in enumerate(self.findings)]

    def _open_places(self) -> list[int]:
        return [
            part.start + place
            for part in _parts(self.claim)
            for place in worth_more_seeds(self.findings[part], self.look)
        ]


@dataclass(frozen=True)
class TableOfArms:
    """Means and intervals of an experiment's arms, as text."""

    experiment: str
    headings: list[str]
    rows: list[list[str]]

    @property
    def key(self) -> str:
        """Return what the arrows in the headings mean."""
        key = arrow_key(self.headings)
        return f"{key}." if key else ""


def judge(
    claim: Claim, evidence: Mapping[str, Evidence], look: Look = _ONLY_LOOK, before: Judgement | None = None
) -> Judgement:
    """Judge a claim by the evidence of a look, given the findings of the looks before."""
    if not claim.settings:
        findings = judge_all(claim.criteria, evidence, 1, look.planned, before.kept if before else ())
        return Judgement(claim, findings, decide(findings), look=look)
    parts, number = _parts(claim), len(claim.settings)
    each = [
        judge_all(setting.criteria, evidence, number, look.planned, before.kept[part] if before else ())
        for setting, part in zip(claim.settings, parts, strict=True)
    ]
    verdicts: list[Verdict] = [decide(found) for found in each]
    together = tuple(finding for found in each for finding in found)
    beside = before.findings[len(together) :] if before else judge_all(claim.criteria, evidence)
    where = describe_settings(claim.settings, verdicts)
    return Judgement(claim, (*together, *beside), decide_settings(verdicts), where, look)


def _parts(claim: Claim) -> list[slice]:
    """Return where the findings of each setting stand among a claim's, those of a claim without settings in one."""
    if not claim.settings:
        return [slice(0, len(claim.criteria))]
    ends = list(itertools.accumulate(len(setting.criteria) for setting in claim.settings))
    return [slice(start, end) for start, end in zip([0, *ends], ends, strict=False)]


def left_open(judgement: Judgement, preset: str) -> Judgement:
    """Return a judgement of networks of a preset that decides nothing: its estimates without outcomes."""
    findings = tuple(
        finding if finding.outcome is None else replace(finding, outcome="not decided")
        for finding in judgement.findings
    )
    return replace(judgement, findings=findings, verdict=not_decided(preset), where="")


def tables_of(claim: Claim, evidence: Mapping[str, Evidence]) -> list[TableOfArms]:
    """Return the tables that a claim shows."""
    found: list[TableOfArms] = []
    for experiment, condition, measures in claim.tables:
        rows = evidence[experiment].rows(condition)
        present = [measure for measure in measures if measure in rows]
        if len(rows) and present:
            found.append(TableOfArms(experiment, *cells(summarise(rows, None, present))))
    return found


def number(value: float) -> str:
    """Return a number as the page shows it, with three significant digits."""
    if math.isnan(value):
        return "-"
    return f"{value:.3g}" if abs(value) < 1e5 else f"{value:.2e}"


def interval(estimate: Estimate) -> str:
    """Return an estimate with its interval as the page shows it."""
    ends = "" if math.isnan(estimate.low) else f" [{number(estimate.low)}, {number(estimate.high)}]"
    return number(estimate.value) + ends


def effect(finding: Finding) -> str:
    """Return a finding's estimate, in words that distinguish a factor from a difference."""
    times = " times" if finding.criterion.scale == "factor" else ""
    return interval(finding.estimate) + times


def quantity(finding: Finding) -> str:
    """Return the words for what a finding estimates, with an arrow to the better values."""
    return with_arrow(finding.criterion.quantity, finding.criterion.better)


def verdict_words(judgement: Judgement) -> str:
    """Return a verdict in words, and where it holds for a claim that is stated for several settings."""
    return f"{judgement.verdict}: {judgement.where}" if judgement.where else judgement.verdict


def spent(judgement: Judgement) -> str:
    """Return how many networks a verdict needed, in how many looks, and the most that it could have needed."""
    return "-" if judgement.spent is None else str(judgement.spent)


def held(judgement: Judgement) -> str:
    """Return how many of the criteria that decide hold: "6 of 7", unless nothing is decided."""
    if any(finding.outcome == "not decided" for finding in judgement.deciding):
        return "not decided"
    number = sum(finding.outcome == "holds" for finding in judgement.deciding)
    return f"{number} of {len(judgement.deciding)}"


def finding_row(finding: Finding) -> list[str]:
    """Return a finding as the page's table shows it: in words, estimated, predicted, its region, seeds, outcome."""
    criterion = finding.criterion
    return [
        criterion.statement,
        quantity(finding),
        effect(finding),
        criterion.predicted,
        describe_region(criterion),
        str(finding.estimate.seeds),
        finding.outcome or "reported",
    ]


def as_record(
    judgement: Judgement,
    experiments: Sequence[Mapping[str, Any]],
    tables: Sequence[TableOfArms],
    figures: Sequence[Mapping[str, str]],
) -> dict[str, Any]:
    """Return a judgement as it stands in claims.json, where a number that is not finite is null."""
    claim = judgement.claim
    return {
        "claim": claim.name,
        "title": claim.title,
        "hypothesis": claim.hypothesis,
        "measure": claim.measure,
        "comparison": claim.comparison,
        "rule": RULE,
        "verdict": judgement.verdict,
        "where": judgement.where,
        "networks": None
        if judgement.spent is None
        else {**asdict(judgement.spent), "shown": str(judgement.spent)},
        "criteria that hold": held(judgement),
        "criteria": [_finding_record(finding) for finding in judgement.findings],
        "experiments": list(experiments),
        "caveats": list(claim.caveats),
        "prediction": claim.prediction,
        "first rule": None if claim.first_rule is None else asdict(claim.first_rule),
        "later rules": [asdict(rule) for rule in claim.later_rules],
        "figures": list(figures),
        "tables": [
            {"experiment": table.experiment, "headings": table.headings, "rows": table.rows}
            for table in tables
        ],
    }


def _finding_record(finding: Finding) -> dict[str, Any]:
    criterion, region = finding.criterion, finding.criterion.region
    return {
        "statement": criterion.statement,
        "quantity": criterion.quantity,
        "better": criterion.better,
        "scale": criterion.scale,
        "value": _finite(finding.estimate.value),
        "low": _finite(finding.estimate.low),
        "high": _finite(finding.estimate.high),
        "seeds": finding.estimate.seeds,
        "region": None if region is None else [_finite(region.low), _finite(region.high)],
        "predicted": criterion.predicted,
        "outcome": finding.outcome,
        "shown": finding_row(finding),
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
