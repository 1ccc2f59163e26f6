"""Statements: what a generated step computes, as loops over strided memory.

A statement assigns one expression to one element of a buffer for each iteration of its loops, or adds it up. What it
reads and writes lies at an offset plus a stride per loop. Views of tensors are such offsets and strides, so that they
cost nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


class Unsupported(Exception):
    """A step has an operation for which no code can be generated."""


@dataclass(eq=False)
class Buffer:
    """Memory for the elements of one tensor."""

    name: str
    dtype: str
    size: int
    is_argument: bool = False
    values: tuple[float, ...] | None = None
    """What is in it, of a constant."""
    writers: list[Statement | Product] = field(default_factory=list)


@dataclass(frozen=True)
class Access:
    """Where a statement reads or writes: `offset` plus the sum of loop variables times `strides`.

    Without a buffer the value is `literal`, or else this number itself.
    """

    buffer: Buffer | None
    strides: tuple[int, ...]
    offset: int
    dtype: str
    literal: str | None = None
    is_pointer: bool = False
    """Whether the expression takes the address, to look elements up by an index that it computes."""


@dataclass(eq=False)
class Statement:
    """An expression of `inputs`, evaluated for each iteration of loops of these sizes, the outermost first."""

    sizes: tuple[int, ...]
    inputs: tuple[Access, ...]
    expression: str
    output: Access
    reduction: str | None = None
    """How values are combined over the loops in `reduced`: a key of `REDUCTIONS`."""
    reduced: frozenset[int] = frozenset()
    is_cheap: bool = False
    """Whether computing it again costs no more than keeping it."""
    latency: int = 1
    """Cycles from its inputs to its result, roughly."""

    @property
    def outer(self) -> tuple[int, ...]:
        """Return the sizes of all loops but the innermost."""
        return self.sizes[:-1]

    @property
    def inner(self) -> int:
        """Return the size of the innermost loop."""
        return self.sizes[-1] if self.sizes else 1

    @property
    def reads(self) -> tuple[Access, ...]:
        """Return the inputs that lie in buffers."""
        return tuple(access for access in self.inputs if access.buffer is not None)


@dataclass(eq=False)
class Product:
    """A batch of matrix products: output[n, i, j] is the sum over k of left[n, i, k] right[n, k, j]."""

    sizes: tuple[int, int, int, int]
    """Of n, i, j and k."""
    left: Access
    right: Access
    output: Access

    @property
    def reads(self) -> tuple[Access, ...]:
        """Return the factors."""
        return (self.left, self.right)


@dataclass
class Body:
    """All that a step computes, in an order in which everything is computed before it is read."""

    statements: list[Statement | Product]
    arguments: list[Buffer]
    outputs: list[Access]
    """Of the outputs, each contiguous in a buffer of its own."""
    shapes: list[tuple[int, ...]]
    """Of the outputs."""


def contiguous_strides(sizes: Sequence[int]) -> tuple[int, ...]:
    """Return the strides of a tensor of these sizes that is stored row after row."""
    strides: list[int] = []
    step = 1
    for size in reversed(sizes):
        strides.append(step)
        step *= size
    return tuple(reversed(strides))
