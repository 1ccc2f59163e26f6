"""Modules found in trained networks: how many, how stable, how far they agree with those of the task.

For each member a graph of its units (see `unit_graphs`) is searched several times (see `searches`), and the partition
of the best score is kept. Members are searched one after another on the CPU, from seeds that follow from their keys.

A search that maximises a score finds modules in random graphs as well. With `randomised` it is repeated, once each, in
so many graphs that the kind of graph makes by chance, and its first score is compared with theirs: their mean, z in
their standard deviations, and p = (1 + those that score as high) / (1 + randomised).
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64, Int64
from pydantic import Field
from torch import Tensor

from modulab.config.settings import Probes
from modulab.errors import ConfigError
from modulab.metrics.communities.agreement import (
    adjusted_mutual_information,
    adjusted_rand,
    num_modules,
    stability,
)
from modulab.metrics.communities.unit_graphs import GraphKind, UnitGraphs, modules_served
from modulab.metrics.measure import Column, Measure
from modulab.metrics.probe import Probe
from modulab.networks.base import Network
from modulab.schema import import_target
from modulab.streams import Stream, fold_in, integers
from modulab.tasks.base import Task

_LARGEST_SEED = 2**31 - 1


@dataclass(frozen=True)
class MemberGraph:
    """The graph of one member."""

    adjacency: Float64[np.ndarray, "node node"]
    parts: Int64[np.ndarray, " node"]
    """The layer of each node."""


@dataclass(frozen=True)
class Found:
    """What searches of one member's graph found; every restart's partition, and the scores."""

    partitions: tuple[Int64[np.ndarray, " node"], ...]
    scores: tuple[float, ...]
    by_chance: tuple[float, ...]
    """The scores of one search in each random graph."""

    @property
    def best(self) -> Int64[np.ndarray, " node"]:
        """Return the partition of the highest score, the first of equal ones."""
        return self.partitions[int(np.argmax(self.scores))]


class FoundModules(Measure):
    """The modules that one search finds in one graph of each network; `measures` has the searches.

    `communities/NAME_modules` is their number; `_agreement` and `_rand` how far they agree with the modules that units
    serve (adjusted mutual information, adjusted Rand index); `_stability` how far restarts agree; `_left_out` how many
    nodes have no edge that counts; `_score` the score; `_null`, `_z` and `_p` what it is in random graphs.
    """

    name: str = Field(pattern=r"^[a-z0-9_]+$", description="what its values are called")
    graph: str = Field(description="dotted path of the function that makes graphs, such as weight_graph")
    restarts: int = Field(
        ge=1, description="searches in each graph, from seeds of their own; the best is kept"
    )
    randomised: int = Field(
        ge=0, description="random graphs that are searched once each; 0 for no comparison"
    )

    @property
    def columns(self) -> tuple[Column, ...]:
        """Return the words for its values."""
        return (
            Column("communities/{name}_modules", "Modules found ({name})"),
            Column(
                "communities/{name}_agreement", "Found and served modules, AMI ({name})", ends_at_one=True
            ),
            Column("communities/{name}_rand", "Found and served modules, Rand ({name})", ends_at_one=True),
            Column("communities/{name}_stability", "Agreement of restarts, AMI ({name})", ends_at_one=True),
            Column("communities/{name}_left_out", "Nodes left out ({name})"),
            Column("communities/{name}_score", f"{self.score_label} ({{name}})"),
            Column("communities/{name}_null", f"{self.score_label} in random graphs ({{name}})"),
            Column("communities/{name}_z", "Score against random graphs, z ({name})"),
            Column("communities/{name}_p", "Score against random graphs, p ({name})", ends_at_one=True),
        )

    @property
    def score_label(self) -> str:
        """Return what the score is."""
        return "Score"

    @property
    def search_seconds(self) -> float:
        """Return about how long one search takes, in a graph of 50 nodes."""
        return 0.01

    @abstractmethod
    def search(self, graph: MemberGraph, seed: int) -> Int64[np.ndarray, " node"]:
        """Return the module of each node, or `LEFT_OUT`."""

    @abstractmethod
    def score(self, graph: MemberGraph, labels: Int64[np.ndarray, " node"]) -> float:
        """Return how good a partition is; higher is better."""

    def check(self, where: str, probes: Probes) -> None:
        """Raise ConfigError where the graph cannot be made, or where the search needs what is not installed."""
        del probes
        self._kind(where)

    def seconds(self, probes: Probes) -> float:
        """Return about how long it takes for a network."""
        del probes
        return self.search_seconds * (self.restarts + self.randomised)

    def lacking(self, network: Network, task: Task) -> str | None:
        """Return why members of this network have no such graph."""
        return super().lacking(network, task) or self._kind("probes.measures").lacking(network)

    def take(self, probe: Probe) -> dict[str, Float64[Tensor, " member"]]:
        """Return its values."""
        graphs, found = probe.once(found_modules, self)
        served = probe.once(modules_served)
        known = torch.cat(
            [
                served[name] if served[name].shape[1] == size else torch.full((len(probe.keys), size), -1)
                for name, size in graphs.places
            ],
            dim=1,
        ).numpy()
        rows = [self._values(each, labels) for each, labels in zip(found, known, strict=True)]
        return {
            f"communities/{self.name}_{key}": torch.tensor([row[key] for row in rows], dtype=torch.float64)
            for key in rows[0]
        }

    def _values(self, found: Found | None, known: Int64[np.ndarray, " node"]) -> dict[str, float]:
        nan = float("nan")
        values = dict.fromkeys(("modules", "agreement", "rand", "stability", "left_out", "score"), nan)
        if self.randomised:
            values |= {"null": nan, "z": nan, "p": nan}
        if found is None:
            return values
        best = found.best
        values["modules"] = float(num_modules(best))
        values["agreement"] = adjusted_mutual_information(best, known)
        values["rand"] = adjusted_rand(best, known)
        values["stability"] = stability(found.partitions)
        values["left_out"] = float((best < 0).sum())
        values["score"] = max(found.scores)
        if self.randomised:
            null, first = np.array(found.by_chance), found.scores[0]
            values["null"] = float(null.mean())
            spread = null.std(ddof=1) if len(null) > 1 else 0.0
            values["z"] = float((first - null.mean()) / spread) if spread > 0 else nan
            values["p"] = float((1 + (null >= first).sum()) / (1 + len(null)))
        return values

    def _kind(self, where: str) -> GraphKind:
        kind: Any = import_target(self.graph, f"{where}.graph")
        if not isinstance(kind, GraphKind):
            raise ConfigError(
                f"{where}.graph={self.graph} makes no graphs of units. Name weight_graph, co_activation_graph or "
                "influence_graph of modulab.metrics.communities.unit_graphs, or a GraphKind of your own."
            )
        return kind


def found_modules(probe: Probe, measure: FoundModules) -> tuple[UnitGraphs, list[Found | None]]:
    """Return the graphs of a measure's members, and what is found in each; None where weights are not finite."""
    kind: GraphKind = import_target(measure.graph, "graph")
    graphs = probe.once(kind.make)
    counters = torch.arange(
        measure.restarts + 2 * measure.randomised, dtype=torch.int32, device=probe.keys.device
    )
    limits = torch.full((len(probe.keys),), _LARGEST_SEED, dtype=torch.int32, device=probe.keys.device)
    seeds = integers(fold_in(probe.keys, Stream.COMMUNITIES), counters.expand(len(probe.keys), -1), limits)
    found: list[Found | None] = []
    for member, own in enumerate(seeds.tolist()):
        # A single member is measured beside its copy, which has the same modules.
        copied = (
            member > 0 and own == seeds[0].tolist() and graphs.adjacency[member].equal(graphs.adjacency[0])
        )
        found.append(found[0] if copied else _search_member(measure, graphs, member, own))
    return graphs, found


def _search_member(measure: FoundModules, graphs: UnitGraphs, member: int, seeds: list[int]) -> Found | None:
    graph = MemberGraph(graphs.adjacency[member].numpy(), graphs.parts)
    if not np.isfinite(graph.adjacency).all():
        return None
    partitions = [measure.search(graph, seed) for seed in seeds[: measure.restarts]]
    scores = [measure.score(graph, labels) for labels in partitions]
    by_chance: list[float] = []
    for number in range(measure.randomised):
        randomising, searching = seeds[measure.restarts + 2 * number :][:2]
        other = MemberGraph(graphs.by_chance(member, randomising), graphs.parts)
        by_chance.append(measure.score(other, measure.search(other, searching)))
    return Found(tuple(partitions), tuple(scores), tuple(by_chance))
