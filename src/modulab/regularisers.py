"""Regularisers: penalties on weights times activity, added to each member's own loss.

The family is R_pq = sum over weight matrices l, sum_ij |W^l_ij|^p E_x |a^(l-1)_j|^q, where a^(l-1) is the
activity that W^l reads and E_x the mean over the minibatch.

For one hidden layer, a linear readout with K outputs and mean squared error, noise of law (c0, c1, c2)
adds variance sigma^2 sum_j W_oj^2 (c0 + c1 |a_j| + c2 a_j^2) to output o, so

    E_xi[loss] = loss + (sigma^2 / K) (c0 R_20 + c1 R_21 + c2 R_22)

with R over the readout: (p, q) = (2, 1) at strength sigma^2 / K is the deterministic counterpart of Poisson noise.

A regulariser is a class whose fields are numbers, one per member when stacked, and whose `penalty` turns a
forward pass into one value per member. docs/extending.md shows how to write another.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Float, Int32, Int64
from pydantic import Field, field_validator
from torch import Tensor

from modulab.networks.base import INPUT, Edges, Network, Recording
from modulab.noise import NoiseLaw, relative_variance
from modulab.schema import Settings


def _power(magnitude: Tensor, exponent: Tensor, at_zero_exponent: Tensor | float) -> Tensor:
    """Return magnitude^exponent, with derivative 0 at magnitude 0 and a stated value for exponent 0."""
    positive = torch.where(magnitude > 0, magnitude, 1.0)
    general = torch.where(magnitude > 0, torch.exp(exponent * torch.log(positive)), 0.0)
    result = torch.where(exponent == 1, magnitude, torch.where(exponent == 2, magnitude.square(), general))
    return torch.where(exponent == 0, at_zero_exponent, result)


def mean_activity_power(
    activity: Float[Tensor, "member features batch"], exponents: Float[Tensor, " member"], variant: str
) -> Float[Tensor, "member features"]:
    """Return E_x |a|^q for each unit; variant `whole` serves exponents 0, 1 and 2 without a logarithm per sample."""
    exponent = exponents[:, None]
    magnitude = activity.abs()
    if variant == "whole":
        first, second = magnitude.mean(dim=2), activity.square().mean(dim=2)
        return torch.where(exponent == 0, 1.0, torch.where(exponent == 1, first, second))
    return _power(magnitude, exponent[:, :, None], 1.0).mean(dim=2)


@dataclass(frozen=True)
class Pass:
    """A forward pass of a population, with its network, parameters and inputs."""

    network: Network
    parameters: Float[Tensor, "member parameter"]
    mask: Float[Tensor, "member parameter"]
    inputs: Float[Tensor, "member batch in_features"]
    recording: Recording
    step: Int32[Tensor, ""] = field(default_factory=lambda: torch.zeros((), dtype=torch.int32))
    """The training step, from 0, for penalties that change during training."""

    def edges(self) -> tuple[Edges, ...]:
        """Return the weighted connections of the network."""
        return self.network.edges(self.parameters)

    def masks(self) -> tuple[Edges, ...]:
        """Return, in the form of `edges`, 1 for each connection that exists and 0 for masked ones."""
        return self.network.edges(self.mask)

    def read_by(self, edges: Edges) -> Float[Tensor, "member source_unit _batch"]:
        """Return the activity that these edges read, without noise."""
        return self.network.activity_read((edges.source, edges.target), self.inputs, self.recording)


@dataclass(frozen=True)
class Rearrangement:
    """Parameters after units were rearranged, and the moments with which training continues."""

    parameters: Float[Tensor, "member parameter"]
    moments_of: Int64[Tensor, "member parameter"] | None = None
    """For each parameter, the index of the parameter whose optimiser moments it takes; None if each keeps its own."""


class Regulariser(Settings):
    """The base class of regularisers: a strength, and a penalty computed from a forward pass."""

    strength: float = Field(ge=0, description="lambda, the factor before the penalty; 0 switches it off")

    @property
    def variant(self) -> str:
        """Return which formula of the class a member needs; members of one variant are computed together."""
        return ""

    def coefficients(self) -> dict[str, float]:
        """Return the numbers of this member that `penalty` needs: by default every numeric field."""
        values = {name: getattr(self, name) for name in type(self).model_fields}
        return {name: float(value) for name, value in values.items() if isinstance(value, int | float)}

    @staticmethod
    def penalty(run: Pass, coefficients: Mapping[str, Tensor], variant: str) -> Float[Tensor, " member"]:
        """Return each member's penalty without the strength; `coefficients` are (member,) tensors of numeric fields."""
        raise NotImplementedError

    def lacking(self, network: Network) -> str | None:
        """Return what a network lacks if its penalty is 0 for all weights, or None."""
        del network
        return None

    def check_training(self, curve_every: int) -> None:
        """Raise ConfigError if training with `curve_every` steps between points of curves is not supported.

        For regularisers that act at these points (see `rearranged`).
        """
        del curve_every

    @staticmethod
    def rearranged(
        network: Network,
        parameters: Float[Tensor, "member parameter"],
        coefficients: Mapping[str, Tensor],
        step: int,
    ) -> Rearrangement | None:
        """Return the parameters with units rearranged after `step` steps, or None, the default, if nothing changes.

        Called at each point of the curves, every training.curve_every steps. It is for changes that gradients cannot
        make and that do not change outputs. It must be a pure function of each member's own row.
        """
        del network, parameters, coefficients, step
        return None


