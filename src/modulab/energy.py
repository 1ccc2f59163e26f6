"""The cost of a neural code: energy, negative activity and weights (W. Dorrell et al., 2024, arXiv 2410.06232)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from modulab.networks.base import Network
from modulab.regularisers import Pass, Regulariser


class EnergyRegulariser(Regulariser):
    """energy/2 E|z|^2 + nonnegativity E sum relu(-z) + weights/2 |W|^2, with z the activity of all hidden units.

    The energy makes activity small, the second term makes it non-negative without a nonlinear unit, and the third stops
    weights from growing so that activity can shrink.
    """

    name: str = Field(description="name in tables and figures")
    energy: float = Field(ge=0, description="factor of half the mean squared activity, summed over units")
    nonnegativity: float = Field(ge=0, description="factor of mean negative activity, summed over units")
    weights: float = Field(ge=0, description="factor of half the summed squared weights")

    def lacking(self, network: Network) -> str | None:
        """Return that a network has no sites, if so."""
        return None if network.sites else "sites where units are active"

    @staticmethod
    def penalty(run: Pass, coefficients: Mapping[str, Tensor], variant: str) -> Float[Tensor, " member"]:
        """Return the three costs, added up."""
        del variant
        total = torch.zeros_like(coefficients["strength"])
        for site in run.network.sites:
            activity = run.recording.values[site.name]
            squared = activity.square().mean(dim=2).sum(dim=1)
            negative = torch.relu(-activity).mean(dim=2).sum(dim=1)
            total = total + coefficients["energy"] * squared / 2 + coefficients["nonnegativity"] * negative
        for edges in run.edges():
            total = total + coefficients["weights"] * edges.weights.square().sum(dim=(1, 2)) / 2
        return total
