"""Measure the members of a population, which may have different tasks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor

from modulab.config.settings import Member, Probes
from modulab.errors import ForeignError, MeasureFailed, foreign_code
from modulab.metrics.measure import find_measures, skipped_measures
from modulab.metrics.native import NO_KERNELS, Kernels
from modulab.metrics.probe import Asked, Tell, tell_nobody
from modulab.metrics.taking import measure_population
from modulab.networks.base import NetworkPopulation
from modulab.results.tables import FAILED_WITH
from modulab.streams import member_keys
from modulab.tasks.base import Task
from modulab.training.native.kernels import kernels_of


@dataclass(frozen=True)
class Measured:
    """Every measure of every member in member order, NaN where there is none, and the reasons."""

    measures: dict[str, list[float]]
    failures: dict[int, str]
    """Why members have no measures at all, by their index."""
    skipped: list[dict[str, str]]
    """Why a member lacks measures that its network or task cannot have, by their keys under `probes.measures`."""
    failed: list[dict[str, str]]
    """The errors of measures that a member lacks, by their keys under `probes.measures`."""

    def lacking(self, missing: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
        """Return why each member lacks measures or, where `missing` says so, points of their curves."""
        return [
            {**in_curves} | skipped | {key: f"{FAILED_WITH} {error}" for key, error in failed.items()}
            for in_curves, skipped, failed in zip(missing, self.skipped, self.failed, strict=True)
        ]


def measure_each(
    members: Sequence[Member],
    networks: NetworkPopulation,
    masks: Float[Tensor, "member parameter"],
    settings: Probes,
    threads: int = 1,
    narrow: bool = True,
    tell: Tell = tell_nobody,
    asked: Asked | None = None,
    engines: Sequence[str] | None = None,
) -> Measured:
    """Return every measure of every member, in member order, and why members lack some or all.

    A measure that fails is taken apart from the others: members for which it fails lack it alone. If members cannot be
    measured at all, each half of them is measured by itself, down to single members, which then have NaN everywhere.
    Without `narrow` the first error is raised. What trained each member, of `engines`, may measure it as well.

    Raises: ConfigError for a measure that cannot be used; ForeignError without `narrow`.
    """
    alike: defaultdict[tuple[Task, Kernels], list[int]] = defaultdict(list)
    for index, member in enumerate(members):
        kernels = NO_KERNELS if engines is None else kernels_of(engines[index])
        alike[member.task, kernels].append(index)
    keys = member_keys([member.seed for member in members])
    measures: dict[str, list[float]] = {}
    failures: dict[int, str] = {}
    skipped: dict[int, dict[str, str]] = {}
    configured = find_measures(settings)

    failed: defaultdict[int, dict[str, str]] = defaultdict(dict)

    def measure(task: Task, kernels: Kernels, places: list[int], taken: Mapping[str, Any]) -> None:
        try:
            with foreign_code():
                found = measure_population(
                    task,
                    NetworkPopulation(networks.network, networks.parameters[places]),
                    keys[places],
                    settings.model_copy(update={"measures": dict(taken)}),
                    masks[places],
                    threads=threads,
                    tell=tell,
                    asked=asked,
                    kernels=kernels,
                )
        except ForeignError as error:
            if not narrow:
                raise
            if isinstance(error, MeasureFailed) and len(taken) > 1:
                others = {name: value for name, value in taken.items() if name != error.key}
                measure(task, kernels, places, others)
                if error.by_itself:
                    measure(task, kernels, places, {error.key: taken[error.key]})
                else:
                    for place in places:
                        failed[place][error.key] = error.reason
            elif len(places) > 1:
                middle = len(places) // 2
                measure(task, kernels, places[:middle], taken)
                measure(task, kernels, places[middle:], taken)
            elif isinstance(error, MeasureFailed):
                failed[places[0]][error.key] = error.reason
            else:
                failures[places[0]] = str(error)
            return
        for name, values in found.items():
            column = measures.setdefault(name, [float("nan")] * len(members))
            for place, value in zip(places, values.tolist(), strict=True):
                column[place] = value

    for (task, kernels), places in alike.items():
        if networks.network.unmeasured is None and configured:  # else no points are drawn for nothing
            measure(task, kernels, places, settings.measures)
        with suppress(ForeignError), foreign_code():  # a task that fails here has failed above, and said why
            reasons = skipped_measures(configured, networks.network, task)
            skipped.update(dict.fromkeys(places, reasons))
    everyone = range(len(members))
    return Measured(
        measures,
        failures,
        [skipped.get(place, {}) for place in everyone],
        [failed[place] for place in everyone],
    )
