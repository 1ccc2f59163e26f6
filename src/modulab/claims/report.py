"""The report on the claims: claims.json, and a page whose numbers are all in it."""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pandas.util

import modulab
from modulab.claims.claim import Claim
from modulab.claims.evidence import Evidence
from modulab.claims.judgement import (
    Judgement,
    TableOfArms,
    as_record,
    effect,
    finding_row,
    held,
    left_open,
    quantity,
    spent,
    tables_of,
    verdict_words,
)
from modulab.claims.presets import PRESETS, banner
from modulab.claims.rules import RULE, Finding
from modulab.claims.run import Experiment
from modulab.measure_names import arrow_key
from modulab.report.figure import KINDS, ReportFigure
from modulab.report.networks import MOST_LISTED, networks_section
from modulab.report.page import Page, PageTable, Section, write_page
from modulab.results.files import write_whole
from modulab.results.versions import versions

SOURCE = "Qian, Liang and Fiete (arXiv 2512.13707)"
RECORD = "claims.json"
PAGE = "report.html"

_hash: Any = pandas.util.hash_pandas_object
_FINDINGS = ("criterion", "quantity", "estimate [95% interval]", "predicted", "region", "seeds", "outcome")


@dataclass(frozen=True)
class _Shown:
    """The content of a report: judged claims, their experiments, and the command that repeats everything."""

    judgements: Sequence[Judgement]
    experiments: Mapping[str, Experiment]
    results: Mapping[str, pd.DataFrame]
    preset: str
    command: str


@dataclass(frozen=True)
class _Part:
    """A claim's part of the report."""

    judgement: Judgement
    experiments: list[Experiment]
    counts: dict[str, dict[str, int]]
    tables: list[TableOfArms]
    figures: Sequence[ReportFigure]


def write_claims_report(
    judgements: Sequence[Judgement],
    experiments: Mapping[str, Experiment],
    results: Mapping[str, pd.DataFrame],
    preset: str,
    command: str,
    folder: Path,
) -> list[Judgement]:
    """Write the page on claims that were judged by these results, its figures and claims.json; return what it says.

    `command` repeats everything. A preset that decides nothing leaves every judgement open. A report that was
    drawn from the same judgements and results, by the same code, is not changed.
    """
    decides = PRESETS[preset].decides
    judgements = [each if decides else left_open(each, preset) for each in judgements]
    shown = _Shown(judgements, experiments, results, preset, command)
    drawn_from = _digest(shown)
    if not _is_drawn(folder, drawn_from):
        _draw(shown, drawn_from, folder)
    return judgements


def _digest(shown: _Shown) -> str:
    """Return a hash of everything that a report shows, and of the code that draws it."""
    parts = [
        shown.command,
        shown.preset,
        repr(versions()),
        *(json.dumps(as_record(each, [], [], []), default=str) for each in shown.judgements),
        *(
            shlex.join(shown.experiments[name].command) + _digest_of_table(table)
            for name, table in shown.results.items()
        ),
        *(path.read_text("utf-8") for path in sorted(Path(modulab.__file__).parent.rglob("*.py"))),
    ]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _digest_of_table(table: pd.DataFrame) -> str:
    found = hashlib.sha256(repr([str(name) for name in table]).encode())
    for name in table:
        column = table[name]
        values = (
            column.astype(str) if column.dtype == object else column
        )  # some hold lists, which have no hash
        found.update(_hash(values, index=False).to_numpy().tobytes())
    return found.hexdigest()


def _is_drawn(folder: Path, drawn_from: str) -> bool:
    """Return whether the folder holds a report that was drawn from the same, with all of its figures."""
    try:
        record = json.loads((folder / RECORD).read_bytes())
        names = [figure["name"] for claim in record["claims"] for figure in claim["figures"]]
        same = record["drawn_from"] == drawn_from
    except (OSError, ValueError, LookupError, TypeError):
        return False  # none, of an earlier version, or changed by something else: drawn again
    files = [PAGE, *(f"{name}.{kind}" for name in names for kind in KINDS)]
    return same and all((folder / name).is_file() for name in files)


