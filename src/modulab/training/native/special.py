"""Operations of a trace that are more than one expression of elements: constants, joined parts, sums and products."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from modulab.training.native.collecting import Collected
from modulab.training.native.statements import Access, Product, Statement, Unsupported, contiguous_strides
from modulab.training.native.values import Value, access, constant, loop_order, strided

Special = Callable[[Collected, Node, list[Any]], Any]
SPECIAL: dict[str, Special] = {}
"""By the operation's name: what adds its statements and returns its result."""


def _computes(*names: str) -> Callable[[Special], Special]:
    """Enter a function for operations of these names."""

    def enter(function: Special) -> Special:
        SPECIAL.update(dict.fromkeys(names, function))
        return function

    return enter


@_computes("clone", "lift_fresh_copy")
def _clone(collected: Collected, node: Node, arguments: list[Any]) -> Value:
    del collected, node
    return arguments[0]


@_computes("as_strided")
def _as_strided(collected: Collected, node: Node, arguments: list[Any]) -> Value:
    del collected
    value, sizes = arguments[0], tuple(arguments[1])
    source: Any = node.args[0]
    if sizes != value.sizes or tuple(arguments[2]) != source.meta["val"].stride() or len(arguments) > 3:
        raise Unsupported("as_strided as more than a copy")
    return value


# Constants.


@_computes("ones", "ones_like")
def _ones_like(collected: Collected, node: Node, arguments: list[Any]) -> Value:
    del collected, arguments
    return constant(1, node.meta["val"].shape, node.meta["val"].dtype)


@_computes("zeros", "zeros_like", "new_zeros")
def _zeros_like(collected: Collected, node: Node, arguments: list[Any]) -> Value:
    del collected, arguments
    return constant(0, node.meta["val"].shape, node.meta["val"].dtype)


@_computes("scalar_tensor")
def _scalar_tensor(collected: Collected, node: Node, arguments: list[Any]) -> Value:
    del collected
    return constant(arguments[0], (), node.meta["val"].dtype)


@_computes("full", "full_like")
def _full(collected: Collected, node: Node, arguments: list[Any]) -> Value:
    del collected
    return constant(arguments[1], node.meta["val"].shape, node.meta["val"].dtype)


@_computes("arange")
def _arange(collected: Collected, node: Node, arguments: list[Any]) -> Value:
    del collected
    start, step = 0, 1
    if len(arguments) > 1:
        start = arguments[0]
    if len(arguments) > 2:
        step = arguments[2]
    result: Tensor = node.meta["val"]
    return Value(None, strided(result.shape, (step,), start), result.dtype)


# Elementwise operations.


@_computes("_to_copy")
def _to_copy(collected: Collected, node: Node, arguments: list[Any]) -> Value:
    return collected.elementwise("copy", arguments[:1], node)


@_computes("pow")
def _pow(collected: Collected, node: Node, arguments: list[Any]) -> Value:
    base, exponent = arguments
    if exponent == 1:
        return base
    if exponent != 2:
        raise Unsupported(f"the power {exponent}")
    return collected.elementwise("mul", [base, base], node)


@_computes("clamp")
def _clamp(collected: Collected, node: Node, arguments: list[Any]) -> Value:
    bounds: list[Any] = [*arguments, None]
    value, low, high = bounds[:3]
    if low is not None:
        value = collected.elementwise("maximum", [value, low], node)
    return value if high is None else collected.elementwise("minimum", [value, high], node)


@_computes("clamp_min")
def _clamp_min(collected: Collected, node: Node, arguments: list[Any]) -> Value:
    return collected.elementwise("maximum", arguments, node)


# Parts put together.


@_computes("cat")
def _cat(collected: Collected, node: Node, arguments: list[Any]) -> Value:
    return collected.joined(arguments[0], arguments[1] if len(arguments) > 1 else 0, node)


@_computes("stack")
def _stack(collected: Collected, node: Node, arguments: list[Any]) -> Value:
    axis = arguments[1] if len(arguments) > 1 else 0
    axis %= len(node.meta["val"].shape)
    return collected.joined(
        [replace(part, shape=part.shape.unsqueeze(axis)) for part in arguments[0]], axis, node
    )


@_computes("slice_backward")
def _slice_backward(collected: Collected, node: Node, arguments: list[Any]) -> Value:
    part, sizes, axis, start, end, step = arguments
    return collected.padded(part, [(axis % len(sizes), slice(start, end, step))], 0, node)


@_computes("select_backward")
def _select_backward(collected: Collected, node: Node, arguments: list[Any]) -> Value:
    part, sizes, axis, index = arguments
    axis %= len(sizes)
    part = replace(part, shape=part.shape.unsqueeze(axis))
    return collected.padded(part, [(axis, slice(index % sizes[axis], index % sizes[axis] + 1))], 0, node)


