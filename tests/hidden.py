"""Libraries whose private names are gone, as in a release that moved them."""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType

import pytest


def hide(names: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Have imports of names, such as `package.module:name`, fail from now on; the library itself keeps them."""
    for each in names:
        module, _, name = each.partition(":")
        known = vars(import_module(module))
        without = ModuleType(module)
        vars(without).update({key: value for key, value in known.items() if key != name})
        monkeypatch.setitem(sys.modules, module, without)
