"""Trains what the command line asks for in this process, and returns its peak of memory and the estimate, in MiB."""

from __future__ import annotations

import resource
import tempfile
from pathlib import Path

from modulab.config.composing import compose_checked, hydra_composer, plan_run
from modulab.config.overrides import replace_grid
from modulab.sweep.estimate import process_bytes
from modulab.sweep.run import plan_work
from modulab.sweep.this_machine import run_work

LIBRARIES: list[str] = []
"""What to import beside this module before a call."""


def main(*words: str) -> tuple[float, float]:
    """Train, and return both."""
    overrides = replace_grid([*words, "trainer.progress=off"])
    with hydra_composer() as compose:
        plan = plan_run(compose_checked(compose, overrides), overrides, compose)
    with tempfile.TemporaryDirectory() as folder:
        work = plan_work(plan.runs, plan.trainer, Path(folder))
        estimate = process_bytes(work)
        run_work(work, Path(folder))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, estimate / 2**20
