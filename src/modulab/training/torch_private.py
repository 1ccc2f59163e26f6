"""torch's private interfaces: those of ahead-of-time compiled steps, and of the compiler's settings.

`check_loading` and `check_building` say whether those of compiled steps are there and behave; any that fails raises
InterfaceChanged, and the caller compiles with torch.compile instead. The others are left out where they have changed.
"""

from __future__ import annotations

import ctypes
import functools
import getpass
import inspect
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule


class InterfaceChanged(Exception):
    """A private interface of torch is missing in the installed version, or does not do what it is used for."""


class DependsOnValues(Exception):
    """Raised if the operations of a traced function depend on the values of its tensors."""


_CHANGES = (ImportError, AttributeError, TypeError, AssertionError, NotImplementedError)


@contextmanager
def _expected(what: str) -> Generator[None]:
    try:
        yield
    except _CHANGES as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise InterfaceChanged(f"torch {torch.__version__} has changed {what} ({reason})") from error


# Handles: tensors as a compiled step takes and returns them.

_POINTER_OF_CAPSULE = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)
_CAPSULE_OF_POINTER = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)(
    ("PyCapsule_New", ctypes.pythonapi)
)


def handles(tensors: Sequence[Tensor]) -> ctypes.Array[ctypes.c_void_p]:
    """Return handles to tensors, which the call that they are passed to takes over."""
    capsules = _aoti().unsafe_alloc_void_ptrs_from_tensors(list(tensors))
    return (ctypes.c_void_p * len(capsules))(*(_POINTER_OF_CAPSULE(capsule, None) for capsule in capsules))


def tensor_of(handle: int) -> Tensor:
    """Return the tensor of a handle, which torch's function copies: the handle still has to be freed."""
    return _aoti().alloc_tensor_by_stealing_from_void_ptr(_CAPSULE_OF_POINTER(handle, None, None))


@functools.cache
def _aoti() -> Any:
    bindings: Any = torch._C  # pyright: ignore[reportPrivateUsage]
    return bindings._aoti


@dataclass(frozen=True)
class StepFunctions:
    """The functions of a compiled step's library, of which torch documents none."""

    create: Any
    run: Any
    free: Any
    num_inputs: Any
    num_outputs: Any

    def check(self, container: ctypes.c_void_p, inputs: int, outputs: int) -> None:
        """Raise InterfaceChanged if a loaded step does not take and return these numbers of tensors."""
        found: list[int] = []
        for count in (self.num_inputs, self.num_outputs):
            number = ctypes.c_size_t()
            count(container, ctypes.byref(number))
            found.append(number.value)
        with _expected("what compiled steps take and return"):
            assert found == [inputs, outputs], (
                f"{found[0]} tensors and {found[1]}, not {inputs} and {outputs}"
            )


def step_functions(library: ctypes.CDLL) -> StepFunctions:
    """Return the functions of a library that `compile_graph` made. Raises: InterfaceChanged if it lacks one."""
    with _expected("the functions of compiled libraries"):
        found = StepFunctions(
            create=library.AOTInductorModelContainerCreateWithDevice,
            run=library.AOTInductorModelContainerRun,
            free=library.aoti_torch_delete_tensor_object,
            num_inputs=library.AOTInductorModelContainerGetNumInputs,
            num_outputs=library.AOTInductorModelContainerGetNumOutputs,
        )
    pointers = ctypes.POINTER(ctypes.c_void_p)
    found.run.argtypes = (
        ctypes.c_void_p, pointers, ctypes.c_size_t, pointers, ctypes.c_size_t, ctypes.c_void_p, ctypes.c_void_p,
    )  # fmt: skip
    found.free.argtypes = (ctypes.c_void_p,)
    return found


@functools.cache
def check_loading() -> None:
    """Check that tensors pass through handles unharmed. Raises: InterfaceChanged if they do not."""
    with _expected("how tensors are passed to compiled steps"):
        given = torch.tensor([[1.0, 2.0], [3.0, 4.0]])[:, 1]
        [handle] = handles([given])
        returned = tensor_of(handle)
        assert returned.data_ptr() == given.data_ptr(), "another storage"
        assert (returned.shape, returned.stride(), returned.dtype) == (
            given.shape,
            given.stride(),
            given.dtype,
        )
        library = Path(str(torch.__file__)).parent / "lib" / "libtorch_cpu.so"
        free = ctypes.CDLL(str(library)).aoti_torch_delete_tensor_object
        free.argtypes = (ctypes.c_void_p,)
        assert free(handle) == 0, "a handle that cannot be freed"


# Tracing: a function as a graph of operations, with some sizes left open.


