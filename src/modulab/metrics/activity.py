"""Mean activity of the hidden units of a network, and the number of active units."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from modulab.metrics.measure import Column, measure
from modulab.metrics.probe import Probe
from modulab.metrics.row_functions import UnitActivity, activity_of_units

ACTIVE_SHARE_OF_INPUTS = 0.01
"""A unit counts as active if it is so on at least this share of inputs."""


def finite_mean(values: Float[Tensor, "*values"], dim: int) -> Float[Tensor, "*means"]:
    """Return means of values along an axis. A sum that is beyond float32 is taken in double precision.

    Means of other members are as ever, to the bit.
    """
    means = values.mean(dim=dim)
    if bool(means.isfinite().all()):
        return means
    return torch.where(means.isfinite(), means, values.double().mean(dim=dim).to(means.dtype))


def mean_activity(units: Float[Tensor, "member two unit"]) -> Float[Tensor, " member"]:
    """Return mean |a| over all hidden units and inputs, of what `activity_of_units` returns."""
    return finite_mean(units[:, 0], dim=1)


def active_units(units: Float[Tensor, "member two unit"]) -> Float[Tensor, " member"]:
    """Return how many hidden units are active on at least 1% of inputs, of what `activity_of_units` returns."""
    return (units[:, 1] >= ACTIVE_SHARE_OF_INPUTS).float().sum(dim=1)


def measured_units(probe: Probe) -> Float[Tensor, "member two unit"]:
    """Return `activity_of_units` of all sites, by native code if there is any and no mean exceeds float32."""
    given = probe.network.parameters, probe.samples.inputs.transpose(1, 2)
    run = probe.kernels.compiled(UnitActivity(probe.network.network), *given)
    if run is None:
        return activity_of_units(probe.activities(), finite_mean)
    units = run(*given)
    is_usable = units[:, 0].sum(dim=1).isfinite()
    if bool(is_usable.all()):
        return units
    return torch.where(is_usable[:, None, None], units, activity_of_units(probe.activities(), finite_mean))


@measure(
    Column("activity/mean", "Mean activity of hidden units"),
    Column("activity/active_units", "Active hidden units"),
    needs=("sites",),
)
def measure_activity(probe: Probe) -> dict[str, Float[Tensor, " member"]]:
    """Return `activity/mean` and `activity/active_units`; NaN and 0 in a network without hidden layers."""
    if not probe.network.network.sites:
        nothing = torch.zeros(len(probe.keys), device=probe.keys.device)
        return {"activity/mean": nothing * torch.nan, "activity/active_units": nothing}
    units = probe.once(measured_units)
    return {"activity/mean": mean_activity(units), "activity/active_units": active_units(units)}
