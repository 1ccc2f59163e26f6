"""What a claim is: its words, its experiments, its criteria and the figures that show it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from modulab.claims.evidence import Condition, Evidence
from modulab.claims.rules import Criterion
from modulab.report.figure import ReportFigure

Draw = Callable[[Mapping[str, Evidence]], Sequence[ReportFigure]]


@dataclass(frozen=True)
class Claim:
    """A claim, complete before its experiments are run."""

    name: str
    """As science and command line call it: C1."""
    title: str
    hypothesis: str
    measure: str
    """What is measured, in words."""
    comparison: str
    """What is compared with what, in words."""
    experiments: tuple[str, ...]
    """Names of the experiments under configs/experiment/claims/."""
    criteria: tuple[Criterion, ...]
    draw: Draw
    caveats: tuple[str, ...]
    tables: tuple[tuple[str, Condition, tuple[str, ...]], ...] = ()
    """For each table of the report: an experiment, which of its networks, and the measures to show of them."""
