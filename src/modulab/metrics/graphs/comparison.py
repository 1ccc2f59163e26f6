"""A score against those of its null: how far beyond them it lies, and how often chance does as well."""

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
    """Of the null."""
    z: Float64[Tensor, " member"]
    """Standard deviations of the null by which the score is more modular than its mean. NaN where all are equal."""
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
    return Comparison(
        mean, sign * (score - mean) / spread, torch.where(score.isnan() | mean.isnan(), torch.nan, p)
    )