def trace(function: Callable[..., Any], examples: Sequence[tuple[Tensor, int | None]]) -> GraphModule:
    """Return a function's graph of operations, general in the size of each example's axis that is named.

    Raises: DependsOnValues for a function that looks at its tensors' values.
    """
    with _expected("how functions are traced"):
        from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
        from torch.fx.experimental.proxy_tensor import make_fx
        from torch.fx.experimental.symbolic_shapes import (
            DimDynamic,
            GuardOnDataDependentSymNode,
            ShapeEnv,
            StatelessSymbolicContext,
        )

        mode = FakeTensorMode(shape_env=ShapeEnv(), allow_non_fake_inputs=True)
        symbolic: list[Tensor] = []
        for tensor, axis in examples:
            sizes = [DimDynamic.DUCK if each == axis else DimDynamic.STATIC for each in range(tensor.dim())]
            context: Any = StatelessSymbolicContext(dynamic_sizes=sizes)
            symbolic.append(mode.from_tensor(tensor, symbolic_context=context))
        traced = make_fx(function, tracing_mode="symbolic")
    session: Any = getattr(torch.compiler, "_compile_session_context", nullcontext)
    try:
        with session():
            return traced(*symbolic)
    except (GuardOnDataDependentSymNode, DataDependentOutputException) as error:
        raise DependsOnValues from error


def trace_sizes(function: Callable[..., Any], examples: Sequence[Tensor]) -> GraphModule:
    """Return a function's graph of operations for tensors of just these sizes.

    Raises: DependsOnValues for a function that looks at its tensors' values.
    """
    with _expected("how functions are traced"):
        from torch._subclasses.fake_tensor import DataDependentOutputException
        from torch.fx.experimental.proxy_tensor import make_fx
        from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode

        traced = make_fx(function, tracing_mode="fake", _allow_non_fake_inputs=True)
    session: Any = getattr(torch.compiler, "_compile_session_context", nullcontext)
    try:
        with session():
            return traced(*examples)
    except (GuardOnDataDependentSymNode, DataDependentOutputException) as error:
        raise DependsOnValues from error


@dataclass(frozen=True)
class Assumptions:
    """The assumptions of a traced graph's code about the sizes of its inputs' first axes."""

    sizes: list[Any]
    """The size of each input with axes: a symbol where the code is general, otherwise a number of sympy."""
    guards: list[Any]
    """Expressions in the symbols that must hold."""


def assumptions(graph: GraphModule) -> Assumptions:
    """Return what a graph that `trace` returned assumes about sizes, also once it was compiled."""
    with _expected("what traced graphs know of sizes"):
        from sympy import sympify

        tensors = [node.meta["val"] for node in graph.graph.find_nodes(op="placeholder")]
        shape_env = tensors[0].fake_mode.shape_env
        guards = [shape_env.replace(guard.expr) for guard in shape_env.guards]
        firsts = [tensor.shape[0] if tensor.dim() else None for tensor in tensors]
        sizes = [sympify(each) if isinstance(each, int | None) else each.node.expr for each in firsts]
        return Assumptions(sizes, guards)


def _weighted_sums(table: Tensor, row: Tensor) -> Tensor:
    return (table * row).sum(dim=1)


@functools.cache
def check_building() -> None:
    """Check that a function is traced in general, and that the compiler takes what it is given.

    Raises: InterfaceChanged if that is not so.
    """
    check_loading()
    examples = [(torch.zeros(16, 3), 0), (torch.zeros(3), None)]
    with _expected("how functions are traced"):
        assumed = assumptions(trace(_weighted_sums, examples))
        assert assumed.sizes[0].is_Symbol, "sizes that are not symbols"
        assert assumed.sizes[1] == 3, "symbols for sizes that are fixed"
        false = [guard for guard in assumed.guards if guard.subs({assumed.sizes[0]: 5}) == False]  # noqa: E712
        assert not false, "assumptions without need"
    with _expected("torch._inductor.aot_compile"):
        from torch._inductor import aot_compile

        inspect.signature(aot_compile).bind(GraphModule, (), options={})


def compile_graph(graph: GraphModule, examples: Sequence[Tensor], options: dict[str, Any]) -> bytes:
    """Return the shared library that TorchInductor makes of a graph."""
    with _expected("torch._inductor.aot_compile"):
        from torch._inductor import aot_compile

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # warnings of torch about itself
            compiled = aot_compile(graph, tuple(examples), options=options)
        library = Path(str(compiled))
        assert library.suffix == ".so", f"it returns {library.name or type(compiled).__name__}"
        return library.read_bytes()


