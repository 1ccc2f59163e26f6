"""A score against those of its null: its distance from them, and how often chance is as modular.

z counts standard deviations, and how rare a z of 2 is depends on the score. The saving of a description length is about
the square of how far weights differ from what strengths predict, so its null has a long tail, as that of a chi squared
variable: 4 to 5 in 100 random networks lie beyond 2 standard deviations. p does not have this problem. So where some of
the null are as modular, a positive z is at most that of a normal variable with the same p: of scores that are
exchangeable with their null, no more than 1 / (n + 1) or 2.3 in 100, whichever is more, have a z of 2.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

_ROUNDING = 1e-12
"""Scores that differ by less than this, relative to 1 or to their size, are equal."""


@dataclass(frozen=True)
class Comparison:
    """A score against shuffles or random partitions."""

    mean: Float64[Tensor, " member"]
    """The mean of the null."""
    z: Float64[Tensor, " member"]
    """Distance of the score from the mean of the null in standard deviations, limited by p. NaN
    where all are equal."""
    p: Float64[Tensor, " member"]
    """(r + 1) / (n + 1), where r of the n of the null are as modular as the score: at least 1 / (n + 1)."""


def compare(
    score: Float64[Tensor, " member"], null: Float64[Tensor, "member shuffle"], rises: bool
) -> Comparison:
    """Return the comparison; `rises` says whether more modular graphs score more. NaN where there is no score."""
    mean, deviation = null.mean(dim=1), null.std(dim=1)
    sign = 1.0 if rises else -1.0
    rounding = _ROUNDING * (1 + mean.abs())
    spread = torch.where(deviation > rounding, deviation, torch.nan)
    as_modular = (sign * (null - score[:, None]) >= -rounding[:, None]).double().sum(dim=1)
    p = (as_modular + 1) / (null.shape[1] + 1)
    z = sign * (score - mean) / spread
    borne_out = torch.where(as_modular > 0, torch.special.ndtri(1 - p).clamp(min=0), torch.inf)
    z = torch.where(z > 0, torch.minimum(z, borne_out), z)
    return Comparison(mean, z, torch.where(score.isnan() | mean.isnan(), torch.nan, p))