def _draw(shown: _Shown, drawn_from: str, folder: Path) -> None:
    parts = [_part(judgement, shown.experiments, shown.results) for judgement in shown.judgements]
    facts = {"source": SOURCE, "command": shown.command, **_facts(shown.results, shown.preset)}
    record = {
        **facts,
        "rule": RULE,
        "drawn_from": drawn_from,
        "claims": [
            as_record(
                part.judgement,
                [
                    {"name": each.name, "command": shlex.join(each.command), **part.counts[each.name]}
                    for each in part.experiments
                ],
                part.tables,
                [
                    {"name": figure.name, "title": figure.title, "caption": figure.caption}
                    for figure in part.figures
                ],
            )
            for part in parts
        ],
    }
    folder.mkdir(parents=True, exist_ok=True)
    write_page(_page(parts, facts, shown.preset, _networks(parts, shown.results)), folder, PAGE)
    write_whole(folder / RECORD, (json.dumps(record, indent=1, ensure_ascii=False) + "\n").encode())


def _part(
    judgement: Judgement, experiments: Mapping[str, Experiment], results: Mapping[str, pd.DataFrame]
) -> _Part:
    claim = judgement.claim
    evidence = {name: Evidence(results[name], experiments[name].folder) for name in claim.experiments}
    empty = any(table.completed.empty for table in evidence.values())
    return _Part(
        judgement,
        [experiments[name] for name in claim.experiments],
        {name: _counts(results[name]) for name in claim.experiments},
        tables_of(claim, evidence),
        () if empty else claim.draw(evidence),
    )


def _counts(results: pd.DataFrame) -> dict[str, int]:
    """Return how many networks an experiment has, and how many of them ended otherwise than completed."""
    statuses: list[str] = results["status"].tolist()
    return {
        "networks": len(statuses),
        **{name: statuses.count(name) for name in ("diverged", "failed", "missing")},
    }


def _facts(results: Mapping[str, pd.DataFrame], preset: str) -> dict[str, Any]:
    return {
        "preset": preset,
        "banner": banner(preset, PRESETS[preset]),
        "networks": sum(len(table) for table in results.values()),
        "versions": {name: text for name, text in versions().items() if text is not None},
    }


def _networks(parts: Sequence[_Part], results: Mapping[str, pd.DataFrame]) -> Section:
    """Return the tables of networks of all experiments, with the measures that the claims' tables show of them."""
    experiments = {experiment.name: experiment for part in parts for experiment in part.experiments}
    measures: dict[str, list[str]] = {name: [] for name in experiments}
    for part in parts:
        for name, _, shown in part.judgement.claim.tables:
            measures[name] += [measure for measure in shown if measure not in measures[name]]
    return Section(
        "Networks",
        sections=[
            networks_section(
                results[name],
                experiment.folder,
                measures[name],
                title=f"Networks of {name}",
                most=MOST_LISTED // len(experiments),
                most_printed=0,
                folded=True,
            )
            for name, experiment in experiments.items()
        ],
    )


def _page(parts: Sequence[_Part], facts: Mapping[str, Any], preset: str, networks: Section) -> Page:
    made_with = ", ".join(
        f"{'commit' if name == 'git_commit' else name} {text}" for name, text in facts["versions"].items()
    )
    return Page(
        title="When and why neural networks become modular, and what they gain by it: claims and verdicts",
        lead=[
            f"Claims of {SOURCE}, each decided by a rule that was fixed before its experiment was run.",
            RULE,
        ],
        facts=[
            ("Preset", f"{preset}: {PRESETS[preset].meaning}"),
            ("Networks", str(facts["networks"])),
            ("Made with", made_with),
            ("Repeat with", facts["command"]),
        ],
        sections=[
            _verdicts(parts),
            *(_section(part, PRESETS[preset].decides, parts[:place]) for place, part in enumerate(parts)),
            networks,
        ],
        banner=facts["banner"],
    )


