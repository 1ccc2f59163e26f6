"""`modulab claims --map`, run as people run it."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

import modulab
from tests.command_line import Command, WholeCommand


@pytest.mark.slow
def test_a_smoke_map_draws_trains_nothing_twice_and_says_that_it_decides_nothing(
    tmp_path: Path, whole_command: WholeCommand
) -> None:
    command = ["claims", "--map", "--preset", "smoke", "--only", "C6a", "--folder", str(tmp_path)]
    ran = whole_command(command, tmp_path)
    assert ran.returncode == 0, ran.stderr
    page, record = (tmp_path / "map.html").read_text(), json.loads((tmp_path / "map.json").read_text())
    assert "The preset smoke only tests that everything runs." in page
    assert "The preset smoke only tests that everything runs." in ran.stdout
    assert all(each["opening"].endswith(": not decided (smoke).") for each in record["maps"])
    assert [each["claim"] for each in record["maps"]] == ["C6a", "C6a"]
    for each in record["maps"]:
        assert each["opening"].split(":")[0] in page
        assert each["claim"] in ran.stdout
    for name in ("map_C6a", "map_C6a_degree"):
        assert (tmp_path / f"{name}.png").stat().st_size > 1000
        assert (tmp_path / f"{name}.svg").stat().st_size > 1000
        assert {"place", "setting"} == set(pd.read_csv(tmp_path / f"{name}.csv")["shown"])
    experiments = ("robustness", "robustness_degree")
    results = {name: modulab.load_results(tmp_path / "maps" / name) for name in experiments}
    assert [len(table) for table in results.values()] == [32, 32]
    again = whole_command(command, tmp_path)
    assert again.returncode == 0, again.stderr
    for name, table in results.items():
        pd.testing.assert_frame_equal(modulab.load_results(tmp_path / "maps" / name), table)
    assert (tmp_path / "map.html").read_text() == page


def test_a_claim_without_a_map_is_refused_in_one_line(command: Command) -> None:
    code, _, errors = command("claims", "--map", "--only", "C2")
    assert code == 2
    assert "there is no map of such a claim" in errors
    assert len(errors.splitlines()) == 1
