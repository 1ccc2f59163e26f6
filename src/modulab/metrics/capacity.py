"""Exact values of the game in which a mixture of experts must fit the worst of several domains.

For any q the value is the capacity of the channel from domains to symbols (see `tasks.domains`). Where experts are not
their domains, the mixtures that a gate can make are fewer, and the value is that of a convex program.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Float, Float64
from numpy.typing import NDArray
from scipy.optimize import LinearConstraint, NonlinearConstraint, minimize
from torch import Tensor

_Array = NDArray[np.float64]
_GAP = 1e-9
"""The distance in nats between the bounds of a capacity at which the search ends."""
_MOST_ITERATIONS = 20_000
_PRECISIONS = (1e-10, 1e-8)
"""Tolerances at which a convex program ends: if steps at the first are lost in rounding, the second is tried."""
_LEAST_DENSITY = 1e-12
"""The smallest density of a mixture at a symbol, so that its logarithm is finite."""


def channel_capacity(
    channel: Float[Tensor, "channel input symbol"],
) -> tuple[Float64[Tensor, " channel"], Float64[Tensor, "channel input"]]:
    """Return the capacity of each channel in nats, and the weights of its inputs that attain it.

    R. Blahut and S. Arimoto (1972): w_k is multiplied by exp(D_k), D_k = KL(P_k || sum_j w_j P_j), and normalised. The
    capacity lies between sum_k w_k D_k, which is returned, and max_k D_k.
    """
    rows = channel.double()
    weights = torch.full(rows.shape[:2], 1 / rows.shape[1], dtype=torch.float64, device=rows.device)
    divergences = _divergences(rows, weights)
    for _ in range(_MOST_ITERATIONS):
        if bool((divergences.amax(dim=1) - (weights * divergences).sum(dim=1) < _GAP).all()):
            break
        weights = torch.softmax(weights.log() + divergences, dim=1)
        divergences = _divergences(rows, weights)
    return (weights * divergences).sum(dim=1), weights


def _divergences(
    rows: Float64[Tensor, "channel input symbol"], weights: Float64[Tensor, "channel input"]
) -> Float64[Tensor, "channel input"]:
    mixture = weights[:, None] @ rows
    return (torch.xlogy(rows, rows) - torch.xlogy(rows, mixture)).sum(dim=2)


def robust_value(
    domains: Float[Tensor, "module symbol"], experts: Float[Tensor, "module symbol"], sees_symbols: bool
) -> float:
    """Return min over gates of max_k KL(P_k || q), with q in proportion to sum_k g_k(x) e_k(x).

    A constant gate gives the convex hull of the experts. One that sees symbols gives every q for which some c > 0 has
    c min_k e_k(x) <= q(x) <= c max_k e_k(x) at all x. The largest divergence is convex on both, so the local
    search of `scipy.optimize` (D. Kraft's SLSQP, 1988) ends at its minimum.
    """
    truth = domains.double().numpy()
    densities = experts.double().numpy()
    if sees_symbols:
        return _least_bound(truth, *_hull_of_intervals(densities))
    count = len(densities)
    is_simplex = LinearConstraint(np.r_[np.ones(count), 0.0][None], 1, 1)
    return _least_bound(truth, densities.T, np.full(count, 1 / count), [is_simplex])


def _hull_of_intervals(densities: _Array) -> tuple[_Array, _Array, list[LinearConstraint]]:
    """Return the map from (q, c) to q, a point to begin at, and the constraints on (q, c, bound)."""
    symbols = densities.shape[1]
    low, high = densities.min(axis=0)[:, None], densities.max(axis=0)[:, None]
    q, bound = np.eye(symbols), np.zeros((symbols, 1))
    inside = np.vstack([np.hstack([q, -low, bound]), np.hstack([-q, high, bound])])
    total = np.r_[np.ones(symbols), 0.0, 0.0][None]
    constraints = [LinearConstraint(inside, 0, np.inf), LinearConstraint(total, 1, 1)]
    return np.eye(symbols, symbols + 1), np.r_[densities.mean(axis=0), 1.0], constraints


def _least_bound(
    truth: _Array, mixes: _Array, start: _Array, constraints: Sequence[LinearConstraint]
) -> float:
    """Return the least bound on all divergences from q = mixes @ free, over free values from 0 on."""
    entropies = np.where(truth > 0, truth * np.log(np.where(truth > 0, truth, 1.0)), 0.0).sum(axis=1)

    def mixture(values: _Array) -> _Array:
        return np.maximum(mixes @ values[:-1], _LEAST_DENSITY)

    def slack(values: _Array) -> _Array:
        return values[-1] - (entropies - truth @ np.log(mixture(values)))

    def slopes(values: _Array) -> _Array:
        return np.hstack([(truth / mixture(values)) @ mixes, np.ones((len(truth), 1))])

    def bound(values: _Array) -> float:
        return float(values[-1])

    def slope_of_bound(values: _Array) -> _Array:
        return np.r_[np.zeros(len(values) - 1), 1.0]

    first = np.r_[start, -slack(np.r_[start, 0.0]).min()]
    for precision in _PRECISIONS:
        found: Any = minimize(
            bound,
            first,
            jac=slope_of_bound,
            bounds=[(0, None)] * len(first),
            constraints=[NonlinearConstraint(slack, 0, np.inf, jac=cast("Any", slopes)), *constraints],
            method="SLSQP",
            options={"ftol": precision, "maxiter": 1000},
        )
        if found.success:
            return float(found.x[-1])
    return math.nan
