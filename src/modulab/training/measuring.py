"""Measure the members of a population, whichever tasks they have."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from modulab.config.settings import Member, Probes
from modulab.errors import ForeignError, foreign_code
from modulab.metrics.measure import find_measures, skipped_measures
from modulab.metrics.taking import measure_population
from modulab.networks.base import NetworkPopulation
from modulab.streams import member_keys
from modulab.tasks.base import Task


@dataclass(frozen=True)
class Measured:
    """Every measure of every member in member order, NaN where there is none, and why it lacks what it lacks."""

    measures: dict[str, list[float]]
    failures: dict[int, str]
    """Why members have no measures at all, by their index."""
    skipped: list[dict[str, str]]
    """Why a member lacks measures, by their keys under `probes.measures`."""


def measure_members(
    members: Sequence[Member],
    networks: NetworkPopulation,
    masks: Float[Tensor, "member parameter"],
    settings: Probes,
    threads: int = 1,
) -> dict[str, list[float]]:
    """Return every measure of every member, in member order; NaN where a member's task has no such measure."""
    found = measure_each(members, networks, masks, settings, threads, narrow=False)
    assert not found.failures
    return found.measures


def measure_each(
    members: Sequence[Member],
    networks: NetworkPopulation,
    masks: Float[Tensor, "member parameter"],
    settings: Probes,
    threads: int = 1,
    narrow: bool = True,
) -> Measured:
    """Return every measure of every member, in member order, and why members lack some or all.

    If members cannot be measured together, each half of them is measured by itself, down to single members.
    Those that fail have NaN everywhere. Without `narrow` the first error is raised.

    Raises: ConfigError for a measure that cannot be used; ForeignError without `narrow`.
    """
    by_task: defaultdict[Task, list[int]] = defaultdict(list)
    for index, member in enumerate(members):
        by_task[member.task].append(index)
    keys = member_keys([member.seed for member in members])
    measures: dict[str, list[float]] = {}
    failures: dict[int, str] = {}
    skipped: dict[int, dict[str, str]] = {}
    configured = find_measures(settings)

    def measure(task: Task, places: list[int]) -> None:
        try:
            with foreign_code():
                found = measure_population(
                    task,
                    NetworkPopulation(networks.network, networks.parameters[places]),
                    keys[places],
                    settings,
                    masks[places],
                    threads=threads,
                )
        except ForeignError as error:
            if not narrow:
                raise
            if len(places) == 1:
                failures[places[0]] = str(error)
                return
            middle = len(places) // 2
            measure(task, places[:middle])
            measure(task, places[middle:])
            return
        for name, values in found.items():
            column = measures.setdefault(name, [float("nan")] * len(members))
            for place, value in zip(places, values.tolist(), strict=True):
                column[place] = value

    for task, places in by_task.items():
        if networks.network.unmeasured is None:
            measure(task, places)
        with suppress(ForeignError), foreign_code():  # a task that fails here has failed above, and said why
            reasons = skipped_measures(configured, networks.network, task)
            skipped.update(dict.fromkeys(places, reasons))
    return Measured(measures, failures, [skipped.get(place, {}) for place in range(len(members))])
