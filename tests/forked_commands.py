"""Runs lines of a shell one after the other, those of modulab each in a process forked from this one.

    python -m tests.forked_commands FOLDER < LINES

Importing what a command needs takes longer than most commands of a page. A line that is no command of modulab goes to
the shell. The first line that fails ends the run with its exit code, and is the last one printed.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import modulab.claims.command
import modulab.report.sweep_report
import modulab.sweep.jobs
import modulab.sweep.rerun  # noqa: F401 imported for the processes that are forked
from modulab.cli import main
from tests.sweep.kill_and_resume import exit_code, fork


def run(line: str) -> int:
    """Return the exit code of a line."""
    words = shlex.split(line)
    if words[0] != "modulab":
        return subprocess.run(line, shell=True, check=False).returncode
    sys.stdout.flush()
    return exit_code(fork(lambda: _code(words)))


def _code(words: list[str]) -> int:
    sys.argv = words
    sys.path[0] = ""  # as the script that pip installs would have the current folder's modules found
    try:
        return main(words[1:])
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else 1


if __name__ == "__main__":
    lines = sys.stdin.read().splitlines()
    os.chdir(Path(sys.argv[1]))
    for each in lines:
        print(each)
        code = run(each)
        if code:
            sys.exit(code)