class PowerRegulariser(Regulariser):
    """R_pq, the family of penalties on powers of weights times powers of activity."""

    name: str = Field(description="name in tables and figures")
    weight_power: float = Field(ge=0, description="p, 0 or at least 1")
    activity_power: float = Field(ge=0, description="q, 0 or at least 1")
    sites: Literal["hidden", "all"] | None = Field(
        description="which weight matrices are penalised: those that leave hidden layers (hidden), or all; "
        "null means hidden if q > 0 and all if q = 0"
    )

    @field_validator("weight_power", "activity_power")
    @classmethod
    def _finite_slope_at_zero(cls, power: float) -> float:
        if 0 < power < 1:
            raise ValueError(
                f"a power of {power} has an infinite slope at 0, which gradient descent cannot follow. "
                "Use 0, or 1 and above."
            )
        return power

    @property
    def variant(self) -> str:
        """Return `whole` for activity powers 0, 1 and 2, which need no logarithm per sample, else `real`."""
        return "whole" if self.activity_power in (0, 1, 2) else "real"

    def coefficients(self) -> dict[str, float]:
        """Return strength and powers, and as `first_layer` 1 where the matrix that reads the inputs counts, else 0."""
        sites = self.sites or ("hidden" if self.activity_power > 0 else "all")
        return {**super().coefficients(), "first_layer": float(sites == "all")}

    def lacking(self, network: Network) -> str | None:
        """Return that a network has no edges that are penalised, if so."""
        everywhere = self.coefficients()["first_layer"] > 0
        penalised = [source for source, _ in network.connections if everywhere or source != INPUT]
        return None if penalised else "weighted connections from hidden units that it states as edges"

    @staticmethod
    def penalty(run: Pass, coefficients: Mapping[str, Tensor], variant: str) -> Float[Tensor, " member"]:
        """Return R_pq; |W|^0 counts the connections that are not masked."""
        weight_power = coefficients["weight_power"][:, None, None]
        total = torch.zeros_like(coefficients["weight_power"])
        means: dict[tuple[str, str], Tensor] = {}
        for edges, masks in zip(run.edges(), run.masks(), strict=True):
            strengths = _power(edges.weights.abs(), weight_power, masks.weights).sum(dim=1)
            connection = (edges.source, edges.target)
            if connection not in means:  # of which a convolution has one for each place of its kernel
                means[connection] = mean_activity_power(
                    run.read_by(edges), coefficients["activity_power"], variant
                )
            term = (strengths * means[connection]).sum(dim=1)
            total = total + (term * coefficients["first_layer"] if edges.source == INPUT else term)
        return total


class JacobianRegulariser(Regulariser):
    """The penalty that equals activity noise to second order: sum_l E_x sum_j v(a_j) |dy/da_j|^2, summed over outputs.

    j runs over the units of a site, and over the positions and visits at which they are active.

    v(a) = c0 + c1 |a| + c2 a^2. An expansion of the outputs to first order in small noise at every site gives an output
    variance of sigma^2 times this sum. Strength sigma^2 / K therefore matches noise of scale sigma under mean squared
    error over K outputs. With one hidden layer the penalty equals c0 R_20 + c1 R_21 + c2 R_22.
    """

    name: str = Field(description="name in tables and figures")
    constant: float = Field(ge=0, description="c0 of the equivalent noise law")
    linear: float = Field(ge=0, description="c1 of the equivalent noise law")
    quadratic: float = Field(ge=0, description="c2 of the equivalent noise law")

    def lacking(self, network: Network) -> str | None:
        """Return that a network has no sites, if so."""
        return None if network.sites else "sites where units are active"

    @staticmethod
    def penalty(run: Pass, coefficients: Mapping[str, Tensor], variant: str) -> Float[Tensor, " member"]:
        """Return the noise-weighted squared Jacobian, summed over sites from the last one back."""
        del variant
        law = NoiseLaw(
            coefficients["strength"],
            coefficients["constant"],
            coefficients["linear"],
            coefficients["quadratic"],
        )
        total = torch.zeros_like(coefficients["strength"])
        jacobians = run.network.output_jacobians(run.parameters, run.inputs, run.recording)
        for site, jacobian in jacobians:
            activity = run.recording.values[site]
            summed = (jacobian.square().sum(dim=1) * relative_variance(activity, law)).sum(dim=1)
            values_of_a_unit = activity.shape[2] // run.inputs.shape[1]
            total = total + values_of_a_unit * summed.mean(dim=1)
        return total
