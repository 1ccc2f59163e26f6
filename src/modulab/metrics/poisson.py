"""True Poisson counts, drawn by inverting the distribution function at normal draws.

A count is the smallest n with P(N <= n) >= Phi(w), w a standard normal draw of the member's own stream.
Inversion is exact, needs one draw per count, and makes the counts at neighbouring rates from the same draw
neighbours too, so error as a function of the counting window is smooth.

Almost all counts are settled in single precision: small rates by a table of cells of (rate, score) in which
one count alone is possible, larger ones by an expansion of known error. The few in doubt are computed in double.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int8, Int64
from torch import Tensor

_LARGEST_SEARCHED = 100
_SEARCH_BELOW = 8.0
"""Rate below which counts are searched for upwards from 0; above, an expansion gives all but doubtful ones."""

_PIECE = 1 << 14
"""Draws worked on at a time, few enough that all temporaries stay in a processor's cache."""

_TOO_FEW_TO_EXPAND = 0.005
"""Share of larger rates in a piece up to which they are all left in doubt, rather than all rates expanded."""

COUNT_CELLS = 64
"""Cells of the table along rate and score. A power of two, so finding a rate's cell rounds nothing."""
LARGEST_SCORE = 6
_LARGEST_TABULATED = 64
_CELL_MARGIN = 2e-6
"""How far cells reach into their neighbours, beyond the rounding of rates and scores to single precision."""


def poisson_quantiles(
    rates: Float[Tensor, "*draws"], scores: Float[Tensor, "*draws"]
) -> Float64[Tensor, "*draws"]:
    """Return the Poisson(rate) quantile at probability Phi(score), exact to the rounding of double precision.

    Rates that are not finite give NaN. Scores beyond +-8 would lose their probability's digits; the streams'
    stay within 5.8.

    A count is an integer that does not depend on the way it was found, so results do not depend on their
    neighbours, although torch rounds the last elements of a tensor otherwise in some functions.
    """
    rate, score = rates.flatten(), scores.flatten()
    pieces = zip(rate.float().split(_PIECE), score.float().split(_PIECE), strict=True)
    counts = torch.empty(len(rate), dtype=torch.float64, device=rate.device)
    for own, piece in zip(counts.split(_PIECE), pieces, strict=True):
        own.copy_(_in_single(*piece))
    doubtful = places_of(counts < 0)
    counts[doubtful] = _exact(rate[doubtful].double(), score[doubtful].double())
    return counts.view(rates.shape)


def places_of(chosen: Bool[Tensor, " place"]) -> Int64[Tensor, " number"]:
    """Return the places that are true, in order. NumPy finds them in a tenth of torch's time where they are random."""
    return torch.from_numpy(np.flatnonzero(chosen.cpu().numpy())).to(chosen.device)


def _in_single(rate: Tensor, score: Tensor) -> Tensor:
    """Return quantiles, or a negative number where in doubt."""
    # Weights of 0 and 1 mix faster than a choice by truth values, and carry NaN over.
    is_large = (rate - _SEARCH_BELOW).sign_().clamp_(min=0)
    tabulated = _tabulated(rate, score)
    if is_large.sum() <= _TOO_FEW_TO_EXPAND * len(rate):
        return tabulated.sub_(is_large, alpha=2 * _LARGEST_TABULATED).add_(rate, alpha=0.0)
    return torch.lerp(tabulated, _expanded_in_single(rate, score), is_large)


def _tabulated(rate: Tensor, score: Tensor) -> Tensor:
    """Return quantiles at rates up to 8, or -1 where in doubt."""
    table = count_table(rate.device)
    # Row 0 is the rate 0 alone, so a silent unit's count, 0, is never in doubt.
    rows = (rate * COUNT_CELLS).ceil_().clamp_(0, table.shape[0] - 1)
    columns = ((score + LARGEST_SCORE) * COUNT_CELLS).floor_().clamp_(0, table.shape[1] - 1)
    cells = rows.mul_(table.shape[1]).add_(columns).int().clamp_(0, table.numel() - 1)
    return table.flatten().index_select(0, cells).float()


@cache
def count_table(device: torch.device) -> Int8[Tensor, "rate_cell score_cell"]:
    """Return the one count possible in each cell of rates (k - 1, k] / 64 and scores [j, j + 1) / 64 - 6, or -1.

    A quantile falls neither with rate nor with score, so a cell's corners bound those within.
    """
    rates = torch.arange(_SEARCH_BELOW * COUNT_CELLS + 1, dtype=torch.float64) / COUNT_CELLS
    scores = torch.arange(-LARGEST_SCORE * COUNT_CELLS, LARGEST_SCORE * COUNT_CELLS + 1.0)
    scores = scores.double() / COUNT_CELLS
    lowest = _counts_at(rates[:-1] - _CELL_MARGIN, scores[:-1] - _CELL_MARGIN)
    highest = _counts_at(rates[1:] + _CELL_MARGIN, scores[1:] + _CELL_MARGIN)
    counts = torch.where(lowest == highest, lowest, -1)
    # Scores out of the table's range are put into its outermost cells.
    counts[:, [0, -1]] = -1
    return torch.cat([torch.zeros_like(counts[:1]), counts]).to(torch.int8).to(device)


