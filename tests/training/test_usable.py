"""Each program is trained by an engine of its own, whatever stands beside it and whenever it is resumed."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from modulab.config.settings import Member
from modulab.errors import ForeignError
from modulab.progress import ProgressReport
from modulab.text import say_once
from modulab.training import engine, usable
from modulab.training.checkpoints import engines_of, read_checkpoint
from modulab.training.execution import Execution
from modulab.training.fit import PopulationResult, fit_population
from modulab.training.native import step as native
from modulab.training.native.statements import Unsupported
from modulab.training.native.step import native_step
from modulab.training.program import Program
from modulab.training.recorder import Interrupted
from tests.members import EAGERLY, make_member
from tests.training.fitting import compiled_stand_in
from tests.training.test_fit import QUICK, CtrlC

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="compiling needs a C++ compiler")
AUTO = replace(EAGERLY, engine="native", engine_may_change=True, instead_of_native="eager")


@pytest.fixture(scope="module", autouse=True)
def _own_folder(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MODULAB_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def _afresh() -> None:
    native_step.cache_clear()
    say_once.cache_clear()


@pytest.fixture
def without_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have no native step for programs with a regulariser."""
    lower = native._source

    def refuse(program: Program, graph: Any) -> str:
        if program.regulariser is not None:
            raise Unsupported("an unknown operation")
        return lower(program, graph)

    monkeypatch.setattr(native, "_source", refuse)


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "_cpu_step", compiled_stand_in)
    monkeypatch.setattr(usable, "step_is_built", lambda program: True)


def members() -> list[Member]:
    sizes = {**QUICK, "regulariser__strength": 0.1}
    return [make_member(seed=1, **QUICK), make_member({"regulariser": "l1"}, seed=2, **sizes)]


def fit(
    population: list[Member],
    execution: Execution,
    checkpoint: Path | None = None,
    stop_after: int | None = None,
) -> PopulationResult:
    progress = ProgressReport("off", 2, 100) if stop_after is None else CtrlC(stop_after)
    return fit_population(population, execution, checkpoint, progress)


def weights(checkpoint: Path) -> torch.Tensor:
    content = read_checkpoint(checkpoint)
    return content["state_dict"]["parameters_by_row"][content["modulab"]["row_of_member"]]


@pytest.mark.usefixtures("without_code")
def test_a_program_without_native_step_has_the_engine_and_bits_that_it_has_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    packed = fit(members(), AUTO, tmp_path / "packed.ckpt")
    assert packed.engines == ["native", "eager"]
    assert engines_of(tmp_path / "packed.ckpt") == {"native", "eager"}
    for place, member in enumerate(members()):
        name = f"{place}.ckpt"
        assert fit([member], AUTO, tmp_path / name).engines == packed.engines[place : place + 1]
        assert torch.equal(weights(tmp_path / name)[0], weights(tmp_path / "packed.ckpt")[place])
    assert "an unknown operation" not in capsys.readouterr().err  # it was not asked for


@pytest.mark.usefixtures("without_code", "compiled")
def test_a_program_without_native_step_is_compiled_with_a_notice_where_native_is_asked_for(
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked = replace(EAGERLY, engine="native")
    assert fit(members(), asked).engines == ["native", "compiled"]
    assert (
        "no native training step, because it has an unknown operation; it uses the compiled engine"
        in capsys.readouterr().err
    )


@pytest.mark.usefixtures("without_code")
def test_a_step_for_which_there_is_no_code_is_not_traced_again(monkeypatch: pytest.MonkeyPatch) -> None:
    fit(members(), AUTO)

    def trace(program: Program) -> None:
        raise AssertionError("traced again")

    monkeypatch.setattr(native, "_trace", trace)
    native_step.cache_clear()
    assert fit(members(), AUTO).engines == ["native", "eager"]


def test_half_trained_networks_go_on_with_the_engine_of_their_own_programs(
    tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    request.getfixturevalue("without_code")
    fit(members(), AUTO, tmp_path / "whole.ckpt")
    with pytest.raises(Interrupted):
        fit(members(), AUTO, tmp_path / "broken.ckpt", stop_after=40)
    assert int(read_checkpoint(tmp_path / "broken.ckpt")["state_dict"]["next_step"]) < 50
    monkeypatch.undo()  # a later version has code for both programs
    resumed = fit(members(), AUTO, tmp_path / "broken.ckpt")
    assert resumed.engines == ["native", "eager"]
    assert torch.equal(weights(tmp_path / "broken.ckpt"), weights(tmp_path / "whole.ckpt"))


@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize("began", ["eager", "compiled", "native"])
def test_half_trained_networks_go_on_with_the_engine_that_began(began: engine.Engine, tmp_path: Path) -> None:
    population = members()[:1]
    whole = fit(population, replace(EAGERLY, engine=began), tmp_path / "whole.ckpt")
    with pytest.raises(Interrupted):
        fit(population, replace(EAGERLY, engine=began), tmp_path / "broken.ckpt", stop_after=20)
    resumed = fit(population, AUTO if began != "native" else EAGERLY, tmp_path / "broken.ckpt")
    assert resumed.engines == whole.engines == [began]
    assert resumed.curves == whole.curves
    assert torch.equal(weights(tmp_path / "broken.ckpt"), weights(tmp_path / "whole.ckpt"))


@pytest.mark.usefixtures("compiled")
def test_half_trained_networks_of_versions_that_kept_no_engine_do_not_go_on_with_the_native_one(
    tmp_path: Path,
) -> None:
    population = members()[:1]
    with pytest.raises(Interrupted):
        fit(population, replace(EAGERLY, engine="compiled"), tmp_path / "broken.ckpt", stop_after=20)
    content = torch.load(tmp_path / "broken.ckpt", weights_only=True)
    del content["modulab"]["engines"]
    torch.save(content, tmp_path / "broken.ckpt")
    assert engines_of(tmp_path / "broken.ckpt") == {None}
    auto = replace(AUTO, instead_of_native="compiled")
    assert fit(population, auto, tmp_path / "broken.ckpt").engines == ["compiled"]


def test_a_native_step_that_cannot_be_made_is_replaced_under_auto_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(program: Program, graph: Any) -> str:
        raise KeyError("a fault")

    monkeypatch.setattr(native, "_source", fail)
    population = [make_member(**(QUICK | {"architecture__width": 7}))]
    assert fit(population, AUTO).engines == ["eager"]
    assert "KeyError: 'a fault'" in capsys.readouterr().err
    with pytest.raises(ForeignError, match="a fault"):
        fit(population, replace(AUTO, engine_may_change=False))
