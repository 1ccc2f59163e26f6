"""A report on claims is drawn again where it would differ, and only there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from modulab.claims.evidence import Evidence
from modulab.claims.judgement import judge
from modulab.claims.presets import experiment_overrides
from modulab.claims.registry import CLAIMS
from modulab.claims.report import PAGE, RECORD, write_claims_report
from modulab.claims.run import Experiment
from modulab.report.figure import ReportFigure
from tests.claims.worlds import simulate, true_world


def test_a_report_is_drawn_again_only_where_what_it_shows_has_changed_or_is_missing(tmp_path: Path) -> None:
    drawn: list[str] = []

    def draw(evidence: Mapping[str, Evidence]) -> list[ReportFigure]:
        drawn.append(", ".join(evidence))
        return [ReportFigure("one", "One", "", Figure(), pd.DataFrame({"value": [1.0]}))]

    claim = replace(next(claim for claim in CLAIMS if claim.name == "C1"), draw=draw, tables=())
    random = np.random.default_rng(3)
    results = {name: simulate(name, true_world, random, spread=0.01) for name in claim.experiments}
    experiments = {
        name: Experiment(name, tuple(experiment_overrides(name, "quick")), tmp_path / name)
        for name in results
    }

    def write(results: Mapping[str, pd.DataFrame], command: str = "modulab claims") -> int:
        """Return how often a report on these results has been drawn."""
        judged = judge(claim, {name: Evidence(table) for name, table in results.items()})
        write_claims_report([judged], experiments, results, "quick", command, tmp_path)
        return len(drawn)

    assert [write(results), write(results)] == [1, 1]
    for kept in (PAGE, RECORD, "one.png", "one.svg", "one.csv"):
        before = (tmp_path / kept).read_bytes()
        (tmp_path / kept).unlink()
        drawn.clear()
        assert write(results) == 1
        assert (tmp_path / kept).read_bytes() == before
    (tmp_path / RECORD).write_text("{")
    drawn.clear()
    assert write(results) == 1
    assert write(results, "modulab claims --only C1") == 2
    first = claim.experiments[0]
    changed = {**results, first: results[first].assign(engine="eager")}
    assert [write(changed), write(changed)] == [3, 3]
