"""Mean activity of the hidden units of a network, and the number of active units."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from modulab.metrics.measure import Column, measure
from modulab.metrics.probe import Probe

ACTIVE_SHARE_OF_INPUTS = 0.01
"""A unit counts as active if it is so on at least this share of inputs."""

_SPEAKS_ABOVE = 1e-3
"""A unit is active on an input where |a| exceeds this share of its layer's mean |a|. Exactly zero activity, which
would do for relu, never occurs in a softplus or sigmoid unit however silent; a share, not a level, because a relu
layer's scale is arbitrary."""


def finite_mean(values: Float[Tensor, "*values"], dim: int) -> Float[Tensor, "*means"]:
    """Return means of values along an axis. A sum that is beyond float32 is taken in double precision.

    Means of other members are as ever, to the bit.
    """
    means = values.mean(dim=dim)
    if bool(means.isfinite().all()):
        return means
    return torch.where(means.isfinite(), means, values.double().mean(dim=dim).to(means.dtype))


def mean_activity(
    activities: Sequence[Float[Tensor, "member _hidden _batch"]],
) -> Float[Tensor, " member"]:
    """Return mean |a| over all hidden units and inputs. Raises: IndexError without hidden layers."""
    units = torch.cat([finite_mean(activity.abs(), dim=2) for activity in activities], dim=1)
    return finite_mean(units, dim=1)


def active_units(
    activities: Sequence[Float[Tensor, "member _hidden _batch"]],
) -> Float[Tensor, " member"]:
    """Return how many hidden units, over all layers, are active on at least 1% of inputs."""
    counts: list[Tensor] = []
    for activity in activities:
        magnitude = activity.abs()
        threshold = _SPEAKS_ABOVE * finite_mean(finite_mean(magnitude, dim=2), dim=1)
        share = (magnitude > threshold[:, None, None]).float().mean(dim=2)
        counts.append((share >= ACTIVE_SHARE_OF_INPUTS).float().sum(dim=1))
    return torch.stack(counts).sum(dim=0)


@measure(
    Column("activity/mean", "Mean activity of hidden units"),
    Column("activity/active_units", "Active hidden units"),
    needs=("sites",),
)
def measure_activity(probe: Probe) -> dict[str, Float[Tensor, " member"]]:
    """Return `activity/mean` and `activity/active_units`; NaN and 0 in a network without hidden layers."""
    activities = probe.activities()
    if not activities:
        nothing = torch.zeros(len(probe.keys), device=probe.keys.device)
        return {"activity/mean": nothing * torch.nan, "activity/active_units": nothing}
    return {"activity/mean": mean_activity(activities), "activity/active_units": active_units(activities)}
