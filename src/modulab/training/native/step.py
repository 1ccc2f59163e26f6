"""Native steps: libraries of generated C++, compiled by the system's compiler and called once per chunk.

A step is traced for one member, so that all sizes are known to the compiler and activity stays in the first caches. The
library takes one member after another through all steps of a chunk: what a member becomes cannot depend on
other members, on threads or on chunks. Programs with an operation for which no code is generated have no native step.
"""

from __future__ import annotations

import ctypes
import functools
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import torch
from filelock import FileLock
from jaxtyping import Float
from torch import Tensor
from torch.fx import GraphModule

from modulab.results.files import process_mark, remove_abandoned, write_whole
from modulab.training import torch_private
from modulab.training.cache import full_folder
from modulab.training.compiled_step import explained, flat_update, graph_text, made_up_tensors
from modulab.training.libraries import (
    ADVICE,
    CannotCompile,
    check_runnable,
    is_whole,
    keep,
    library_of,
    writing,
)
from modulab.training.native.emitting import source_code
from modulab.training.native.lowering import lowered
from modulab.training.native.statements import Unsupported
from modulab.training.program import Program
from modulab.training.step import Block
from modulab.training.step_code import is_own, source_text
from modulab.training.torch_private import trace_sizes

COMPILERS = ("g++", "clang++", "c++")
_REASON = ".unsupported"
"""What the file ends in, beside a library that cannot be made, that holds the reason."""
_FLAGS = (
    "-std=c++17", "-O3", "-march=native", "-shared", "-fPIC", "-fopenmp-simd",
    # Neither changes a number: loops with square roots and conditions are vectorised only if nothing reads errno or
    # for floating-point exceptions.
    "-fno-math-errno", "-fno-trapping-math",
    "-fwrapv", "-fno-strict-aliasing",
)  # fmt: skip


class NativeStep:
    """A library loaded into this process; any number of threads may call it at once."""

    def __init__(self, library: Path) -> None:
        """Load a library that `build` made. Raises: CannotCompile where that is not possible."""
        try:
            self._run = ctypes.CDLL(str(library)).run
        except OSError as error:
            raise CannotCompile(f"The native training step cannot be loaded: {error}. {ADVICE}") from error

    def run_chunk(
        self,
        block: Block,
        table: Float[Tensor, "row feature"],
        rows: Float[Tensor, "step 3 member"],
        first_step: int,
        has_twin: bool = False,
    ) -> Float[Tensor, "step member"]:
        """Take a block through a chunk of steps, in place, and return the loss before each of them.

        A member that is alone in its block lies in it twice, where `has_twin`: it is trained once.
        """
        count = block.parameters.shape[0]
        losses = torch.empty(len(rows), count)
        constant = [
            each.contiguous()
            for each in (
                block.mask, block.coefficients, block.minibatch_keys, block.noise_keys, block.offsets, block.counts,
                table, rows,
            )
        ]  # fmt: skip
        changed = [block.parameters, block.first_moments, block.second_moments, losses]
        assert all(each.is_contiguous() for each in changed)
        pointers = [ctypes.c_void_p(each.data_ptr()) for each in (*changed[:3], *constant, losses)]
        sizes = [ctypes.c_int64(each) for each in (1 if has_twin else count, count, len(rows))]
        if self._run(*sizes, ctypes.c_int32(first_step), *pointers) != 0:
            raise MemoryError("There is too little memory for a training step.")
        if has_twin:
            for each in (*changed[:3], losses.T):
                each[1:] = each[:1]
        return losses


@functools.cache
def native_step(program: Program) -> NativeStep:
    """Return the native step of a program, made now if it is not on disk yet.

    Raises: Unsupported for a program that has none, with the reason; CannotCompile where the compiler or its folder
    cannot be used.
    """
    return NativeStep(_build(program))


def is_built(program: Program) -> bool:
    """Return whether the native step of a program is on disk, or why there is none, as far as that shows untraced."""
    with writing():
        if not is_own(program):
            return False
        library = _library(program, None)
        return is_whole(library) or library.with_suffix(_REASON).exists()


def _build(program: Program) -> Path:
    traced = None if is_own(program) else _trace(program)
    with writing():
        library = _library(program, traced)
        # Of processes that want the same step at once, one compiles it.
        with FileLock(library.with_suffix(".lock")):
            if not is_whole(library):
                _check_not_refused(library)
                try:
                    source = _source(program, traced or _trace(program))
                except Unsupported as error:
                    write_whole(library.with_suffix(_REASON), str(error).encode())
                    raise
                keep(library, _compiled(source, library.parent))
    return library


def _check_not_refused(library: Path) -> None:
    """Raise Unsupported where an earlier process found that there is no code for a step: tracing it takes a second."""
    try:
        reason = library.with_suffix(_REASON).read_text("utf-8")
    except (OSError, ValueError):
        return
    raise Unsupported(reason)


def _library(program: Program, traced: GraphModule | None) -> Path:
    files = (Path(file).read_text("utf-8") for file in (torch_private.__file__, *_generator_files()))
    code = [source_text(program), *files] + ([] if traced is None else [graph_text(traced)])
    return library_of((repr(program), *code, torch.__version__, repr(_FLAGS)))


def _generator_files() -> list[Path]:
    """Return the files of this package, which decide what code is generated."""
    folder = Path(__file__).parent
    return sorted(path for path in folder.iterdir() if path.suffix in (".py", ".hpp"))


def _trace(program: Program) -> GraphModule:
    examples = [tensor for tensor, _ in made_up_tensors(program, members=1)]
    with explained(program):
        return trace_sizes(functools.partial(flat_update, program), examples)


def _source(program: Program, graph: GraphModule) -> str:
    sizes = (program.network.num_parameters, len(program.coefficient_names), program.batch_size)
    return source_code(lowered(graph), *sizes)


def _compiled(source: str, folder: Path) -> bytes:
    """Return the library that the system's compiler makes of a source."""
    compiler = next(filter(None, map(shutil.which, COMPILERS)), None)
    if compiler is None:
        raise CannotCompile(
            "No training step can be compiled, because there is no C++ compiler. Install g++ or use "
            "trainer.engine=eager."
        )
    check_runnable(folder)
    remove_abandoned(folder)
    with tempfile.TemporaryDirectory(prefix=".compiling-", suffix=f".{process_mark()}", dir=folder) as work:
        made = Path(work) / "step.so"
        (Path(work) / "step.cpp").write_text(source, "utf-8")
        command = [compiler, *_FLAGS, "-o", str(made), str(Path(work) / "step.cpp")]
        finished = subprocess.run(
            command, capture_output=True, text=True, check=False, env=os.environ | {"TMPDIR": work}
        )
        if finished.returncode == 0:
            return made.read_bytes()
    said = next(iter(finished.stderr.strip().splitlines()), f"it ends with {finished.returncode}")
    if full_folder(OSError(finished.stderr), folder):
        raise CannotCompile(f"{folder} is full, so no training step can be compiled. {ADVICE}")
    raise CannotCompile(f"The C++ compiler {compiler} fails in {folder}: {said}. {ADVICE}")
