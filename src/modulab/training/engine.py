"""Engines: how a population's steps are run: op by op (`eager`), or as one compiled function (`compiled`, `native`).

All run blocks of members small enough that a block's activity stays in the processor's cache, and each
block for a whole chunk of steps before the next. Threads share out whole blocks, so their number
changes nothing.
"""

from __future__ import annotations

import ctypes
import functools
import shutil
import threading
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from modulab.config.settings import Member
from modulab.errors import ConfigError
from modulab.text import say_once
from modulab.training.cache import cache_folder
from modulab.training.compiled_step import (
    LARGEST_BLOCK,
    OPTIONS,
    block_tensors,
    compiled_step,
    compiling_in,
    flat_update,
    made_up_tensors,
)
from modulab.training.cuda_graph import CHANGED, GraphedSteps
from modulab.training.native.step import NativeStep, native_step
from modulab.training.program import Program
from modulab.training.schedule import schedule_rows
from modulab.training.step import Block, population_update
from modulab.training.torch_private import InterfaceChanged, known_options, mark_open, no_open_sizes


class NoCompiler(Exception):
    """The installed version of torch has changed how it compiles in a way that leaves the eager engine alone."""


Engine = Literal["eager", "compiled", "native", "native_measures"]
ENGINES: tuple[Engine, ...] = get_args(Engine)
"""From the slowest to the fastest. `native_measures` trains as `native` does, and measures by native code as well."""

StepFunction = Callable[[Block, Tensor, Tensor, Tensor, Tensor], tuple[Tensor, list[Tensor]]]
_memory_is_kept = threading.Event()

_ACTIVITY_BYTES = 3 << 18
"""Bytes of one layer of activity in a block on a CPU: with it, a handful of such tensors fit in the cache."""


@dataclass(frozen=True)
class Chunk:
    """Steps to take before the next look at the population, and the data table that they draw from."""

    first_step: int
    num_steps: int
    table: Float[Tensor, "row feature"]


def steps_natively(engine: str | None) -> bool:
    """Return whether an engine trains by native steps."""
    return engine in ("native", "native_measures")


def measures_natively(engine: str | None) -> bool:
    """Return whether networks that an engine has trained are measured by native code."""
    return engine == "native_measures"


