"""Training goes on where torch has changed its private interfaces, with a notice and no traceback."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from modulab.config.settings import Member
from modulab.progress import ProgressReport
from modulab.text import say_once
from modulab.training import engine, torch_private, usable
from modulab.training.fit import fit_population
from modulab.training.torch_private import InterfaceChanged, check_building, check_loading, trace
from tests.hidden import hide
from tests.members import EAGERLY, make_member

ROOT = Path(__file__).parents[2]
LOADING = ["unsafe_alloc_void_ptrs_from_tensors", "alloc_tensor_by_stealing_from_void_ptr"]
BUILDING = [
    "torch._subclasses.fake_tensor:FakeTensorMode",
    "torch._subclasses.fake_tensor:DataDependentOutputException",
    "torch.fx.experimental.proxy_tensor:make_fx",
    "torch.fx.experimental.symbolic_shapes:ShapeEnv",
    "torch.fx.experimental.symbolic_shapes:StatelessSymbolicContext",
    "torch._inductor:aot_compile",
]
AOTI: Any = torch._C._aoti  # pyright: ignore[reportAttributeAccessIssue]


@pytest.fixture(autouse=True)
def nothing_remembered() -> Iterator[None]:
    remembered = (check_loading, check_building, say_once, engine._cpu_step, engine.accelerated_step)
    for each in remembered:
        each.cache_clear()
    usable._cannot_compile.clear()
    yield
    for each in remembered:
        each.cache_clear()
    usable._cannot_compile.clear()


def members() -> list[Member]:
    return [make_member(seed=seed, architecture__width=4, training__steps=4) for seed in range(3)]


def test_interfaces_of_the_installed_torch_are_as_expected() -> None:
    check_building()


@pytest.mark.parametrize("name", LOADING)
def test_a_missing_way_to_pass_tensors_is_noticed_before_a_step_is_loaded(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(AOTI, name)
    with pytest.raises(InterfaceChanged, match=rf"torch {torch.__version__}.*{name}".replace("+", r"\+")):
        check_loading()


def test_a_way_to_pass_tensors_that_copies_them_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    passed = AOTI.unsafe_alloc_void_ptrs_from_tensors
    monkeypatch.setattr(
        AOTI, "unsafe_alloc_void_ptrs_from_tensors", lambda given: passed([each.clone() for each in given])
    )
    with pytest.raises(InterfaceChanged, match="another storage"):
        check_loading()


@pytest.mark.parametrize("name", BUILDING)
def test_a_missing_part_of_tracing_or_compiling_is_noticed(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    hide([name], monkeypatch)
    with pytest.raises(InterfaceChanged, match=name.partition(":")[2]):
        check_building()


def test_another_signature_of_the_compiler_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch._inductor.aot_compile", lambda graph, examples, settings: "")
    with pytest.raises(InterfaceChanged, match="aot_compile"):
        check_building()


def test_traces_that_hold_for_one_size_alone_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        torch_private,
        "trace",
        lambda function, examples: trace(function, [(each, None) for each, _ in examples]),
    )
    with pytest.raises(InterfaceChanged, match=r"how functions are traced.*sizes that are not symbols"):
        check_building()


@pytest.mark.parametrize("requested", ["compiled", "auto"])
def test_training_is_eager_where_torch_compile_has_changed_too(
    requested: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delattr(AOTI, LOADING[0])
    hide(["torch._dynamo:mark_dynamic"], monkeypatch)
    execution = replace(EAGERLY, engine="compiled", engine_may_change=requested == "auto")
    for _ in range(2):
        result = fit_population(members(), execution, None, ProgressReport("off", 3, 12))
        assert (set(result.engines), result.failures) == ({"eager"}, {})
    said = capsys.readouterr().err
    assert said.count("notice: training with the eager engine: ") == 1
    assert LOADING[0] in said
    assert "mark_dynamic" in said
    assert "Traceback" not in said
    eager = fit_population(members(), EAGERLY, None, ProgressReport("off", 3, 12))
    assert result.measures == eager.measures


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_training_is_compiled_by_torch_compile_where_compiled_steps_have_changed() -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "tests.training.changed_torch"],
        cwd=ROOT, env=os.environ | {"PYTHONPATH": os.pathsep.join([".", *sys.path])}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    findings = json.loads(ran.stdout.splitlines()[-1])
    assert findings.pop("compiled from eager") < 1e-5
    assert findings == {
        "engines": {"compiled": "compiled", "auto": "compiled"}, "failures": {},
        "changed by company": [], "changed by threads": False,
    }  # fmt: skip
    assert ran.stderr.count("notice: training steps are compiled by torch.compile") == 1
    assert "Traceback" not in ran.stderr
