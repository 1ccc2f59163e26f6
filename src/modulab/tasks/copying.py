"""Copying: each module reads a few symbols, one after another, and must repeat them all."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int32
from pydantic import Field
from torch import Tensor

from modulab.losses import CrossEntropyLoss, Loss
from modulab.partition import Partition, even_shares
from modulab.schema import STRUCTURAL
from modulab.streams import fold_in, integers
from modulab.tasks import supports
from modulab.tasks.base import Region, Samples, Split, Task, own_columns, with_targets_of

_BY_TOKEN = CrossEntropyLoss()


@dataclass(frozen=True)
class TokenCrossEntropyLoss(Loss):
    """Cross-entropy in nats, averaged over the tokens of a module.

    A module's outputs are the logits of each of its tokens' `symbols`, token after token, and a target is the number
    of a token's symbol. Modules have equal shares of the outputs, in order.
    """

    symbols: int

    @property
    def error_label(self) -> str:
        """Return `Share of wrong tokens`."""
        return "Share of wrong tokens"

    def num_targets(self, partition: Partition) -> int:
        """Return the number of tokens of all modules."""
        return len(partition.outputs) // self.symbols

    def by_module(self, outputs: Tensor, targets: Tensor, partition: Partition) -> Tensor:
        """Return the mean over samples and a module's tokens of -log softmax(logits)_target."""
        return _of_modules(_BY_TOKEN.by_module(outputs, targets, self._tokens(partition)), partition)

    def total(self, outputs: Tensor, targets: Tensor, partition: Partition) -> Tensor:
        """Return the mean over samples and all tokens."""
        return _BY_TOKEN.total(outputs, targets, self._tokens(partition))

    def errors(self, outputs: Tensor, targets: Tensor, partition: Partition) -> Tensor:
        """Return the share of a module's tokens whose symbol does not have the largest logit."""
        return _of_modules(_BY_TOKEN.errors(outputs, targets, self._tokens(partition)), partition)

    def constant_errors(self, targets: Tensor, partition: Partition) -> Tensor:
        """Return 1 - the share of each token's most frequent symbol, averaged over a module's tokens."""
        return _of_modules(_BY_TOKEN.constant_errors(targets, self._tokens(partition)), partition)

    def resolution(self, num_samples: int, partition: Partition) -> float:
        """Return the share that one wrong token is."""
        return 1 / (num_samples * self.num_targets(partition))

    def _tokens(self, partition: Partition) -> Partition:
        """Return the partition in which each token is a module of its own."""
        assert partition.outputs_per_module is not None
        assert partition.outputs_per_module % self.symbols == 0
        tokens = self.num_targets(partition)
        return Partition(tokens, (), even_shares(len(partition.outputs), tokens))


def _of_modules(
    values: Float[Tensor, "member token"], partition: Partition
) -> Float[Tensor, "member module"]:
    return values.unflatten(1, (partition.modules, -1)).mean(dim=2)


class TokenTask(Task):
    """Module m reads `length` one-hot symbols, one for each token, and must name a symbol for each."""

    length: int = Field(ge=1, description="number of symbols a module reads", json_schema_extra=STRUCTURAL)
    symbols: int = Field(ge=2, description="number of different symbols", json_schema_extra=STRUCTURAL)

    @property
    def inputs_per_module(self) -> int:
        """Return length x symbols."""
        return self.length * self.symbols

    @property
    def input_shape(self) -> tuple[int, int]:
        """Return (length, symbols): a sequence of one-hot symbols."""
        return (self.length, self.symbols)

    @property
    def outputs_per_module(self) -> int:
        """Return length x symbols: a logit for each symbol of each token."""
        return self.length * self.symbols

    @property
    def loss(self) -> Loss:
        """Return `TokenCrossEntropyLoss`."""
        return TokenCrossEntropyLoss(self.symbols)

    def changed(self, samples: Samples, module: int = 0) -> Samples:
        """Return the same symbols with each of a module's answers named as the next, and the last as the first."""
        names = samples.targets[:, :, own_columns(module, self.length)]
        return with_targets_of(samples, module, (names + 1) % self.symbols)

    def check_drawn(self, region: Region, scales: Tensor | None) -> None:
        """Raise ConfigError for a region or a range of inputs that symbols do not have."""
        if scales is not None:
            raise supports.nothing_to_widen("one-hot symbols", self.name)
        if region == "withheld":
            raise supports.nothing_withheld(self.name)

    def one_hot(self, tokens: Tensor) -> Float[Tensor, "member batch feature"]:
        """Return the inputs that are these symbols."""
        return (tokens.unsqueeze(3) == torch.arange(self.symbols, device=tokens.device)).float().flatten(2)


class CopyingTask(TokenTask):
    """Module m must name each of the symbols that it reads."""

    def draw(
        self,
        keys: Int32[Tensor, "member 2"],
        counters: Int32[Tensor, "member batch"],
        region: Region,
        split: Split,  # noqa: ARG002 all sequences are in both splits
        scales: Float[Tensor, " module"] | None = None,
    ) -> Samples:
        """Return symbols that are all equally likely and independent, and the same as targets."""
        self.check_drawn(region, scales)
        limits = torch.full((len(keys),), self.symbols, dtype=torch.int32, device=counters.device)
        tokens = range(self.modules * self.length)
        drawn = torch.stack([integers(fold_in(keys, token), counters, limits) for token in tokens], dim=2)
        return Samples(self.one_hot(drawn), drawn.float())
