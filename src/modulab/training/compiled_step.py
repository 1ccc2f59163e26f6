"""The training step for the CPU, compiled ahead of time: traced once, kept on disk, called without Python's lock.

A step is traced operation by operation on made-up members and compiled by TorchInductor into a shared library, for
one thread. The number of members and of data rows stays symbolic: the code is the same for every block size, so that
company changes nothing. The library is kept in the user's own cache folder, under a name that stands for all that it
depends on, and is loaded in milliseconds, where torch.compile would trace the step again in each process. It ends in
its own hash, and is compiled anew where that does not fit.

It is called through ctypes, which lets go of Python's lock, so that threads run blocks side by side.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import subprocess
import sys
import tempfile
import threading
import warnings
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from torch import Tensor
from torch.fx import GraphModule

from modulab import networks, noise, optimisers, regularisers, streams
from modulab.errors import ConfigError
from modulab.networks import ACTIVATIONS
from modulab.optimisers import UPDATES
from modulab.results.files import process_mark, remove_abandoned, replacing
from modulab.training import step
from modulab.training.cache import VARIABLES, cache_folder, full_folder, unsafe_file
from modulab.training.processor import processor_fact
from modulab.training.program import Program
from modulab.training.step import Block, population_update

_OPTIONS: dict[str, Any] = {
    # Threads within a step would wait for one another at each of its dozen loops: on a busy machine that took a
    # hundred times as long as the work.
    "cpp.threads": 1,
    # A hash uses each intermediate twice, so that torch's expression for a draw doubles with each: past 30
    # operations (2.13's default on CPUs is 50) it becomes a buffer of its own, which spares time in the compiler.
    "realize_opcount_threshold": 30,
    # A precompiled header takes 6 s and 150 MB, and saves a program about 1 s.
    "cpp_cache_precompile_headers": False,
}
_AOTI: Any = torch._C._aoti  # pyright: ignore[reportPrivateUsage, reportAttributeAccessIssue]
_SOURCES = (networks, noise, regularisers, streams, optimisers, step)
"""The modules whose functions a step calls: as long as they are unchanged, so is the step."""
LARGEST_BLOCK = 64
"""The most members that a compiled step is checked to be right for."""
_MADE_UP_MEMBERS = 16
_SEAL = b"modulab\1"
"""What stands at the end of a library, before the SHA-256 of all that comes before."""


_first_call = threading.Lock()


class CannotCompile(ConfigError):
    """This machine cannot compile steps, or not keep or load them: for no step, whatever it computes."""


class CompiledStep:
    """A compiled step of one program, loaded into this process; any number of threads may call it at once."""

    def __init__(self, library: Path, callers: int) -> None:
        """Load a library that `build` made; more than `callers` threads at once wait for one another."""
        try:
            functions = ctypes.CDLL(str(library))
        except OSError as error:
            raise CannotCompile(f"The compiled training step cannot be loaded: {error}. {_ADVICE}") from error
        self._checks = False
        self._container = ctypes.c_void_p()
        created = functions.AOTInductorModelContainerCreateWithDevice(
            ctypes.byref(self._container), ctypes.c_size_t(callers), b"cpu", None
        )
        if created != 0:
            raise RuntimeError(f"The compiled step {library} does not load; delete it, and it is made anew.")
        self._delete = functions.aoti_torch_delete_tensor_object
        self._delete.argtypes = (ctypes.c_void_p,)
        self._run = functions.AOTInductorModelContainerRun
        pointers = ctypes.POINTER(ctypes.c_void_p)
        self._run.argtypes = (
            ctypes.c_void_p, pointers, ctypes.c_size_t, pointers, ctypes.c_size_t, ctypes.c_void_p, ctypes.c_void_p,
        )  # fmt: skip

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
        inputs = _handles(tensors)
        outputs = (ctypes.c_void_p * 4)()
        if self._run(self._container, inputs, len(inputs), outputs, len(outputs), None, None) != 0:
            raise RuntimeError("A compiled training step failed; standard error has the reason.")
        losses, *after = map(self._tensor, outputs)
        return losses, after

    def _tensor(self, handle: int) -> Tensor:
        """Return the tensor of a handle, and free the handle.

        torch's function copies the tensor and leaves the handle, which then holds the storage for good.
        """
        tensor = _AOTI.alloc_tensor_by_stealing_from_void_ptr(_CAPSULE_OF_POINTER(handle, None, None))
        if self._delete(handle) != 0:
            raise RuntimeError("A tensor that a compiled training step returned cannot be freed.")
        return tensor


@functools.cache
def compiled_step(program: Program) -> CompiledStep:
    """Return the compiled step of a program, made now if it is not on disk yet.

    Raises: CannotCompile where the compiler or its folder cannot be used.
    """
    return CompiledStep(build(program), callers=os.cpu_count() or 1)


def is_built(program: Program) -> bool:
    """Return whether the step of a program is on disk already, as far as that shows without tracing it."""
    with _writing():
        return _is_own(program) and _is_whole(_library(program, _source_text()))


def build(program: Program) -> Path:
    """Return the library of a program's compiled step, made now if it is not there yet, or not whole.

    Raises: CannotCompile where the compiler or its folder cannot be used.
    """
    traced = None if _is_own(program) else _trace(program)
    with _writing():
        code = [_source_text()] + ([] if traced is None else [_graph_text(traced[0])])
        library = _library(program, "\0".join(code))
        # Of processes that want the same step at once, one compiles it.
        with FileLock(library.with_suffix(".lock")):
            if not _is_whole(library):
                _compile(*(traced or _trace(program)), library)
    return library


@contextmanager
def _writing() -> Generator[None]:
    try:
        yield
    except OSError as error:
        raise CannotCompile(f"The compiled training step cannot be kept: {error}. {_ADVICE}") from error


_ADVICE = (
    "Name a folder of your own, with room and from which programs may be run, in the environment variable "
    f"{' or '.join(VARIABLES)}, or use trainer.engine=eager."
)


def _is_whole(library: Path) -> bool:
    """Return whether a library is there, is what was compiled, and could have been written by nobody else."""
    try:
        descriptor = os.open(library, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    with os.fdopen(descriptor, "rb") as file:
        if unsafe_file(descriptor) is not None:
            return False
        content = file.read()
    end = len(content) - hashlib.sha256().digest_size
    return (
        content.startswith(b"\x7fELF")
        and content[:end].endswith(_SEAL)
        and _digest(content[:end]) == content[end:]
    )


def _digest(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()


def block_tensors(block: Block) -> list[Tensor]:
    """Return a block's tensors, in the order of its fields."""
    return [getattr(block, field.name) for field in fields(block)]


