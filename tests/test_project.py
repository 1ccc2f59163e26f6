"""`modulab init` writes a project that runs as its README says."""

from __future__ import annotations

from pathlib import Path

import pytest

from modulab.errors import ConfigError
from modulab.project import STARTER, begin_project
from modulab.results.store import load_results
from tests.command_line import WholeCommand
from tests.test_readme import commands_of, run_together


@pytest.mark.slow
def test_a_project_runs_as_its_readme_says(tmp_path: Path, whole_command: WholeCommand) -> None:
    folder = tmp_path / "mine"
    written = begin_project(folder)
    assert {folder / name for name in written} == {path for path in folder.rglob("*") if path.is_file()}
    run_together(commands_of((folder / "README.md").read_text()), folder, whole_command)
    rows = load_results(folder / "outputs/noise")
    assert rows["status"].tolist() == ["completed"] * 12
    assert (rows["weights/norm"] > 0).all()
    # A network that gives each module the mean of its larger numbers, 1/3, has error 2/9.
    assert (rows["error/test"] < 2 / 9 / 4).all()
    assert (folder / "outputs/noise/report/report.html").is_file()


def test_readme_of_a_project_names_its_files(tmp_path: Path) -> None:
    text = (STARTER / "README.md").read_text()
    assert all(str(name) in text for name in begin_project(tmp_path) if name.name != "README.md")


def test_files_that_are_there_are_never_written_over(tmp_path: Path) -> None:
    (tmp_path / "norms.py").write_text("mine")
    with pytest.raises(ConfigError, match=r"norms\.py: there already"):
        begin_project(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["norms.py"]
