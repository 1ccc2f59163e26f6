"""Agreement of partitions with known modules, and with one another over restarts.

Both measures are 1 for equal partitions and 0 for random ones of the same sizes, in expectation: adjusted mutual
information (N. X. Vinh et al., "Information theoretic measures for clusterings comparison", 2010, over the arithmetic
mean of the entropies) and the adjusted Rand index (L. Hubert and P. Arabie, "Comparing partitions", 1985).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
from jaxtyping import Int64


def adjusted_mutual_information(one: Int64[np.ndarray, " node"], other: Int64[np.ndarray, " node"]) -> float:
    """Return the adjusted mutual information over the nodes that both partitions label; NaN without any."""
    from sklearn.metrics import adjusted_mutual_info_score

    both = (one >= 0) & (other >= 0)
    return float(adjusted_mutual_info_score(one[both], other[both])) if both.any() else float("nan")


def adjusted_rand(one: Int64[np.ndarray, " node"], other: Int64[np.ndarray, " node"]) -> float:
    """Return the adjusted Rand index over the nodes that both partitions label; NaN without any."""
    from sklearn.metrics import adjusted_rand_score

    both = (one >= 0) & (other >= 0)
    return float(adjusted_rand_score(one[both], other[both])) if both.any() else float("nan")


def stability(partitions: Sequence[Int64[np.ndarray, " node"]]) -> float:
    """Return the mean adjusted mutual information of all pairs of partitions; 1 with a single one."""
    pairs = [adjusted_mutual_information(*pair) for pair in combinations(partitions, 2)]
    return float(np.mean(pairs)) if pairs else 1.0


def num_modules(labels: Int64[np.ndarray, " node"]) -> int:
    """Return how many modules a partition has."""
    return len(np.unique(labels[labels >= 0]))
