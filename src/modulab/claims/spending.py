"""Train the experiments of claims and judge them look by look, until more seeds cannot decide anything."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from modulab.claims.claim import Claim
from modulab.claims.evidence import Condition, Evidence
from modulab.claims.judgement import Judgement, judge
from modulab.claims.looks import Look, Spent
from modulab.claims.rules import Criterion
from modulab.claims.run import Experiment, asked_rows

Network = tuple[str, str]
"""An experiment's name and a run_id."""

Train = Callable[[Sequence[Experiment], Look], tuple[dict[str, list[str]], dict[str, str]]]
"""Trains what is missing of experiments; returns the run_ids that each asks for, and why others failed."""


@dataclass(frozen=True)
class Judged:
    """The results of the looks."""

    judgements: list[Judgement]
    """The judgements of claims whose experiments were all run."""
    results: Mapping[str, pd.DataFrame]
    """By experiment, the rows that were asked for."""
    errors: Mapping[str, str]


@dataclass(frozen=True)
class _Design(Evidence):
    """The rows of an experiment as if none were trained, which remembers those that are asked for."""

    asked: set[int] = field(default_factory=set[int])

    def _of_arm(self, condition: Condition) -> NDArray[np.bool_]:
        found = super()._of_arm(condition)
        self.asked.update(np.flatnonzero(found).tolist())
        return found


def judge_in_looks(
    claims: Sequence[Claim], experiments: Sequence[Experiment], multiples: tuple[int, ...], train: Train
) -> Judged:
    """Train experiments and judge claims; give more seeds to arms of what may yet be decided, up to the last look.

    `multiples` has the number of seeds at each look over that at the first. What a look asks for follows from the
    results of those before, so the same call continues where another one was stopped.
    """
    asked: defaultdict[str, set[str]] = defaultdict(set)
    results: dict[str, pd.DataFrame] = {}
    first_seeds: dict[str, int] = {}
    errors: dict[str, str] = {}
    judgements: dict[str, Judgement] = {}
    chosen = list(experiments)
    for number in range(1, len(multiples) + 1):
        look = Look(number, multiples)
        run_ids, failed = train(chosen, look)
        errors |= failed
        for experiment in chosen:
            name = experiment.name
            if name in run_ids:
                asked[name].update(run_ids[name])
                results[name] = asked_rows(experiment, sorted(asked[name]))
                first_seeds.setdefault(name, len(set(results[name]["config.seed"].tolist())))
        evidence = {
            each.name: Evidence(results[each.name], each.folder)
            for each in experiments
            if each.name in results
        }
        for claim in claims:
            if errors.keys() & set(claim.experiments):
                judgements.pop(claim.name, None)
            elif number == 1 or judgements[claim.name].open:
                judgements[claim.name] = _take_look(claim, evidence, look, judgements.get(claim.name))
        wanted: defaultdict[str, set[str]] = defaultdict(set)
        for judgement in judgements.values():
            for name, run_id in networks_of(judgement.open, evidence):
                wanted[name].add(run_id)
        if not wanted:
            break
        chosen = [
            experiment.at_seeds(first_seeds[experiment.name] * multiples[number], wanted[experiment.name])
            for experiment in experiments
            if experiment.name in wanted
        ]
    return Judged([judgements[each.name] for each in claims if each.name in judgements], results, errors)


def _take_look(
    claim: Claim, evidence: Mapping[str, Evidence], look: Look, before: Judgement | None
) -> Judgement:
    """Return what a look finds of a claim, with the networks that it took, those of earlier looks among them."""
    if before is None or before.spent is None:
        networks, most = first_networks(claim, evidence, look)
    else:
        networks = before.networks | networks_of(before.open, evidence)
        most = before.spent.most_networks
    found = judge(claim, evidence, look, before)
    return replace(found, networks=networks, spent=Spent(len(networks), look.number, most, look.planned))


def first_networks(
    claim: Claim, evidence: Mapping[str, Evidence], look: Look
) -> tuple[frozenset[Network], int]:
    """Return the networks that a claim's first look takes, and how many all looks may take."""
    networks = frozenset(
        (name, run_id) for name in claim.experiments for run_id in evidence[name].results["run_id"].tolist()
    )
    return networks, len(networks) + round((look.growth - 1) * len(networks_of(claim.deciding, evidence)))


def networks_of(criteria: Iterable[Criterion], evidence: Mapping[str, Evidence]) -> frozenset[Network]:
    """Return the networks that criteria compare, whether they have results or not."""
    designs = {name: _Design(table.results.assign(status="missing")) for name, table in evidence.items()}
    for criterion in criteria:
        criterion.find(designs)
    return frozenset(
        (name, run_id)
        for name, design in designs.items()
        for run_id in design.results["run_id"].iloc[sorted(design.asked)].tolist()
    )
