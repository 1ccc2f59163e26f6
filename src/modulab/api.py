"""The Python interface: train members and read them back."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from modulab.errors import ConfigError

if TYPE_CHECKING:
    from modulab.config.settings import Run
else:
    # Annotations are checked in tests, and importing modulab.config.settings imports torch.
    Run = object


@dataclass(frozen=True)
class Results:
    """What a run gave: one row per member, curves as (run_id, step, measure, value), and their folder."""

    table: pd.DataFrame
    curves: pd.DataFrame
    folder: Path


def train(overrides: Sequence[str] = (), folder: str | Path | None = None) -> Results:
    """Train and measure what `modulab train` would with these overrides, and return the results.

    Without a folder, a new one below outputs/ in the current folder. Settings that all code in the process shares,
    such as the number of torch's threads, are afterwards as they were before.

    Raises: ConfigError for whatever a user can set right.
    """
    from modulab.config.overrides import override_key
    from modulab.process import settings_kept

    for override in overrides:
        if override_key(override) == "hydra.run.dir":
            raise ConfigError(f"{override}: give the folder to modulab.train(..., folder=FOLDER) instead.")
    path = Path(folder) if folder is not None else Path("outputs", f"{datetime.now():%Y-%m-%d/%H-%M-%S-%f}")
    with settings_kept():
        from modulab.results.store import load_curves, load_results

        train_planned(overrides, path)
        return Results(load_results(path), load_curves(path), path)


def train_planned(
    overrides: Sequence[str],
    folder: Path,
    command: Sequence[str] | None = None,
    like: Sequence[str] = (),
) -> list[str]:
    """Train and measure what these overrides ask for and `folder` lacks; return the run_ids of all they ask for.

    `command` is what the folder keeps as the command that gave its rows, by default the same overrides. Given run_ids
    in `like`, only members that differ from one of those in nothing but the seed are asked for.

    Raises: ConfigError for whatever a user can set right.
    """
    from modulab.config.composing import compose_checked, hydra_composer, plan_run
    from modulab.config.overrides import replace_grid
    from modulab.results.commands import record_command
    from modulab.results.lock import FolderLock
    from modulab.results.store import check_folder
    from modulab.sweep.run import plan_work, run_work

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


def load_results(path: str | Path) -> pd.DataFrame:
    """Return the results under a path: a run's or sweep's folder, a folder of such folders, or a file.

    What `modulab analyse` found there is in further columns.
    """
    from modulab.results import store

    return store.load_results(path, analyses=True)


def load_members(path: str | Path) -> Any:
    """Return the trained members that a run's or sweep's folder holds: one `TrainedMembers` a population.

    Each has `configs`, `parameters` and `weights`; `population(modules)` gives networks that can be run, and
    `measures(modules)` measures them again. Code that the folder names is imported only if it is modulab's or lies in
    the user's own `modules`.
    """
    from modulab.process import import_training

    import_training()
    from modulab.sweep import trained

    return trained.load_members(path)


def analyse(
    path: str | Path,
    with_: str | Sequence[str],
    settings: Sequence[str] = (),
    *,
    members: Sequence[str | int] | None = None,
    modules: Collection[str] = (),
    again: bool = False,
) -> pd.DataFrame:
    """Analyse the finished networks of a folder as `modulab analyse` would; return the results with what was found.

    `with_` names one or more analyses, `settings` set their fields (`cut.partitions=500`), `members` are numbers of
    rows, ranges (`0-9`) or first letters of run_ids, and `modules` are the user's own that the results may name.
    Members that have been analysed are left out, unless `again`.

    Raises: ConfigError for whatever a user can set right.
    """
    from modulab.process import settings_kept

    with settings_kept():
        from modulab.analysis.choosing import choose_analyses
        from modulab.analysis.run import plan_analyses, run_analyses

        chosen = choose_analyses([with_] if isinstance(with_, str) else with_, settings)
        wanted = None if members is None else [str(each) for each in members]
        run_analyses(plan_analyses(Path(path), chosen, wanted, again), modules)
    return load_results(path)
