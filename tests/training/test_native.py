"""Native steps compute what the step in Python says, and nothing but a member's own settings decides its bits."""

from __future__ import annotations

import ctypes
import math
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from modulab.errors import ConfigError
from modulab.progress import ProgressReport
from modulab.regularisers import Regulariser
from modulab.training import engine
from modulab.training.execution import choose_execution
from modulab.training.fit import fit_population
from modulab.training.libraries import CannotCompile
from modulab.training.native import building
from modulab.training.native import step as native
from modulab.training.native.cutting import LONGEST_CHAIN, cut, longest_chain
from modulab.training.native.emitting import PRELUDE, function_source
from modulab.training.native.fusing import fused, loops
from modulab.training.native.lowering import lowered
from modulab.training.native.statements import Unsupported
from modulab.training.native.step import NativeStep, native_step
from modulab.training.program import Program, program_of
from modulab.training.torch_private import trace_sizes
from tests.members import EAGER, EAGERLY, make_member
from tests.training.cases import CASES, SLOW, members, varied
from tests.training.fitting import CPU, prepared_learner, train_learner, trained_parameters

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="compiling needs a C++ compiler")


@pytest.fixture(scope="module", autouse=True)
def _own_folder(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MODULAB_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        native_step.cache_clear()
        yield
    native_step.cache_clear()


def apart(choices: dict[str, str], overrides: dict[str, Any]) -> float:
    """Return how far the engines train three networks apart, as a share of the way that they come.

    The native engine must train one of them alone to the same bits.
    """
    population = members(3, choices, **overrides)
    eager, native_ = (trained_parameters(population, engine) for engine in ("eager", "native"))
    start = prepared_learner(population)[0].member_parameters()
    assert isinstance(native_step(program_of(population[0])), NativeStep)
    assert torch.equal(trained_parameters(population[1:2], "native")[0], native_[1])
    return float((native_ - eager).abs().max() / (eager - start).abs().max())


@pytest.mark.parametrize("case", [*CASES, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)])
def test_the_native_engine_agrees_with_the_eager_one_to_rounding(case: str) -> None:
    assert apart(*(CASES | SLOW)[case]) < 3e-5


def test_company_threads_and_chunks_leave_the_bits_of_native_steps() -> None:
    packed = trained_parameters(varied(), "native")
    for index in (0, 4, 8):
        assert torch.equal(trained_parameters([varied()[index]], "native")[0], packed[index])
    assert torch.equal(trained_parameters(varied(), "native", threads=3), packed)
    assert torch.equal(trained_parameters(varied(curve_every=7), "native"), packed)
    assert len(packed.unique(dim=0)) == len(packed)


def test_training_that_is_resumed_by_the_native_engine_gives_the_same_bits() -> None:
    whole = train_learner(varied(), "native")
    begun, data = prepared_learner(varied(), "native")
    begun.training_step(data.chunk(0))
    resumed, data = prepared_learner(varied(), "native")
    resumed.load_state_dict(begun.state_dict())
    resumed.training_step(data.chunk(1))
    for one, other in zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True):
        assert torch.equal(one, other)


def test_a_member_that_diverges_is_found_at_its_step_and_leaves_the_others_alone() -> None:
    broken = make_member(
        {"noise": "gaussian"}, seed=3, noise__scale=0.1, architecture__width=9, training__steps=60,
        training__batch_size=20, training__curve_every=30, training__learning_rate=1e30,
    )  # fmt: skip
    population = [*varied(3), broken]
    found = {engine: train_learner(population, engine) for engine in ("eager", "native")}
    diverged = found["native"].member_divergence()
    assert diverged[3] >= 0
    assert torch.equal(diverged, found["eager"].member_divergence())
    assert torch.equal(found["native"].member_parameters()[:3], trained_parameters(varied(3), "native"))