def _handles(tensors: Sequence[Tensor]) -> ctypes.Array[ctypes.c_void_p]:
    """Return handles to tensors, which the call that they are passed to takes over."""
    capsules = _AOTI.unsafe_alloc_void_ptrs_from_tensors(list(tensors))
    return (ctypes.c_void_p * len(capsules))(*(_POINTER_OF_CAPSULE(capsule, None) for capsule in capsules))


_POINTER_OF_CAPSULE = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)
_CAPSULE_OF_POINTER = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)(
    ("PyCapsule_New", ctypes.pythonapi)
)


def _library(program: Program, code: str) -> Path:
    """Return where the library of a program is kept; its name stands for the program, its code and the machine."""
    parts = (repr(program), code, torch.__version__, repr(sorted(_OPTIONS.items())), _processor())
    name = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]
    return cache_folder() / f"{name}.so"


def _is_own(program: Program) -> bool:
    """Return whether all code of a step is this package's or torch's; others may change without our seeing it."""
    codes = (ACTIVATIONS[program.shape.activation].function, UPDATES[program.optimiser], program.regulariser)
    packages = {(code.__module__ or "torch").partition(".")[0] for code in codes if code is not None}
    return packages <= {"modulab", "torch"}


@functools.cache
def _source_text() -> str:
    """Return all of this package's code that a step consists of, and that which compiles it."""
    files = [*(module.__file__ for module in _SOURCES), __file__]
    return "\0".join(Path(str(file)).read_text("utf-8") for file in files)


