"""Calls `main` of a module for each line of words, in a process forked from one that has imported what it needs.

Importing Lightning takes longer than most of what tests do in a process of their own. A forked process begins with the
memory and the settings of one that has just imported the same.

    python -m tests.forked_calls MODULE < LINES    with a list of words in JSON on each line
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import traceback
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ANSWER = "answer: "


class Calls:
    """A process that forks itself for each call."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def call(self, *words: str) -> Any:
        """Return what `main` returns, which JSON can hold. Where it fails, its traceback is on stderr."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps(words), file=self._process.stdin, flush=True)
        # What a call prints itself is passed over.
        said = next(line for line in self._process.stdout if line.startswith(ANSWER))
        answer = json.loads(said.removeprefix(ANSWER))
        assert answer is not None, words
        return answer


@contextmanager
def forked_calls(module: str) -> Generator[Calls]:
    """Give the calls of a module's `main`; it lists in LIBRARIES what to import beside itself."""
    command = [sys.executable, "-m", "tests.forked_calls", module]
    root = Path(__file__).parents[1]
    with subprocess.Popen(
        command, cwd=root, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        yield Calls(process)
        process.communicate()


def _answer(module: Any, words: Sequence[str]) -> None:
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # the next lines are not for this process
    try:
        print(f"{ANSWER}{json.dumps(module.main(*words))}", flush=True)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


if __name__ == "__main__":
    called: Any = importlib.import_module(sys.argv[1])
    for name in called.LIBRARIES:
        importlib.import_module(name)
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            _answer(called, json.loads(line))
        if os.waitpid(child, 0)[1]:
            print(f"{ANSWER}null", flush=True)
