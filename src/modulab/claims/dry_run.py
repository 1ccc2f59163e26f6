"""`modulab claims --dry-run`: how many networks each claim or map takes, at least and at most; nothing is trained."""

from __future__ import annotations

from collections.abc import Sequence

from modulab.claims.evidence import Evidence
from modulab.claims.looks import Look
from modulab.claims.maps.command import map_overrides
from modulab.claims.maps.definitions import choose_maps
from modulab.claims.presets import PRESETS, experiment_overrides
from modulab.claims.registry import choose_claims
from modulab.claims.spending import first_networks, networks_of
from modulab.config.composing import compose_checked, hydra_composer, plan_run
from modulab.results.tables import Status, result_table

Counts = tuple[list[str], list[list[str]], str]
"""Headings, rows, and a line to print below them."""


def count_networks(preset: str, names: Sequence[str] | None) -> Counts:
    """Count the networks of the claims named, or all: those of their first looks, and those of all looks."""
    claims = choose_claims(names)
    look = Look(1, PRESETS[preset].looks)
    needed = dict.fromkeys(name for claim in claims for name in claim.experiments)
    evidence = {name: _planned(experiment_overrides(name, preset)) for name in needed}
    rows: list[list[str]] = []
    for claim in claims:
        networks, most = first_networks(claim, evidence, look)
        rows.append([claim.name, claim.title, str(len(networks)), str(most)])
    least = sum(len(table.results) for table in evidence.values())
    deciding = networks_of((each for claim in claims for each in claim.deciding), evidence)
    most = least + round((look.growth - 1) * len(deciding))
    return (
        ["claim", "", "networks at least", "at most"],
        rows,
        f"{least} to {most} networks in all, in up to {look.planned} looks. Claims share experiments.",
    )


def count_map_networks(preset: str, names: Sequence[str] | None) -> Counts:
    """Count the networks of the maps of the claims named, or all, whose settings have one seed each."""
    counts = [
        (each.claim, each.title, len(_planned(map_overrides(each, preset)).results))
        for each in choose_maps(names)
    ]
    total = sum(number for _, _, number in counts)
    rows = [[claim, title, str(number)] for claim, title, number in counts]
    return ["claim", "", "networks"], rows, f"{total} networks in all."


def _planned(overrides: Sequence[str]) -> Evidence:
    """Return an experiment's networks as rows without results."""
    with hydra_composer() as compose:
        plan = plan_run(compose_checked(compose, overrides), overrides, compose)
    configs = [run.config for run in plan.runs]
    number = len(configs)
    statuses: list[Status] = ["missing"] * number
    table = result_table(configs, plan.run_ids, statuses, [None] * number, [0.0] * number, {})
    return Evidence(table.to_pandas())