@functools.cache
def _processor() -> str:
    """Return what this machine's processor can do: code is compiled for it alone."""
    return f"{torch.backends.cpu.get_cpu_capability()} {processor_fact('flags', 'Features')}"


def _graph_text(graph: GraphModule) -> str:
    """Return all that a traced step consists of: its operations and the constants in it."""
    constants = [getattr(graph, str(node.target)) for node in graph.graph.find_nodes(op="get_attr")]
    return graph.code + repr([(value.dtype, value.shape, value.tolist()) for value in constants])


def _trace(program: Program) -> tuple[GraphModule, list[Tensor]]:
    """Return a step's graph of operations, and the made-up tensors that it was traced on.

    Raises: RuntimeError for a regulariser whose operations depend on the values that it sees.
    """
    from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
    from torch.fx.experimental.proxy_tensor import make_fx
    from torch.fx.experimental.symbolic_shapes import (
        DimDynamic,
        GuardOnDataDependentSymNode,
        ShapeEnv,
        StatelessSymbolicContext,
    )

    examples = made_up_tensors(program)
    mode = FakeTensorMode(shape_env=ShapeEnv(), allow_non_fake_inputs=True)
    symbolic: list[Tensor] = []
    for tensor, axis in examples:
        sizes = [DimDynamic.DUCK if each == axis else DimDynamic.STATIC for each in range(tensor.dim())]
        context: Any = StatelessSymbolicContext(dynamic_sizes=sizes)
        symbolic.append(mode.from_tensor(tensor, symbolic_context=context))

    try:
        with torch.compiler._compile_session_context():  # pyright: ignore[reportPrivateUsage]
            graph = make_fx(functools.partial(flat_update, program), tracing_mode="symbolic")(*symbolic)
    except (GuardOnDataDependentSymNode, DataDependentOutputException) as error:
        regulariser = "its step" if program.regulariser is None else program.regulariser.__name__
        raise RuntimeError(
            f"{regulariser} cannot be compiled, for what it does next depends on a tensor's values (if, while, "
            "item()). Write it with torch.where, or use trainer.engine=eager."
        ) from error
    return graph, [tensor for tensor, _ in examples]


def flat_update(program: Program, *tensors: Tensor) -> tuple[Tensor, ...]:
    """Return what `population_update` returns, from the tensors of a block and those beside it, as one tuple."""
    losses, after = population_update(program, Block(*tensors[:-4]), *tensors[-4:])
    return losses, *after


def made_up_tensors(program: Program) -> list[tuple[Tensor, int | None]]:
    """Return tensors as a step takes them, each with its axis of members or rows."""
    members, rows = _MADE_UP_MEMBERS, program.batch_size + _MADE_UP_MEMBERS + 1
    size = (members, program.shape.num_parameters)
    keys = torch.zeros(members, 2, dtype=torch.int32)
    whole = torch.zeros((), dtype=torch.int32)
    features = program.shape.in_features + program.num_targets
    return [
        *[(torch.zeros(size), 0) for _ in range(4)],
        (torch.zeros(len(program.coefficient_names), members), 1),
        (keys, 0), (keys.clone(), 0),
        (torch.zeros(members, dtype=torch.int64), 0), (torch.zeros(members, dtype=torch.int32), 0),
        (torch.zeros(rows, features), 0), (torch.ones(3, members), 1), (whole, None), (whole.clone(), None),
    ]  # fmt: skip


def _compile(graph: GraphModule, examples: list[Tensor], library: Path) -> None:
    from torch._inductor import aot_compile

    _check_general(graph)
    folder = library.parent
    if os.statvfs(folder).f_flag & os.ST_NOEXEC:
        raise CannotCompile(f"{folder} lies where no programs may be run (noexec). {_ADVICE}")
    with compiling_in(folder):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's, about its own ways
            compiled = aot_compile(graph, tuple(examples), options=_OPTIONS)
        content = Path(str(compiled)).read_bytes() + _SEAL
    _check_general(graph)  # the compiler may have assumed more
    with replacing(library) as beside:
        beside.write_bytes(content + _digest(content))
        beside.chmod(0o700)


