"""A measure of your own: the size of the weights."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from modulab.metrics.measure import Column, measure
from modulab.metrics.probe import Probe


@measure(Column("weights/norm", "Norm of the weights"), needs=("edges",))
def measure_norm(probe: Probe) -> dict[str, Float[Tensor, " member"]]:
    """Return the root of the summed squared weights of all layers, one value per member."""
    squares = torch.stack([edges.weights.square().sum(dim=(1, 2)) for edges in probe.network.edges()])
    return {"weights/norm": squares.sum(dim=0).sqrt()}
