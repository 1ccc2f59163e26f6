"""How long the wires of a network are."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from modulab.metrics.measure import Column, Measure
from modulab.metrics.probe import Probe
from modulab.networks.placed import unit_places
from modulab.wiring import wiring_length


class WiringLength(Measure):
    """Summed and mean length of connections, each counted by its weight; a layer is a line of length 1."""

    @property
    def needs(self) -> tuple[str, ...]:
        """Return edges."""
        return ("edges",)

    @property
    def columns(self) -> tuple[Column, ...]:
        """Return the words for both."""
        return (
            Column("wiring/length", "Total length of connections, by |w|"),
            Column("wiring/mean", "Mean length of a connection, by |w|"),
        )

    def take(self, probe: Probe) -> dict[str, Float[Tensor, " member"]]:
        """Return sum |w_ij| d_ij, and the same over sum |w_ij|."""
        network = probe.network
        length = wiring_length(network.edges(), unit_places(network.network, network.parameters))
        weight = sum(edges.weights.abs().sum(dim=(1, 2)) for edges in network.edges())
        return {"wiring/length": length, "wiring/mean": length / weight}
