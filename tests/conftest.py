"""Fixtures of all tests."""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import jaxtyping
import pytest
from hypothesis import settings

from tests.command_line import Command, WholeCommand
from tests.equal_compositions import save_equal_work
from tests.forked_calls import forked_calls
from tests.type_checks import check_annotations

if "PYTEST_XDIST_WORKER" in os.environ or not any(each.startswith(("-n", "--numproc")) for each in sys.argv):
    # The process that hands tests out to others need not wait for it. Others import it before any module of modulab:
    # what checked modules import is compiled anew instead of read from __pycache__.
    import lightning.pytorch  # noqa: F401

check_annotations()

# Looking for garbage among all that was imported, again and again, takes a twentieth of the time of the tests.
gc.disable()

# Else each process that compiles by TorchInductor first compiles and loads five small libraries, to see whether the
# compiler knows the processor's vector instructions. The test of the compiled engine has that done.
os.environ.setdefault("TORCHINDUCTOR_VEC_ISA_OK", "1")

# A test passes however busy the machine is, and draws the same examples every time.
settings.register_profile("modulab", deadline=None, derandomize=True)
settings.load_profile("modulab")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # Shells start what they run in the background deaf to Ctrl-C, and tests press it on processes of their own.
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:  # by nohup
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


LONGEST = (
    "test_slurm_cluster", "test_readme", "test_memory", "test_verdicts", "test_ray_cluster", "test_compiled",
    "test_search", "test_golden", "test_native", "test_benchmark", "test_hostile_folder", "test_fuzzed_commands",
    "test_refused_commands", "test_compiled_step", "test_bad_input", "test_resuming", "test_experts", "test_packing",
    "test_process",
)  # fmt: skip
"""The files that take longest, each from half a minute on: by processor time, and those that wait for clusters early.

One worker waits while the others compute; at the end there would be nothing left to compute.
"""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put long files first, and those with slow tests next, so that no process is left with a long one at the end."""
    places = {name: place for place, name in enumerate(LONGEST)}
    slow = {
        item.path for item in items if item.get_closest_marker("slow") or item.get_closest_marker("slurm")
    }
    items.sort(key=lambda item: (places.get(item.path.stem, len(places)), item.path not in slow))


def pytest_collection_finish() -> None:
    """Begin to look for garbage, more rarely than by default."""
    gc.set_threshold(20_000, 20, 20)
    gc.enable()


@pytest.fixture(scope="session", autouse=True)
def _equal_compositions() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        save_equal_work(patch)
        yield


@pytest.fixture(scope="session")
def whole_command() -> Iterator[WholeCommand]:
    """Give a function that runs a command in a process of its own, forked from one that has imported everything."""
    with forked_calls("tests.whole_commands") as calls:

        def run(
            command: Sequence[str], cwd: Path, environment: Mapping[str, str] | None = None
        ) -> subprocess.CompletedProcess[str]:
            variables = json.dumps(dict(os.environ if environment is None else environment))
            return subprocess.CompletedProcess(command, *calls.call(str(cwd), variables, *command))

        yield run


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Train without checks of shapes, which take several times as long as the step, in tests that train for long.

    Others train all that these do, for a few steps, and have the shapes checked.
    """
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Let torch use one thread: the fastest on networks this small, on which measures promise the same bits."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Command:
    """Give a function that runs a command in an empty folder and returns exit code, output and errors."""
    # Not above: what conftest.py imports escapes the checks of annotations.
    from modulab.cli import main
    from modulab.text import say_once

    say_once.cache_clear()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", list(sys.argv))
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")

    def run(*arguments: str) -> tuple[int, str, str]:
        code = main(arguments)
        captured = capfd.readouterr()
        return code, captured.out, captured.err

    return run
