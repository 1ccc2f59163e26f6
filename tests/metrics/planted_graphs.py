"""Graphs with planted modules."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def planted_graph(
    modules: int, nodes_each: int, degree: float, ratio: float, seed: int
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return a random graph of a mean degree and its modules; between two of them edges are `ratio` times as likely."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(modules), nodes_each)
    within = degree * modules / (1 + (modules - 1) * ratio) / len(labels)
    probabilities = np.where(labels[:, None] == labels, within, ratio * within)
    above = np.triu(rng.random(probabilities.shape) < probabilities, 1)
    return (above + above.T).astype(np.float64), labels


def least_ratio(modules: int, degree: float) -> float:
    """Return the ratio above which planted modules of large graphs cannot be detected (A. Decelle et al., 2011).

    They can where (c_in - c_out)^2 > K^2 c, that is ratio < (sqrt(c) - 1) / (sqrt(c) + K - 1).
    """
    root = degree**0.5
    return (root - 1) / (root + modules - 1)


def layered_graph(
    hidden: int, crossing: float, seed: int
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    """Return weights 2-hidden-2 of two modules with a share of `crossing` weight across, their parts and modules."""
    rng = np.random.default_rng(seed)
    parts = np.repeat([0, 1, 2], [2, hidden, 2])
    modules = np.concatenate([[0, 1], np.repeat([0, 1], hidden // 2), [0, 1]])
    weights = np.abs(rng.normal(size=(len(parts),) * 2)) + 0.5
    weights *= np.abs(parts[:, None] - parts) == 1
    weights = np.where(modules[:, None] == modules, 1.0, crossing) * weights
    weights = np.triu(weights)
    return weights + weights.T, parts, modules
