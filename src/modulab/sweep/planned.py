"""Train the members that overrides describe in this process, without starting Hydra."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from modulab.config.composing import compose_checked, hydra_composer, plan_run
from modulab.config.overrides import replace_grid
from modulab.config.settings import Run
from modulab.results.commands import record_command
from modulab.results.lock import FolderLock
from modulab.results.store import check_folder
from modulab.sweep.run import plan_work
from modulab.sweep.this_machine import run_work


def train_planned(
    overrides: Sequence[str],
    folder: Path,
    command: Sequence[str] | None = None,
    like: Sequence[str] = (),
) -> list[str]:
    """Train and measure what these overrides ask for and `folder` lacks; return the run_ids of all they ask for.

    `command` is stored as the command that produced the rows, by default the same overrides. Given run_ids
    in `like`, only members that differ from one of those in nothing but the seed are asked for.

    Raises: ConfigError for errors that a user can correct.
    """
    command = command or ["modulab", "train", *overrides, f"hydra.run.dir={folder}"]
    overrides = replace_grid(overrides)
    with hydra_composer() as compose:
        plan = plan_run(compose_checked(compose, overrides), overrides, compose)
    check_folder(folder)
    runs = _of_equal_settings(plan.runs, like) if like else plan.runs
    with FolderLock(folder):
        work = plan_work(runs, plan.trainer, folder)
        if work.pending:
            record_command(folder, command)
        run_work(work, folder, plan.logger)
    return [run.run_id for run in runs]


def _of_equal_settings(runs: Sequence[Run], run_ids: Sequence[str]) -> list[Run]:
    """Return the runs that differ from one of those named in nothing but the seed."""
    arms = [json.dumps({**run.config, "seed": None}, sort_keys=True) for run in runs]
    named = set(run_ids)
    wanted = {arm for arm, run in zip(arms, runs, strict=True) if run.run_id in named}
    return [run for arm, run in zip(arms, runs, strict=True) if arm in wanted]
