from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import cycle
from pathlib import Path
from types import FrameType
from typing import Any

import jaxtyping
import pytest
import torch

import modulab
from modulab.config.settings import Member
from modulab.errors import ConfigError
from modulab.progress import ProgressReport
from modulab.regularisers import Pass, Regulariser
from modulab.text import say_once
from modulab.training import compiled_step, libraries, step_code
from modulab.training.cache import cache_folder
from modulab.training.compiled_step import CompiledStep, build, is_built
from modulab.training.fit import fit_population
from modulab.training.program import Program, program_of
from modulab.training.schedule import schedule_rows
from tests.members import CONFIGS, EAGERLY, make_member
from tests.training.fitting import prepared_learner, trained_parameters


def members(number: int = 3, **overrides: Any) -> list[Member]:
    return [
        make_member(
            {"noise": "poisson", "regulariser": "activity_weight"}, seed=seed, noise__scale=0.2,
            architecture__width=4, training__batch_size=4, training__steps=5, **overrides,
        )
        for seed in range(number)
    ]  # fmt: skip


def library_name(program: Program) -> str:
    return compiled_step._library(program, compiled_step._source_text(program)).name


def with_penalty(program: Program, penalty: Any) -> Program:
    """Return a program with a regulariser that a user could have written elsewhere."""
    foreign = type("Foreign", (Regulariser,), {"penalty": staticmethod(penalty), "__module__": "elsewhere"})
    return Program(**(vars(program) | {"regulariser": foreign}))


REGULARISERS = sorted(
    path.stem for path in (CONFIGS / "regulariser").glob("*.yaml") if path.stem != "default"
)
TASKS = sorted(path.stem for path in (CONFIGS / "task").glob("*.yaml"))
PAIRS = [
    (task, regulariser)
    for task, regulariser, _ in zip(
        cycle(TASKS), cycle(REGULARISERS), range(max(len(TASKS), len(REGULARISERS)))
    )
]
"""Each of both kinds at least once."""


def program_with(task: str, regulariser: str) -> Program:
    strength = {"regulariser__strength": 0.0 if regulariser == "none" else 0.1}
    groups = {"noise": "poisson", "regulariser": regulariser, "task": task}
    return program_of(make_member(groups, noise__scale=0.2, training__batch_size=4, **strength))


@pytest.mark.parametrize(
    ("task", "regulariser"),
    [
        ("classification", "jacobian"),
        pytest.param("regression", "activity_weight", marks=pytest.mark.slow),
        pytest.param("digits", "none", marks=pytest.mark.slow),
    ],
)
def test_every_function_that_a_step_calls_is_in_the_source_that_names_its_library(
    task: str, regulariser: str
) -> None:
    called: set[str] = set()

    def watch(frame: FrameType, event: str, argument: Any) -> None:
        if event == "call":
            called.add(frame.f_code.co_filename)

    program = program_with(task, regulariser)
    sys.setprofile(watch)
    try:
        compiled_step._trace(program)
    finally:
        sys.setprofile(None)
    package = Path(modulab.__file__).parent
    own = {Path(file) for file in called if Path(file).is_relative_to(package)}
    text = compiled_step._source_text(program)
    assert len(own) >= 8
    for file in own:
        assert file.read_text() in text, file


