"""Whether the modules that are found serve one function each: enrichment for units that predict it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Float64
from pydantic import Field
from torch import Tensor

from modulab.config.settings import Probes
from modulab.errors import ConfigError
from modulab.metrics.communities.found import FoundModules, found_modules
from modulab.metrics.communities.predictivity import enrichment, predictivity, task_functions
from modulab.metrics.measure import Column, Measure, find_measure
from modulab.metrics.probe import Probe
from modulab.networks.base import Network
from modulab.schema import suggest
from modulab.tasks.base import Task


class Enrichment(Measure):
    """How many of the modules found by another measure hold more units predictive of a function than chance.

    `communities/NAME_enriched` is the share of modules that are enriched for one function of the task or more, and
    `_enrichment` how many times as many such units they hold as chance gives, a mean over what is enriched; `_best` is
    the mean over functions of the predictivity of the best unit, at least a half. See `predictivity`.
    """

    of: str = Field(description="key under probes.measures of the measure that finds the modules")
    top_fraction: float = Field(
        gt=0, lt=1, description="share of the units that count as predictive of a function"
    )
    level: float = Field(gt=0, lt=1, description="significance level, after Holm's correction")

    @property
    def needs(self) -> tuple[str, ...]:
        """Return sites, whose units are scored."""
        return ("sites",)

    @property
    def columns(self) -> tuple[Column, ...]:
        """Return the words for its values."""
        return (
            Column(
                "communities/{name}_enriched", "Modules enriched for a function ({name})", ends_at_one=True
            ),
            Column("communities/{name}_enrichment", "Enrichment of modules, times chance ({name})"),
            Column(
                "communities/{name}_best", "Average precision of the best unit ({name})", ends_at_one=True
            ),
        )

    def check(self, where: str, probes: Probes) -> None:
        """Raise ConfigError if `of` names no measure that finds modules."""
        self._finder(where, probes)

    def lacking(self, network: Network, task: Task) -> str | None:
        """Return that units have several values per sample, or what a site lacks."""
        several = any(site.positions * site.visits > 1 for site in network.sites)
        return super().lacking(network, task) or (
            "its units have several values per sample" if several else None
        )

    def take(self, probe: Probe) -> dict[str, Float64[Tensor, " member"]]:
        """Return its values."""
        finder = self._finder("probes.measures", probe.settings)
        reason = finder.lacking(probe.network.network, probe.task)
        if reason is not None:
            return {}
        graph, found = probe.once(found_modules, finder)
        sites = {site.name for site in probe.network.network.sites}
        is_unit = np.repeat([part.name in sites for part in graph.parts], [part.size for part in graph.parts])
        scores = predictivity(torch.cat(probe.activities(), dim=1), task_functions(probe)).cpu().numpy()
        rows: list[tuple[float, float, float]] = []
        for each, own in zip(found, scores, strict=True):
            if each is None or not np.isfinite(own).all():
                nan = float("nan")
                rows.append((nan, nan, nan))
                continue
            share, times = enrichment(each.best[is_unit], own, self.top_fraction, self.level)
            rows.append((share, times, float(own.max(axis=0).mean())))
        names = ("enriched", "enrichment", "best")
        columns = torch.tensor(rows, dtype=torch.float64).unbind(dim=1)
        return {
            f"communities/{finder.name}_{key}": values for key, values in zip(names, columns, strict=True)
        }

    def _finder(self, where: str, probes: Probes) -> FoundModules:
        named: Any = probes.measures.get(self.of)
        finder = find_measure(named, f"probes.measures.{self.of}") if named is not None else None
        if not isinstance(finder, FoundModules):
            found = [
                key
                for key, value in probes.measures.items()
                if value is not None
                and isinstance(find_measure(value, f"probes.measures.{key}"), FoundModules)
            ]
            raise ConfigError(
                f"{where}.of={self.of} is not a measure that finds modules. Name the key of one under probes.measures. "
                f"{suggest(self.of, found)}"
            )
        return finder
