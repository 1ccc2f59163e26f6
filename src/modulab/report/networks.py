"""The table of networks on a page: one row for each, with its status, its settings and its main measures."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from modulab.report.page import PageTable, Section
from modulab.report.style import arm_text
from modulab.results.summary import choose_settings

MOST_LISTED = 2000
"""Networks on one page: of more, a sample is listed, so that the page stays a few megabytes."""


def networks_section(
    results: pd.DataFrame,
    folder: Path,
    measures: Sequence[str],
    *,
    title: str = "Networks",
    most: int = MOST_LISTED,
    folded: bool = False,
) -> Section:
    """Return the table of the networks of a folder, of at most `most`, and a sentence on those left out.

    The networks listed are those of the least run_ids, which are hashes of settings: a random sample that is the
    same each time.
    """
    listed = results
    paragraphs = ["Select a network in a figure or here, and the command that trains it again is shown."]
    if len(results) > most:
        kept = sorted(results["run_id"].map(str))[:most]
        listed = results.loc[results["run_id"].map(str).isin(kept), :]
        paragraphs.insert(
            0,
            f"{most:,} of {len(results):,} networks, a random sample. Means and intervals in tables and figures are "
            "over all of them.",
        )
    settings = choose_settings(results, None)
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
    )
    return Section(title, paragraphs, tables=[table], folded=folded)


def _number(value: float) -> str:
    return f"{value:.3g}" if not math.isnan(value) else "-"
