"""The source code that a training step or a measure's function runs, by which compiled code is identified."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, cast

import modulab
from modulab.training.program import Program

_PACKAGE = "modulab"
_STEP = "modulab.training.step"


def code_modules(function: object) -> frozenset[str]:
    """Return the modules that define a program or function and the kinds in it: network, loss and so on."""
    return frozenset(_modules_of(function))


def is_own(function: object) -> bool:
    """Return whether all code of a program or function is this package's or torch's: others may change unseen."""
    return {name.partition(".")[0] for name in code_modules(function)} <= {_PACKAGE, "torch", "builtins"}


def source_text(function: object) -> str:
    """Return the source of every module of this package that a program's step, or a function, may run.

    These are the modules that define the step and the kinds in the program, and all that they import from the
    package, directly or not.
    """
    found: set[str] = set()
    waiting = [*([_STEP] if isinstance(function, Program) else []), *code_modules(function)]
    while waiting:
        name = waiting.pop()
        if name not in found and name.partition(".")[0] == _PACKAGE:
            found.add(name)
            waiting.extend(_imports(name))
    return "\0".join(_source(name) for name in sorted(found))


def _modules_of(value: object) -> Iterator[str]:
    if is_dataclass(value) and not isinstance(value, type):
        yield type(value).__module__
        for field in fields(value):
            yield from _modules_of(getattr(value, field.name))
    elif isinstance(value, type) or callable(value):
        yield getattr(value, "__module__", None) or "torch"
    elif isinstance(value, (tuple, list, frozenset)):
        for each in cast("tuple[Any, ...]", value):
            yield from _modules_of(each)
    else:
        yield type(value).__module__


@functools.cache
def _file(name: str) -> Path | None:
    """Return the source file of a module of this package, without importing anything; None for what is no module."""
    place = Path(modulab.__file__).parent.joinpath(*name.split(".")[1:])
    return next((file for file in (place / "__init__.py", place.with_suffix(".py")) if file.is_file()), None)


@functools.cache
def _source(name: str) -> str:
    file = _file(name)
    assert file is not None
    return file.read_text("utf-8")


@functools.cache
def _imports(name: str) -> frozenset[str]:
    """Return the modules of this package that a module's source imports, anywhere in it, and their packages."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(_source(name))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        found.update(each for each in names if each.partition(".")[0] == _PACKAGE and _file(each))
    return frozenset(found)
