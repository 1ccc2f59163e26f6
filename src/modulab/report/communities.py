"""The modules that searches found in some networks of a folder, in the form that pictures show."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from modulab.config.settings import Member
from modulab.metrics.communities.found import FoundModules, MemberGraph, found_modules
from modulab.metrics.communities.unit_graphs import symmetric_adjacency
from modulab.metrics.measure import find_measures
from modulab.metrics.probe import make_probe
from modulab.networks.base import Network
from modulab.report.connectivity import Pictured, drawn, pictured_members
from modulab.streams import member_keys

LEFT_OUT = -1


@dataclass(frozen=True)
class SortedGraph:
    """An adjacency matrix with its nodes in the order of the modules that were found in it."""

    adjacency: NDArray[np.float64]
    nodes: NDArray[np.int64]
    """The nodes' numbers in the graph, in this order; those without a module are left out."""
    modules: NDArray[np.int64]
    """The module of each of them."""


@dataclass(frozen=True)
class PicturedModules:
    """The modules that one search found in a network, and in a random graph made from it."""

    search: str
    """The name of the measure."""
    own: SortedGraph
    random: SortedGraph
    together: NDArray[np.float64]
    """In what share of the restarts two nodes were in one module, in the order of `own`."""
    names: Sequence[str]
    """The site and the place of each node of the graph, by its number."""

    def between(self) -> NDArray[np.float64]:
        """Return the share of all weight that lies between each two modules, or within one, on the diagonal."""
        belongs = np.eye(int(self.own.modules.max(initial=0)) + 1)[self.own.modules]
        weights = belongs.T @ self.own.adjacency @ belongs  # twice the weight within a module
        shares = weights + weights.T
        shares[np.diag_indices(len(shares))] /= 2
        return shares / max(float(weights.sum()), np.finfo(np.float64).tiny)


def chosen_search(member: Member) -> FoundModules | None:
    """Return the first measure of a member that finds modules, or None if it takes none."""
    measures = find_measures(member.probes).values()
    return next((each for each in measures if isinstance(each, FoundModules)), None)


def pictured_modules(
    folder: Path, run_ids: Sequence[str], modules: Collection[str] = ()
) -> dict[str, PicturedModules]:
    """Return what was found in members of a run's or sweep's folder, by run_id; it is searched for again.

    The seeds of a search follow from a member's settings, so it finds what the results report.
    """
    found = drawn(pictured_members(folder, run_ids, modules, _lacking), _searched)
    chosen = {run_id: found.get(run_id) for run_id in run_ids}
    return {run_id: each for run_id, each in chosen.items() if each is not None}


def _lacking(member: Member, network: Network) -> str | None:
    search = chosen_search(member)
    return "no measure of it finds modules" if search is None else search.lacking(network, member.task)


def _searched(pictured: Pictured) -> PicturedModules | None:
    """Return what is found in a network; None if it diverged or has no nodes with edges."""
    member = pictured.member
    search = chosen_search(member)
    assert search is not None
    with torch.no_grad():
        probe = make_probe(member.task, pictured.trained, member_keys([member.seed]), member.probes)
        graph, [found] = found_modules(probe, search)
        if found is None or not (found.best >= 0).any():
            return None
        parts = np.repeat(np.arange(len(graph.parts)), [part.size for part in graph.parts])
        adjacency, random = (
            symmetric_adjacency(each)[0].cpu().numpy() for each in (graph, search.kind.by_chance(probe, 0))
        )
    own = _sorted(adjacency, found.best)
    restarts = [labels[own.nodes] for labels in found.partitions]
    together = np.mean([(each[:, None] == each) & (each >= 0) for each in restarts], axis=0)
    by_chance = search.search(MemberGraph(random, parts), member.seed)
    names = [f"{part.name} {place}" for part in graph.parts for place in range(part.size)]
    return PicturedModules(search.name, own, _sorted(random, by_chance), together, names)


def _sorted(adjacency: NDArray[np.float64], labels: NDArray[np.int64]) -> SortedGraph:
    """Return nodes by module, in each those that are nearest to the inputs first."""
    order = np.lexsort((np.arange(len(labels)), labels))
    order = order[labels[order] != LEFT_OUT]
    return SortedGraph(adjacency[np.ix_(order, order)], order, labels[order])


def modules_data(found: dict[str, PicturedModules]) -> pd.DataFrame:
    """Return one row per pair of nodes with an edge: network, graph, nodes, their modules, and the edge's weight."""
    parts: list[pd.DataFrame] = []
    for name, each in found.items():
        for kind, graph in (("network", each.own), ("random", each.random)):
            rows, columns = np.nonzero(np.triu(graph.adjacency))
            parts.append(
                pd.DataFrame(
                    {
                        "network": name,
                        "search": each.search,
                        "graph": kind,
                        "one_node": graph.nodes[rows],
                        "other_node": graph.nodes[columns],
                        "one_module": graph.modules[rows],
                        "other_module": graph.modules[columns],
                        "weight": graph.adjacency[rows, columns],
                    }
                )
            )
    return pd.concat(parts, ignore_index=True)
