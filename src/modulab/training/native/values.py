"""Tensors of a traced step as places in memory, with torch's own arithmetic of shapes and strides."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from modulab.training.native.statements import Access, Buffer

C_TYPES = {torch.float32: "float", torch.int32: "int32_t", torch.int64: "int64_t", torch.bool: "bool"}


@dataclass(frozen=True)
class Value:
    """A tensor: where its elements lie, and a tensor of the same shape and strides without data."""

    buffer: Buffer | None
    """None for a constant, which is `literal`, or else for numbers in steps of the strides, from the offset on."""
    shape: Tensor
    dtype: torch.dtype
    literal: float | None = None
    bounds: tuple[float, float] = (-math.inf, math.inf)
    """What no element is below, and what none is above, unless it is NaN."""

    @property
    def sizes(self) -> tuple[int, ...]:
        """Return the number of elements along each axis."""
        return tuple(self.shape.shape)

    @property
    def strides(self) -> tuple[int, ...]:
        """Return the strides, 0 for axes of one element."""
        return tuple(
            0 if size == 1 else stride
            for size, stride in zip(self.shape.shape, self.shape.stride(), strict=True)
        )

    @property
    def offset(self) -> int:
        """Return where the first element lies."""
        return int(self.shape.storage_offset())


def strided(sizes: Sequence[int], strides: Sequence[int], offset: int = 0) -> Tensor:
    """Return a tensor without data, of a shape and strides."""
    return torch.empty(0, device="meta").as_strided(tuple(sizes), tuple(strides), offset)


def constant(value: float, sizes: Sequence[int], dtype: torch.dtype) -> Value:
    """Return a tensor of one number."""
    return Value(None, strided(sizes, [0] * len(sizes)), dtype, literal=value)


def access(value: Value, axes: Sequence[int]) -> Access:
    """Return how a loop over some axes of a tensor accesses its elements."""
    if value.literal is not None:
        return Access(None, (), 0, C_TYPES[value.dtype], literal=_literal(value.literal, value.dtype))
    strides = value.strides
    return Access(value.buffer, tuple(strides[axis] for axis in axes), value.offset, C_TYPES[value.dtype])


def _literal(value: float, dtype: torch.dtype) -> str:
    """Return a number in C++, with its type."""
    if dtype != torch.float32:
        return f"(({C_TYPES[dtype]}){int(value)}LL)"
    rounded = float(torch.tensor(value, dtype=torch.float32).item())
    if math.isinf(rounded):
        return "(-__builtin_inff())" if rounded < 0 else "__builtin_inff()"
    return '__builtin_nanf("")' if math.isnan(rounded) else f"({rounded.hex()}f)"


def loop_order(values: Sequence[Value], sizes: Sequence[int]) -> list[int]:
    """Return axes, the outermost loop first: by the strides of the first value that varies along both of two axes."""
    strides = [value.strides for value in values if len(value.sizes) == len(sizes)]

    def compare(one: int, other: int) -> int:
        for each in strides:
            if each[one] and each[other] and each[one] != each[other]:
                return each[other] - each[one]
        return one - other

    return sorted(range(len(sizes)), key=functools.cmp_to_key(compare))