# The compiler's settings and files.


def compiler_errors() -> tuple[tuple[type[Exception], ...], tuple[type[Exception], ...]]:
    """Return what torch raises where the C++ compiler is missing, and where it fails."""
    try:
        from torch._inductor.exc import CppCompileError, InvalidCxxCompiler
    except ImportError:
        return (), ()
    return (InvalidCxxCompiler,), (CppCompileError,)


@contextmanager
def compiler_files_in(folder: str) -> Generator[None]:
    """Let torch's compiler keep its files in a folder, and nothing below /tmp, whatever its cache folder."""
    with _fresh_cache(folder), _headers_in(folder):
        yield


@contextmanager
def _fresh_cache(folder: str) -> Generator[None]:
    try:
        from torch._inductor.utils import fresh_cache

        cache: Any = fresh_cache(dir=folder, delete=False)
    except (ImportError, TypeError):
        cache = _cache_variable(folder)
    with cache:
        yield


@contextmanager
def _cache_variable(folder: str) -> Generator[None]:
    before = os.environ.get("TORCHINDUCTOR_CACHE_DIR")
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = folder
    try:
        yield
    finally:
        os.environ.pop("TORCHINDUCTOR_CACHE_DIR")
        if before is not None:
            os.environ["TORCHINDUCTOR_CACHE_DIR"] = before


@contextmanager
def _headers_in(folder: str) -> Generator[None]:
    """Let torch write headers to a folder. Where it keeps them elsewhere, it writes none as it is used here."""
    try:
        from torch._inductor import codecache

        module: Any = codecache
        before = {name: getattr(module, name) for name in ("_HEADER_DIR", "_HEADER_LOCK_DIR")}
        forget: Callable[[], None] = module._precompile_header.cache_clear
    except (ImportError, AttributeError):
        yield
        return
    vars(module).update({name: os.path.join(folder, name.lower()) for name in before})
    forget()
    try:
        yield
    finally:
        vars(module).update(before)
        forget()


def default_cache_dir() -> str:
    """Return where torch's compiler keeps its files by default."""
    try:
        from torch._inductor.runtime.cache_dir_utils import default_cache_dir as theirs

        return theirs()
    except (ImportError, TypeError):
        return os.path.join(tempfile.gettempdir(), f"torchinductor_{getpass.getuser()}")


def known_options(options: dict[str, Any]) -> dict[str, Any] | None:
    """Return those of the compiler's options that the installed version of torch has, or None."""
    try:
        from torch._inductor import list_options

        known = list_options()
    except (ImportError, TypeError):
        return None
    return {name: value for name, value in options.items() if name in known} or None


@contextmanager
def no_open_sizes() -> Generator[None]:
    """Let torch.compile treat only marked sizes of axes as variables, and not count recompilations.

    Each program's step is its own closure over the same code, which torch counts as recompilations. And it treats
    numbers in which a program differs from earlier ones, its width or its noisy layers, as variables: the code would
    depend on what was compiled before, be slower, and with noisy layers be wrong. Holds in this thread, and while the
    context lasts.

    Raises: InterfaceChanged if torch has no such setting.
    """
    with _expected("the settings of torch.compile"):
        from torch._dynamo import config

        limits = {
            name: value
            for name, value in (("recompile_limit", 1024), ("accumulated_recompile_limit", 4096))
            if hasattr(config, name)  # without them, more programs than torch's own limit are refused
        }
        patch: Any = config.patch({"automatic_dynamic_shapes": False, **limits})
        patch.__enter__()
    try:
        yield
    finally:
        patch.__exit__(None, None, None)


@contextmanager
def compilers_settings_kept() -> Generator[None]:
    """Undo the changes that TorchInductor makes in the process in which it compiles."""
    limit = sys.getrecursionlimit()
    with ExitStack() as kept:
        kept.callback(sys.setrecursionlimit, limit)
        with suppress(ImportError):
            from tqdm import tqdm

            kept.callback(setattr, tqdm, "monitor_interval", tqdm.monitor_interval)
            tqdm.monitor_interval = (
                0  # else the first bar, even one that is not shown, starts a thread that stays
            )
        with suppress(ImportError, AttributeError):
            from torch._inductor import config

            kept.enter_context(config.patch({"aot_inductor.metadata": dict(config.aot_inductor.metadata)}))
        yield


def mark_open(tensor: Tensor, axis: int) -> None:
    """Let torch.compile treat the size of an axis as a variable. Raises: InterfaceChanged if it cannot be marked."""
    with _expected("how sizes are marked"):
        from torch._dynamo import mark_dynamic

        mark_dynamic(tensor, axis)
