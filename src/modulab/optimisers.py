"""Optimisers as pure functions of flat parameters, one row and one set of coefficients per member.

They follow torch.optim.SGD, Adam (Kingma and Ba, 2015) and AdamW (Loshchilov and Hutter, 2019), with the
two moment estimates kept as (member, parameter) tensors; SGD keeps its momentum in the first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from jaxtyping import Float
from torch import Tensor

Moments = tuple[Tensor, Tensor]
Update = Callable[[Tensor, Tensor, Moments, Mapping[str, Tensor], Tensor], tuple[Tensor, Moments]]


def clip_gradients(
    gradients: Float[Tensor, "member parameter"], largest_norms: Float[Tensor, " member"]
) -> Float[Tensor, "member parameter"]:
    """Return gradients scaled down where a member's own norm exceeds its limit, as torch's clip_grad_norm_ does."""
    norms = gradients.square().sum(dim=1).sqrt()
    return gradients * (largest_norms / (norms + 1e-6)).clamp(max=1.0)[:, None]


def _sgd(
    parameters: Tensor, gradients: Tensor, moments: Moments, coefficients: Mapping[str, Tensor], row: Tensor
) -> tuple[Tensor, Moments]:
    gradients = gradients + coefficients["weight_decay"][:, None] * parameters
    velocity = coefficients["momentum"][:, None] * moments[0] + gradients
    return parameters - row[0][:, None] * velocity, (velocity, moments[1])


def _adam_step(
    parameters: Tensor, gradients: Tensor, moments: Moments, coefficients: Mapping[str, Tensor], row: Tensor
) -> tuple[Tensor, Moments]:
    mean = moments[0] + (gradients - moments[0]) * (1 - coefficients["beta1"])[:, None]
    decay = coefficients["beta2"][:, None]
    square = moments[1] * decay + gradients.square() * (1 - decay)
    denominator = square.sqrt() / row[2][:, None] + coefficients["epsilon"][:, None]
    return parameters - (row[0] / row[1])[:, None] * (mean / denominator), (mean, square)


def _adam(
    parameters: Tensor, gradients: Tensor, moments: Moments, coefficients: Mapping[str, Tensor], row: Tensor
) -> tuple[Tensor, Moments]:
    gradients = gradients + coefficients["weight_decay"][:, None] * parameters
    return _adam_step(parameters, gradients, moments, coefficients, row)


def _adamw(
    parameters: Tensor, gradients: Tensor, moments: Moments, coefficients: Mapping[str, Tensor], row: Tensor
) -> tuple[Tensor, Moments]:
    parameters = parameters * (1 - row[0] * coefficients["weight_decay"])[:, None]
    return _adam_step(parameters, gradients, moments, coefficients, row)


UPDATES: dict[str, Update] = {"sgd": _sgd, "adam": _adam, "adamw": _adamw}
