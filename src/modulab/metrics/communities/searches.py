"""Partitions of weighted graphs into modules, whose number is not given: five searches with one interface.

Each takes a symmetric adjacency matrix of non-negative weights, and returns the module of each node, numbered from 0
by size, or `LEFT_OUT` for a node without edges. The same seed gives the same partition.

- Modularity is maximised by the algorithm of Louvain (V. D. Blondel et al., "Fast unfolding of communities in large
  networks", 2008) or of Leiden (V. A. Traag et al., "From Louvain to Leiden", 2019), which does not return modules that
  are not connected. Either finds several modules in any graph, a random one too.
- Infomap minimises the map equation (M. Rosvall and C. T. Bergstrom, "Maps of random walks on complex networks reveal
  community structure", 2008), here in two levels.
- Spectral clustering takes the eigenvectors of the normalised Laplacian (A. Y. Ng et al., "On spectral clustering",
  2002), as many as there are eigenvalues below the largest gap (U. von Luxburg, "A tutorial on spectral clustering",
  2007).
- A block model is searched for its shortest description (see `description`), and finds one module in a random graph.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float64, Int64

from modulab.errors import ConfigError
from modulab.metrics.communities.block_model import description_gain, shortest_partition
from modulab.metrics.communities.description import CountedGraph, counted_graph, edge_counts

LEFT_OUT = -1
"""The label of a node that belongs to no module."""

Adjacency = Float64[np.ndarray, "node node"]
Labels = Int64[np.ndarray, " node"]
Kept = Int64[np.ndarray, " kept"]

_LARGEST_SEED = 2**31 - 1


def louvain(adjacency: Adjacency, seed: int, resolution: float = 1.0) -> Labels:
    """Return the partition that the algorithm of Louvain finds; a higher resolution favours smaller modules."""
    import networkx as nx

    kept = connected_nodes(adjacency)
    graph: Any = nx.Graph()
    graph.add_nodes_from(range(len(kept)))
    graph.add_weighted_edges_from(_edges(adjacency, kept))
    found: Any = nx.community.louvain_communities(graph, resolution=resolution, seed=seed % _LARGEST_SEED)
    return _labels(len(adjacency), kept, _of_sets(len(kept), found))


def leiden(adjacency: Adjacency, seed: int, resolution: float = 1.0) -> Labels:
    """Return the partition that the algorithm of Leiden finds, iterated until nothing improves.

    Raises: ConfigError without the extra `communities`.
    """
    igraph, leidenalg = extra("igraph"), extra("leidenalg")
    kept = connected_nodes(adjacency)
    edges = _edges(adjacency, kept)
    graph = igraph.Graph(n=len(kept), edges=[(one, other) for one, other, _ in edges])
    found = leidenalg.find_partition(
        graph,
        leidenalg.RBConfigurationVertexPartition,
        weights=[weight for _, _, weight in edges],
        resolution_parameter=resolution,
        n_iterations=-1,
        seed=seed % _LARGEST_SEED,
    )
    return _labels(len(adjacency), kept, np.array(found.membership, dtype=np.int64))


def infomap(adjacency: Adjacency, seed: int) -> Labels:
    """Return the two-level partition that Infomap finds.

    Raises: ConfigError without the extra `communities`.
    """
    library = extra("infomap")
    kept = connected_nodes(adjacency)
    if not len(kept):
        return np.full(len(adjacency), LEFT_OUT, dtype=np.int64)
    search = library.Infomap(silent=True, two_level=True, seed=1 + seed % (_LARGEST_SEED - 1))
    for one, other, weight in _edges(adjacency, kept):
        search.add_link(one, other, weight)
    result = search.run()
    modules: dict[int, int] = dict(result.modules())
    return _labels(len(adjacency), kept, np.array([modules[node] for node in range(len(kept))]))


def spectral(adjacency: Adjacency, seed: int, modules: int | None = None, most: int = 10) -> Labels:
    """Return the clusters of the leading eigenvectors; without `modules`, as many as the largest eigengap says.

    The gap is sought among the first `most` numbers of modules. Each component of the graph is one module at least.
    """
    from sklearn.cluster import KMeans

    kept = connected_nodes(adjacency)
    if not len(kept):
        return np.full(len(adjacency), LEFT_OUT, dtype=np.int64)
    eigenvalues, vectors = laplacian_spectrum(adjacency[np.ix_(kept, kept)])
    count = min(len(kept), modules or modules_by_eigengap(eigenvalues, most))
    rows = vectors[:, :count]
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    rows = rows / np.where(lengths > 0, lengths, 1.0)
    if count == 1 or len(np.unique(rows.round(9), axis=0)) < count:  # fewer points than clusters
        return _labels(len(adjacency), kept, np.zeros(len(kept), dtype=np.int64))
    make: Any = KMeans
    clusters = make(count, n_init=10, random_state=seed % _LARGEST_SEED).fit(rows)
    return _labels(len(adjacency), kept, clusters.labels_.astype(np.int64))


def laplacian_spectrum(
    adjacency: Adjacency,
) -> tuple[Float64[np.ndarray, " node"], Float64[np.ndarray, "node node"]]:
    """Return the eigenvalues of the normalised Laplacian, rising, and its eigenvectors as columns.

    Eigenvectors are unique up to sign, and to a rotation where eigenvalues are equal; clusters do not depend on it.
    """
    scale = 1 / np.sqrt(adjacency.sum(axis=1))
    laplacian = np.eye(len(adjacency)) - scale[:, None] * adjacency * scale
    eigenvalues, vectors = np.linalg.eigh((laplacian + laplacian.T) / 2)
    return eigenvalues, vectors


def modules_by_eigengap(eigenvalues: Float64[np.ndarray, " node"], most: int) -> int:
    """Return after how many eigenvalues, `most` at most, the largest gap comes."""
    gaps = np.diff(eigenvalues[: most + 1])
    return int(np.argmax(gaps)) + 1 if len(gaps) else 1


def block_model(adjacency: Adjacency, seed: int, parts: Int64[np.ndarray, " node"] | None = None) -> Labels:
    """Return the partition with the shortest description that is found from where Louvain's algorithm ends.

    `parts` are those of the graph, such as the layers of a network; without them it has one. Nodes are left out whose
    edges are all too weak to count.
    """
    kept, counts, graph = _counted(adjacency, parts)
    if not len(kept):
        return np.full(len(adjacency), LEFT_OUT, dtype=np.int64)
    start = louvain(counts.astype(np.float64), seed)
    found = shortest_partition(graph, start, np.random.default_rng(seed))
    return _labels(len(adjacency), kept, found)


def nats_saved(
    adjacency: Adjacency, labels: Labels, parts: Int64[np.ndarray, " node"] | None = None
) -> float:
    """Return by how many nats a partition of the nodes that count shortens the description that one module gives."""
    kept, _, graph = _counted(adjacency, parts)
    return description_gain(graph, labels[kept]) if len(kept) else 0.0


def _counted(
    adjacency: Adjacency, parts: Int64[np.ndarray, " node"] | None
) -> tuple[Kept, Int64[np.ndarray, "kept kept"], CountedGraph]:
    """Return the nodes whose edges count, the counts between them, and their graph."""
    counts = edge_counts(adjacency)
    kept = np.nonzero(counts.sum(axis=1))[0]
    counts = counts[np.ix_(kept, kept)]
    places = np.zeros(len(adjacency), dtype=np.int64) if parts is None else parts
    return kept, counts, counted_graph(counts, places[kept])


def extra(module: str) -> Any:
    """Return a library of the extra `communities`.

    Raises: ConfigError if it is not installed.
    """
    import importlib

    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ConfigError(
            f"This search needs {module}, which is not installed. Install it with pip install 'modulab[communities]' "
            "(libraries under the GPL), or use the searches by Louvain or of a block model, which need nothing more."
        ) from error


def connected_nodes(adjacency: Adjacency) -> Kept:
    """Return the nodes that have an edge."""
    return np.nonzero(adjacency.sum(axis=1))[0]


def _edges(adjacency: Adjacency, kept: Kept) -> list[tuple[int, int, float]]:
    """Return the edges between kept nodes, by their places among those; one from a node to itself counts half."""
    own = np.triu(adjacency[np.ix_(kept, kept)])
    own[np.diag_indices(len(own))] /= 2
    rows, columns = np.nonzero(own)
    return list(zip(rows.tolist(), columns.tolist(), own[rows, columns].tolist(), strict=True))


def _of_sets(nodes: int, modules: Any) -> Kept:
    labels = np.zeros(nodes, dtype=np.int64)
    for number, members in enumerate(modules):
        labels[list(members)] = number
    return labels


def _labels(nodes: int, kept: Kept, found: Kept) -> Labels:
    """Return labels of all nodes; modules are numbered by size, the largest first, then by their first node."""
    labels = np.full(nodes, LEFT_OUT, dtype=np.int64)
    names, first, sizes = np.unique(found, return_index=True, return_counts=True)
    order = np.lexsort((first, -sizes))
    ranks = np.empty(len(names), dtype=np.int64)
    ranks[order] = np.arange(len(names))
    labels[kept] = ranks[np.searchsorted(names, found)]
    return labels
