"""Checks every annotation of modulab while tests run; conftest.py loads this before modulab is imported.

Beartype checks modules whose annotations name no shapes. Functions of the others are checked here: by beartype too,
with jaxtyping's record of the sizes that a call has for each axis. jaxtyping's own hook took a third of the time of all
tests: it checks what is given twice, and makes the checks of a function within a function whenever that is defined.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import inspect
import sys
import typing
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

from beartype import BeartypeConf, beartype
from beartype.claw import beartype_package
from jaxtyping import config, jaxtyped

SOURCE = Path(__file__).parents[1] / "src"
CHECK: Any = beartype(conf=BeartypeConf(is_pep484_tower=True))
AXES = jaxtyped("context")
"""Within it, each name of an axis stands for one size."""
MARK = "__checked__"

Check = Callable[..., Any]


def modules_with_shapes() -> list[str]:
    """Return the modules of modulab whose annotations name shapes."""
    return [
        ".".join(path.relative_to(SOURCE).with_suffix("").parts)
        for path in sorted((SOURCE / "modulab").rglob("*.py"))
        if "from jaxtyping import" in path.read_text()
    ]


def check_annotations() -> None:
    """Have annotations of all modules of modulab checked that are imported from now on."""
    beartype_package("modulab", conf=BeartypeConf(is_pep484_tower=True, claw_is_pep526=False))
    sys.meta_path.insert(0, _Finder(frozenset(modules_with_shapes())))


def checked(defined: Any) -> Any:
    """Return a function that checks what it is given and what it returns, or a dataclass that checks its fields."""
    if not inspect.isclass(defined):
        return _checked_function(defined)
    if dataclasses.is_dataclass(defined) and "__init__" in vars(defined):
        defined.__init__ = _checked_function(defined.__init__)
    return defined


def _checked_function(function: Any) -> Any:
    if "<locals>" not in function.__qualname__:
        hints = _hints(function)
        if not any(map(_names_shape, hints.values())):
            return _checked_alone(function, hints)
    # Kept with its code, for a function within a function is made of the same code each time that it is defined.
    made = _made.get(id(function.__code__))
    if made is None:
        made = _made[id(function.__code__)] = (function.__code__, *_checks(function))
    _, check_given, check_returned = made

    @functools.wraps(function)
    def call(*given: Any, **named: Any) -> Any:
        if config.jaxtyping_disable:
            return function(*given, **named)
        with AXES:
            check_given(*given, **named)
            return check_returned(function(*given, **named))

    return call


def _checked_alone(function: FunctionType, hints: dict[str, Any]) -> Any:
    """Return a function whose annotations name no shape, and so no axis, checked by beartype alone."""
    same = FunctionType(
        function.__code__,
        function.__globals__,
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    functools.update_wrapper(same, function)
    del same.__wrapped__
    same.__kwdefaults__, same.__annotations__ = function.__kwdefaults__, hints
    checks = CHECK(same)

    @functools.wraps(function)
    def call(*given: Any, **named: Any) -> Any:
        return function(*given, **named) if config.jaxtyping_disable else checks(*given, **named)

    return call


def _names_shape(hint: Any) -> bool:
    """Return whether a shape is named anywhere within an annotation."""
    inner = hint if isinstance(hint, list | tuple) else typing.get_args(hint)
    return hasattr(hint, "dim_str") or any(map(_names_shape, inner))


_made: dict[int, tuple[CodeType, Check, Check]] = {}


def _checks(function: FunctionType) -> tuple[Check, Check]:
    """Return a function that checks what `function` is given, and one that checks what it returns."""
    hints = _hints(function)
    parameters = [
        each.replace(annotation=each.empty, default=each.default if each.default is each.empty else None)
        for each in inspect.signature(function).parameters.values()
    ]
    takes = _defined(f"lambda {str(inspect.Signature(parameters))[1:-1]}: None", function)
    takes.__defaults__, takes.__kwdefaults__ = function.__defaults__, function.__kwdefaults__
    returns = _defined("lambda returned: returned", function)
    returns.__annotations__ = {"return": hints.pop("return", Any)}
    takes.__annotations__ = hints
    return CHECK(takes), CHECK(returns)


def _defined(source: str, function: FunctionType) -> FunctionType:
    """Return the function that `source` gives, which messages call by the name of another."""
    made = eval(source)
    made.__name__, made.__qualname__, made.__module__ = (
        function.__name__,
        function.__qualname__,
        function.__module__,
    )
    return made


def _hints(function: FunctionType) -> dict[str, Any]:
    return {name: _resolved(hint, function) for name, hint in function.__annotations__.items()}


def _resolved(hint: Any, function: FunctionType) -> Any:
    """Return what an annotation stands for; Any, where that is known to the type checker alone."""

    def one() -> None: ...

    one.__annotations__ = {"hint": hint}
    try:
        return typing.get_type_hints(one, function.__globals__, include_extras=True)["hint"]
    except (NameError, TypeError):
        return Any


class _Marker(ast.NodeTransformer):
    """Decorates every function, below its own decorators, and every class, above them."""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.decorator_list.append(ast.copy_location(ast.Name(MARK, ast.Load()), node))
        return self.generic_visit(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        node.decorator_list.insert(0, ast.copy_location(ast.Name(MARK, ast.Load()), node))
        return self.generic_visit(node)


class _Loader(SourceFileLoader):
    """Loads a module with its functions and dataclasses checked; its code is kept in no cache."""

    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        return compile(_Marker().visit(ast.parse(self.get_data(path), path)), path, "exec", dont_inherit=True)

    def exec_module(self, module: ModuleType) -> None:
        vars(module)[MARK] = checked
        super().exec_module(module)


class _Finder(MetaPathFinder):
    def __init__(self, names: frozenset[str]) -> None:
        self._names = names

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        found = PathFinder.find_spec(fullname, path, target) if fullname in self._names else None
        if found is not None and found.origin is not None:
            found.loader = _Loader(fullname, found.origin)
        return found
