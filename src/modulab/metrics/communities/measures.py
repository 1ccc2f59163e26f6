"""The searches as measures, each with the parameters that it takes."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Int64
from pydantic import Field

from modulab.config.settings import Probes
from modulab.errors import ConfigError
from modulab.metrics.communities import searches
from modulab.metrics.communities.found import FoundModules, MemberGraph
from modulab.metrics.graphs.scores import map_equation, newman_modularity

Labels = Int64[np.ndarray, " node"]


class _ScoredByModularity(FoundModules):
    """Scores are Newman's modularity."""

    @property
    def score_label(self) -> str:
        """Return the name of the score."""
        return "Modularity of the modules found"

    def score(self, graph: MemberGraph, labels: Labels) -> float:
        """Return Newman's modularity."""
        return float(newman_modularity(*_one_member(graph, labels))) if (labels >= 0).any() else float("nan")


class Louvain(_ScoredByModularity):
    """Modules of highest modularity, by the algorithm of Louvain; its score is Newman's modularity."""

    resolution: float = Field(
        gt=0, description="resolution: above 1 for smaller modules, below 1 for larger ones"
    )

    def search(self, graph: MemberGraph, seed: int) -> Labels:
        """Return the partition that is found."""
        return searches.louvain(graph.adjacency, seed, self.resolution)


class Leiden(Louvain):
    """The same by the algorithm of Leiden, whose modules are connected; needs the extra `communities`."""

    def check(self, where: str, probes: Probes) -> None:
        """Raise ConfigError if the extra is not installed."""
        super().check(where, probes)
        _check_extra(where, "igraph", "leidenalg")

    def search(self, graph: MemberGraph, seed: int) -> Labels:
        """Return the partition that is found."""
        return searches.leiden(graph.adjacency, seed, self.resolution)


class Infomap(FoundModules):
    """Modules that shorten the description of a random walk; needs the extra `communities`.

    Its score is how many bits per step they save, by the map equation, over one module.
    """

    @property
    def score_label(self) -> str:
        """Return the name of the score."""
        return "Bits saved per step of a random walk"

    @property
    def search_seconds(self) -> float:
        """Return about how long one search takes."""
        return 0.004

    def check(self, where: str, probes: Probes) -> None:
        """Raise ConfigError if the extra is not installed."""
        super().check(where, probes)
        _check_extra(where, "infomap")

    def search(self, graph: MemberGraph, seed: int) -> Labels:
        """Return the partition that is found."""
        return searches.infomap(graph.adjacency, seed)

    def score(self, graph: MemberGraph, labels: Labels) -> float:
        """Return the bits that are saved."""
        if not (labels >= 0).any():
            return float("nan")
        together = np.where(labels >= 0, 0, labels)
        lengths = [float(map_equation(*_one_member(graph, each))) for each in (together, labels)]
        return lengths[0] - lengths[1]


class Spectral(_ScoredByModularity):
    """Clusters of the leading eigenvectors of the normalised Laplacian; its score is Newman's modularity."""

    modules: int | None = Field(
        ge=1, description="number of modules; null uses the number given by the largest eigengap"
    )
    most_modules: int = Field(ge=1, description="largest number of modules considered for the eigengap")

    def search(self, graph: MemberGraph, seed: int) -> Labels:
        """Return the partition that is found."""
        return searches.spectral(graph.adjacency, seed, self.modules, self.most_modules)


class BlockModel(FoundModules):
    """Modules that shorten the description of the graph; its score is how many nats they save over one module.

    If more modules do not shorten it, it finds one module, and saves 0.
    """

    @property
    def score_label(self) -> str:
        """Return the name of the score."""
        return "Nats saved by the modules found"

    @property
    def finds_one_by_chance(self) -> bool:
        """Return True: a second module has to shorten the description."""
        return True

    @property
    def search_seconds(self) -> float:
        """Return about how long one search takes."""
        return 0.08

    def search(self, graph: MemberGraph, seed: int) -> Labels:
        """Return the partition that is found."""
        return searches.block_model(graph.adjacency, seed, graph.parts)

    def score(self, graph: MemberGraph, labels: Labels) -> float:
        """Return the nats that are saved."""
        return searches.nats_saved(graph.adjacency, labels, graph.parts)


def _one_member(graph: MemberGraph, labels: Labels) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.from_numpy(graph.adjacency)[None], torch.from_numpy(labels)[None]


def _check_extra(where: str, *modules: str) -> None:
    for module in modules:
        try:
            searches.extra(module)
        except ConfigError as error:
            raise ConfigError(f"{where}: {error}") from error
