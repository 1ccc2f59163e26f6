"""`modulab claims --dry-run`: how many networks each claim or map takes, at least and at most; nothing is trained."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from modulab.claims.claim import Claim
from modulab.claims.evidence import Evidence
from modulab.claims.looks import Look
from modulab.claims.maps.command import map_overrides
from modulab.claims.maps.definitions import choose_maps
from modulab.claims.presets import PRESETS, experiment_overrides
from modulab.claims.registry import choose_claims
from modulab.claims.spending import Network, first_networks, networks_of
from modulab.config.composing import compose_checked, hydra_composer, plan_run
from modulab.results.tables import Status, result_table

_PLANNED_SEEDS = 4

Counts = tuple[list[str], list[list[str]], str]
"""Headings, rows, and a line to print below them."""


def count_networks(preset: str, names: Sequence[str] | None) -> Counts:
    """Count the networks of the claims named, or all: those of their first looks, and those of all looks."""
    claims = choose_claims(names)
    look = Look(1, PRESETS[preset].looks)
    needed = dict.fromkeys(name for claim in claims for name in claim.experiments)
    planned = {name: _planned(experiment_overrides(name, preset)) for name in needed}
    evidence = {name: table for name, (table, _) in planned.items()}

    def count(networks: Iterable[Network]) -> int:
        return sum(
            round(planned[name][1] * number) for name, number in Counter(name for name, _ in networks).items()
        )

    def counts(chosen: Sequence[Claim]) -> tuple[int, int]:
        networks = {network for claim in chosen for network in first_networks(claim, evidence, look)[0]}
        deciding = networks_of((each for claim in chosen for each in claim.deciding), evidence)
        return count(networks), count(networks) + round((look.growth - 1) * count(deciding))

    rows = [[claim.name, claim.title, *map(str, counts([claim]))] for claim in claims]
    least, most = counts(claims)
    return (
        ["claim", "in words", "networks at least", "at most"],
        rows,
        f"{least} to {most} networks in all, in up to {look.planned} looks. Claims share experiments.",
    )


def count_map_networks(preset: str, names: Sequence[str] | None) -> Counts:
    """Count the networks of the maps of the claims named, or all, whose settings have one seed each."""
    counts = [
        (each.claim, each.title, len(_planned(map_overrides(each, preset))[0].results))
        for each in choose_maps(names)
    ]
    total = sum(number for _, _, number in counts)
    rows = [[claim, title, str(number)] for claim, title, number in counts]
    return ["claim", "in words", "networks"], rows, f"{total} networks in all."


def _planned(overrides: Sequence[str]) -> tuple[Evidence, float]:
    """Return an experiment's networks at its first seeds, as rows without results, and how often as many there are.

    Each setting has the same seeds, of which there may be thousands: all of them take minutes to plan.
    """
    with hydra_composer() as compose:
        config = compose_checked(compose, overrides)
        seeds = int(config.population.seeds)
        planned = min(seeds, _PLANNED_SEEDS)
        if planned < seeds:
            overrides = [*overrides, f"population.seeds={planned}"]
            config = compose_checked(compose, overrides)
        plan = plan_run(config, overrides, compose)
    configs = [run.config for run in plan.runs]
    number = len(configs)
    statuses: list[Status] = ["missing"] * number
    table = result_table(configs, plan.run_ids, statuses, [None] * number, [0.0] * number, {})
    return Evidence(table.to_pandas()), seeds / planned