def block_size(program: Program, device: torch.device) -> int:
    """Return how many members of a program to train at once."""
    if device.type != "cpu":
        return 1 << 16
    return max(2, min(LARGEST_BLOCK, _ACTIVITY_BYTES // (4 * program.network.widest * program.batch_size)))


def keep_freed_memory() -> None:
    """Prevent glibc from returning freed buffers to the kernel.

    By default a buffer of more than 128 KiB is mapped again, page by page, each time a step asks for one;
    that took more than half the time of a compiled step. Does nothing where the C library is another.
    """
    if _set_thresholds(mmap=1 << 30, trim=(1 << 31) - 1, top_pad=64 << 20):
        _memory_is_kept.set()


def hand_back_freed_memory() -> None:
    """Undo `keep_freed_memory`, if it was called: set glibc's default thresholds, and release free memory.

    glibc raises its thresholds by itself as larger buffers are freed, up to 32 MiB, but only until a program sets
    them. This rule cannot be switched on again: from here on each buffer of more than 128 KiB is mapped again.
    """
    if _memory_is_kept.is_set():
        _memory_is_kept.clear()
        _set_thresholds(mmap=128 << 10, trim=128 << 10, top_pad=128 << 10)
        ctypes.CDLL(None).malloc_trim(0)


def _set_thresholds(mmap: int, trim: int, top_pad: int) -> bool:
    """Set how glibc keeps freed memory; return False where the C library is another."""
    library = ctypes.CDLL(None)
    if not hasattr(library, "mallopt"):
        return False
    for parameter, value in ((-3, mmap), (-1, trim), (-2, top_pad)):  # as in malloc.h
        library.mallopt(parameter, value)
    return True


def can_compile(device: torch.device) -> bool:
    """Return whether torch.compile has what it needs here: for the CPU, a C++ compiler."""
    return device.type != "cpu" or any(shutil.which(name) for name in ("g++", "clang++", "c++"))


def step_function(engine: Engine, program: Program, device: torch.device) -> StepFunction | NativeStep:
    """Return a function that computes a block's losses, parameters and moments after a step, or a chunk of them.

    Raises: Unsupported for a program that has no native step, NoCompiler for one that has no compiled step.
    """
    if engine == "eager":
        return functools.partial(population_update, program)
    if device.type != "cpu":
        return accelerated_step(program, device)
    return native_step(program) if steps_natively(engine) else _cpu_step(program)


@functools.cache
def _cpu_step(program: Program) -> StepFunction:
    """Return the compiled step for the CPU: from torch.compile where this version of torch has another way to make one.

    Raises: NoCompiler if torch.compile fails as well.
    """
    try:
        return compiled_step(program)
    except InterfaceChanged as error:
        reason = str(error)
    try:
        step = accelerated_step(program, torch.device("cpu"))
    except ConfigError:
        raise
    except Exception as error:
        said = next(iter(str(error).strip().splitlines()), "")
        raise NoCompiler(f"{reason}, and torch.compile fails: {type(error).__name__}: {said}") from error
    say_once(f"training steps are compiled by torch.compile, again in each process: {reason}.")
    return step


def graphed_steps(
    step: StepFunction,
    program: Program,
    block: Block,
    members: Sequence[Member],
    table: Float[Tensor, "row feature"],
) -> GraphedSteps:
    """Return the steps of a block on a CUDA device, as graphs that are captured at the first chunk."""
    captured_in = no_open_sizes if isinstance(step, AcceleratedStep) else nullcontext
    return GraphedSteps(step, program, block, members, table, captured_in)


def run_chunk(
    step: StepFunction | NativeStep, program: Program, block: Block, members: Sequence[Member], chunk: Chunk
) -> Float[Tensor, "step member"]:
    """Take a block through a chunk of steps, in place, and return the loss before each of them."""
    device = block.parameters.device
    rows = schedule_rows(members, chunk.first_step, chunk.num_steps).to(device)
    if isinstance(step, NativeStep):
        has_twin = len(members) == 2 and members[0] is members[1]
        return step.run_chunk(block, chunk.table, rows, chunk.first_step, has_twin)
    steps = torch.arange(
        chunk.first_step, chunk.first_step + chunk.num_steps, dtype=torch.int32, device=device
    )
    positions = torch.arange(chunk.num_steps, dtype=torch.int32, device=device) * program.batch_size
    # Copied: a step's losses may share the storage of an activity-sized buffer, which they would keep alive.
    losses = torch.empty(chunk.num_steps, len(members), dtype=block.parameters.dtype, device=device)
    current = block
    with no_open_sizes() if isinstance(step, AcceleratedStep) else nullcontext():
        for own, row, at, position in zip(losses, rows, steps, positions, strict=True):
            before, after = step(current, chunk.table, row, at, position)
            own.copy_(before)
            current = replace(current, **dict(zip(CHANGED, after, strict=True)))
    for name in CHANGED:
        getattr(block, name).copy_(getattr(current, name))
    return losses


@dataclass(frozen=True)
class AcceleratedStep:
    """A step compiled by torch.compile. It is called under `no_open_sizes`, as it was compiled."""

    compiled: Callable[..., tuple[Tensor, ...]]

    def __call__(
        self, block: Block, table: Tensor, row: Tensor, at: Tensor, position: Tensor
    ) -> tuple[Tensor, list[Tensor]]:
        """Return what `population_update` returns."""
        losses, *after = self.compiled(*block_tensors(block), table, row, at, position)
        return losses, after


@functools.cache
def accelerated_step(program: Program, device: torch.device) -> StepFunction:
    """Return the step compiled by torch.compile, as for devices other than the CPU, and where `compiled_step` fails.

    It is traced here on example inputs, so the code does not depend on which members come first.
    """
    options = known_options(OPTIONS) if device.type == "cpu" else None
    compiled = torch.compile(functools.partial(flat_update, program), fullgraph=True, options=options)
    examples = [(tensor.to(device), axis) for tensor, axis in made_up_tensors(program)]
    for tensor, axis in examples:
        if axis is not None:
            mark_open(tensor, axis)
    with no_open_sizes(), compiling_in(cache_folder()):
        compiled(*(tensor for tensor, _ in examples))
    return AcceleratedStep(compiled)
