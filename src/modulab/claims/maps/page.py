"""The page of maps, and map.json, in which all of its numbers are."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from modulab.claims.maps.analysis import DrawnMap
from modulab.claims.maps.definitions import PRESETS
from modulab.claims.maps.figure import map_figure
from modulab.claims.maps.front import front_figure
from modulab.claims.maps.settling import settling_figure
from modulab.claims.maps.words import HEADINGS, as_record, facts, opening, panel_names, panel_rows
from modulab.claims.presets import banner
from modulab.claims.run import Experiment
from modulab.report.page import Page, PageTable, Section, write_page
from modulab.results.files import write_whole
from modulab.results.versions import versions

PAGE = "map.html"
RECORD = "map.json"

_LEAD = "One sentence per claim: where it holds, and where it was predicted to hold."

RULE = (
    "The effect of a setting compares networks with the same seed, or is the value of one network. It is fitted as a "
    "smooth function of the settings (Gaussian-process regression). A place of a map is supported if the whole band of "
    "that function lies above the smallest effect that matters, not supported if it lies entirely below, and "
    "undecided otherwise. The band holds at all places of a map simultaneously with 95% confidence (bootstrap over "
    "settings). Predictions were recorded before the settings were trained."
)


def write_map_page(
    maps: Sequence[DrawnMap], experiments: Mapping[str, Experiment], preset: str, command: str, folder: Path
) -> Path:
    """Write the page of maps, its figures, and map.json; return the page's path."""
    made_with = {name: text for name, text in versions().items() if text is not None}
    record = {
        "command": command,
        "preset": preset,
        "banner": banner(preset, PRESETS[preset]),
        "rule": RULE,
        "versions": made_with,
        "maps": [
            as_record(each) | {"experiment": shlex.join(experiments[each.of.experiment].command)}
            for each in maps
        ],
    }
    page = Page(
        title="Where each claim holds: measured and predicted boundaries",
        lead=[_LEAD, *(opening(each) for each in maps), RULE],
        facts=[
            ("Preset", f"{preset}: {PRESETS[preset].meaning}"),
            ("Networks", str(sum(each.members for each in maps))),
            (
                "Made with",
                ", ".join(f"{name.removeprefix('version.')} {text}" for name, text in made_with.items()),
            ),
            ("Repeat with", command),
        ],
        sections=[_section(each, experiments[each.of.experiment]) for each in maps],
        banner=banner(preset, PRESETS[preset]),
    )
    path = write_page(page, folder, PAGE)
    write_whole(folder / RECORD, (json.dumps(record, indent=1, ensure_ascii=False) + "\n").encode())
    return path


def _section(drawn: DrawnMap, experiment: Experiment) -> Section:
    of_steps = [] if drawn.settling is None else [settling_figure(drawn.settling, drawn.of.name)]
    of_price = (
        []
        if drawn.front is None
        else [front_figure(drawn.of.effect, drawn.front, panel_names(drawn), drawn.of.name)]
    )
    return Section(
        f"{drawn.of.claim}. {drawn.of.title}",
        paragraphs=facts(drawn),
        figures=[map_figure(drawn), *of_price, *of_steps],
        tables=[PageTable(HEADINGS, panel_rows(drawn))],
        commands=[shlex.join(experiment.command)],
    )
