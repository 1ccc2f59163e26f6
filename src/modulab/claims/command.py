"""`modulab claims`: from nothing to a verdict on each claim."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from modulab.claims.judgement import Judgement, effect
from modulab.claims.presets import experiment_overrides
from modulab.claims.registry import LONGEST_FIRST, choose_claims
from modulab.claims.report import PAGE, write_claims_report
from modulab.claims.run import Experiment, run_experiments
from modulab.sweep.results import check_folder, load_results


def run_claims(
    preset: str, names: Sequence[str] | None, folder: Path, processes: int | None, progress: str
) -> list[Judgement]:
    """Run what is missing of the experiments of the claims named, or all, and report on them below `folder`.

    Raises: ConfigError for what a user can set right; KeyboardInterrupt on Ctrl-C, after which the same call
    goes on where this one stopped.
    """
    claims = choose_claims(names)
    # After that, for it takes seconds to import.
    from modulab.training.fit import choose_device, cpu_count

    needed = {name for claim in claims for name in claim.experiments}
    experiments = {
        name: Experiment(name, tuple(experiment_overrides(name, preset)), folder / name)
        for name in LONGEST_FIRST
        if name in needed
    }
    check_folder(folder)
    # An accelerator takes populations one at a time; a processor's cores are shared out.
    cores = cpu_count() if choose_device("auto").type == "cpu" else 1
    at_once = min(processes or cores, len(experiments))
    run_ids = run_experiments(list(experiments.values()), at_once, max(1, cores // at_once), progress)
    results = {name: _rows(experiments[name].folder, run_ids[name]) for name in experiments}
    return write_claims_report(claims, experiments, results, preset, _command(preset, names, folder), folder)


def _command(preset: str, names: Sequence[str] | None, folder: Path) -> str:
    """Return the command that gives the same again."""
    only = [] if names is None else ["--only", ",".join(names)]
    return shlex.join(["modulab", "claims", "--preset", preset, *only, "--folder", str(folder)])


def _rows(folder: Path, run_ids: Sequence[str]) -> pd.DataFrame:
    """Return the rows that an experiment asked for; its folder may hold others, of an earlier version."""
    results = load_results(folder)
    return results.loc[results["run_id"].isin(list(run_ids)), :].reset_index(drop=True)


def summary(judgements: Sequence[Judgement], folder: Path) -> tuple[list[str], list[list[str]], str]:
    """Return headings and rows of the table of verdicts, and where the report is."""
    headings = ["claim", "", "verdict", "effect"]
    rows = [
        [each.claim.name, each.claim.title, each.verdict, effect(each.deciding[0])] for each in judgements
    ]
    return headings, rows, f"Report: {folder / PAGE}"
