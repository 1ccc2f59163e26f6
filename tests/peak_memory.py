"""Trains what the command line asks for, in this process, and prints its peak of memory beside the estimate, in MiB."""

from __future__ import annotations

import resource
import sys
import tempfile
from pathlib import Path

from modulab.config.composing import compose_checked, hydra_composer, plan_run
from modulab.config.overrides import replace_grid
from modulab.sweep.estimate import process_bytes
from modulab.sweep.run import plan_work, run_work


def main() -> None:
    """Train, and print both."""
    overrides = replace_grid([*sys.argv[1:], "trainer.progress=off"])
    with hydra_composer() as compose:
        plan = plan_run(compose_checked(compose, overrides), overrides, compose)
    with tempfile.TemporaryDirectory() as folder:
        work = plan_work(plan.runs, plan.trainer, Path(folder))
        estimate = process_bytes(work)
        run_work(work, Path(folder))
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, estimate / 2**20)


if __name__ == "__main__":
    main()
