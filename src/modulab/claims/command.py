"""`modulab claims`: from nothing to a verdict on each claim."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from modulab.claims.judgement import Judgement, effect, verdict_words
from modulab.claims.presets import experiment_overrides
from modulab.claims.registry import LONGEST_FIRST, choose_claims
from modulab.claims.report import PAGE, write_claims_report
from modulab.claims.run import Experiment, asked_rows, claims_command, run_on_this_machine
from modulab.errors import ConfigError
from modulab.results.store import check_folder


def run_claims(
    preset: str, names: Sequence[str] | None, folder: Path, processes: int | None, progress: str
) -> tuple[list[Judgement], list[str]]:
    """Run what is missing of the experiments of the claims named, or all, and report on them below `folder`.

    Claims of which an experiment failed are left out; the reasons are returned beside the judgements.

    Raises: ConfigError where no claim is left; KeyboardInterrupt on Ctrl-C, after which the same call goes on
    where this one stopped.
    """
    claims = choose_claims(names)
    needed = {name for claim in claims for name in claim.experiments}
    experiments = {
        name: Experiment(name, tuple(experiment_overrides(name, preset)), folder / name)
        for name in LONGEST_FIRST
        if name in needed
    }
    check_folder(folder)
    run_ids, errors = run_on_this_machine(list(experiments.values()), processes, progress)
    reasons = [f"{name}: {error}" for name, error in errors.items()]
    whole = [claim for claim in claims if not errors.keys() & set(claim.experiments)]
    if not whole:
        raise ConfigError("\n".join(reasons))
    results = {name: asked_rows(experiments[name], own) for name, own in run_ids.items()}
    command = claims_command(preset, names, folder)
    judgements = write_claims_report(whole, experiments, results, preset, command, folder)
    left_out = [claim.name for claim in claims if claim not in whole]
    if left_out:
        reasons.append(f"Left out of the report: {', '.join(left_out)}. The same command again tries them.")
    return judgements, reasons


def summary(judgements: Sequence[Judgement], folder: Path) -> tuple[list[str], list[list[str]], str]:
    """Return headings and rows of the table of verdicts, and where the report is."""
    headings = ["claim", "", "verdict", "effect"]
    rows = [
        [each.claim.name, each.claim.title, each.verdict, effect(each.deciding[0])] for each in judgements
    ]
    where = [f"{each.claim.name} {verdict_words(each)}." for each in judgements if each.where]
    return headings, rows, "\n".join([*where, f"Report: {folder / PAGE}"])
