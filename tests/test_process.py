"""A call of modulab.train leaves the process as it found it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from modulab.process import settings_kept
from tests.forked_calls import Calls, forked_calls
from tests.process_state import differences, state

ROOT = Path(__file__).parents[1]
COMPILING = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("g++") is None, reason="compiling needs a C++ compiler"),
]


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder for compiled steps, which all but the cases that compile share."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def prepared() -> Iterator[Calls]:
    with forked_calls("tests.process_checks") as calls:
        yield calls


def call(case: str, engine: str, folder: Path, cache: Path, prepared: Calls) -> dict[str, Any]:
    """Return what a call of modulab.train in a new process changed there, and whether it failed as it should."""
    words = [case, engine, str(folder / "run"), str(cache)]
    if case != "first":
        return prepared.call(*words)
    ran = subprocess.run(
        [sys.executable, "-m", "tests.process_checks", *words],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout.splitlines()[-1])


CASES: list[Any] = [(case, "eager") for case in ("plain", "own", "thread", "interrupted")]
# The first call of a process imports torch: the other cases begin after that.
CASES += [pytest.param("first", "eager", marks=pytest.mark.slow)]
# A regulariser of one's own is compiled as any other step is.
CASES += [
    pytest.param(case, engine, marks=COMPILING)
    for engine, cases in (("compiled", ("first", "plain")), ("native", ("plain", "thread", "interrupted")))
    for case in cases
]


@pytest.mark.parametrize(("case", "engine"), CASES)
def test_training_leaves_the_process_as_it_found_it(
    case: str, engine: str, tmp_path: Path, compiled: Path, prepared: Calls
) -> None:
    # The first compiled case fills the folder that the others load their steps from.
    own = engine == "eager" and case in ("first", "own")
    found = call(case, engine, tmp_path, tmp_path / "cache" if own else compiled, prepared)
    assert found["changed"] == {}, sorted(found["changed"])
    assert found["raised"] == (case == "interrupted")


def test_a_call_that_fails_leaves_the_process_as_it_found_it(tmp_path: Path, prepared: Calls) -> None:
    found = call("misspelt", "eager", tmp_path, tmp_path, prepared)
    assert found["changed"] == {}, sorted(found["changed"])
    assert found["raised"]


def test_differences_name_what_was_changed_and_not_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    threads, before = torch.get_num_threads(), state()
    monkeypatch.setenv("MODULAB_OWN", "1")
    torch.set_num_threads(threads + 1)
    try:
        torch.rand(1)
        assert set(differences(before, state())) == {
            "os.environ[MODULAB_OWN]",
            "torch threads",
            "torch random",
        }
    finally:
        torch.set_num_threads(threads)


def test_calls_of_several_threads_take_turns() -> None:
    inside: list[int] = []
    most: list[int] = []

    def enter(number: int) -> None:
        with settings_kept():
            inside.append(number)
            threading.Event().wait(0.01)
            most.append(len(inside))
            inside.remove(number)

    threads = [threading.Thread(target=enter, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1, 1, 1, 1]
