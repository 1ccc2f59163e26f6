"""How well the projections that the modules of a network read agree with those that the modules of its task read."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from modulab.metrics.measure import Column, Measure
from modulab.metrics.probe import Probe
from modulab.networks.base import Network
from modulab.networks.projected_modules import PROJECTION, ProjectedModules
from modulab.tasks.base import Task

FOUND = 0.8
"""From this mean squared cosine on, the projection of a module counts as found."""


def squared_cosines(
    rows: Float[Tensor, "member module row in_features"], columns: Float[Tensor, "own in_features"]
) -> Float[Tensor, "member module"]:
    """Return the mean squared cosine of the principal angles between the span of rows and that of orthonormal rows.

    With Q an orthonormal basis of the one and V of the other, the cosines are the singular values of Q V' (A. Bjorck
    and G. Golub, 1973), and |Q V'|^2 is the sum of their squares, here divided by the smaller number of rows.
    """
    basis = torch.linalg.qr(rows.transpose(2, 3))[0]
    overlaps = torch.einsum("mkir,oi->mkro", basis, columns)
    return overlaps.square().sum(dim=(2, 3)) / min(rows.shape[2], len(columns))


class ProjectionAlignment(Measure):
    """Whether each module of the task is read by some module of the network."""

    @property
    def needs(self) -> tuple[str, ...]:
        """Return input_modules."""
        return ("input_modules",)

    @property
    def columns(self) -> tuple[Column, ...]:
        """Return the words for its values."""
        return (
            Column("projections/alignment", "Alignment of projections", ends_at_one=True),
            Column("projections/found", "Share of projections found", ends_at_one=True),
        )

    def lacking(self, network: Network, task: Task) -> str | None:
        """Return that a network has no projections, if so."""
        if not isinstance(network, ProjectedModules):
            return "the network has no projections"
        return super().lacking(network, task)

    def take(self, probe: Probe) -> dict[str, Float[Tensor, " member"]]:
        """Return how well the best projection for each module of the task agrees with what that module reads.

        - `projections/alignment`: the mean over modules of the task of the largest `squared_cosines`, over modules of
          the network. Random projections have about b / m, or more with many modules to choose from.
        - `projections/found`: the share of modules for which it is at least .8.
        """
        network = probe.network.network
        assert isinstance(network, ProjectedModules)
        rows = probe.network.split()[PROJECTION].double()
        rows = rows.unflatten(1, (network.num_modules, network.module_features))
        labels = torch.tensor(probe.task.partition.inputs, device=rows.device)
        coordinates = torch.eye(network.in_features, dtype=rows.dtype, device=rows.device)
        best = [
            squared_cosines(rows, coordinates[labels == module]).amax(dim=1)
            for module in range(probe.task.modules)
        ]
        agreement = torch.stack(best, dim=1)
        return {
            "projections/alignment": agreement.mean(dim=1),
            "projections/found": (agreement >= FOUND).double().mean(dim=1),
        }
