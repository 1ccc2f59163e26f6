"""Native code for measures: row functions traced and compiled, and Poisson counts."""

from __future__ import annotations

import ctypes
import functools
import math
import threading
from pathlib import Path

import torch
from jaxtyping import Float, Float64
from torch import Tensor
from torch.fx import GraphModule

from modulab.metrics.native import Kernels, RowFunction, Run
from modulab.metrics.poisson import COUNT_CELLS, LARGEST_SCORE, count_table, poisson_quantiles
from modulab.text import say_once
from modulab.training.compiled_step import graph_text
from modulab.training.engine import Engine, measures_natively
from modulab.training.libraries import ADVICE, CannotCompile, writing
from modulab.training.native.building import build, named
from modulab.training.native.emitting import function_source
from modulab.training.native.lowering import lowered
from modulab.training.native.statements import Unsupported
from modulab.training.step_code import is_own, source_text
from modulab.training.torch_private import DependsOnValues, trace_sizes

_POISSON = Path(__file__).parent / "poisson.cpp"
_compiling = threading.Lock()
"""Only one thread at a time may trace."""

Shapes = tuple[tuple[torch.Size, torch.dtype], ...]


class NativeKernels(Kernels):
    """Row functions as native code where it can be made, compiled once for a machine."""

    members_to_torchs = 4.5  # for what torch computes between its operations is not in memory

    def __init__(self) -> None:
        """Begin with nothing measured."""
        self._begun: set[object] = set()

    def compiled(self, function: RowFunction, *tensors: Tensor) -> Run | None:
        """Return native code for a function and rows of the shapes of these tensors, or None if there is none."""
        if any(each.device.type != "cpu" for each in tensors):
            return None
        shapes = tuple((each.shape[1:], each.dtype) for each in tensors)
        with _compiling:
            return _run_of(function, shapes)

    def count_rates(
        self,
        activity: Float[Tensor, "row ..."],
        windows: Float64[Tensor, "row_or_one window"],
        scores: Float[Tensor, "row_or_fewer ..."],
    ) -> Float[Tensor, "row window ..."] | None:
        """Return the same bits as `robustness.poisson_count_rates` for windows, or None if there is no native code."""
        both = (activity, scores)
        if any(each.device.type != "cpu" or each.dtype != torch.float32 for each in both):
            return None
        with _compiling:
            count = _count_function()
        return None if count is None else count(activity.contiguous(), windows, scores.contiguous())

    def is_ready(self, task: object) -> bool:
        """Return whether this was called with an equal `task` before. If not, measuring may compile code."""
        was_begun = task in self._begun
        self._begun.add(task)
        return was_begun


@functools.cache
def kernels_of(engine: Engine | None) -> Kernels:
    """Return what measures networks that an engine has trained."""
    return NativeKernels() if measures_natively(engine) else Kernels()


@functools.cache
def _run_of(function: RowFunction, shapes: Shapes) -> Run | None:
    try:
        return _RowLibrary(_row_library(function, shapes), len(shapes))
    except (Unsupported, DependsOnValues):
        return None
    except CannotCompile as error:
        say_once(f"measuring with torch: {error}")
        return None
    except Exception:
        # Other people's losses and networks may do what cannot be traced, such as to leave torch for NumPy.
        if is_own(function):
            raise
        return None


class _RowLibrary:
    """A loaded library of one function; any number of threads may call it at once."""

    def __init__(self, library: Path, arguments: int) -> None:
        loaded = _loaded(library)
        self._run = loaded.run
        self._arguments = arguments
        dimensions = ctypes.c_int64.in_dll(loaded, "dimensions").value
        self._shape = tuple((ctypes.c_int64 * dimensions).in_dll(loaded, "shape"))

    def __call__(self, *tensors: Tensor) -> Tensor:
        """Return the function's rows. Raises: MemoryError where memory is lacking."""
        given = [each.contiguous() for each in tensors]
        sizes = [each.shape[0] for each in given]
        rows = max(sizes)
        assert len(given) == self._arguments
        assert all(rows % size == 0 for size in sizes)
        output = torch.empty(rows, *self._shape)
        pointers = (ctypes.c_void_p * len(given))(*(each.data_ptr() for each in given))
        served = (ctypes.c_int64 * len(given))(*(rows // size for size in sizes))
        if self._run(ctypes.c_int64(rows), pointers, served, ctypes.c_void_p(output.data_ptr())) != 0:
            raise MemoryError("There is too little memory to measure a network.")
        return output


def _row_library(function: RowFunction, shapes: Shapes) -> Path:
    traced = None if is_own(function) else _trace(function, shapes)
    with writing():
        parts = (repr(function), repr(shapes), source_text(function))
        library = named((*parts, *([] if traced is None else [graph_text(traced)])))
    build(library, lambda: function_source(lowered(traced or _trace(function, shapes))))
    return library


def _trace(function: RowFunction, shapes: Shapes) -> GraphModule:
    examples = [torch.zeros(1, *shape, dtype=dtype) for shape, dtype in shapes]
    with torch.no_grad():
        return trace_sizes(lambda *tensors: (function(*tensors),), examples)


def _loaded(library: Path) -> ctypes.CDLL:
    try:
        return ctypes.CDLL(str(library))
    except OSError as error:
        raise CannotCompile(f"Native code of measures cannot be loaded: {error}. {ADVICE}") from error


class _Counting:
    """The loaded library of Poisson counts."""

    def __init__(self, library: Path) -> None:
        self._run = _loaded(library).count_rates
        self._run.restype = ctypes.c_int64

    def __call__(self, activity: Tensor, windows: Tensor, scores: Tensor) -> Tensor:
        """Return sign(a) n / T of contiguous tensors, for each row and window T."""
        (rows, *draws), count = activity.shape, windows.shape[1]
        served = rows // max(1, len(scores))
        assert served * len(scores) == rows
        table = count_table(activity.device)
        lengths = windows.expand(rows, count).contiguous()
        counted = torch.empty(rows, count, *draws)
        doubtful = torch.empty(counted.numel(), dtype=torch.int64)
        left = self._run(
            *map(ctypes.c_int64, (rows, math.prod(draws))),
            *(ctypes.c_void_p(each.data_ptr()) for each in (activity, scores)),
            ctypes.c_int64(served),
            ctypes.c_void_p(lengths.data_ptr()),
            ctypes.c_int64(count),
            ctypes.c_void_p(table.data_ptr()),
            *map(ctypes.c_int32, table.shape),
            *map(ctypes.c_float, (COUNT_CELLS, LARGEST_SCORE)),
            *(ctypes.c_void_p(each.data_ptr()) for each in (counted, doubtful)),
        )
        if left:
            places = doubtful[:left]
            row, window, draw = torch.unravel_index(places, (rows, count, math.prod(draws)))
            values, drawn = (
                activity.view(rows, -1)[row, draw],
                scores.view(len(scores), -1)[row // served, draw],
            )
            own = lengths[row, window]
            counts = poisson_quantiles(values.abs() * own.to(activity.dtype), drawn).div_(own)
            counted.view(-1)[places] = torch.sign(values) * counts.to(activity.dtype)
        return counted


@functools.cache
def _count_function() -> _Counting | None:
    try:
        source = _POISSON.read_text("utf-8")
        library = named(("Poisson counts", source))
        build(library, lambda: source)
        return _Counting(library)
    except CannotCompile as error:
        say_once(f"measuring with torch: {error}")
        return None