@contextmanager
def compiling_in(folder: Path) -> Generator[None]:
    """Have torch compile in a new folder within `folder`, which is removed afterwards.

    The programs that it starts find torch where this process does, and nothing in the current folder.

    Raises: CannotCompile where the compiler or the folder cannot be used.
    """
    from torch._inductor.exc import CppCompileError, InvalidCxxCompiler
    from torch._inductor.utils import fresh_cache

    own = [each for each in sys.path if each and os.path.abspath(each) != os.getcwd()]
    try:
        remove_abandoned(folder)
        with tempfile.TemporaryDirectory(
            prefix=".compiling-", suffix=f".{process_mark()}", dir=folder
        ) as work:
            changes = {
                "TMPDIR": work, "PYTHONSAFEPATH": "1", "TORCH_CUSTOM_PYTHONPATH": os.pathsep.join(own),
            }  # fmt: skip
            with (
                _environment(changes),
                _compilers_settings_kept(),
                _headers_in(work),
                fresh_cache(dir=work, delete=False),
            ):
                yield
    except Exception as error:
        if full_folder(error, folder):
            raise CannotCompile(
                f"{folder} is full, so that no training step can be compiled. {_ADVICE}"
            ) from error
        causes = _causes(error)
        if any(isinstance(cause, InvalidCxxCompiler | FileNotFoundError) for cause in causes):
            raise CannotCompile(
                f"No training step can be compiled, as the C++ compiler is missing ({error}). "
                "Install g++ or use trainer.engine=eager."
            ) from error
        if any(isinstance(cause, OSError | CppCompileError | subprocess.SubprocessError) for cause in causes):
            reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
            raise CannotCompile(f"The C++ compiler fails in {folder}: {reason}. {_ADVICE}") from error
        raise


@contextmanager
def _compilers_settings_kept() -> Generator[None]:
    """Undo what TorchInductor changes in the process that it compiles in, and leaves so."""
    from torch._inductor import config
    from tqdm import tqdm

    limit, interval = sys.getrecursionlimit(), tqdm.monitor_interval
    tqdm.monitor_interval = 0  # else the first bar, even one that is not shown, starts a thread that stays
    try:
        with config.patch({"aot_inductor.metadata": dict(config.aot_inductor.metadata)}):
            yield
    finally:
        sys.setrecursionlimit(limit)
        tqdm.monitor_interval = interval


@contextmanager
def _headers_in(folder: str) -> Generator[None]:
    """Have torch write headers to a folder, not below /tmp, whatever its cache folder."""
    from torch._inductor import codecache

    module: Any = codecache
    before = {name: getattr(module, name) for name in ("_HEADER_DIR", "_HEADER_LOCK_DIR")}
    changes = {name: os.path.join(folder, name.lower()) for name in before}
    vars(module).update(changes)
    module._precompile_header.cache_clear()
    try:
        yield
    finally:
        vars(module).update(before)
        module._precompile_header.cache_clear()


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
    tensors = [node.meta["val"] for node in graph.graph.find_nodes(op="placeholder")]
    members, rows = (tensors[place].shape[0].node.expr for place in (0, -4))
    if not (members.is_Symbol and rows.is_Symbol):
        raise RuntimeError(f"The compiled step would be right for {members} members and {rows} rows alone.")
    shape_env = tensors[0].fake_mode.shape_env
    assumptions = [shape_env.replace(guard.expr) for guard in shape_env.guards]
    for number in range(2, LARGEST_BLOCK + 1):
        for many in (2, 3, 1 << 24):
            false = [each for each in assumptions if each.subs({members: number, rows: many}) == False]  # noqa: E712
            if false:
                raise RuntimeError(
                    f"The compiled step would be wrong for {number} members and {many} rows: {false}."
                )
