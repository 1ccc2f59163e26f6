"""The table of networks on a page: one row for each, with its status, its settings and its main measures."""

from __future__ import annotations

import math
import shlex
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from modulab.report.page import PageTable, Section
from modulab.report.style import arm_text
from modulab.results.parquet import RESULTS
from modulab.results.summary import choose_settings

MOST_LISTED = 2000
"""The largest number of networks on one page; of more, a sample is listed, so the page stays a few megabytes."""
MOST_PRINTED = 40
"""The largest number of networks that are printed; for more, the page says where their rows are."""


def networks_section(
    results: pd.DataFrame,
    folder: Path,
    measures: Sequence[str],
    settings: Sequence[str] | None = None,
    *,
    title: str = "Networks",
    most: int = MOST_LISTED,
    most_printed: int = MOST_PRINTED,
    folded: bool = False,
) -> Section:
    """Return the table of the networks of a folder, of at most `most`, and a sentence on those left out.

    `settings` are the columns beside the seed, by default those that vary. On paper it is printed if there are no more
    than `most_printed`.

    The networks listed are those of the least run_ids, which are hashes of settings: a random sample that is the
    same each time.
    """
    listed = results
    hints = ["Select a network in a figure or here, and the command that trains it again is shown."]
    if len(results) > most:
        kept = sorted(results["run_id"].map(str))[:most]
        listed = results.loc[results["run_id"].map(str).isin(kept), :]
        hints.insert(
            0,
            f"{most:,} of {len(results):,} networks, a random sample. Means and intervals in tables and figures are "
            "over all of them.",
        )
    settings = choose_settings(results, None) if settings is None else settings
    with_reason = "error" in listed and bool(listed["error"].notna().any())
    columns = {
        "run_id": listed["run_id"].map(str),
        "status": listed["status"].map(str),
        **{
            name.removeprefix("config."): listed[name].map(arm_text)
            for name in ("config.seed", *settings)
            if name in listed
        },
        **{
            name: [_number(value) for value in listed[name].astype(float).tolist()]
            for name in measures
            if name in listed
        },
        **({"error": listed["error"].map(arm_text)} if with_reason else {}),
    }
    table = PageTable(
        list(columns),
        [list(row) for row in zip(*columns.values(), strict=True)],
        f"{len(listed):,} networks.",
        networks=listed["run_id"].map(str).tolist(),
        settings=[name for name in columns if f"config.{name}" in results],
        repeat=shlex.join(["modulab", "rerun", str(folder), "--member"]),
        hints=hints,
        on_paper=_on_paper(results, folder) if len(results) > most_printed else "",
    )
    return Section(title, tables=[table], folded=folded)


def _on_paper(results: pd.DataFrame, folder: Path) -> str:
    """Return what is printed in place of many networks: how they ended, and where each has its row."""
    counts = Counter(results["status"].tolist())
    states = ", ".join(f"{count:,} {status}" for status, count in counts.items())
    return (
        f"{len(results):,} networks: {states}. Their rows are not printed: {folder / RESULTS} has one for each, and "
        f"{shlex.join(['modulab', 'table', str(folder)])} prints their means by setting."
    )


def _number(value: float) -> str:
    return f"{value:.3g}" if not math.isnan(value) else "-"
