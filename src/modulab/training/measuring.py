"""Measure the members of a population, whichever tasks they have."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from modulab.metrics.probe import measure_population
from modulab.settings import Member, Probes
from modulab.streams import member_keys
from modulab.tasks.base import Task
from modulab.training.learner import PopulationLearner


def measure_members(
    members: Sequence[Member], learner: PopulationLearner, settings: Probes, threads: int = 1
) -> dict[str, list[float]]:
    """Return every measure of every member, in member order; NaN where a member's task has no such measure."""
    by_task: defaultdict[Task, list[int]] = defaultdict(list)
    for index, member in enumerate(members):
        by_task[member.task].append(index)
    keys = member_keys([member.seed for member in members])
    parameters, masks = learner.member_parameters(), learner.member_masks()
    measures: dict[str, list[float]] = {}
    for task, places in by_task.items():
        found = measure_population(
            task, parameters[places], learner.shape, keys[places], settings, masks[places], threads=threads
        )
        for name, values in found.items():
            column = measures.setdefault(name, [float("nan")] * len(members))
            for place, value in zip(places, values.tolist(), strict=True):
                column[place] = value
    return measures
