"""Networks whose parameters are kept, but of which nothing can be measured on a task's points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float, Int32
from torch import Tensor

from modulab.networks.base import Network, Parameter, Site, Tap
from modulab.partition import Partition


@dataclass(frozen=True)
class UnmeasuredNetwork(Network):
    """Named parameters without a forward pass, and the reason."""

    in_features: int
    out_features: int
    parts: tuple[Parameter, ...]
    reason: str

    @property
    def layout(self) -> tuple[Parameter, ...]:
        """Return the parts."""
        return self.parts

    @property
    def sites(self) -> tuple[Site, ...]:
        """Return none."""
        return ()

    @property
    def unmeasured(self) -> str | None:
        """Return the reason."""
        return self.reason

    def initialise(
        self, architectures: Sequence[Any], partition: Partition, keys: Int32[Tensor, "member 2"]
    ) -> tuple[Float[Tensor, "member parameter"], Float[Tensor, "member parameter"]]:
        """Fail: it has no function."""
        raise NotImplementedError(self.reason)

    def forward(
        self,
        parameters: Float[Tensor, "member parameter"],
        inputs: Float[Tensor, "member batch in_features"],
        tap: Tap | None = None,
    ) -> Float[Tensor, "member batch out_features"]:
        """Fail: it has no function."""
        raise NotImplementedError(self.reason)
