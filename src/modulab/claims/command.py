"""The command `modulab claims`: run the experiments, and decide each claim."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from modulab.claims.judgement import Judgement, effect, quantity, spent, verdict_words
from modulab.claims.looks import Look
from modulab.claims.presets import PRESETS, experiment_overrides
from modulab.claims.registry import LONGEST_FIRST, choose_claims
from modulab.claims.report import PAGE, write_claims_report
from modulab.claims.run import Experiment, claims_command, run_on_this_machine
from modulab.claims.spending import judge_in_looks
from modulab.errors import ConfigError
from modulab.measure_names import arrow_key
from modulab.results.layout import terminal_width
from modulab.results.store import check_folder
from modulab.text import to_stderr

_LEAST_WIDTH = 100
"""The width of a terminal from which on the table of verdicts has room for the number of networks."""


def run_claims(
    preset: str, names: Sequence[str] | None, folder: Path, processes: int | None, progress: str
) -> tuple[list[Judgement], list[str]]:
    """Run the missing experiments of the named claims, or of all, and write the report below `folder`.

    Claims with a failed experiment are left out; the reasons are returned with the judgements.

    Raises: ConfigError if no claim is left; KeyboardInterrupt on Ctrl-C, after which the same call continues
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

    def train(chosen: Sequence[Experiment], look: Look) -> tuple[dict[str, list[str]], dict[str, str]]:
        if look.number > 1 and progress != "off":
            more = ", ".join(experiment.name for experiment in chosen)
            to_stderr(f"look {look.number} of {look.planned}: more seeds of {more}")
        return run_on_this_machine(chosen, processes, progress)

    found = judge_in_looks(claims, list(experiments.values()), PRESETS[preset].looks, train)
    reasons = [f"{name}: {error}" for name, error in found.errors.items()]
    if not found.judgements:
        raise ConfigError("\n".join(reasons))
    command = claims_command(preset, names, folder)
    judgements = write_claims_report(found.judgements, experiments, found.results, preset, command, folder)
    judged = {judgement.claim.name for judgement in judgements}
    left_out = [claim.name for claim in claims if claim.name not in judged]
    if left_out:
        reasons.append(f"Left out of the report: {', '.join(left_out)}. The same command again tries them.")
    return judgements, reasons


def that_fit(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> tuple[list[str], list[list[str]]]:
    """Return the table of verdicts for this terminal: a narrow one lacks the last column, which the report has."""
    narrow = (terminal_width() or _LEAST_WIDTH) < _LEAST_WIDTH
    most = len(headings) - 1 if narrow else len(headings)
    return list(headings[:most]), [list(row[:most]) for row in rows]


def summary(judgements: Sequence[Judgement], folder: Path) -> tuple[list[str], list[list[str]], str]:
    """Return headings and rows of the table of verdicts, and where the report is."""
    headings = ["claim", "in words", "verdict", "first quantity", "effect", "networks"]
    rows = [
        [
            each.claim.name,
            each.claim.title,
            each.verdict,
            quantity(each.deciding[0]),
            effect(each.deciding[0]),
            spent(each),
        ]
        for each in judgements
    ]
    where = [f"{each.claim.name} {verdict_words(each)}." for each in judgements if each.where]
    key = arrow_key(row[3] for row in rows)
    lines = [*([f"{key}."] if key else []), *where, f"Report: {folder / PAGE}"]
    return headings, rows, "\n".join(lines)
