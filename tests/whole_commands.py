"""Runs a command in this process, as a new process would, and returns its exit code, output and errors.

A command is the words after `modulab`, or `python` with a file and what it is given, or `python -c` and a program.
"""

from __future__ import annotations

import json
import os
import runpy
import sys
import tempfile
import traceback

from modulab.cli import main as run

LIBRARIES = [
    "modulab.sweep.jobs", "modulab.sweep.rerun", "modulab.report.sweep_report", "modulab.claims.command",
    "modulab.claims.maps.command", "modulab.logger.afterwards", "modulab.analysis.command",
]  # fmt: skip
"""What commands import, beside this module."""


def main(folder: str, environment: str, *arguments: str) -> tuple[int, str, str]:
    """Run a command in a folder, with an environment in JSON."""
    os.environ.clear()
    os.environ.update(json.loads(environment))
    os.chdir(folder)
    sys.argv, sys.path[0] = ["modulab", *arguments], ""
    own = os.dup(1), os.dup(2)
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        for number, file in ((1, out), (2, err)):
            os.dup2(file.fileno(), number)
        try:
            if arguments[:2] == ("python", "-c"):
                exec(arguments[2], {"__name__": "__main__"})
                code = 0
            elif arguments[0] == "python":
                sys.argv, sys.path[0] = [*arguments[1:]], os.path.dirname(arguments[1])
                runpy.run_path(arguments[1], run_name="__main__")
                code = 0
            else:
                code = run(arguments)
        except SystemExit as error:
            code = 0 if error.code is None else error.code if isinstance(error.code, int) else 1
        except BaseException:
            traceback.print_exc()
            code = 1
        sys.stdout.flush()
        sys.stderr.flush()
        for number, kept in zip((1, 2), own, strict=True):
            os.dup2(kept, number)
        said = []
        for file in (out, err):
            file.seek(0)
            said.append(file.read())
        return code, said[0], said[1]
