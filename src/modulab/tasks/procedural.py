"""Procedural tasks: each module reads a sequence of symbols, and outputs the result of a simple rule.

Z. Shinnick et al., "Transformers pretrained on procedural data contain modular structures for algorithmic reasoning"
(arXiv 2505.22308), pretrain language models on six rules, and ask what in the trained weights helps elsewhere. Here a
rule gives one symbol for each token read, all at once, so networks without a causal mask have exact answers:

- `identity`: the same symbols; `reverse`: the last first; `sort`: in rising order.
- `set`: the first of each symbol, in order.
- `stack`: symbol 0 takes the last symbol off a stack and others are put on it; what is on the stack at the end, the
  last symbol first.
- `dyck`: well nested brackets of (symbols - 1) / 2 types; after each, the type of the innermost one that is open.
- `shuffle`: brackets of these types that need not be nested; after each, how many of its type are open.
- `rule_110`: the next state of a ring of cells under the elementary cellular automaton 110.

Sequences are filled up with symbol 0, which also says that no bracket is open.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Float, Int32, Int64
from pydantic import Field, model_validator
from torch import Tensor

from modulab.errors import ConfigError
from modulab.schema import STRUCTURAL
from modulab.streams import fold_in, integers, uniforms
from modulab.tasks.base import Region, Samples, Split
from modulab.tasks.copying import TokenTask

Tokens = Int64[Tensor, "member batch token"]
Rule = Literal["identity", "reverse", "sort", "set", "stack", "dyck", "shuffle", "rule_110"]
_BRACKETS: tuple[Rule, ...] = ("dyck", "shuffle")
_LARGEST = 2**62
"""A stack is one number, with a symbol for each digit."""


def _set(tokens: Tokens, symbols: int) -> Tokens:
    del symbols
    seen = tokens[:, :, :, None] == tokens[:, :, None]
    is_new = ~seen.tril(-1).any(dim=3)
    order = torch.argsort(is_new.int(), dim=2, descending=True, stable=True)
    return torch.where(is_new, tokens, 0).gather(2, order)


def _stack(tokens: Tokens, symbols: int) -> Tokens:
    stack = torch.zeros_like(tokens[:, :, 0])
    for token in tokens.unbind(dim=2):
        stack = torch.where(token == 0, stack // symbols, stack * symbols + token)
    found: list[Tensor] = []
    for _ in range(tokens.shape[2]):
        found.append(stack % symbols)
        stack = stack // symbols
    return torch.stack(found, dim=2)


def _rule_110(tokens: Tokens, symbols: int) -> Tokens:
    del symbols
    # 110 is 01101110: the new states after 111 to 000.
    neighbours = 4 * tokens.roll(1, dims=2) + 2 * tokens + tokens.roll(-1, dims=2)
    return (110 >> neighbours) & 1


def _dyck(tokens: Tokens, symbols: int) -> Tokens:
    types = (symbols - 1) // 2
    stack = torch.zeros_like(tokens[:, :, 0])
    found: list[Tensor] = []
    for token in tokens.unbind(dim=2):
        stack = torch.where(token > types, stack // symbols, stack * symbols + token)
        found.append(stack % symbols)
    return torch.stack(found, dim=2)


def _shuffle(tokens: Tokens, symbols: int) -> Tokens:
    types = (symbols - 1) // 2
    own = (tokens - 1) % types
    sign = torch.where(tokens > types, -1, 1)
    is_same = (own[:, :, :, None] == own[:, :, None]).tril()
    return (is_same * sign[:, :, None]).sum(dim=3).clamp(max=symbols - 1)


ANSWERS: dict[Rule, Callable[[Tensor, int], Tensor]] = {
    "identity": lambda tokens, _: tokens,
    "reverse": lambda tokens, _: tokens.flip(2),
    "sort": lambda tokens, _: tokens.sort(dim=2).values,
    "set": _set,
    "stack": _stack,
    "dyck": _dyck,
    "shuffle": _shuffle,
    "rule_110": _rule_110,
}
"""The function of each rule on tokens, given the number of symbols."""


class ProceduralTask(TokenTask):
    """Module m reads `length` one-hot symbols, and must name those that the rule makes of them."""

    rule: Rule = Field(description="rule that maps the symbols to the targets")
    length: int = Field(ge=2, description="number of symbols a module reads", json_schema_extra=STRUCTURAL)
    symbols: int = Field(ge=3, description="number of different symbols", json_schema_extra=STRUCTURAL)

    @model_validator(mode="after")
    def _check_sizes(self) -> ProceduralTask:
        if self.symbols**self.length > _LARGEST:
            raise ConfigError(
                f"task.length={self.length} is too long a sequence of task.symbols={self.symbols} symbols: there are "
                "more than 2^62 of them. Set task.length or task.symbols to less."
            )
        return self

    def draw(
        self,
        keys: Int32[Tensor, "member 2"],
        counters: Int32[Tensor, "member batch"],
        region: Region,
        split: Split,  # noqa: ARG002 all sequences are in both splits
        scales: Float[Tensor, " module"] | None = None,
    ) -> Samples:
        """Return sequences that suit the rule, independent over modules, and the outputs of the rule."""
        self.check_drawn(region, scales)
        read = [self.tokens(fold_in(keys, module), counters) for module in range(self.modules)]
        given = [ANSWERS[self.rule](tokens, self.symbols) for tokens in read]
        return Samples(self.one_hot(torch.cat(read, dim=2)), torch.cat(given, dim=2).float())

    def tokens(self, keys: Int32[Tensor, "member 2"], counters: Int32[Tensor, "member batch"]) -> Tokens:
        """Return the symbols that one module reads.

        All are equally likely: of 1 and more or, where 0 has a meaning, of 0 and more, or 0 and 1. Brackets open or
        close with equal probabilities where they can close, and all types are equally likely to open.
        """
        if self.rule in _BRACKETS:
            return self._brackets(keys, counters)
        least, most = {"rule_110": (0, 2), "stack": (0, self.symbols)}.get(self.rule, (1, self.symbols))
        limits = torch.full((len(keys),), most - least, dtype=torch.int32, device=counters.device)
        drawn = [integers(fold_in(keys, token), counters, limits) + least for token in range(self.length)]
        return torch.stack(drawn, dim=2).long()

    def _brackets(self, keys: Tensor, counters: Tensor) -> Tokens:
        types = (self.symbols - 1) // 2
        limits = torch.full((len(keys),), types, dtype=torch.int32, device=counters.device)
        stack = torch.zeros_like(counters, dtype=torch.int64)
        num_open = torch.zeros(*counters.shape, types, dtype=torch.int64, device=counters.device)
        found: list[Tensor] = []
        for place in range(self.length):
            own = fold_in(keys, place)
            kind = integers(fold_in(own, 0), counters, limits).long()
            closes = uniforms(fold_in(own, 1), counters) < 0.5
            if self.rule == "dyck":
                closes = closes & (stack > 0)
                token = torch.where(closes, stack % self.symbols + types, kind + 1)
                stack = torch.where(closes, stack // self.symbols, stack * self.symbols + token)
            else:
                closes = closes & (num_open.gather(2, kind[:, :, None])[:, :, 0] > 0)
                token = torch.where(closes, kind + 1 + types, kind + 1)
                change = torch.where(closes, -1, 1)[:, :, None]
                num_open = num_open.scatter_add(2, kind[:, :, None], change)
            found.append(token)
        return torch.stack(found, dim=2)
