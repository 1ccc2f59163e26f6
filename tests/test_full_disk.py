"""A full disk ends a command in one line that names the file, and the same command resumes."""

from __future__ import annotations

import resource
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pytest

from modulab.errors import naming
from modulab.results.store import load_results
from tests.command_line import SMALL, Command


@contextmanager
def largest_file(size: int) -> Generator[None]:
    """Let no file grow beyond a number of bytes: the system then answers as it does on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize(
    ("words", "size"),
    [
        (["-m", "seed=range(3)", "hydra.sweep.dir=out"], 5_000),  # before training
        (["population.seeds=3", "hydra.run.dir=out"], 20_000),  # after
    ],
)
def test_training_that_cannot_be_written_is_said_and_resumes_to_the_same_numbers(
    command: Command, words: list[str], size: int
) -> None:
    given = ["train", *words, *SMALL]
    with largest_file(size):
        code, _, err = command(*given)
    *_, last = err.splitlines()
    assert code == 2, err
    assert last.startswith("error: ")
    assert "out/" in last
    assert "File too large" in last
    assert "Error executing job" not in err
    code, _, err = command(*given)
    assert code == 0, err
    resumed = load_results(Path("out"))
    assert command("train", "population.seeds=3", "hydra.run.dir=whole", *SMALL)[0] == 0
    whole = load_results(Path("whole"))
    numbers = [name for name in whole.select_dtypes("number") if name != "seconds"]
    one, other = (each.set_index("run_id").sort_index() for each in (resumed, whole))
    pd.testing.assert_frame_equal(one[numbers], other[numbers])


def test_reports_and_projects_that_cannot_be_written_name_the_file(command: Command) -> None:
    assert command("train", *SMALL, "hydra.run.dir=out")[0] == 0
    with largest_file(500):
        for given, file in [
            (["report", "out", "--output", "page"], "page/"),
            (["init", "project"], "project/"),
            (["export", "out", "--to", "weights"], "weights/"),
        ]:
            code, _, err = command(*given)
            *_, last = err.splitlines()
            assert (code, last[:7]) == (2, "error: "), err
            assert file in last
            assert "File too large. Free some space" in last
    # Of a project that could not be written whole, nothing is left that would be in the way.
    assert command("init", "project")[0] == 0


def test_an_error_of_a_full_disk_names_the_file_and_another_error_its_own(tmp_path: Path) -> None:
    with (
        largest_file(10),
        pytest.raises(OSError, match=r"File too large: '.*/a\.csv'"),
        naming(tmp_path / "a.csv"),
    ):
        (tmp_path / "a.csv").write_text("more than ten letters")
    with pytest.raises(FileNotFoundError, match=r"none/b\.csv"), naming(tmp_path / "a.csv"):
        (tmp_path / "none" / "b.csv").touch()
