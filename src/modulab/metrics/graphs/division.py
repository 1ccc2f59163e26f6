"""Graphs divided into modules, and the scores that can be given to them by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from jaxtyping import Float64, Int64
from torch import Tensor

from modulab.metrics.graphs import scores
from modulab.metrics.graphs.description import description_length, edge_counts
from modulab.metrics.graphs.graph import Graph
from modulab.metrics.graphs.sums import ModuleSums, module_sums

ScoreName = Literal[
    "modularity",
    "relative_modularity",
    "directed_modularity",
    "layered_modularity",
    "normalised_cut",
    "codelength",
    "codelength_saving",
    "description_length",
    "description_length_saving",
]


@dataclass(frozen=True)
class Division:
    """Graphs, the module of each of their nodes (-1 for none), and the number of modules."""

    graph: Graph
    labels: Int64[Tensor, "member node"]
    modules: int

    @cached_property
    def sums(self) -> ModuleSums:
        """Return the sums from which most scores are computed."""
        return module_sums(self.graph, self.labels, self.modules)

    def description_length(self) -> Float64[Tensor, " member"]:
        """Return the description length of the graphs' weights as counts."""
        counts = edge_counts(self.graph.only(self.labels >= 0))
        return description_length(counts, module_sums(counts, self.labels, self.modules))

    def codelength_saving(self) -> Float64[Tensor, " member"]:
        """Return by how many bits the codelength is below that of one module, which has each node's visits only."""
        return scores.codelength(self._as_one.sums) - scores.codelength(self.sums)

    def description_length_saving(self) -> Float64[Tensor, " member"]:
        """Return by how many nats the description length is below that of one module."""
        return self._as_one.description_length() - self.description_length()

    @cached_property
    def _as_one(self) -> Division:
        return Division(self.graph, self.labels.clamp(max=0), 1)


@dataclass(frozen=True)
class Score:
    """A score of a division: how it is computed and called, and which graphs are more modular by it."""

    compute: Callable[[Division], Float64[Tensor, " member"]]
    label: str
    rises: bool = True
    """Whether more modular graphs score more."""
    directed: bool = False
    """Whether the score is defined for directed graphs only."""


SCORES: dict[ScoreName, Score] = {
    "modularity": Score(lambda division: scores.newman(division.sums), "Modularity Q"),
    "relative_modularity": Score(
        lambda division: scores.relative(division.sums), "Modularity Q over its ceiling"
    ),
    "directed_modularity": Score(
        lambda division: scores.directed(division.sums), "Directed Q", directed=True
    ),
    "layered_modularity": Score(lambda division: scores.layered(division.sums), "Layered Q", directed=True),
    "normalised_cut": Score(lambda division: scores.cut(division.sums), "Normalised cut", rises=False),
    "codelength": Score(lambda division: scores.codelength(division.sums), "Codelength (bits)", rises=False),
    "codelength_saving": Score(Division.codelength_saving, "Codelength saved (bits)"),
    "description_length": Score(Division.description_length, "Description length (nats)", rises=False),
    "description_length_saving": Score(Division.description_length_saving, "Description length saved (nats)"),
}
"""The scores, by the names that columns of results have."""
