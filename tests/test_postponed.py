"""Importing Lightning leaves out what it only asks about, and whoever uses that gets it whole."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from modulab.postponed import PostponedModule, imported, postponed

_LEFT_OUT = ("torch._dynamo", "scipy.signal", "matplotlib", "sympy")
_AS_EVER = f"""
import sys
from modulab.lightning import LightningModule, Trainer
assert not [name for name in {_LEFT_OUT} if name in sys.modules], sys.modules.keys()
import torch, torchmetrics, scipy.signal, lightning.fabric.wrappers as wrappers
from lightning.pytorch.core import module
network = torch.nn.Linear(1, 1)
assert not isinstance(network, wrappers.OptimizedModule)
compiled = torch.compile(network)
assert isinstance(compiled, wrappers.OptimizedModule) and not isinstance(network, wrappers.OptimizedModule)
assert type(compiled).__module__.startswith("torch._dynamo")
assert issubclass(torchmetrics.MeanMetric, module.Metric)
assert scipy.signal.windows.hamming(3)[1] == 1
metric = torchmetrics.MeanMetric()
metric.update(2.0)
assert type(metric.plot()[0]).__module__ == "matplotlib.figure"
"""


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the name of a module that has not been imported."""
    (tmp_path / "waiting_library.py").write_text("class Kind: ...\ndef double(number): return 2 * number\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "waiting_library", raising=False)
    return "waiting_library"


def nothing(module: str, name: str) -> None:
    """Stand for no name."""


def test_lightning_is_imported_without_the_compiler_and_plots_and_these_work_afterwards() -> None:
    ran = subprocess.run([sys.executable, "-c", _AS_EVER], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr


def test_a_name_without_a_stand_in_is_that_of_the_module(library: str) -> None:
    with postponed({library: nothing}):
        waiting = sys.modules[library]
        assert isinstance(waiting, PostponedModule)
        assert waiting.double(4) == 8
        assert sys.modules[library] is not waiting
    assert imported(library) is sys.modules[library]


def test_a_module_that_waited_is_whole_afterwards(library: str) -> None:
    with postponed({library: nothing}):
        pass
    assert library not in sys.modules
    assert imported(library).double(4) == 8


def test_a_module_that_was_imported_does_not_wait(library: str) -> None:
    whole: ModuleType = imported(library)
    with postponed({library: nothing}):
        assert sys.modules[library] is whole
    assert sys.modules[library] is whole


def test_a_submodule_of_a_module_that_waits_is_imported_once_and_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "waiting_package"
    package.mkdir()
    (package / "__init__.py").write_text("from waiting_package import inner\nwhole = inner.Kind\n")
    (package / "inner.py").write_text("class Kind: ...\n")
    (package / "other.py").write_text("from waiting_package.inner import Kind\n")
    monkeypatch.syspath_prepend(tmp_path)
    names = ("waiting_package", "waiting_package.inner", "waiting_package.other")
    finders = list(sys.meta_path)
    with postponed({"waiting_package": nothing}):
        other = importlib.import_module("waiting_package.other")
        inner = importlib.import_module("waiting_package.inner")
    whole = sys.modules["waiting_package"]
    assert not isinstance(whole, PostponedModule)
    assert whole.whole is inner.Kind is other.Kind
    assert (whole.inner, whole.other) == (inner, other)
    assert inner.__spec__.loader.get_source(inner.__name__) == "class Kind: ...\n"
    assert sys.meta_path == finders
    for name in names:
        monkeypatch.delitem(sys.modules, name)
