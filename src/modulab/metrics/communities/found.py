"""Modules found in trained networks: their number, stability, and agreement with those of the task.

For each member a graph of its units (see `unit_graphs`) is searched several times (see `searches`), and the partition
of the best score is kept. Members are searched one after another on the CPU, from seeds that follow from their keys.

A search that maximises a score finds modules in random graphs as well. With `randomised` it is repeated, once each, in
so many graphs that the kind of graph makes by chance, and its first score is compared with theirs
(see `graphs.comparison`). Modules that are not beyond chance count as none, or as one for the whole network.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64, Int32, Int64
from pydantic import Field, field_validator
from torch import Tensor

from modulab.config.settings import Probes
from modulab.errors import ConfigError
from modulab.metrics.communities.agreement import (
    adjusted_mutual_information,
    adjusted_rand,
    num_modules,
    stability,
)
from modulab.metrics.communities.unit_graphs import (
    GraphKind,
    modules_served,
    symmetric_adjacency,
)
from modulab.metrics.graphs.comparison import compare
from modulab.metrics.graphs.graph import Graph
from modulab.metrics.measure import Column, Measure
from modulab.metrics.probe import Probe
from modulab.networks.base import Network
from modulab.schema import import_target
from modulab.streams import Stream, fold_in, integers
from modulab.tasks.base import Task

_LARGEST_SEED = 2**31 - 1
SIGNIFICANT = 0.05
"""The largest p of modules that are beyond chance."""


@dataclass(frozen=True)
class MemberGraph:
    """The graph of one member."""

    adjacency: Float64[np.ndarray, "node node"]
    parts: Int64[np.ndarray, " node"]
    """The layer of each node."""

    @property
    def finite(self) -> bool:
        """Return whether all weights are; those of a network that diverged are not."""
        return bool(np.isfinite(self.adjacency).all())


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

    `communities/NAME_modules` is their number, and `_significant` the same where p is at most .05, else 1; `_agreement`
    and `_rand` how far they agree with the modules that units serve (adjusted mutual information, adjusted Rand index);
    `_stability` how far restarts agree; `_left_out` how many nodes have no edge that counts; `_score` the score;
    `_null`, `_z` and `_p` what it is in random graphs.
    """

    name: str = Field(pattern=r"^[a-z0-9_]+$", description="name used in the names of the values")
    graph: str = Field(description="dotted path of the function that returns graphs, such as weight_graph")
    restarts: int = Field(
        ge=1, description="number of searches in each graph with different seeds; the best result is used"
    )
    randomised: int = Field(
        ge=0, description="number of random graphs, each searched once; 0 for no comparison"
    )

    @field_validator("randomised")
    @classmethod
    def _enough(cls, count: int) -> int:
        if count == 1:
            raise ValueError(
                "1: one random graph gives no standard deviation. Ask for 2 or more, or for none with 0."
            )
        return count

    @property
    def columns(self) -> tuple[Column, ...]:
        """Return the words for its values."""
        return (
            Column("communities/{name}_modules", "Modules found ({name})"),
            Column("communities/{name}_significant", "Modules found beyond chance ({name})"),
            Column("communities/{name}_agreement", "Agreement, AMI ({name})", ends_at_one=True),
            Column("communities/{name}_rand", "Agreement, Rand ({name})", ends_at_one=True),
            Column("communities/{name}_stability", "Stability, AMI ({name})", ends_at_one=True),
            Column("communities/{name}_left_out", "Nodes left out ({name})"),
            Column("communities/{name}_score", f"{self.score_label} ({{name}})"),
            Column("communities/{name}_null", f"{self.score_label} in random graphs ({{name}})"),
            Column("communities/{name}_z", "Score against random graphs, z ({name})"),
            Column("communities/{name}_p", "Score against random graphs, p ({name})", ends_at_one=True),
        )

    @property
    def score_label(self) -> str:
        """Return the name of the score."""
        return "Score"

    @property
    def finds_one_by_chance(self) -> bool:
        """Return whether it finds one module where there are none, so its number needs no comparison."""
        return False

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
        """Raise ConfigError if the graph cannot be made, or where the search needs what is not installed."""
        del probes
        kind: Any = import_target(self.graph, f"{where}.graph")
        if not isinstance(kind, GraphKind):
            raise ConfigError(
                f"{where}.graph={self.graph} makes no graphs of units. Name weight_graph, co_activation_graph or "
                "influence_graph of modulab.metrics.communities.unit_graphs, or your own GraphKind."
            )

    @property
    def kind(self) -> GraphKind:
        """Return the kind of graph that is searched."""
        return import_target(self.graph, "graph")

    def seconds(self, probes: Probes) -> float:
        """Return about how long it takes for a network."""
        del probes
        return self.search_seconds * (self.restarts + self.randomised)

    def lacking(self, network: Network, task: Task) -> str | None:
        """Return why members of this network have no such graph."""
        return super().lacking(network, task) or self.kind.lacking(network)

    def take(self, probe: Probe) -> dict[str, Float64[Tensor, " member"]]:
        """Return its values."""
        graph, found = probe.once(found_modules, self)
        known = served_labels(probe, graph)
        rows = [_values(each, labels) for each, labels in zip(found, known, strict=True)]
        values = {key: torch.tensor([row[key] for row in rows], dtype=torch.float64) for key in rows[0]}
        if self.randomised:
            nothing = (float("nan"),) * self.randomised
            first = torch.tensor([nothing[0] if each is None else each.scores[0] for each in found])
            null = torch.tensor([nothing if each is None else each.by_chance for each in found])
            against = compare(first.double(), null.double(), rises=True)
            values |= {"null": against.mean, "z": against.z, "p": against.p}
        values |= self._significant(values)
        return {f"communities/{self.name}_{key}": value for key, value in values.items()}

    def _significant(self, values: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the number of modules beyond chance, if there are enough random graphs to say so."""
        modules = values["modules"]
        if self.finds_one_by_chance:
            return {"significant": modules}
        if 1 / (self.randomised + 1) > SIGNIFICANT:
            return {}
        beyond = torch.where(values["p"] <= SIGNIFICANT, modules, 1.0)
        return {"significant": torch.where(modules.isnan(), modules, beyond)}


def found_modules(probe: Probe, measure: FoundModules) -> tuple[Graph, list[Found | None]]:
    """Return the graphs of a measure's members, and what is found in each; None if weights are not finite."""
    graph = probe.once(measure.kind.build)
    seeds = _seeds(probe.keys, measure.restarts + measure.randomised)
    graphs = _member_graphs(graph)
    # A single member is measured with a copy of itself, which has the same modules.
    alone = (
        len(graphs) == 2 and seeds[0] == seeds[1] and np.array_equal(graphs[0].adjacency, graphs[1].adjacency)
    )
    searched = graphs[:1] if alone else graphs
    partitions: list[list[Int64[np.ndarray, " node"]]] = []
    for number, (each, own) in enumerate(zip(searched, seeds, strict=False)):
        probe.tell(f"searching network {number + 1} of {len(searched)} ({measure.name})")
        restarts = own[: measure.restarts] if each.finite else []
        partitions.append([measure.search(each, seed) for seed in restarts])
    by_chance: list[list[float]] = [[] for _ in searched]
    for number in range(measure.randomised):
        probe.tell(f"searching random graphs, {number + 1} of {measure.randomised} ({measure.name})")
        others = _member_graphs(measure.kind.by_chance(probe, number))
        for each, other, own, scores in zip(searched, others, seeds, by_chance, strict=False):
            if each.finite:
                labels = measure.search(other, own[measure.restarts + number])
                scores.append(measure.score(other, labels))
    found = [
        Found(tuple(own), tuple(measure.score(each, labels) for labels in own), tuple(scores))
        if own
        else None
        for each, own, scores in zip(searched, partitions, by_chance, strict=True)
    ]
    return graph, found * 2 if alone else found


def served_labels(probe: Probe, graph: Graph) -> list[Int64[np.ndarray, " node"]]:
    """Return the module that each node of a member's graph serves, -1 where none is known."""
    served = probe.once(modules_served)
    unknown = torch.full((len(probe.keys), graph.num_nodes), -1)
    for place, part in enumerate(graph.parts):
        own = served.get(part.name)
        if own is not None and own.shape[1] == part.size:
            unknown[:, graph.nodes_of(place)] = own.cpu()
    return list(unknown.numpy())


def _seeds(keys: Int32[Tensor, "member 2"], count: int) -> list[list[int]]:
    counters = torch.arange(count, dtype=torch.int32, device=keys.device).expand(len(keys), -1)
    limits = torch.full((len(keys),), _LARGEST_SEED, dtype=torch.int32, device=keys.device)
    return integers(fold_in(keys, Stream.COMMUNITIES), counters, limits).tolist()


def _member_graphs(graph: Graph) -> list[MemberGraph]:
    parts = np.repeat(np.arange(len(graph.parts)), [part.size for part in graph.parts])
    return [MemberGraph(each, parts) for each in symmetric_adjacency(graph).cpu().numpy()]


def _values(found: Found | None, known: Int64[np.ndarray, " node"]) -> dict[str, float]:
    if found is None:
        return dict.fromkeys(("modules", "agreement", "rand", "stability", "left_out", "score"), float("nan"))
    best = found.best
    return {
        "modules": float(num_modules(best)),
        "agreement": adjusted_mutual_information(best, known),
        "rand": adjusted_rand(best, known),
        "stability": stability(found.partitions),
        "left_out": float((best < 0).sum()),
        "score": max(found.scores),
    }
