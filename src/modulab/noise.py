"""Activity noise: one law for every kind.

A hidden activity a is replaced by a + sigma sqrt(c0 + c1 |a| + c2 a^2) xi with xi ~ N(0, 1). The law
(1, 0, 0) is Gaussian, (0, 1, 0) Poisson-like and (0, 0, 1) multiplicative. A Poisson count over a window T
gives a rate of variance a / T, so sigma^2 = 1 / T there.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int32
from torch import Tensor

from modulab.streams import fold_in, normals


@dataclass(frozen=True)
class NoiseLaw:
    """Each member's sigma and coefficients (c0, c1, c2), all dimensionless and at least 0."""

    scale: Float[Tensor, " member"]
    constant: Float[Tensor, " member"]
    linear: Float[Tensor, " member"]
    quadratic: Float[Tensor, " member"]


def relative_variance(
    activity: Float[Tensor, "member hidden_features batch"], law: NoiseLaw
) -> Float[Tensor, "member hidden_features batch"]:
    """Return c0 + c1 |a| + c2 a^2: the noise variance divided by sigma^2."""
    constant, linear, quadratic = (
        value[:, None, None] for value in (law.constant, law.linear, law.quadratic)
    )
    return constant + linear * activity.abs() + quadratic * activity.square()


def add_activity_noise(
    activity: Float[Tensor, "member hidden_features batch"],
    law: NoiseLaw,
    keys: Int32[Tensor, "member 2"],
) -> Float[Tensor, "member hidden_features batch"]:
    """Return noisy activity; `keys` are those of this layer and step.

    Where the variance is 0 the standard deviation's derivative is taken as 0 as well, so that a silent unit
    is noiseless and receives no infinite gradient.
    """
    draws = normals(keys, activity.shape[1], activity.shape[2])
    variance = relative_variance(activity, law)
    silent = variance <= 0
    deviation = torch.where(silent, 0.0, torch.sqrt(torch.where(silent, 1.0, variance)))
    return activity + law.scale[:, None, None] * deviation * draws


def layer_keys(step_keys: Int32[Tensor, "member 2"], layer: int) -> Int32[Tensor, "member 2"]:
    """Return the keys of one hidden layer's noise within a step."""
    return fold_in(step_keys, layer)
