"""Statements of a step, collected one by one, and the buffers that they write.

The layout of each tensor is chosen here: a result has its axes in the order of what it is computed from, so that
operations that follow one another run through memory alike.
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from modulab.training.native.operations import LOGARITHM_OF_NORMAL, OPERATIONS, Operation
from modulab.training.native.statements import (
    Access,
    Buffer,
    Product,
    Statement,
    Unsupported,
    contiguous_strides,
)
from modulab.training.native.values import C_TYPES, Value, access, constant, loop_order, strided

_LARGEST_ANGLE = 2.0**13
_SMALLEST_NORMAL = 2.0**-126
_LATENCY_OF_INTEGER_PRODUCT = 10


class Collected:
    """Statements in the order in which they run."""

    def __init__(self) -> None:
        self.statements: list[Statement | Product] = []
        self._buffers = 0

    def new_buffer(self, dtype: torch.dtype, size: int, **facts: Any) -> Buffer:
        """Return a buffer for `size` numbers. Raises: Unsupported for types that generated code does not know."""
        if dtype not in C_TYPES:
            raise Unsupported(f"numbers of type {dtype}")
        self._buffers += 1
        return Buffer(f"b{self._buffers}", C_TYPES[dtype], size, **facts)

    def contiguous(self, value: Value) -> Value:
        """Return the same elements, stored in the order of the axes."""
        if value.buffer is not None and value.shape.is_contiguous():
            return value
        order = list(range(len(value.sizes)))
        return self._assign("{0}", [value], value.sizes, value.dtype, is_cheap=True, order=order)

    def copied(self, value: Value) -> Access:
        """Return a contiguous buffer of its own."""
        order = list(range(len(value.sizes)))
        copied = self._assign("{0}", [value], value.sizes, value.dtype, is_cheap=False, order=order)
        assert copied.buffer is not None
        return Access(copied.buffer, (), 0, copied.buffer.dtype)

    def without_repeats(self, matrices: Value) -> Value:
        """Return matrices in memory, in which no two elements of one matrix share a place."""
        repeats = any(
            stride == 0 < size - 1
            for size, stride in zip(matrices.sizes[1:], matrices.strides[1:], strict=True)
        )
        return self.contiguous(matrices) if matrices.buffer is None or repeats else matrices

    def elementwise(self, name: str, arguments: list[Any], node: Node) -> Value:
        """Add an operation of OPERATIONS on the elements of its arguments, and return its result."""
        operation = OPERATIONS[name]
        result: Tensor = node.meta["val"]
        if node.kwargs.get("rounding_mode") is not None:
            raise Unsupported(f"{node.target} with further arguments")
        alpha: Any = node.kwargs.get("alpha", 1)
        if alpha != 1:
            # Of add, sub and rsub, as torch names the factor of the one that is added or taken away.
            scaled = 0 if name == "rsub" else 1
            arguments = list(arguments)
            arguments[scaled] = self._scaled(arguments[scaled], alpha)
        tensors = [
            each if isinstance(each, Value) else constant(each, (), _scalar_type(each)) for each in arguments
        ]
        if operation.floats_only and result.dtype != torch.float32:
            raise Unsupported(f"{node.target} of {result.dtype}")
        if name in ("sin", "cos") and max(map(abs, tensors[0].bounds)) > _LARGEST_ANGLE:
            raise Unsupported(f"{node.target} of angles without a bound")
        if name == "log" and tensors[0].bounds[0] >= _SMALLEST_NORMAL and tensors[0].bounds[1] < math.inf:
            operation = LOGARITHM_OF_NORMAL
        is_integer_product = name == "mul" and result.dtype != torch.float32
        made = self._assign(
            _typed(operation, tensors, result.dtype),
            tensors,
            result.shape,
            result.dtype,
            operation.is_cheap,
            latency=_LATENCY_OF_INTEGER_PRODUCT if is_integer_product else operation.latency,
        )
        return replace(made, bounds=_bounds_of(name, tensors))

    def _scaled(self, value: Any, factor: float) -> Any:
        """Return a number or the elements of a tensor times a factor."""
        if not isinstance(value, Value):
            return value * factor
        if value.dtype != torch.float32:
            raise Unsupported(f"a multiple of {value.dtype}")
        return self._assign(
            "({0} * {1})", [value, constant(factor, (), value.dtype)], value.sizes, value.dtype, is_cheap=True
        )

    def _assign(
        self,
        expression: str,
        values: Sequence[Value],
        sizes: Sequence[int],
        dtype: torch.dtype,
        is_cheap: bool,
        order: list[int] | None = None,
        into: Value | None = None,
        latency: int = 1,
    ) -> Value:
        """Add a statement that evaluates an expression of values for each element of their common shape.

        Without `into`, axes along which no value varies are left out: the result has stride 0 there.
        """
        shaped = [replace(value, shape=value.shape.expand(tuple(sizes))) for value in values]
        axes = [axis for axis in (order or loop_order(shaped, sizes)) if sizes[axis] > 1]
        if into is None:
            if order is None:
                axes = [axis for axis in axes if any(value.strides[axis] for value in shaped)]
            kept = [sizes[axis] for axis in axes]
            strides = [0] * len(sizes)
            for axis, stride in zip(axes, contiguous_strides(kept), strict=True):
                strides[axis] = stride
            buffer = self.new_buffer(dtype, math.prod(kept))
            into = Value(buffer, strided(sizes, strides), dtype)
        self.add(
            Statement(
                sizes=tuple(sizes[axis] for axis in axes),
                inputs=tuple(access(value, axes) for value in shaped),
                expression=expression,
                output=access(into, axes),
                is_cheap=is_cheap,
                latency=latency,
            )
        )
        return into

    def add(self, statement: Statement | Product) -> None:
        """Append a statement."""
        assert statement.output.buffer is not None
        statement.output.buffer.writers.append(statement)
        self.statements.append(statement)

    def joined(self, parts: list[Value], axis: int, node: Node) -> Value:
        """Return parts side by side along an axis."""
        result: Tensor = node.meta["val"]
        axis %= len(result.shape)
        whole = self.uninitialised(result, loop_order(parts, result.shape))
        start = 0
        for part in parts:
            size = part.sizes[axis]
            self._fill(whole, [(axis, slice(start, start + size))], part)
            start += size
        return whole

    def uninitialised(self, result: Tensor, order: Sequence[int]) -> Value:
        """Return a tensor with a new buffer, whose axes lie in this order."""
        strides = [0] * result.dim()
        for axis, stride in zip(
            order, contiguous_strides([result.shape[axis] for axis in order]), strict=True
        ):
            strides[axis] = stride
        return Value(
            self.new_buffer(result.dtype, result.numel()), strided(result.shape, strides), result.dtype
        )

    def _fill(self, whole: Value, ranges: Sequence[tuple[int, slice]], part: Value) -> None:
        places = [slice(None)] * len(whole.sizes)
        for axis, taken in ranges:
            places[axis] = taken
        shape = whole.shape[tuple(places)]
        order = sorted(range(shape.dim()), key=lambda axis: -shape.stride(axis))
        into = replace(whole, shape=shape)
        self._assign("{0}", [part], tuple(shape.shape), whole.dtype, is_cheap=True, order=order, into=into)

    def padded(self, part: Value, ranges: Sequence[tuple[int, slice]], fill: float, node: Node) -> Value:
        """Return a tensor that has a part in these ranges of axes, and one number elsewhere."""
        result: Tensor = node.meta["val"]
        whole = self.uninitialised(result, range(result.dim()))
        self._fill(whole, [], constant(fill, result.shape, result.dtype))
        self._fill(whole, ranges, part)
        return whole


def _scalar_type(value: float | bool) -> torch.dtype:
    if isinstance(value, bool):
        return torch.bool
    return torch.float32 if isinstance(value, float) else torch.int64


def _typed(operation: Operation, values: Sequence[Value], result: torch.dtype) -> str:
    """Return an operation's expression with its arguments cast as torch casts them."""
    wanted = [result] * len(values)
    if operation.takes == "promoted":
        dtypes = [value.dtype for value in values if value.sizes or value.literal is None]
        wanted = [functools.reduce(torch.promote_types, dtypes)] * len(values)
    elif operation.takes == "condition":
        wanted[0] = torch.bool
    casts = [
        _cast(f"{{{place}}}", value.dtype, dtype)
        for place, (value, dtype) in enumerate(zip(values, wanted, strict=True))
    ]
    return operation.expression.format(*casts)


