"""A preset whose networks are hardly trained shows estimates, and no verdict or outcome anywhere."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from modulab.claims.command import summary
from modulab.claims.evidence import Evidence
from modulab.claims.judgement import judge
from modulab.claims.presets import PRESETS, banner, experiment_overrides
from modulab.claims.registry import CLAIMS
from modulab.claims.report import PAGE, RECORD, write_claims_report
from modulab.claims.run import Experiment
from tests.claims.worlds import simulate, true_world

OUTCOMES = ("holds", "fails", "unclear", "supported", "not supported", "depends", "inconclusive")


@pytest.mark.parametrize("preset", ["smoke", "quick"])
def test_verdicts_and_outcomes_stand_only_where_a_preset_decides(tmp_path: Path, preset: str) -> None:
    claim = replace(
        next(claim for claim in CLAIMS if claim.name == "C1"), draw=lambda evidence: (), tables=()
    )
    random = np.random.default_rng(3)
    results = {name: simulate(name, true_world, random, spread=0.01) for name in claim.experiments}
    experiments = {
        name: Experiment(name, tuple(experiment_overrides(name, preset)), tmp_path / name) for name in results
    }
    judged = judge(claim, {name: Evidence(table) for name, table in results.items()})
    judgements = write_claims_report([judged], experiments, results, preset, "modulab claims", tmp_path)
    record = json.loads((tmp_path / RECORD).read_text())
    page = (tmp_path / PAGE).read_text()
    _, rows, _ = summary(judgements, tmp_path)
    [of_claim] = record["claims"]
    outcomes = [criterion["outcome"] for criterion in of_claim["criteria"]]
    cells = re.findall(r"<td[^>]*>([^<]*)</td>", page)
    badges = re.findall(r'class="badge">([^<]*)<', page)
    assert record["banner"] == banner(preset, PRESETS[preset])
    if preset == "smoke":
        assert record["banner"] in page
        assert of_claim["verdict"] == "not decided (smoke)"
        assert [row[2] for row in rows] == badges == ["not decided (smoke)"]
        assert {"not decided"} <= set(outcomes) <= {"not decided", None}
        assert not set(cells) & set(OUTCOMES)
        assert "<dt>Verdict</dt><dd>Not decided (smoke).</dd>" in page
        assert "criteria hold." not in page
        assert "By that rule" not in page
    else:
        assert 'class="banner"' not in page
        assert of_claim["verdict"] == rows[0][2] == badges[0] == "supported"
        assert "holds" in cells
