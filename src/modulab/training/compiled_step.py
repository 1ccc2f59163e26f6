"""The training step for the CPU, compiled ahead of time: traced once, kept on disk, called without Python's lock.

A step is traced operation by operation on example members and compiled by TorchInductor into a shared library, for
one thread. The number of members and of data rows stays symbolic: the code is the same for every block size, so that
results do not depend on packing. The library is kept in the user's own cache folder, under a name that stands for all
that it depends on, and is loaded in milliseconds, where torch.compile would trace the step again in each process. It
ends in its own hash, and is compiled again where that does not fit.

It is called through ctypes, which releases Python's lock, so threads run blocks side by side.
"""

from __future__ import annotations

import ctypes
import functools
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from torch import Tensor
from torch.fx import GraphModule

from modulab.errors import describe
from modulab.results.files import process_mark, remove_abandoned
from modulab.training import torch_private
from modulab.training.cache import full_folder
from modulab.training.libraries import (
    ADVICE,
    CannotCompile,
    check_runnable,
    is_whole,
    keep,
    library_of,
    writing,
)
from modulab.training.program import Program
from modulab.training.step import Block, population_update
from modulab.training.step_code import is_own, source_text
from modulab.training.torch_private import (
    DependsOnValues,
    InterfaceChanged,
    assumptions,
    check_building,
    check_loading,
    compile_graph,
    compiler_errors,
    compiler_files_in,
    compilers_settings_kept,
    handles,
    step_functions,
    tensor_of,
    trace,
)

OPTIONS: dict[str, Any] = {
    # Threads within a step would wait for one another at each of its dozen loops: on a busy machine that took a
    # hundred times as long as the work.
    "cpp.threads": 1,
    # A hash uses each intermediate twice, so torch's expression for a draw doubles with each: past 30
    # operations (2.13's default on CPUs is 50) it becomes its own buffer, which spares time in the compiler.
    "realize_opcount_threshold": 30,
    # A precompiled header takes 6 s and 150 MB, and saves a program about 1 s.
    "cpp_cache_precompile_headers": False,
    "aot_inductor.precompile_headers": False,
}
LARGEST_BLOCK = 64
"""The most members that a compiled step is checked to be right for."""
_MADE_UP_MEMBERS = 16
_NUM_OUTPUTS = 4
"""The losses, and the parameters and moments after the step."""


_first_call = threading.Lock()