def _cast(expression: str, own: torch.dtype, wanted: torch.dtype) -> str:
    """Return an expression of one type as one of another."""
    if own == wanted:
        return expression
    name = C_TYPES[wanted]
    if own == torch.bool:  # GCC casts truth values one by one, and chooses by masks.
        return f"({expression} ? ({name})1 : ({name})0)"
    return f"(({name}){expression})"


def _bounds_of(name: str, values: Sequence[Value]) -> tuple[float, float]:
    """Return what no element of a result is below and what none is above, as far as the values show."""
    known = [
        value.bounds if value.literal is None else (float(value.literal), float(value.literal))
        for value in values
    ]
    if name == "copy":
        of_type = (-(2.0**31), 2.0**31) if values[0].dtype == torch.int32 else known[0]
        return max(known[0][0], of_type[0]), min(known[0][1], of_type[1])
    if name == "bitwise_and" and len(known) == 2 and known[1][0] >= 0:
        return 0.0, known[1][1]
    if name in ("add", "mul") and len(known) == 2 and all(map(math.isfinite, (*known[0], *known[1]))):
        combine = operator.add if name == "add" else operator.mul
        ends = [combine(left, right) for left in known[0] for right in known[1]]
        return min(ends), max(ends)
    return -math.inf, math.inf
