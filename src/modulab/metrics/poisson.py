"""True Poisson counts, drawn by inverting the distribution function at normal draws.

A count is the smallest n with P(N <= n) >= Phi(w), w a standard normal draw of the member's own stream.
Inversion is exact, needs one draw a count, and makes the counts at neighbouring rates from the same draw
neighbours too, so that error as a function of the counting window is smooth.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Float64
from torch import Tensor

_LARGEST_SEARCHED = 100
_SEARCH_BELOW = 8.0
"""Rate below which counts are searched for upwards from 0; above, an expansion gives all but doubtful ones."""


def poisson_quantiles(
    rates: Float[Tensor, "*draws"], scores: Float[Tensor, "*draws"]
) -> Float64[Tensor, "*draws"]:
    """Return the Poisson(rate) quantile at probability Phi(score), exact to the rounding of double precision.

    For rates of 8 and more, the real x at which the regularised gamma function Q(x, rate) is Phi(w) has the
    expansion in powers of rate^(-1/2) that M. Giles gives ("Algorithm 955: approximation of the inverse
    Poisson cumulative distribution function", 2016), and the count is floor(x). Where x is nearer to an
    integer than the expansion's error, Q itself decides. Rates that are not finite give NaN. Scores beyond
    +-8 would lose their probability's digits; the streams' stay within 5.8.

    Doubles do not make results depend on their neighbours, although torch rounds the last elements of a
    tensor otherwise in some functions: a count is an integer, and a last digit does not move it.
    """
    rate, score = rates.double().flatten(), scores.double().flatten()
    counts = torch.zeros_like(rate)
    few = ((rate > 0) & (rate < _SEARCH_BELOW)).nonzero()[:, 0]
    counts[few] = _searched(rate[few], score[few])
    many = (~(rate < _SEARCH_BELOW)).nonzero()[:, 0]
    counts[many] = _expanded(rate[many], score[many])
    return counts.view(rates.shape)


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