def _verdicts(parts: Sequence[_Part]) -> Section:
    rows = [
        [
            part.judgement.claim.name,
            part.judgement.claim.title,
            part.judgement.verdict,
            held(part.judgement),
            quantity(part.judgement.deciding[0]),
            effect(part.judgement.deciding[0]),
            spent(part.judgement),
        ]
        for part in parts
    ]
    headings = (
        "claim",
        "in words",
        "verdict",
        "criteria that hold",
        "first quantity",
        "effect [95% interval]",
        "networks",
    )
    key = arrow_key(row[4] for row in rows)
    table = PageTable(
        headings,
        rows,
        f"{key}." if key else "",
        notes=[part.judgement.where and f"Depends on {part.judgement.where}." for part in parts],
        links=[Section(_title(part.judgement.claim)).anchor for part in parts],
    )
    return Section("Verdicts", tables=[table])


def _title(claim: Claim) -> str:
    return f"{claim.name}. {claim.title}"


def _findings(findings: Sequence[Finding]) -> PageTable:
    rows = [finding_row(finding) for finding in findings]
    key = arrow_key(row[1] for row in rows)
    return PageTable(_FINDINGS, rows, f"{key}." if key else "")


def _arms(claim: str, table: TableOfArms, earlier: Sequence[_Part]) -> Section:
    """Return the table of an experiment's arms under a claim, or under which claim before the same table is."""
    title = f"all settings of the experiment {table.experiment}, mean [95% interval]"
    for part in earlier:
        if table in part.tables:
            words = f"The same table as {part.judgement.claim.name}: {title}."
            return Section(f"{claim}: {title}", [words], folded=True)
    return Section(
        f"{claim}: {title}", tables=[PageTable(table.headings, table.rows, table.key)], folded=True
    )


def _section(part: _Part, decided: bool, earlier: Sequence[_Part]) -> Section:
    """Return a claim's section; what the `earlier` ones have shown is not shown again."""
    claim = part.judgement.claim
    troubled = [
        f"Of {counts['networks']} networks of {name}, "
        + ", ".join(
            f"{counts[status]} {status}" for status in ("diverged", "failed", "missing") if counts[status]
        )
        + "."
        for name, counts in part.counts.items()
        if counts["diverged"] + counts["failed"] + counts["missing"]
    ]
    reported = [finding for finding in part.judgement.findings if finding.outcome is None]
    first = [] if claim.first_rule is None else [("First rule", claim.first_rule)]
    rules = [*first, *(("Later rule", rule) for rule in claim.later_rules)] if decided else []
    replaced = [
        (
            name,
            f"{rule.rule} By that rule the claim was {rule.verdict} ({rule.effect}). "
            f"Why it was replaced: {rule.reason}",
        )
        for name, rule in rules
    ]
    words = verdict_words(part.judgement)
    return Section(
        _title(claim),
        facts=[
            ("Hypothesis", claim.hypothesis),
            ("Measure", claim.measure),
            ("Comparison", claim.comparison),
            *([("Prediction", claim.prediction)] if claim.prediction else []),
            (
                "Verdict",
                f"{words[:1].upper()}{words[1:]}."
                + (f" {held(part.judgement)} criteria hold." if decided else ""),
            ),
            ("Networks", f"{spent(part.judgement)}."),
            *(("Left out", lost) for lost in troubled),
            *replaced,
            *(("Caveat", caveat) for caveat in claim.caveats),
        ],
        tables=[_findings(part.judgement.deciding)],
        figures=part.figures,
        sections=[
            *(
                [Section(f"{claim.name}: other quantities", tables=[_findings(reported)], folded=True)]
                if reported
                else []
            ),
            *(_arms(claim.name, table, earlier) for table in part.tables),
            Section(
                f"{claim.name}: how to train these networks again",
                commands=[shlex.join(each.command) for each in part.experiments],
                folded=True,
            ),
        ],
        badge=part.judgement.verdict,
    )
