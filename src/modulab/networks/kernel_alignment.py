"""Kernel alignment: directions of the inputs on which a smooth function of few dimensions fits the targets.

A. Boopathy et al., "Breaking neural network scaling laws with modularity" (arXiv 2409.05780), find the projection U of
a module, before any training, by descent on one kernel objective, once from a random start for each module. The
formulas here are a reading of what is published of it: the squared norm of the interpolant of the targets in the
kernel's space,

    L(U) = sum_o y_o' (K_U + ridge I)^-1 y_o,  K_U(x, x') = exp(-|U (x - x')|^2 / (2 bandwidth^2)),

which is least where few and smooth changes along U explain the targets. `ridge` stands for what the module leaves to
the others, as for noise in the regression of a Gaussian process, of which L is the term of the data. L depends on the
span of U's rows alone, so descent is on the Grassmann manifold (A. Edelman et al., 1998).
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

_MOMENTUM = 0.9


@dataclass(frozen=True)
class KernelRule:
    """The kernel, and the number and length of descent steps."""

    bandwidth: float
    """The bandwidth, in units of the inputs."""
    ridge: float
    """The ridge, in units of the kernel, which is 1 for equal points."""
    steps: int
    step_size: float
    """Length of the first steps without momentum, in units of the rows, which have length 1."""


def orthonormal_rows(
    projections: Float[Tensor, "module row in_features"],
) -> Float[Tensor, "module row in_features"]:
    """Return orthonormal rows with the span of those given."""
    orthogonal, triangular = torch.linalg.qr(projections.transpose(1, 2))
    return (orthogonal * torch.sign(torch.diagonal(triangular, dim1=1, dim2=2))[:, None]).transpose(1, 2)


def kernel_objective(
    rule: KernelRule,
    projections: Float[Tensor, "module row in_features"],
    inputs: Float[Tensor, "point in_features"],
    targets: Float[Tensor, "point output"],
) -> tuple[Float[Tensor, " module"], Float[Tensor, "module row in_features"]]:
    """Return L of each projection, and its derivative.

    With z = U x and a = (K + ridge I)^-1 y, dL = -a' dK a gives the derivative by z_i,
    2 / bandwidth^2 sum_o a_io (z_i (K a_o)_i - (K (a_o z))_i).
    """
    read = inputs @ projections.transpose(1, 2)
    squares = read.square().sum(dim=2)
    distances = squares[:, :, None] + squares[:, None] - 2 * read @ read.transpose(1, 2)
    kernel = (distances * (-0.5 / rule.bandwidth**2)).exp()
    noisy = kernel + rule.ridge * torch.eye(len(inputs), dtype=inputs.dtype)
    solved = torch.cholesky_solve(targets.expand(len(kernel), -1, -1), torch.linalg.cholesky(noisy))
    objective = (targets * solved).sum(dim=(1, 2))
    slopes = read * (solved * (kernel @ solved)).sum(dim=2, keepdim=True)
    for output in solved.split(1, dim=2):
        slopes = slopes - output * (kernel @ (output * read))
    return objective, (slopes * (2 / rule.bandwidth**2)).transpose(1, 2) @ inputs


def align(
    rule: KernelRule,
    projections: Float[Tensor, "module row in_features"],
    inputs: Float[Tensor, "point in_features"],
    targets: Float[Tensor, "point output"],
) -> Float[Tensor, "module row in_features"]:
    """Return orthonormal rows after descent from those given, each projection by itself.

    Steps have a length that falls to 0 by a cosine, whatever the slope, and momentum. Targets count less their mean.
    The last result is cached, so networks that differ only in the number of further points start equal.
    """
    return _aligned(rule, _Values(projections), _Values(inputs), _Values(targets)).clone()


class _Values:
    """A tensor that is equal to others by its values, as a key of a cache."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor
        self._key = (tuple(tensor.shape), tensor.dtype, tensor.contiguous().numpy().tobytes())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Values) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)


@functools.lru_cache(maxsize=256)
def _aligned(rule: KernelRule, start: _Values, points: _Values, values: _Values) -> Tensor:
    inputs, targets = points.tensor, values.tensor
    rows = orthonormal_rows(start.tensor)
    centred = targets - targets.mean(dim=0)
    velocity = torch.zeros_like(rows)
    for step in range(rule.steps):
        _, gradient = kernel_objective(rule, rows, inputs, centred)
        along = gradient - gradient @ rows.transpose(1, 2) @ rows
        length = along.flatten(1).norm(dim=1).clamp(min=torch.finfo(rows.dtype).tiny)
        velocity = _MOMENTUM * velocity + along / length[:, None, None]
        share = (1 + math.cos(math.pi * step / rule.steps)) / 2
        rows = orthonormal_rows(rows - rule.step_size * share * velocity)
    return rows