@_computes("constant_pad_nd")
def _constant_pad_nd(collected: Collected, node: Node, arguments: list[Any]) -> Value:
    padding: list[Any] = [*arguments, 0]
    part, widths, fill = padding[:3]
    ranges: list[tuple[int, slice]] = []
    for place in range(len(widths) // 2):
        axis = len(part.sizes) - 1 - place
        before, after = widths[2 * place : 2 * place + 2]
        # Negative widths cut elements off, as the gradient of padding does.
        kept = slice(max(0, -before), part.sizes[axis] - max(0, -after))
        part = replace(part, shape=part.shape[(slice(None),) * axis + (kept,)])
        ranges.append((axis, slice(max(0, before), max(0, before) + part.sizes[axis])))
    if max(widths) <= 0:
        return part
    return collected.padded(part, ranges, fill, node)


@_computes("index")
def _index(collected: Collected, node: Node, arguments: list[Any]) -> Value:
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
    looked_in = replace(source, shape=strided(result.shape, strides, source.offset))
    expanded = index.shape[(None,) * axis + (...,) + (None,) * (len(kept) - axis)].expand(result.shape)
    order = [
        *range(axis), *range(axis + count, result.dim()), *range(axis, axis + count),
    ]  # fmt: skip
    if source.buffer is None:
        raise Unsupported("indexing a constant")
    place = "{1}" if source.buffer.is_argument else f"({{1}} < 0 ? {{1}} + {source.sizes[axis]} : {{1}})"
    whole = collected.uninitialised(result, order)
    axes = [each for each in order if result.shape[each] > 1]
    collected.add(
        Statement(
            sizes=tuple(result.shape[each] for each in axes),
            inputs=(
                replace(access(looked_in, axes), is_pointer=True),
                access(replace(index, shape=expanded), axes),
            ),
            expression=f"{{0}}[{place} * {step}]",
            output=access(whole, axes),
        )
    )
    return whole


# Reductions and products.


@_computes("sum")
def _sum(collected: Collected, node: Node, arguments: list[Any]) -> Value:
    return _reduced(collected, "sum", arguments, node)


@_computes("amax")
def _amax(collected: Collected, node: Node, arguments: list[Any]) -> Value:
    return _reduced(collected, "amax", arguments, node)


@_computes("mean")
def _mean(collected: Collected, node: Node, arguments: list[Any]) -> Value:
    total = _reduced(collected, "sum", arguments, node)
    count = math.prod(arguments[0].sizes) // max(1, node.meta["val"].numel())
    return collected.elementwise("div", [total, count], node)


def _reduced(collected: Collected, reduction: str, arguments: list[Any], node: Node) -> Value:
    value: Value = arguments[0]
    result: Tensor = node.meta["val"]
    if value.dtype != result.dtype or result.dtype != torch.float32:
        raise Unsupported(f"{node.target} of {value.dtype}")
    every = list(range(len(value.sizes)))
    named = every if len(arguments) < 2 or not arguments[1] else arguments[1]
    gone = {axis % len(value.sizes) for axis in named} if every else set[int]()
    keeps = len(arguments) > 2 and bool(arguments[2])
    order = loop_order([value], value.sizes)
    axes = [axis for axis in order if value.sizes[axis] > 1]
    if not any(axis in gone for axis in axes):
        strides = [value.strides[axis] for axis in every if keeps or axis not in gone]
        return replace(value, shape=strided(result.shape, strides, value.offset))
    left = [axis for axis in axes if axis not in gone]
    steps = dict(zip(left, contiguous_strides([value.sizes[axis] for axis in left]), strict=True))
    buffer = collected.new_buffer(result.dtype, math.prod(value.sizes[axis] for axis in left))
    collected.add(
        Statement(
            sizes=tuple(value.sizes[axis] for axis in axes),
            inputs=(access(value, axes),),
            expression="{0}",
            output=Access(buffer, tuple(steps.get(axis, 0) for axis in axes), 0, buffer.dtype),
            reduction=reduction,
            reduced=frozenset(place for place, axis in enumerate(axes) if axis in gone),
        )
    )
    strides = [steps.get(axis, 0) for axis in every if keeps or axis not in gone]
    return Value(buffer, strided(result.shape, strides), result.dtype)


@_computes("bmm")
def _bmm(collected: Collected, node: Node, arguments: list[Any]) -> Value:
    left, right = (collected.without_repeats(value) for value in arguments)
    if right.strides[2] > 1 and right.strides[1] != 1:
        right = collected.contiguous(right)
    if left.dtype != torch.float32:
        raise Unsupported(f"{node.target} of {left.dtype}")
    count, rows, terms = left.sizes
    columns = right.sizes[2]
    # Columns side by side where those of the right factor are, rows where those of the left factor are.
    turned = right.strides[2] > 1 and left.strides[1] == 1
    order = [0, 2, 1] if turned else [0, 1, 2]
    whole = collected.uninitialised(node.meta["val"], order)
    collected.add(
        Product(
            sizes=(count, rows, columns, terms),
            left=access(left, [0, 1, 2]),
            right=access(right, [0, 1, 2]),
            output=access(whole, [0, 1, 2]),
        )
    )
    return whole