@pytest.mark.parametrize(("task", "regulariser"), PAIRS)
def test_an_edit_of_any_file_that_defines_a_kind_asks_for_another_library(
    task: str, regulariser: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = program_with(task, regulariser)
    name = library_name(program)
    kinds = {type(program.network), type(program.loss), program.regulariser or type(program)}
    read = step_code._source
    for edited in [step_code._STEP, "modulab.streams", *(kind.__module__ for kind in kinds)]:
        with monkeypatch.context() as patch:
            patch.setattr(
                step_code,
                "_source",
                lambda module, edited=edited: read(module) + "# edit" * (module == edited),
            )
            assert library_name(program) != name, edited
    assert library_name(program) == name


@pytest.mark.slow
def test_an_edited_file_of_the_package_is_compiled_anew(tmp_path: Path) -> None:
    # By the native engine, which compiles faster; both name a step by the code that it consists of.
    copy = tmp_path / "src" / "modulab"
    shutil.copytree(Path(modulab.__file__).parent, copy, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(CONFIGS, copy / "configs")
    environment = os.environ | {
        "PYTHONPATH": str(copy.parent),
        "MODULAB_CACHE_DIR": str(tmp_path / "cache"),
    }
    command = [
        sys.executable, "-P", "-c", "import modulab; print(modulab.train("
        "['trainer.engine=native', 'regulariser=l2', 'regulariser.strength=0.5', 'training.steps=20',"
        f"'training.batch_size=8',"
        f"'probes.num_samples=16'], folder=r'{tmp_path}/' + __import__('uuid').uuid4().hex).table['error/test'][0])",
    ]  # fmt: skip

    def error() -> float:
        finished = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert finished.returncode == 0, finished.stderr
        return float(finished.stdout)

    before = error()
    assert error() == before
    file = copy / "regularisers.py"
    formula = "term = (strengths * means[connection]).sum(dim=1)"
    assert formula in file.read_text()
    file.write_text(file.read_text().replace(formula, f"{formula} * 7"))
    assert error() != before


def test_a_library_is_named_after_program_code_torch_and_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    program = program_of(members()[0])
    names = {library_name(program), library_name(program_of(members(training__optimiser="sgd")[0]))}
    monkeypatch.setattr(compiled_step, "_source_text", lambda program: "other code")
    names.add(library_name(program))
    monkeypatch.setattr(torch, "__version__", "3")
    names.add(library_name(program))
    monkeypatch.setattr(libraries, "processor", lambda: "another")
    names.add(library_name(program))
    assert len(names) == 5


@pytest.mark.slow  # the native engine's test of this name is not
def test_code_from_elsewhere_is_known_by_what_it_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    # Shape checks look at random parts of what they check, and would be traced.
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    program = program_of(members()[0])
    weights = torch.tensor([1.0, 2.0])

    def penalty(factor: float, constant: torch.Tensor) -> Any:
        return lambda run, coefficients, variant: (
            factor * run.recording.outputs.square().sum(dim=(1, 2)) * constant[0]
        )

    foreign = [
        with_penalty(program, penalty(*each)) for each in ((1.0, weights), (2.0, weights), (1.0, 3 * weights))
    ]
    assert not any(is_built(each) for each in foreign)
    texts = [compiled_step.graph_text(compiled_step._trace(each)[0]) for each in foreign]
    again = compiled_step.graph_text(compiled_step._trace(with_penalty(program, penalty(1.0, weights)))[0])
    assert len(set(texts)) == 3
    assert again == texts[0]


def test_a_step_that_depends_on_how_many_members_there_are_is_refused() -> None:
    def penalty(run: Pass, coefficients: Any, variant: str) -> torch.Tensor:
        losses = run.recording.outputs.square().sum(dim=(1, 2))
        return losses if len(losses) > 10 else 2 * losses

    with pytest.raises(RuntimeError, match=r"right for 16 members"):
        build(with_penalty(program_of(members()[0]), penalty))


@pytest.mark.parametrize("large", [lambda value: value > 3, lambda value: value.item() > 3])
def test_a_step_that_depends_on_values_is_refused(large: Any) -> None:
    def penalty(run: Pass, coefficients: Any, variant: str) -> torch.Tensor:
        total = run.edges()[1].weights.abs().sum(dim=(1, 2))
        return total if large(total.max()) else 2 * total

    with pytest.raises(RuntimeError, match=r"^Foreign cannot be compiled.*trainer.engine=eager"):
        build(with_penalty(program_of(members()[0]), penalty))


@pytest.mark.skipif(shutil.which("g++") is None, reason="compiling needs a C++ compiler")
def softplus_members(number: int) -> list[Member]:
    """Return members of a program of compiled_checks, so that it is compiled once for all tests."""
    sizes = {"architecture__width": 16, "architecture__activation": "softplus", "training__batch_size": 32}
    return [
        make_member(
            {"noise": "poisson"}, seed=seed, noise__scale=0.1, training__optimiser="sgd", training__steps=5,
            data__num_samples=1, **sizes,
        )
        for seed in range(number)
    ]  # fmt: skip


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


@pytest.mark.slow
def test_a_compiled_step_keeps_no_memory_of_the_steps_before() -> None:
    many = softplus_members(60)
    program = program_of(many[0])
    step = CompiledStep(build(program), callers=1)
    learner, data = prepared_learner(many)
    block, table = learner.blocks[0], data.chunk(0).table
    row, zero = schedule_rows(many[: len(block.parameters)], 0, 1)[0], torch.zeros((), dtype=torch.int32)
    for _ in range(100):
        step(block, table, row, zero, zero)
    before, calls = resident_bytes(), 1000
    for _ in range(calls):
        _, after = step(block, table, row, zero, zero)
    of_one_call = sum(each.untyped_storage().nbytes() for each in after)
    assert resident_bytes() - before < calls * of_one_call / 10


@pytest.mark.slow
def test_a_loaded_step_checks_what_it_is_given(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AOTI_RUNTIME_CHECK_INPUTS", "0")
    few = softplus_members(3)
    program = program_of(few[0])
    step = CompiledStep(build(program), callers=1)
    assert is_built(program)
    compilations: list[Any] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compiled_step, "_compile", lambda *given: compilations.append(given))
        build(program)
    assert not compilations, "once is for all"
    learner, data = prepared_learner(few)
    block, table = learner.blocks[0], data.chunk(0).table
    row, zero = schedule_rows(few, 0, 1)[0], torch.zeros((), dtype=torch.int32)
    losses, after = step(block, table, row, zero, zero)
    assert os.environ["AOTI_RUNTIME_CHECK_INPUTS"] == "0"
    assert losses.isfinite().all()
    assert [each.shape for each in after] == [block.parameters.shape] * 3
    for wrong in (table.double(), table[:, :1], table.T.contiguous().T):
        with pytest.raises(RuntimeError, match="compiled training step failed"):
            step(block, wrong, row, zero, zero)
    assert "unmatched" in capfd.readouterr().err
    # A single data row per member, fewer than the step was traced on, and then a single one for all.
    for population in (few, few[:1] * 3):
        apart = trained_parameters(population, "compiled") - trained_parameters(population)
        assert apart.abs().max() < 1e-5


def test_a_folder_that_cannot_be_written_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MODULAB_CACHE_DIR", raising=False)
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "/proc/nowhere")
    with pytest.raises(ConfigError, match=r"/proc/nowhere.*TORCHINDUCTOR_CACHE_DIR"):
        build(program_of(members()[0]))


def own_cache(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MODULAB_CACHE_DIR", str(folder))
    return cache_folder()


@pytest.mark.parametrize(
    "content",
    [
        b"\x7fELF" + b"planted" * 100,
        *(
            pytest.param(content, marks=pytest.mark.slow)
            for content in (b"", b"\x7fELF", b"no library" + libraries.SEAL + bytes(32))
        ),
    ],
)
def test_a_library_that_is_not_whole_is_compiled_anew(
    content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own_cache(tmp_path, monkeypatch)
    program = program_of(members()[0])
    library = compiled_step._library(program, compiled_step._source_text(program))
    library.write_bytes(content)
    library.chmod(0o700)
    assert not is_built(program)
    with monkeypatch.context() as patch:
        patch.setattr(compiled_step, "_compile", lambda graph, examples, path: path.write_bytes(b"anew"))
        assert build(program).read_bytes() == b"anew"


def test_a_whole_library_counts_unless_a_bit_flips_or_others_may_write_to_it(tmp_path: Path) -> None:
    library = tmp_path / "step.so"
    content = b"\x7fELF" + b"code" * 100 + libraries.SEAL
    whole = content + libraries.digest(content)
    library.write_bytes(whole)
    library.chmod(0o700)
    assert libraries.is_whole(library)
    library.chmod(0o777)
    assert not libraries.is_whole(library)
    library.chmod(0o700)
    for place in (10, len(content), len(whole) - 1):
        library.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert not libraries.is_whole(library)
    library.write_bytes(whole[:-1])
    assert not libraries.is_whole(library)


def test_a_library_planted_in_an_open_folder_is_not_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = own_cache(tmp_path / "open", monkeypatch)
    program = program_of(members()[0])
    planted = compiled_step._library(program, compiled_step._source_text(program))
    content = b"\x7fELF planted" + libraries.SEAL
    planted.write_bytes(content + libraries.digest(content))
    planted.chmod(0o700)
    assert is_built(program)
    place.parent.chmod(0o777)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert not is_built(program)


@pytest.fixture
def mounted(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """Give a small file system mounted with the options of the test."""
    place = tmp_path / "mounted"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"{request.param},mode=700", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting is not possible here")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


TINY = pytest.param("size=64k", marks=pytest.mark.slow)
NOWHERE = pytest.mark.parametrize("mounted", ["noexec", TINY, "ro"], indirect=True)


def quickly_compiled() -> list[Member]:
    """Return members whose step is among the shortest: the compiler is at work on it before the file system is full."""
    shortest = {"architecture__depth": 0, "training__optimiser": "sgd"}
    return [
        make_member(seed=seed, training__batch_size=4, training__steps=5, **shortest) for seed in range(3)
    ]


@NOWHERE
def test_auto_trains_eagerly_where_it_cannot_compile_and_says_so_once(
    mounted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MODULAB_CACHE_DIR", str(mounted))
    say_once.cache_clear()
    execution = replace(EAGERLY, engine="compiled", engine_may_change=True)
    for _ in range(2):
        result = fit_population(quickly_compiled(), execution, None, ProgressReport("off", 3, 15))
        assert set(result.engines) == {"eager"}
    said = capsys.readouterr().err
    assert said.count("training with the eager engine") == 1
    assert str(mounted) in said


@NOWHERE
def test_compiled_ends_in_one_error_where_it_cannot_compile(
    mounted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODULAB_CACHE_DIR", str(mounted))
    execution = replace(EAGERLY, engine="compiled")
    with pytest.raises(ConfigError, match=rf"{mounted}.*trainer.engine=eager"):
        fit_population(quickly_compiled(), execution, None, ProgressReport("off", 3, 15))
