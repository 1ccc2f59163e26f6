"""From a traced step of one member to statements.

The layout of each tensor is chosen here: a result has its axes in the order of what it is computed from, so that
operations that follow one another run through memory alike. Views are taken by torch itself, on tensors without data.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from modulab.training.native.operations import OPERATIONS, Operation
from modulab.training.native.statements import (
    Access,
    Body,
    Buffer,
    Product,
    Statement,
    Unsupported,
    contiguous_strides,
)

C_TYPES = {torch.float32: "float", torch.int32: "int32_t", torch.int64: "int64_t", torch.bool: "bool"}
_LARGEST_ANGLE = 2.0**13
_VIEWS = frozenset(
    (
        "view",
        "_unsafe_view",
        "expand",
        "permute",
        "transpose",
        "t",
        "slice",
        "select",
        "unsqueeze",
        "squeeze",
        "alias",
        "detach",
        "split",
        "unbind",
        "split_with_sizes",
    )
)


@dataclass(frozen=True)
class Value:
    """A tensor: where its elements lie, and a tensor of the same shape and strides without data."""

    buffer: Buffer | None
    """None for a constant, which is `literal`, or else for numbers in steps of the strides, from the offset on."""
    shape: Tensor
    dtype: torch.dtype
    literal: float | None = None
    bound: float = math.inf
    """What no element exceeds in magnitude."""

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


def _shape(sizes: Sequence[int], strides: Sequence[int], offset: int = 0) -> Tensor:
    return torch.empty(0, device="meta").as_strided(tuple(sizes), tuple(strides), offset)


def _constant(value: float, sizes: Sequence[int], dtype: torch.dtype) -> Value:
    return Value(None, _shape(sizes, [0] * len(sizes)), dtype, literal=value)


def lowered(graph: GraphModule) -> Body:
    """Return the statements of a graph. Raises: Unsupported for an operation that is not known."""
    return _Lowering().body(graph)


class _Lowering:
    """Statements collected node by node."""

    def __init__(self) -> None:
        self.statements: list[Statement | Product] = []
        self.buffers = 0

    def body(self, graph: GraphModule) -> Body:
        """Return the statements of a graph. Raises: Unsupported for an operation that is not known."""
        values: dict[Node, Any] = {}
        arguments: list[Buffer] = []
        for node in graph.graph.nodes:
            if node.op == "placeholder":
                example: Tensor = node.meta["val"]
                buffer = self._new_buffer(example.dtype, example.numel(), is_argument=True)
                arguments.append(buffer)
                values[node] = Value(buffer, _shape(example.shape, example.stride()), example.dtype)
            elif node.op == "get_attr":
                values[node] = self._stored_constant(getattr(graph, str(node.target)))
            elif node.op == "call_function":
                values[node] = self._call(node, values)
            elif node.op == "output":
                results: Any = node.args[0]
                return Body(self.statements, arguments, [self._copy(values[each]) for each in results])
        raise AssertionError("a graph without an output")

    def _new_buffer(self, dtype: torch.dtype, size: int, **facts: Any) -> Buffer:
        if dtype not in C_TYPES:
            raise Unsupported(f"numbers of type {dtype}")
        self.buffers += 1
        return Buffer(f"b{self.buffers}", C_TYPES[dtype], size, **facts)

    def _stored_constant(self, tensor: Tensor) -> Value:
        if tensor.numel() == 1:
            return _constant(tensor.item(), tensor.shape, tensor.dtype)
        tensor = tensor.contiguous()
        buffer = self._new_buffer(tensor.dtype, tensor.numel(), values=tuple(tensor.flatten().tolist()))
        return Value(buffer, _shape(tensor.shape, tensor.stride()), tensor.dtype)

    def _call(self, node: Node, values: dict[Node, Any]) -> Any:
        def take(each: Any) -> Any:
            return values[each] if isinstance(each, Node) else each

        arguments: list[Any] = [
            [take(item) for item in each] if isinstance(each, list | tuple) else take(each)
            for each in node.args
        ]
        target: Any = node.target
        if not hasattr(target, "overloadpacket"):  # operator.getitem
            return arguments[0][arguments[1]]
        name = str(target.overloadpacket).removeprefix("aten.")
        if name in _VIEWS:
            return self._view(target, arguments)
        if name.endswith("_") and not name.endswith("__"):
            return self._in_place(node, values, name, arguments)
        special: Any = getattr(self, f"_op_{name}", None)
        if special is not None:
            return special(node, arguments)
        if name in OPERATIONS:
            return self._elementwise(name, arguments, node)
        raise Unsupported(f"the operation {target}")

    def _in_place(self, node: Node, values: dict[Node, Any], name: str, arguments: list[Any]) -> Value:
        """Take an operation that changes its first argument for one with a new result, if no view shares the memory."""
        changed = node.args[0]
        if name != "masked_fill_" or not isinstance(changed, Node):
            raise Unsupported(f"the operation {node.target}")
        before = [user for user in changed.users if user is not node and user < node]
        if changed.op != "call_function" or any(_is_view(each) for each in (changed, *before)):
            raise Unsupported(f"{node.target} of a view")
        filled = self._elementwise("where", [arguments[1], arguments[2], arguments[0]], node)
        values[changed] = filled
        return filled

    # Views.

    def _view(self, target: Any, arguments: list[Any]) -> Any:
        value: Value = arguments[0]
        rest = arguments[1:]
        try:
            found = target(value.shape, *rest)
        except RuntimeError:
            value = self._contiguous(value)
            found = target(value.shape, *rest)
        if isinstance(found, Tensor):
            return replace(value, shape=found)
        return [replace(value, shape=each) for each in found]

    def _contiguous(self, value: Value) -> Value:
        """Return the same elements, stored in the order of the axes."""
        if value.buffer is not None and value.shape.is_contiguous():
            return value
        order = list(range(len(value.sizes)))
        return self._assign("{0}", [value], value.sizes, value.dtype, is_cheap=True, order=order)

    def _copy(self, value: Value) -> Access:
        """Return a contiguous buffer of its own."""
        order = list(range(len(value.sizes)))
        copied = self._assign("{0}", [value], value.sizes, value.dtype, is_cheap=False, order=order)
        assert copied.buffer is not None
        return Access(copied.buffer, (), 0, copied.buffer.dtype)

    def _op_clone(self, node: Node, arguments: list[Any]) -> Value:
        del node
        return arguments[0]

    def _op_as_strided(self, node: Node, arguments: list[Any]) -> Value:
        value, sizes = arguments[0], tuple(arguments[1])
        source: Any = node.args[0]
        if sizes != value.sizes or tuple(arguments[2]) != source.meta["val"].stride() or len(arguments) > 3:
            raise Unsupported("as_strided as more than a copy")
        return value

    # Constants.

    def _op_ones_like(self, node: Node, arguments: list[Any]) -> Value:
        del arguments
        return _constant(1, node.meta["val"].shape, node.meta["val"].dtype)

    def _op_zeros_like(self, node: Node, arguments: list[Any]) -> Value:
        del arguments
        return _constant(0, node.meta["val"].shape, node.meta["val"].dtype)

    _op_zeros, _op_ones, _op_new_zeros = _op_zeros_like, _op_ones_like, _op_zeros_like

    def _op_scalar_tensor(self, node: Node, arguments: list[Any]) -> Value:
        return _constant(arguments[0], (), node.meta["val"].dtype)

    def _op_full(self, node: Node, arguments: list[Any]) -> Value:
        return _constant(arguments[1], node.meta["val"].shape, node.meta["val"].dtype)

    _op_full_like = _op_full

    def _op_arange(self, node: Node, arguments: list[Any]) -> Value:
        start, step = 0, 1
        if len(arguments) > 1:
            start = arguments[0]
        if len(arguments) > 2:
            step = arguments[2]
        result: Tensor = node.meta["val"]
        return Value(None, _shape(result.shape, (step,), start), result.dtype)

    # Elementwise operations.

    def _op__to_copy(self, node: Node, arguments: list[Any]) -> Value:
        return self._elementwise("copy", arguments[:1], node)

    def _op_lift_fresh_copy(self, node: Node, arguments: list[Any]) -> Value:
        del node
        return arguments[0]

    def _op_pow(self, node: Node, arguments: list[Any]) -> Value:
        base, exponent = arguments
        if exponent == 1:
            return base
        if exponent != 2:
            raise Unsupported(f"the power {exponent}")
        return self._elementwise("mul", [base, base], node)

    def _op_clamp(self, node: Node, arguments: list[Any]) -> Value:
        bounds: list[Any] = [*arguments, None]
        value, low, high = bounds[:3]
        if low is not None:
            value = self._elementwise("maximum", [value, low], node)
        return value if high is None else self._elementwise("minimum", [value, high], node)

    def _op_clamp_min(self, node: Node, arguments: list[Any]) -> Value:
        return self._elementwise("maximum", arguments, node)

    def _elementwise(self, name: str, arguments: list[Any], node: Node) -> Value:
        operation = OPERATIONS[name]
        result: Tensor = node.meta["val"]
        if node.kwargs.get("alpha", 1) != 1 or node.kwargs.get("rounding_mode") is not None:
            raise Unsupported(f"{node.target} with further arguments")
        tensors = [
            each if isinstance(each, Value) else _constant(each, (), _scalar_type(each)) for each in arguments
        ]
        if operation.floats_only and result.dtype != torch.float32:
            raise Unsupported(f"{node.target} of {result.dtype}")
        bound = _bound(name, tensors)
        if name in ("sin", "cos") and tensors[0].bound > _LARGEST_ANGLE:
            raise Unsupported(f"{node.target} of angles without a bound")
        made = self._assign(
            _typed(operation, tensors, result.dtype), tensors, result.shape, result.dtype, operation.is_cheap
        )
        return replace(made, bound=bound)

    def _assign(
        self,
        expression: str,
        values: Sequence[Value],
        sizes: Sequence[int],
        dtype: torch.dtype,
        is_cheap: bool,
        order: list[int] | None = None,
        into: Value | None = None,
    ) -> Value:
        """Add a statement that evaluates an expression of values for each element of their common shape.

        Without `into`, axes along which no value varies are left out: the result has stride 0 there.
        """
        shaped = [replace(value, shape=value.shape.expand(tuple(sizes))) for value in values]
        axes = [axis for axis in (order or _loop_order(shaped, sizes)) if sizes[axis] > 1]
        if into is None:
            if order is None:
                axes = [axis for axis in axes if any(value.strides[axis] for value in shaped)]
            kept = [sizes[axis] for axis in axes]
            strides = [0] * len(sizes)
            for axis, stride in zip(axes, contiguous_strides(kept), strict=True):
                strides[axis] = stride
            buffer = self._new_buffer(dtype, math.prod(kept))
            into = Value(buffer, _shape(sizes, strides), dtype)
        self._add(
            Statement(
                sizes=tuple(sizes[axis] for axis in axes),
                inputs=tuple(_access(value, axes) for value in shaped),
                expression=expression,
                output=_access(into, axes),
                is_cheap=is_cheap,
            )
        )
        return into

    def _add(self, statement: Statement | Product) -> None:
        assert statement.output.buffer is not None
        statement.output.buffer.writers.append(statement)
        self.statements.append(statement)

    # Parts put together.

    def _op_cat(self, node: Node, arguments: list[Any]) -> Value:
        return self._joined(arguments[0], arguments[1] if len(arguments) > 1 else 0, node)

    def _op_stack(self, node: Node, arguments: list[Any]) -> Value:
        axis = arguments[1] if len(arguments) > 1 else 0
        axis %= len(node.meta["val"].shape)
        return self._joined(
            [replace(part, shape=part.shape.unsqueeze(axis)) for part in arguments[0]], axis, node
        )

    def _joined(self, parts: list[Value], axis: int, node: Node) -> Value:
        result: Tensor = node.meta["val"]
        axis %= len(result.shape)
        whole = self._uninitialised(result, _loop_order(parts, result.shape))
        start = 0
        for part in parts:
            size = part.sizes[axis]
            self._fill(whole, [(axis, slice(start, start + size))], part)
            start += size
        return whole

    def _uninitialised(self, result: Tensor, order: Sequence[int]) -> Value:
        strides = [0] * result.dim()
        for axis, stride in zip(
            order, contiguous_strides([result.shape[axis] for axis in order]), strict=True
        ):
            strides[axis] = stride
        return Value(
            self._new_buffer(result.dtype, result.numel()), _shape(result.shape, strides), result.dtype
        )

    def _fill(self, whole: Value, ranges: Sequence[tuple[int, slice]], part: Value) -> None:
        places = [slice(None)] * len(whole.sizes)
        for axis, taken in ranges:
            places[axis] = taken
        shape = whole.shape[tuple(places)]
        order = sorted(range(shape.dim()), key=lambda axis: -shape.stride(axis))
        into = replace(whole, shape=shape)
        self._assign("{0}", [part], tuple(shape.shape), whole.dtype, is_cheap=True, order=order, into=into)

    def _padded(self, part: Value, ranges: Sequence[tuple[int, slice]], fill: float, node: Node) -> Value:
        """Return a tensor that has a part in these ranges of axes, and one number elsewhere."""
        result: Tensor = node.meta["val"]
        whole = self._uninitialised(result, range(result.dim()))
        self._fill(whole, [], _constant(fill, result.shape, result.dtype))
        self._fill(whole, ranges, part)
        return whole

    def _op_slice_backward(self, node: Node, arguments: list[Any]) -> Value:
        part, sizes, axis, start, end, step = arguments
        return self._padded(part, [(axis % len(sizes), slice(start, end, step))], 0, node)

    def _op_select_backward(self, node: Node, arguments: list[Any]) -> Value:
        part, sizes, axis, index = arguments
        axis %= len(sizes)
        part = replace(part, shape=part.shape.unsqueeze(axis))
        return self._padded(part, [(axis, slice(index % sizes[axis], index % sizes[axis] + 1))], 0, node)

    def _op_constant_pad_nd(self, node: Node, arguments: list[Any]) -> Value:
        padding: list[Any] = [*arguments, 0]
        part, widths, fill = padding[:3]
        ranges: list[tuple[int, slice]] = []
        for place in range(len(widths) // 2):
            axis = len(part.sizes) - 1 - place
            if min(widths[2 * place : 2 * place + 2]) < 0:
                raise Unsupported("padding that takes away")
            ranges.append((axis, slice(widths[2 * place], widths[2 * place] + part.sizes[axis])))
        return self._padded(part, ranges, fill, node)

    def _op_index(self, node: Node, arguments: list[Any]) -> Value:
        source, indices = arguments
        places = [place for place, index in enumerate(indices) if index is not None]
        if len(places) != 1 or indices[places[0]].dtype == torch.bool:
            raise Unsupported("indexing along several axes")
        [axis] = places
        index: Value = indices[axis]
        result: Tensor = node.meta["val"]
        count = len(index.sizes)
        step = source.shape.stride(axis)
        kept = [each for each in range(len(source.sizes)) if each != axis]
        # The source as a tensor of the result's shape, along which the index takes no step.
        strides = list(source.shape.stride())
        strides[axis : axis + 1] = [0] * count
        looked_in = replace(source, shape=_shape(result.shape, strides, source.offset))
        expanded = index.shape[(None,) * axis + (...,) + (None,) * (len(kept) - axis)].expand(result.shape)
        order = [
            *range(axis), *range(axis + count, result.dim()), *range(axis, axis + count),
        ]  # fmt: skip
        if source.buffer is None:
            raise Unsupported("indexing a constant")
        place = "{1}" if source.buffer.is_argument else f"({{1}} < 0 ? {{1}} + {source.sizes[axis]} : {{1}})"
        whole = self._uninitialised(result, order)
        axes = [each for each in order if result.shape[each] > 1]
        self._add(
            Statement(
                sizes=tuple(result.shape[each] for each in axes),
                inputs=(
                    replace(_access(looked_in, axes), is_pointer=True),
                    _access(replace(index, shape=expanded), axes),
                ),
                expression=f"{{0}}[{place} * {step}]",
                output=_access(whole, axes),
            )
        )
        return whole

    # Reductions and products.

    def _op_sum(self, node: Node, arguments: list[Any]) -> Value:
        return self._reduced("sum", arguments, node)

    def _op_amax(self, node: Node, arguments: list[Any]) -> Value:
        return self._reduced("amax", arguments, node)

    def _op_mean(self, node: Node, arguments: list[Any]) -> Value:
        total = self._reduced("sum", arguments, node)
        count = math.prod(arguments[0].sizes) // max(1, node.meta["val"].numel())
        return self._elementwise("div", [total, count], node)

    def _reduced(self, reduction: str, arguments: list[Any], node: Node) -> Value:
        value: Value = arguments[0]
        result: Tensor = node.meta["val"]
        if value.dtype != result.dtype or result.dtype != torch.float32:
            raise Unsupported(f"{node.target} of {value.dtype}")
        every = list(range(len(value.sizes)))
        named = every if len(arguments) < 2 or not arguments[1] else arguments[1]
        gone = {axis % len(value.sizes) for axis in named} if every else set[int]()
        keeps = len(arguments) > 2 and bool(arguments[2])
        order = _loop_order([value], value.sizes)
        axes = [axis for axis in order if value.sizes[axis] > 1]
        if not any(axis in gone for axis in axes):
            strides = [value.strides[axis] for axis in every if keeps or axis not in gone]
            return replace(value, shape=_shape(result.shape, strides, value.offset))
        left = [axis for axis in axes if axis not in gone]
        steps = dict(zip(left, contiguous_strides([value.sizes[axis] for axis in left]), strict=True))
        buffer = self._new_buffer(result.dtype, math.prod(value.sizes[axis] for axis in left))
        self._add(
            Statement(
                sizes=tuple(value.sizes[axis] for axis in axes),
                inputs=(_access(value, axes),),
                expression="{0}",
                output=Access(buffer, tuple(steps.get(axis, 0) for axis in axes), 0, buffer.dtype),
                reduction=reduction,
                reduced=frozenset(place for place, axis in enumerate(axes) if axis in gone),
            )
        )
        strides = [steps.get(axis, 0) for axis in every if keeps or axis not in gone]
        return Value(buffer, _shape(result.shape, strides), result.dtype)

    def _op_bmm(self, node: Node, arguments: list[Any]) -> Value:
        left, right = (self._in_memory(value) for value in arguments)
        if left.dtype != torch.float32:
            raise Unsupported(f"{node.target} of {left.dtype}")
        count, rows, terms = left.sizes
        columns = right.sizes[2]
        # Columns side by side where those of the right factor are, rows where those of the left factor are.
        turned = right.strides[2] > 1 and left.strides[1] == 1
        order = [0, 2, 1] if turned else [0, 1, 2]
        whole = self._uninitialised(node.meta["val"], order)
        self._add(
            Product(
                sizes=(count, rows, columns, terms),
                left=_access(left, [0, 1, 2]),
                right=_access(right, [0, 1, 2]),
                output=_access(whole, [0, 1, 2]),
            )
        )
        return whole

    def _in_memory(self, value: Value) -> Value:
        return self._contiguous(value) if value.buffer is None else value


def _is_view(node: Node) -> bool:
    target: Any = node.target
    return hasattr(target, "overloadpacket") and str(target.overloadpacket).removeprefix("aten.") in _VIEWS


def _access(value: Value, axes: Sequence[int]) -> Access:
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
        f"{{{place}}}" if value.dtype == dtype else f"(({C_TYPES[dtype]}){{{place}}})"
        for place, (value, dtype) in enumerate(zip(values, wanted, strict=True))
    ]
    return operation.expression.format(*casts)


def _bound(name: str, values: Sequence[Value]) -> float:
    """Return what no element of a result exceeds in magnitude, as far as the values tell."""
    if name == "copy":
        return 2.0**31 if values[0].dtype == torch.int32 else values[0].bound
    if name == "mul":
        return math.prod(value.bound if value.literal is None else abs(value.literal) for value in values)
    return math.inf


def _loop_order(values: Sequence[Value], sizes: Sequence[int]) -> list[int]:
    """Return axes, the outermost loop first: by the strides of the first value that varies along both of two axes."""
    strides = [value.strides for value in values if len(value.sizes) == len(sizes)]

    def compare(one: int, other: int) -> int:
        for each in strides:
            if each[one] and each[other] and each[one] != each[other]:
                return each[other] - each[one]
        return one - other

    return sorted(range(len(sizes)), key=functools.cmp_to_key(compare))