def _counts_at(rates: Tensor, scores: Tensor) -> Tensor:
    """Return the quantiles at all pairs of a few rates and rising scores."""
    numbers = torch.arange(1.0, _LARGEST_TABULATED + 1, dtype=torch.float64)
    up_to = torch.special.gammaincc(numbers, rates.clamp(min=0)[:, None])
    return torch.searchsorted(up_to, torch.special.ndtr(scores).expand(len(rates), -1).contiguous())


def _expanded_in_single(rate: Tensor, score: Tensor) -> Tensor:
    """Return quantiles at rates of 8 and more, or a negative number where in doubt."""
    rate = rate.clamp(min=_SEARCH_BELOW)
    root = rate.sqrt()
    inverse, square = root.reciprocal(), score.square()
    fourth = square.square()
    # The expansion of `_expanded`, as a polynomial in rate^(-1/2).
    x = (square * (1 / 270)).add_(7 / 810).mul_(square).sub_(8 / 405).mul_(inverse)
    x.sub_((square * (1 / 72)).add_(1 / 36).mul_(score)).mul_(inverse)
    x.add_(square, alpha=1 / 6).add_(1 / 3).add_(root.mul_(score)).add_(rate)
    error = fourth.mul_(score.abs()).add_(1).mul_(inverse).mul_(inverse).mul_(inverse).mul_(0.02)
    error.add_(rate, alpha=2e-6)
    lowest, highest = (x - error).floor_(), x.add_(error).floor_()
    return lowest.sub_(highest.sub_(lowest), alpha=1e12)


def _exact(rate: Tensor, score: Tensor) -> Tensor:
    """Return quantiles in double precision.

    For rates of 8 and more, the real x at which the regularised gamma function Q(x, rate) is Phi(w) has the
    expansion in powers of rate^(-1/2) that M. Giles gives ("Algorithm 955: approximation of the inverse
    Poisson cumulative distribution function", 2016), and the count is floor(x). Where x is nearer to an
    integer than the expansion's error, Q itself decides.
    """
    counts = torch.zeros_like(rate)
    few = ((rate > 0) & (rate < _SEARCH_BELOW)).nonzero()[:, 0]
    counts[few] = _searched(rate[few], score[few])
    many = (~(rate < _SEARCH_BELOW)).nonzero()[:, 0]
    counts[many] = _expanded(rate[many], score[many])
    return counts


def _searched(rate: Tensor, score: Tensor) -> Tensor:
    """Return quantiles by summing probabilities upwards; now and then, those found leave the sum."""
    counts = torch.zeros_like(rate)
    left = torch.arange(len(rate), device=rate.device)
    probability = torch.special.ndtr(score)
    found = torch.zeros_like(rate)
    term = torch.exp(-rate)
    missing = probability - term
    for count in range(1, _LARGEST_SEARCHED):
        found += missing > 0
        if count % 4 == 2:
            counts[left] = found
            keep = (missing > 0).nonzero()[:, 0]
            if len(keep) == 0:
                break
            left, rate, missing, found, term = (x[keep] for x in (left, rate, missing, found, term))
        term = term * rate / count
        missing = missing - term
    return counts


def _expanded(rate: Tensor, score: Tensor) -> Tensor:
    """Return quantiles by the expansion, and by Q where it leaves doubt."""
    root = rate.sqrt()
    square = score * score
    x = (
        rate
        + root * score
        + (1 / 3 + square / 6)
        - score * (1 / 36 + square / 72) / root
        + (-8 / 405 + square * (7 / 810 + square / 270)) / rate
    )
    # Twice the largest error found by bisection for rates from 8 to 10^4 and |score| up to 5.8, plus rounding.
    error = 0.02 * (1 + score.abs() * square * square) / (rate * root) + 1e-14 * rate
    counts = torch.floor(x).clamp(min=0)
    lowest, highest = torch.floor(x - error), torch.floor(x + error)
    doubtful = (lowest != highest).nonzero()[:, 0]
    rate, probability, candidate = rate[doubtful], torch.special.ndtr(score[doubtful]), lowest[doubtful]
    candidate = candidate.clamp(min=0)
    # P(N <= n) = Q(n + 1, rate). At rate 8 and score 5.8 the doubt spans 12 counts; mostly it spans one.
    for _ in range(32):
        beyond = torch.special.gammaincc(candidate + 1, rate) < probability
        if not beyond.any():
            break
        candidate = candidate + beyond
    counts[doubtful] = candidate
    return torch.where(torch.isfinite(x), counts, torch.nan)