def with_penalty(penalty: Any) -> Program:
    """Return a program with a regulariser that a user could have written elsewhere."""
    foreign = type("Foreign", (Regulariser,), {"penalty": staticmethod(penalty), "__module__": "elsewhere"})
    return replace(program_of(members(1)[0]), regulariser=foreign, coefficient_names=(
        *program_of(members(1)[0]).coefficient_names, "regulariser.strength",
    ))  # fmt: skip


def test_a_program_with_an_operation_that_is_not_known_has_no_native_step() -> None:
    program = with_penalty(lambda run, coefficients, variant: run.parameters.cumsum(1).square().mean(1))
    with pytest.raises(Unsupported, match=r"aten\.cumsum"):
        engine.step_function("native", program, CPU)
    known = with_penalty(lambda run, coefficients, variant: run.parameters.square().mean(1))
    assert isinstance(engine.step_function("native", known, CPU), NativeStep)


def test_code_from_elsewhere_is_known_by_what_it_computes() -> None:
    once, twice = (
        with_penalty(lambda run, coefficients, variant, times=times: times * run.parameters.square().mean(1))
        for times in (1.0, 2.0)
    )
    assert native._library(once, native._trace(once)) != native._library(twice, native._trace(twice))
    assert native._library(once, native._trace(once)) == native._library(once, native._trace(once))


def test_loops_with_long_chains_are_cut_where_their_parts_are_short() -> None:
    noisy = members(1, {"noise": "poisson"}, noise__scale=0.2, training__batch_size=256)
    body = lowered(native._trace(program_of(noisy[0])))
    whole = [loop for group in fused(body) for loop in loops(group)]
    cut_ones = [loop for loop in whole if len(cut(loop)) > 1]
    # Drawing pairs of normal numbers, half of the batch of them at once, is one.
    assert max(map(longest_chain, cut_ones)) > 3 * LONGEST_CHAIN
    for loop in whole:
        parts = cut(loop)
        assert sorted(map(id, loop.statements)) == sorted(
            id(each) for part in parts for each in part.statements
        )
        for number, part in enumerate(parts):
            assert part.size == loop.size
            longest = max(each.latency for each in part.statements)
            assert len(parts) == 1 or longest_chain(part) <= max(LONGEST_CHAIN, longest)
            later = {id(each) for after in parts[number + 1 :] for each in after.statements}
            read = {
                id(writer)
                for each in part.statements
                for access in each.reads
                for writer in access.buffer.writers
            }
            assert not read & later


def test_a_damaged_library_is_compiled_anew() -> None:
    program = program_of(members(1, architecture__width=4)[0])  # loaded by no other test
    library = native._build(program)
    whole = library.read_bytes()
    library.write_bytes(whole[:-100])
    assert not native.is_built(program)
    assert native._build(program) == library
    assert native.is_built(program)


def test_a_machine_without_a_compiler_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = EAGER.model_copy(update={"engine": "native"})
    chosen = choose_execution(trainer, members(1))
    assert chosen.engine == "native"
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(ConfigError, match=r"trainer\.engine=native needs a C\+\+ compiler"):
        chosen.on_this_machine()
    program = program_of(members(1, architecture__width=3)[0])
    with pytest.raises(CannotCompile, match=r"Install g\+\+"):
        native_step(program)


def test_a_compiler_that_fails_is_quoted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(building, "_FLAGS", ("-std=no-such-standard",))
    with pytest.raises(CannotCompile, match=r"no-such-standard.*trainer\.engine=eager"):
        native_step(program_of(members(1, architecture__width=3)[0]))


def test_a_fit_by_the_native_engine_says_so_and_measures_what_the_eager_one_does() -> None:
    population = [member for member in varied(2) if member.noise.linear == 0]
    results = {
        engine: fit_population(
            population, replace(EAGERLY, engine=engine), None, ProgressReport("off", 2, 120)
        )
        for engine in ("eager", "native")
    }
    assert {name: result.engines[0] for name, result in results.items()} == {
        "eager": "eager",
        "native": "native",
    }
    for name, values in results["eager"].measures.items():
        assert results["native"].measures[name] == pytest.approx(values, rel=1e-3, abs=1e-4, nan_ok=True), (
            name
        )


