"""From a traced step of one member to statements, node by node.

Views are taken by torch itself, on tensors without data.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor
from torch.fx import GraphModule, Node

from modulab.training.native.collecting import Collected
from modulab.training.native.operations import OPERATIONS
from modulab.training.native.special import SPECIAL
from modulab.training.native.statements import Body, Buffer, Unsupported
from modulab.training.native.values import Value, constant, strided

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


def lowered(graph: GraphModule) -> Body:
    """Return the statements of a graph. Raises: Unsupported for an operation that is not known."""
    return _Lowering().body(graph)


class _Lowering:
    """Statements collected node by node."""

    def __init__(self) -> None:
        self._collected = Collected()

    def body(self, graph: GraphModule) -> Body:
        """Return the statements of a graph. Raises: Unsupported for an operation that is not known."""
        values: dict[Node, Any] = {}
        arguments: list[Buffer] = []
        for node in graph.graph.nodes:
            if node.op == "placeholder":
                example: Tensor = node.meta["val"]
                buffer = self._collected.new_buffer(example.dtype, example.numel(), is_argument=True)
                arguments.append(buffer)
                values[node] = Value(buffer, strided(example.shape, example.stride()), example.dtype)
            elif node.op == "get_attr":
                values[node] = self._stored_constant(getattr(graph, str(node.target)))
            elif node.op == "call_function":
                values[node] = self._call(node, values)
            elif node.op == "output":
                results: Any = node.args[0]
                return Body(
                    self._collected.statements,
                    arguments,
                    [self._collected.copied(values[each]) for each in results],
                    [values[each].sizes for each in results],
                )
        raise AssertionError("a graph without an output")

    def _stored_constant(self, tensor: Tensor) -> Value:
        if tensor.numel() == 1:
            return constant(tensor.item(), tensor.shape, tensor.dtype)
        tensor = tensor.contiguous()
        buffer = self._collected.new_buffer(
            tensor.dtype, tensor.numel(), values=tuple(tensor.flatten().tolist())
        )
        return Value(buffer, strided(tensor.shape, tensor.stride()), tensor.dtype)

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
        if name in SPECIAL:
            return SPECIAL[name](self._collected, node, arguments)
        if name in OPERATIONS:
            return self._collected.elementwise(name, arguments, node)
        raise Unsupported(f"the operation {target}")

    def _in_place(self, node: Node, values: dict[Node, Any], name: str, arguments: list[Any]) -> Value:
        """Take an operation that changes its first argument for one with a new result, if no view shares the memory."""
        changed, operation = node.args[0], name.removesuffix("_")
        known = operation in OPERATIONS or operation in SPECIAL or name == "masked_fill_"
        if not known or not isinstance(changed, Node):
            raise Unsupported(f"the operation {node.target}")
        before = [user for user in changed.users if user is not node and user < node]
        if changed.op != "call_function" or any(_is_view(each) for each in (changed, *before)):
            raise Unsupported(f"{node.target} of a view")
        if name == "masked_fill_":
            after = self._collected.elementwise("where", [arguments[1], arguments[2], arguments[0]], node)
        elif operation in OPERATIONS:
            after = self._collected.elementwise(operation, arguments, node)
        else:
            after = SPECIAL[operation](self._collected, node, arguments)
        values[changed] = after
        return after

    def _view(self, target: Any, arguments: list[Any]) -> Any:
        value: Value = arguments[0]
        rest = arguments[1:]
        try:
            found = target(value.shape, *rest)
        except RuntimeError:
            value = self._collected.contiguous(value)
            found = target(value.shape, *rest)
        if isinstance(found, Tensor):
            return replace(value, shape=found)
        return [replace(value, shape=each) for each in found]


def _is_view(node: Node) -> bool:
    target: Any = node.target
    return hasattr(target, "overloadpacket") and str(target.overloadpacket).removeprefix("aten.") in _VIEWS
