"""Recurrent networks of blocks of units, the first few of which have grown.

Units are shared out over blocks, whatever modules the task has. A block is fully connected in itself, and a share of
the connections between blocks is kept. Blocks that have not grown have no connections yet: training while the number of
grown blocks rises (see `analysis.curriculum`) is modular growth (arXiv 2406.06262).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int32
from pydantic import Field, model_validator
from torch import Tensor

from modulab.errors import ConfigError
from modulab.networks.perceptron import Perceptron, flatten
from modulab.networks.recurrent import Recurrent, RecurrentArchitecture
from modulab.partition import Partition, even_shares, within_modules
from modulab.schema import STRUCTURAL
from modulab.streams import Stream, fold_in, uniforms
from modulab.tasks.base import Task

_BETWEEN_BLOCKS = 3
"""Folded into the stream of masks, beyond the layers of the masks of modules. Part of every result: never change it."""


@dataclass(frozen=True)
class RecurrentBlocks(Recurrent):
    """A recurrent network whose units are shared out over blocks, in order."""

    blocks: int

    def initialise(
        self,
        architectures: Sequence[Any],
        partition: Partition,
        keys: Int32[Tensor, "member 2"],
    ) -> tuple[Float[Tensor, "member parameter"], Float[Tensor, "member parameter"]]:
        """Return masks and initial weights, both 0 for units that have not grown.

        The weights of a unit that has grown do not depend on which others have.
        """
        mask, parameters = super().initialise(architectures, partition, keys)
        grown = torch.tensor([architecture.grown for architecture in architectures], device=keys.device)
        block_of = torch.tensor(even_shares(self.units, self.blocks), device=keys.device)
        units = (block_of < grown[:, None]).float()
        parts = {
            "read.weight": units[:, :, None].expand(-1, -1, self.channels),
            "read.bias": units,
            "recurrent.weight": units[:, :, None] * units[:, None, :],
            "write.weight": units[:, None, :].expand(-1, self.out_features, -1),
            "write.bias": torch.ones_like(mask[:, : self.out_features]),
        }
        there = torch.cat([parts[part.name].flatten(1) for part in self.layout], dim=1)
        return mask * there, parameters * there

    def chain_mask(
        self,
        chain: Perceptron,
        mask: Float[Tensor, "member chain_parameter"],
        architectures: Sequence[Any],
        keys: Int32[Tensor, "member 2"],
    ) -> Float[Tensor, "member chain_parameter"]:
        """Return the mask without connections between blocks, but for each member's share of them."""
        weights, biases = chain.unflatten(mask)
        kept = [architecture.block_connections for architecture in architectures]
        shares = torch.tensor(kept, dtype=torch.float32, device=keys.device)[:, None, None]
        block_of = even_shares(self.units, self.blocks)
        within = within_modules(block_of, block_of).to(keys.device)
        places = torch.arange(self.units**2, dtype=torch.int32, device=keys.device)
        draws = uniforms(
            fold_in(fold_in(keys, Stream.MASK), _BETWEEN_BLOCKS), places.view(1, self.units, self.units)
        )
        weights[1] = weights[1] * (within | (draws < shares)).float()
        return flatten(weights, biases)


class RecurrentBlocksArchitecture(RecurrentArchitecture):
    """A recurrent network of blocks, of which the first `grown` have connections."""

    blocks: int = Field(
        ge=1,
        description="number of blocks, among which units are divided in order",
        json_schema_extra=STRUCTURAL,
    )
    grown: int = Field(ge=1, description="number of blocks that have connections, counted from the first")
    block_connections: float = Field(
        ge=0, le=1, description="share of connections between blocks that is kept"
    )

    @model_validator(mode="after")
    def _check_blocks(self) -> RecurrentBlocksArchitecture:
        if self.blocks > self.width:
            raise ConfigError(
                f"architecture.blocks={self.blocks} are more than the units, architecture.width={self.width}. Set "
                f"architecture.width={self.blocks} or more."
            )
        if self.grown > self.blocks:
            raise ConfigError(
                f"architecture.grown={self.grown} is more than architecture.blocks={self.blocks}. Set "
                f"architecture.grown={self.blocks} or less."
            )
        return self

    def network(self, task: Task) -> RecurrentBlocks:
        """Return a network of blocks with the task's inputs and outputs.

        Raises: ConfigError as other recurrent networks do.
        """
        return RecurrentBlocks(**vars(super().network(task)), blocks=self.blocks)
