"""Whatever happens to a sweep, the same command again ends in the table of one that nothing happened to."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from modulab.results.store import load_results
from tests.command_line import SMALL, last_given


@pytest.mark.slow
def test_a_sweep_killed_at_any_point_and_resumed_gives_the_table_of_one_that_was_not(tmp_path: Path) -> None:
    own = ["training.steps=800", "training.curve_every=400", "seed=range(3)", "architecture.width=6,7"]
    own += ["trainer.largest_population=2", "trainer.checkpoint_seconds=0", "trainer.progress=off"]
    sweep = last_given(*(setting for setting in SMALL if not setting.startswith("trainer.engine")), *own)
    command = [sys.executable, "-m", "tests.sweep.kill_and_resume", str(tmp_path), "5", *sweep]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert set(load_results(tmp_path)["engine"]) == {"native"}
    report = json.loads(ended.stdout.splitlines()[-1])
    assert report["random"]["struck"] == 5
    assert len(set(report["random"]["seen"])) >= 3, "the kills should strike at different stages"
    assert report["writes"]["struck"] >= 10
    assert report["random"]["lost"] == report["writes"]["lost"] == 0
    assert report["unequal"] == {}