@pytest.fixture(scope="module")
def functions(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """Return the functions that generated code calls, each over an array."""
    folder = tmp_path_factory.mktemp("prelude")
    loops = "\n".join(
        f'extern "C" void over_{name}(const float *in, float *out, int n)'
        f" {{\n#pragma omp simd\nfor (int i = 0; i < n; i++) out[i] = {name}(in[i]); }}"
        for name in (*FUNCTIONS, "sign")
    )
    remainders = (
        'extern "C" void remainders(const int32_t *in, const int32_t *by, int32_t *out, int n)'
        " { for (int i = 0; i < n; i++) out[i] = remainder_of(in[i], by[i]); }"
    )
    (folder / "functions.cpp").write_text("\n".join([PRELUDE.read_text(), loops, remainders, ""]))
    subprocess.run(
        ["g++", *building._FLAGS, "-o", str(folder / "functions.so"), str(folder / "functions.cpp")],
        check=True,
    )
    return ctypes.CDLL(str(folder / "functions.so"))


FUNCTIONS = {
    "exponential": (np.exp, -103.0, 88.7),
    "logarithm": (np.log, 1e-44, 3e38),
    "logarithm_of_one_plus": (np.log1p, -0.99, 50.0),
    "hyperbolic_tangent": (np.tanh, -12.0, 12.0),
    "sine": (np.sin, -100.0, 100.0),
    "cosine": (np.cos, -100.0, 100.0),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_of_generated_code_are_accurate(name: str, functions: ctypes.CDLL) -> None:
    exact, low, high = FUNCTIONS[name]
    generator = np.random.default_rng(1)
    if name == "logarithm":
        values = np.exp(generator.uniform(math.log(low), math.log(high), 200_000))
    else:
        values = generator.uniform(low, high, 200_000)
    small = generator.uniform(-1, 1, 50_000) * 10.0 ** generator.uniform(-8, 0, 50_000)
    values = np.concatenate([values, np.abs(small) if name == "logarithm" else small]).astype(np.float32)
    found = over(functions, name, values)
    expected = exact(values.astype(np.float64))
    # Near a multiple of pi, sines and cosines are as exact as an angle of a few units is in single precision.
    floor = 2e-7 if name in ("sine", "cosine") else 1e-37
    assert np.max(np.abs(found - expected) / np.maximum(np.abs(expected), floor)) < 4e-7 or (
        name in ("sine", "cosine") and np.max(np.abs(found - expected)) < 1.5e-7
    )


def over(functions: ctypes.CDLL, name: str, values: np.ndarray) -> np.ndarray:
    out = np.empty_like(values)
    getattr(functions, f"over_{name}")(
        values.ctypes.data_as(ctypes.c_void_p), out.ctypes.data_as(ctypes.c_void_p), len(values)
    )
    return out


@pytest.mark.parametrize(
    ("name", "given", "expected"),
    [
        ("exponential", [math.nan, math.inf, -math.inf, 0.0, 200.0, -200.0], [math.nan, math.inf, 0, 1, math.inf, 0]),
        ("logarithm", [math.nan, math.inf, 0.0, -1.0, 1.0], [math.nan, math.inf, -math.inf, math.nan, 0]),
        ("logarithm_of_one_plus", [math.nan, math.inf, -1.0, 0.0], [math.nan, math.inf, -math.inf, 0]),
        ("hyperbolic_tangent", [math.nan, math.inf, -math.inf, 0.0], [math.nan, 1, -1, 0]),
        ("sign", [math.nan, math.inf, -math.inf, 0.0, -0.0, 1e-44, -2.0], [math.nan, 1, -1, 0, -0.0, 1, -1]),
        ("sine", [math.nan, 0.0], [math.nan, 0]),
        ("cosine", [math.nan, 0.0], [math.nan, 1]),
    ],
)  # fmt: skip
def test_functions_of_generated_code_keep_what_is_not_finite(
    name: str, given: list[float], expected: list[float], functions: ctypes.CDLL
) -> None:
    found = over(functions, name, np.array(given * 8, np.float32))
    np.testing.assert_array_equal(found, np.array(expected * 8, np.float32))


def test_remainders_are_those_of_integers(functions: ctypes.CDLL) -> None:
    generator = np.random.default_rng(2)
    values = generator.integers(0, 2**31, 100_000, dtype=np.int64).astype(np.int32)
    divisors = np.concatenate([generator.integers(1, 5000, 99_998), [1, 2**31 - 1]]).astype(np.int32)
    values[-1] = 2**31 - 1
    out = np.empty_like(values)
    functions.remainders(
        *(each.ctypes.data_as(ctypes.c_void_p) for each in (values, divisors, out)), len(values)
    )
    np.testing.assert_array_equal(out, values % divisors)


@pytest.mark.parametrize(
    ("argument", "checked"),
    [
        (lambda bits: ((bits & 255).float() + 1.0) * 2.0**-8, False),
        (lambda bits: (bits & 255).float(), True),  # may be 0
        (lambda bits: (bits & -2).float() + 1.0, True),  # may be negative
        (lambda bits: bits.float() + 3e9, False),
        (lambda bits: 2.0 / (bits & 255).float(), True),  # may be infinite
    ],
)
def test_logarithms_check_their_arguments_unless_these_are_known_to_be_normal(
    argument: Callable[[torch.Tensor], torch.Tensor], checked: bool
) -> None:
    source = source_of(lambda bits: (torch.log(argument(bits)),), torch.arange(64, dtype=torch.int32)[None])
    called = re.search(r"logarithm\w*", source[source.index("void body(") :])
    assert called is not None
    assert called[0] == ("logarithm" if checked else "logarithm_of_normal")


@pytest.mark.parametrize("size", [1, 15, 16, 50])
def test_sums_of_every_length_are_whole(size: int, tmp_path: Path) -> None:
    values = torch.rand(3, 4, size, generator=torch.Generator().manual_seed(3))
    library = tmp_path / "sums.so"
    building.build(library, lambda: source_of(lambda rows: (rows.sum(dim=2),), values[:1]))
    sums = torch.empty(3, 4)
    tensors = (ctypes.c_void_p * 1)(values.data_ptr())
    served = (ctypes.c_int64 * 1)(1)
    assert (
        ctypes.CDLL(str(library)).run(ctypes.c_int64(3), tensors, served, ctypes.c_void_p(sums.data_ptr()))
        == 0
    )
    torch.testing.assert_close(sums, values.double().sum(dim=2).float(), rtol=3e-7, atol=0)


def test_elements_of_a_row_lie_side_by_side_for_the_compiler() -> None:
    # An index that adds up a row's place and an element's may wrap around: its elements would be gathered one by one.
    program = program_of(make_member({"noise": "poisson"}))
    source = native._source(program, native._trace(program))
    code = source[source.index("void body(") :]
    assert re.search(r"\(b\d+ \+ \(o0 \* \d+\)\)\[i\]", code)
    assert not re.search(r"\[[^\]]*\bo\d[^\]]*\bi\b[^\]]*\]", code)


def source_of(function: Callable[..., Any], *examples: torch.Tensor) -> str:
    return function_source(lowered(trace_sizes(function, list(examples))))


def test_reasons_name_what_is_not_known() -> None:
    program = with_penalty(lambda run, coefficients, variant: run.parameters.sort(1).values[:, 0])
    with pytest.raises(Unsupported, match="sort"):
        native._source(program, native._trace(program))
