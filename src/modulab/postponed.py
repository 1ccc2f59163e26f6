"""Importing a library while some of what it imports waits until it is used.

Importing Lightning imports torch's compiler, all of torchmetrics with scipy.signal, and matplotlib: 3 CPU seconds,
eight times the training of a single network. Of these, Lightning itself only asks whether objects are instances of some
classes, which they cannot be before their module has been imported, and keeps the compiler from tracing two methods.
"""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

StandIn = Callable[[str, str], Any]
"""Returns what stands for a name in a module, both given by name; None if the module has to be imported for it."""


class PostponedModule(ModuleType):
    """Stands for a module until it is imported, which asking for any name in it that has no stand-in does."""

    def __init__(self, name: str, stand_in: StandIn) -> None:
        super().__init__(name)
        self._stand_in = stand_in
        self.__path__ = []  # so that imports of its submodules reach _Submodules

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(f"module '{self.__name__}' has no attribute '{name}'")
        found = self._stand_in(self.__name__, name)
        return getattr(imported(self.__name__), name) if found is None else found


class _InstanceCheck(type):
    """The type of classes that only answer `isinstance`, as a class of another module does once it is imported."""

    module: str

    def __instancecheck__(cls, instance: object) -> bool:
        module = _if_imported(cls.module)
        return module is not None and isinstance(instance, getattr(module, cls.__name__))


class _Submodules(MetaPathFinder):
    """Imports postponed modules when a submodule of them is imported, as torchvision does."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        del path, target
        package = fullname.rpartition(".")[0]
        if not isinstance(sys.modules.get(package), PostponedModule):
            return None
        imported(package)
        return ModuleSpec(fullname, _AlreadyThere(importlib.import_module(fullname)))


class _AlreadyThere(Loader):
    """Loads a module that has been imported: importing it once more would create its classes again."""

    def __init__(self, module: ModuleType) -> None:
        self._module, self._spec = module, module.__spec__

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        del spec
        return self._module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self._spec


def _if_imported(name: str) -> ModuleType | None:
    module = sys.modules.get(name)
    return None if isinstance(module, PostponedModule) else module


def imported(name: str) -> ModuleType:
    """Return a module, which is now imported if it was postponed."""
    if isinstance(sys.modules.get(name), PostponedModule):
        del sys.modules[name]
    return importlib.import_module(name)


@contextmanager
def postponed(modules: Mapping[str, StandIn]) -> Generator[None]:
    """Postpone the import of modules while others, which import them, are imported.

    Afterwards, importing one of the modules gives the complete module.
    """
    waiting = [name for name in modules if name not in sys.modules]
    for name in waiting:
        sys.modules[name] = PostponedModule(name, modules[name])
    submodules = _Submodules()
    sys.meta_path.insert(0, submodules)
    try:
        yield
    finally:
        sys.meta_path.remove(submodules)
        for name in waiting:
            if isinstance(sys.modules.get(name), PostponedModule):
                del sys.modules[name]


def _compiler(module: str, name: str) -> Any:
    if name == "disable":
        return _untraced
    return _InstanceCheck(name, (), {"module": module}) if name == "OptimizedModule" else None


def _untraced(function: Callable[..., Any], *arguments: Any, **named: Any) -> Callable[..., Any]:
    """Return a function that the compiler does not trace, once there is one."""

    @functools.wraps(function)
    def call(*given: Any, **given_named: Any) -> Any:
        compiler = _if_imported("torch._dynamo")
        chosen = function if compiler is None else compiler.disable(function, *arguments, **named)
        return chosen(*given, **given_named)

    return call


def _plotting(module: str, name: str) -> Any:
    """Stand for functions that draw, and for types in annotations."""
    if name.startswith("_"):
        return object if name.isupper() else None

    def draw(*arguments: Any, **named: Any) -> Any:
        return getattr(imported(module), name)(*arguments, **named)

    return draw


def _old_window(module: str, name: str) -> Any:
    """Stand for a function that torchmetrics asks for only to add it where scipy lacks it."""
    del module
    return object() if name == "hamming" else None


_OF_LIGHTNING: Mapping[str, StandIn] = {
    "torch._dynamo": _compiler,
    "scipy.signal": _old_window,
    "torchmetrics.utilities.plot": _plotting,
}


def import_lightning() -> None:
    """Import Lightning, and not what it imports but modulab does not use; that is imported by whoever uses it."""
    if "lightning" in sys.modules:
        return
    importlib.import_module("torch")  # whole, before a part of it waits
    with postponed(_OF_LIGHTNING):
        importlib.import_module("lightning.pytorch")