class CompiledStep:
    """A compiled step of one program, loaded into this process; any number of threads may call it at once."""

    def __init__(self, library: Path, callers: int) -> None:
        """Load a library that `build` made; more than `callers` threads at once wait for one another.

        Raises: InterfaceChanged if this version of torch cannot use it.
        """
        check_loading()
        try:
            functions = step_functions(ctypes.CDLL(str(library)))
        except OSError as error:
            raise CannotCompile(f"The compiled training step cannot be loaded: {error}. {ADVICE}") from error
        self._checks = False
        self._container = ctypes.c_void_p()
        created = functions.create(ctypes.byref(self._container), ctypes.c_size_t(callers), b"cpu", None)
        if created != 0:
            raise RuntimeError(
                f"The compiled step {library} does not load. Delete it, and it is compiled again."
            )
        functions.check(self._container, inputs=len(fields(Block)) + 4, outputs=_NUM_OUTPUTS)
        self._delete = functions.free
        self._run = functions.run

    def __call__(
        self, block: Block, table: Tensor, row: Tensor, at: Tensor, position: Tensor
    ) -> tuple[Tensor, list[Tensor]]:
        """Return what `population_update` returns. Raises: RuntimeError for tensors that do not fit the program."""
        tensors = [*block_tensors(block), table, row, at, position]
        if self._checks:
            return self._call(tensors)
        # The library looks once, when it is first run, whether to refuse tensors of another type, shape or layout.
        with _first_call, _environment({"AOTI_RUNTIME_CHECK_INPUTS": "1"}):
            self._checks = True
            return self._call(tensors)

    def _call(self, tensors: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        inputs = handles(tensors)
        outputs = (ctypes.c_void_p * _NUM_OUTPUTS)()
        if self._run(self._container, inputs, len(inputs), outputs, len(outputs), None, None) != 0:
            raise RuntimeError("A compiled training step failed; standard error has the reason.")
        losses, *after = map(self._tensor, outputs)
        return losses, after

    def _tensor(self, handle: int) -> Tensor:
        """Return the tensor of a handle, and free the handle, which would hold the storage for good."""
        tensor = tensor_of(handle)
        if self._delete(handle) != 0:
            raise RuntimeError("A tensor that a compiled training step returned cannot be freed.")
        return tensor


@functools.cache
def compiled_step(program: Program) -> CompiledStep:
    """Return the compiled step of a program, made now if it is not on disk yet.

    Raises: CannotCompile if the compiler or its folder cannot be used.
    """
    return CompiledStep(build(program), callers=os.cpu_count() or 1)


def is_built(program: Program) -> bool:
    """Return whether the step of a program is on disk already, as far as that shows without tracing it."""
    with writing():
        return is_own(program) and is_whole(_library(program, _source_text(program)))


def build(program: Program) -> Path:
    """Return the library of a program's compiled step, made now if it is not there yet, or not whole.

    Raises: CannotCompile if the compiler or its folder cannot be used.
    """
    traced = None if is_own(program) else _trace(program)
    with writing():
        code = [_source_text(program)] + ([] if traced is None else [graph_text(traced[0])])
        library = _library(program, "\0".join(code))
        # Of processes that want the same step at once, one compiles it.
        with FileLock(library.with_suffix(".lock")):
            if not is_whole(library):
                _compile(*(traced or _trace(program)), library)
    return library


def block_tensors(block: Block) -> list[Tensor]:
    """Return a block's tensors, in the order of its fields."""
    return [getattr(block, field.name) for field in fields(block)]


def _library(program: Program, code: str) -> Path:
    """Return where the library of a program is kept; its name stands for the program, its code and the machine."""
    parts = (repr(program), code, torch.__version__, repr(sorted(OPTIONS.items())))
    return library_of(parts)


def _source_text(program: Program) -> str:
    """Return the code of this package that a program's step consists of, and that which compiles it."""
    compiling = (Path(file).read_text("utf-8") for file in (__file__, torch_private.__file__))
    return "\0".join([source_text(program), *compiling])


def graph_text(graph: GraphModule) -> str:
    """Return all that a traced step consists of: its operations and the constants in it.

    Raises: RuntimeError for constants that are in fact tensors of the members that it was traced on.
    """
    constants = [getattr(graph, str(node.target)) for node in graph.graph.find_nodes(op="get_attr")]
    try:
        return graph.code + repr([(value.dtype, value.shape, value.tolist()) for value in constants])
    except RuntimeError as error:
        raise _untraceable(error) from error


def _untraceable(error: Exception) -> RuntimeError:
    """Return the exception to raise if a step cannot be traced because of an error."""
    return RuntimeError(
        f"its step cannot be compiled for any number of networks ({describe(error).splitlines()[0]}). "
        "Use trainer.engine=eager."
    )


def _trace(program: Program) -> tuple[GraphModule, list[Tensor]]:
    """Return a step's graph of operations, and the fake tensors that it was traced on.

    Raises: RuntimeError for a regulariser whose operations depend on the values that it sees; InterfaceChanged where
    this version of torch cannot be used to trace.
    """
    check_building()
    examples = made_up_tensors(program)
    with explained(program):
        graph = trace(functools.partial(flat_update, program), examples)
    return graph, [tensor for tensor, _ in examples]


@contextmanager
def explained(program: Program) -> Generator[None]:
    """Raise the reason why a step cannot be traced. Raises: RuntimeError, and InterfaceChanged as it is."""
    try:
        yield
    except DependsOnValues as error:
        regulariser = "its step" if program.regulariser is None else program.regulariser.__name__
        raise RuntimeError(
            f"{regulariser} cannot be compiled, because its control flow depends on a tensor's values (if, "
            "while, item()). Write it with torch.where, or use trainer.engine=eager."
        ) from error
    except InterfaceChanged:
        raise
    except Exception as error:  # torch may fail to trace user code in any way
        raise _untraceable(error) from error


def flat_update(program: Program, *tensors: Tensor) -> tuple[Tensor, ...]:
    """Return what `population_update` returns, from the tensors of a block and the other tensors, as one tuple."""
    losses, after = population_update(program, Block(*tensors[:-4]), *tensors[-4:])
    return losses, *after


def made_up_tensors(program: Program, members: int = _MADE_UP_MEMBERS) -> list[tuple[Tensor, int | None]]:
    """Return tensors as a step takes them, each with its axis of members or rows."""
    rows = program.batch_size + members + 1
    size = (members, program.network.num_parameters)
    keys = torch.zeros(members, 2, dtype=torch.int32)
    whole = torch.zeros((), dtype=torch.int32)
    return [
        *[(torch.zeros(size), 0) for _ in range(4)],
        (torch.zeros(len(program.coefficient_names), members), 1),
        (keys, 0), (keys.clone(), 0),
        (torch.zeros(members, dtype=torch.int64), 0), (torch.zeros(members, dtype=torch.int32), 0),
        (torch.zeros(rows, program.num_features), 0), (torch.ones(3, members), 1), (whole, None), (whole.clone(), None),
    ]  # fmt: skip


def _compile(graph: GraphModule, examples: list[Tensor], library: Path) -> None:
    _check_general(graph)
    folder = library.parent
    check_runnable(folder)
    with compiling_in(folder):
        content = compile_graph(graph, examples, OPTIONS)
    _check_general(graph)  # the compiler may have assumed more
    keep(library, content)


@contextmanager
def compiling_in(folder: Path) -> Generator[None]:
    """Let torch compile in a new folder within `folder`, which is removed afterwards.

    The programs that it starts find torch where this process does, and nothing in the current folder.

    Raises: CannotCompile if the compiler or the folder cannot be used.
    """
    missing, failing = compiler_errors()
    own = [each for each in sys.path if each and os.path.abspath(each) != os.getcwd()]
    try:
        remove_abandoned(folder)
        with tempfile.TemporaryDirectory(
            prefix=".compiling-", suffix=f".{process_mark()}", dir=folder
        ) as work:
            changes = {
                "TMPDIR": work, "PYTHONSAFEPATH": "1", "TORCH_CUSTOM_PYTHONPATH": os.pathsep.join(own),
            }  # fmt: skip
            with _environment(changes), compilers_settings_kept(), compiler_files_in(work):
                yield
    except Exception as error:
        if full_folder(error, folder):
            raise CannotCompile(f"{folder} is full, so no training step can be compiled. {ADVICE}") from error
        causes = _causes(error)
        if any(isinstance(cause, (*missing, FileNotFoundError)) for cause in causes):
            raise CannotCompile(
                f"No training step can be compiled, because the C++ compiler is missing ({error}). "
                "Install g++ or use trainer.engine=eager."
            ) from error
        if any(isinstance(cause, (*failing, OSError, subprocess.SubprocessError)) for cause in causes):
            reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
            raise CannotCompile(f"The C++ compiler fails in {folder}: {reason}. {ADVICE}") from error
        raise


def _causes(error: BaseException) -> list[BaseException]:
    causes = [error]
    while (cause := causes[-1].__cause__ or causes[-1].__context__) is not None and cause not in causes:
        causes.append(cause)
    return causes


@contextmanager
def _environment(changes: dict[str, str]) -> Generator[None]:
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _check_general(graph: GraphModule) -> None:
    """Check that nothing was assumed about the number of members, up to the largest block, or of rows."""
    assumed = assumptions(graph)
    members, rows = (assumed.sizes[place] for place in (0, -4))
    if not (members.is_Symbol and rows.is_Symbol):
        raise RuntimeError(f"The compiled step would be right for {members} members and {rows} rows alone.")
    for number in range(2, LARGEST_BLOCK + 1):
        for many in (2, 3, 1 << 24):
            sizes = {members: number, rows: many}
            false = [each for each in assumed.guards if each.subs(sizes) == False]  # noqa: E712
            if false:
                raise RuntimeError(
                    f"The compiled step would be wrong for {number} members and {many} rows: {false}."
                )
