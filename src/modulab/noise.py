"""Noise in training: one law for every kind, and the places where it acts.

A value a is replaced by a + sigma sqrt(c0 + c1 |a| + c2 a^2) xi, where xi has mean 0 and variance 1. a is a hidden
activity or, if a config says so, a pre-activation or an input.
The law (1, 0, 0) is Gaussian, (0, 1, 0) Poisson-like and (0, 0, 1) multiplicative. A Poisson count over a
window T gives a rate of variance a / T, so sigma^2 = 1 / T there.

xi is drawn from N(0, 1) or, for noise that comes all at once, from a Bernoulli draw b that is 1 with
probability q and 0 otherwise, standardised:

    xi = s (b / q - 1) / sqrt((1 - q) / q),  s the sign of a,  q = 1 / (1 + sigma^2).

With that q the root is sigma, so sigma xi is s sigma^2 where b = 1 and -s where b = 0. Under the
multiplicative law the noisy activity is then a + |a| sigma xi = a b / q: inverted dropout (N. Srivastava et
al., "Dropout", 2014), which silences a unit with probability 1 - q = sigma^2 / (1 + sigma^2) and scales up
what it keeps. Whatever depends on mean and variance alone, such as the expected squared error of a linear
readout, is the same for both distributions; dropout and multiplicative noise of one sigma differ in the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Literal

import torch
from jaxtyping import Float, Int32
from pydantic import Field
from torch import Tensor

from modulab.schema import Settings
from modulab.streams import bernoullis, fold_in, normals

Distribution = Literal["normal", "bernoulli"]
"""The distributions of the standardised draws xi."""


class Noise(Settings):
    """Noise of variance scale^2 (constant + linear |a| + quadratic a^2) in training.

    a is what the noise is added to: a hidden activity or, as `sites` says, a pre-activation or an input.
    """

    name: str = Field(description="name in tables and figures")
    scale: float = Field(ge=0, description="sigma; 0 switches noise off")
    constant: float = Field(ge=0, description="c0, the variance that does not depend on activity")
    linear: float = Field(ge=0, description="c1, the variance proportional to activity (Poisson-like)")
    quadratic: float = Field(ge=0, description="c2, the variance proportional to squared activity")
    distribution: Distribution = Field(
        description="distribution of the noise: normal, or bernoulli, which is dropout if only quadratic is "
        "not 0"
    )
    sites: Literal["all", "first", "last", "pre_activation", "input"] = Field(
        description="where noise acts: on the activity of all hidden layers, or only of the first or last; "
        "on the pre_activation of all hidden layers; or on the input"
    )

    @property
    def has_variance(self) -> bool:
        """Return whether the law has noise at any activity."""
        return self.constant + self.linear + self.quadratic > 0

    def coefficients(self) -> dict[str, float]:
        """Return the coefficients for `NoiseLaw`; each member of a population has its own."""
        return {field.name: getattr(self, field.name) for field in fields(NoiseLaw)}

    @property
    def is_on(self) -> bool:
        """Return whether there is any noise."""
        return self.scale > 0 and self.has_variance

    @property
    def acts_on_inputs(self) -> bool:
        """Return whether there is noise on the inputs of the network."""
        return self.is_on and self.sites == "input"

    def choose(self, sites: Sequence[str], pre_activations: Sequence[str] = ()) -> tuple[str, ...]:
        """Return the places of a forward pass at which noise acts; none if it is off or acts on the inputs."""
        if not self.is_on:
            return ()
        places: dict[str, Sequence[str]] = {
            "all": sites, "first": sites[:1], "last": sites[-1:], "pre_activation": pre_activations, "input": (),
        }  # fmt: skip
        return tuple(places[self.sites])


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
    distribution: Distribution = "normal",
) -> Float[Tensor, "member hidden_features batch"]:
    """Return noisy activity; `keys` are those of this site and step.

    If the variance is 0, the derivative of the standard deviation is also set to 0, so a silent unit has no noise and
    no infinite gradient.
    """
    variance = relative_variance(activity, law)
    silent = variance <= 0
    deviation = torch.where(silent, 0.0, torch.sqrt(torch.where(silent, 1.0, variance)))
    return activity + _DISTURBANCES[distribution](activity, deviation, law.scale, keys)


def _normal(activity: Tensor, deviation: Tensor, scale: Tensor, keys: Tensor) -> Tensor:
    draws = normals(keys, activity.shape[1], activity.shape[2])
    return scale[:, None, None] * deviation * draws


def _bernoulli(activity: Tensor, deviation: Tensor, scale: Tensor, keys: Tensor) -> Tensor:
    # Not computed from xi, which would divide by a scale of 0. A silenced unit is exactly 0.
    strength = scale.square()
    kept = bernoullis(keys, 1 / (1 + strength), activity.shape[1], activity.shape[2])
    return torch.where(kept, strength[:, None, None], -1.0) * torch.copysign(deviation, activity)


_DISTURBANCES: dict[str, Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]] = {
    "normal": _normal,
    "bernoulli": _bernoulli,
}


INPUT_NUMBER = -1
"""The number of the inputs where sites are numbered."""


def site_keys(step_keys: Int32[Tensor, "member 2"], site: int) -> Int32[Tensor, "member 2"]:
    """Return the keys of noise at one site within a step; sites are numbered from 0 in a pass's order."""
    return fold_in(step_keys, site)


def visit_keys(keys: Int32[Tensor, "member 2"], visit: int) -> Int32[Tensor, "member 2"]:
    """Return the keys of noise at a visit to a site within a pass; those of the first visit are the site's own."""
    return keys if visit == 0 else fold_in(keys, visit)
