"""Engines: how a population's steps are run, op by op (`eager`) or fused by torch.compile (`compiled`).

Both run blocks of members small enough that a block's activity stays in the processor's cache, and each
block for a whole chunk of steps before the next. The compiled step is traced once a program, on a block of
made-up members, with the member axis symbolic: the code is the same for every block size, so that company
changes nothing there either. Threads share out whole blocks, so that their number changes nothing.
"""

from __future__ import annotations

import ctypes
import functools
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import torch
from jaxtyping import Float
from torch import Tensor
from torch._dynamo import config as dynamo_config
from torch._dynamo import error_on_graph_break, mark_dynamic

from modulab.errors import ConfigError
from modulab.settings import Member
from modulab.training.cost import compiling_pays
from modulab.training.optimisers import schedule_rows
from modulab.training.program import Program
from modulab.training.step import Block, population_step, population_update, write_update

StepFunction = Callable[[Program, Block, Tensor, Tensor, Tensor, Tensor], Tensor]

_ACTIVITY_BYTES = 3 << 18
"""Bytes of one layer of activity in a block on a CPU: with it, a handful of such tensors fit in the cache."""
_CPU_OPTIONS: dict[str, str | int | bool | Callable[..., object]] = {
    "cpp_wrapper": True,
    # The rest spares time in the compiler. A hash uses each intermediate twice, so that torch's expression for a
    # draw doubles with each: past 30 operations (2.13's default on CPUs is 50) it becomes a buffer of its own.
    "realize_opcount_threshold": 30,
    # A precompiled header takes 6 s and 150 MB, and saves a program about 1 s.
    "cpp_cache_precompile_headers": False,
}


@dataclass(frozen=True)
class Chunk:
    """Steps to take before the next look at the population, and the data table that they draw from."""

    first_step: int
    num_steps: int
    table: Float[Tensor, "row feature"]


def block_size(program: Program, device: torch.device) -> int:
    """Return how many members of a program to train at once."""
    if device.type != "cpu":
        return 1 << 16
    widest = max((*program.shape.hidden_features, program.shape.in_features))
    return max(2, min(64, _ACTIVITY_BYTES // (4 * widest * program.batch_size)))


def keep_freed_memory() -> None:
    """Stop glibc from handing freed buffers back to the kernel.

    By default a buffer of more than 128 KiB is mapped anew, page by page, each time a step asks for one;
    that took more than half the time of a compiled step. Does nothing where the C library is another.
    """
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):
        trim_threshold, top_pad, mmap_threshold = -1, -2, -3
        library.mallopt(mmap_threshold, 1 << 30)
        library.mallopt(trim_threshold, (1 << 31) - 1)
        library.mallopt(top_pad, 64 << 20)


def can_compile(device: torch.device) -> bool:
    """Return whether torch.compile has what it needs here: for the CPU, a C++ compiler."""
    return device.type != "cpu" or any(shutil.which(name) for name in ("g++", "clang++", "c++"))


def choose_engine(requested: str, members: Sequence[Member], device: torch.device, threads: int) -> str:
    """Return `eager` or `compiled`; `auto` compiles where the steps saved repay the compiler's time.

    Raises: ConfigError where `compiled` is asked for and no compiler is installed.
    """
    if requested == "compiled" and not can_compile(device):
        raise ConfigError(
            "trainer.engine=compiled needs a C++ compiler, and none is installed. "
            "Install g++ or use trainer.engine=eager."
        )
    if requested != "auto":
        return requested
    return "compiled" if can_compile(device) and compiling_pays(members, threads) else "eager"


def step_function(engine: str, program: Program, device: torch.device) -> StepFunction:
    """Return the function that takes a block of `program` one step on."""
    if engine == "eager":
        return population_step
    return _compiled_step(program, device)


def run_chunk(
    step: StepFunction, program: Program, block: Block, members: Sequence[Member], chunk: Chunk
) -> Float[Tensor, "step member"]:
    """Take a block through a chunk of steps, in place, and return the loss before each of them."""
    device = block.parameters.device
    rows = schedule_rows(members, chunk.first_step, chunk.num_steps).to(device)
    steps = torch.arange(
        chunk.first_step, chunk.first_step + chunk.num_steps, dtype=torch.int32, device=device
    )
    positions = torch.arange(chunk.num_steps, dtype=torch.int32, device=device) * program.batch_size
    losses = [
        step(program, block, chunk.table, row, at, position)
        for row, at, position in zip(rows, steps, positions, strict=True)
    ]
    return torch.stack(losses)


@functools.cache
def _compiled_step(program: Program, device: torch.device) -> StepFunction:
    # The update is written outside: torch's code generator fails on some programs that write where they read
    # (pytorch/pytorch#196570).
    def step(
        tensors: Sequence[Tensor], table: Tensor, row: Tensor, at: Tensor, position: Tensor
    ) -> tuple[Tensor, list[Tensor]]:
        return population_update(program, Block(*tensors), table, row, at, position)

    # Each program's step is its own closure over the same code, which torch counts as recompilations.
    dynamo_config.recompile_limit = 1024
    dynamo_config.accumulated_recompile_limit = 4096
    # Else torch takes numbers in which a program differs from earlier ones, its width or its noisy layers, for
    # variables: the code would depend on what was compiled before, be slower, and with noisy layers be wrong.
    dynamo_config.automatic_dynamic_shapes = False
    # On a CPU the code is made for one thread and entered without Python's lock, so that threads can run blocks
    # side by side. Threads within a step would wait for one another at each of its dozen loops: on a busy machine
    # that took a hundred times as long as the work.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    compiled = torch.compile(step, options=_CPU_OPTIONS if device.type == "cpu" else {})

    def call(
        program: Program, block: Block, table: Tensor, row: Tensor, at: Tensor, position: Tensor
    ) -> Tensor:
        del program
        losses, after = compiled(_tensors(block), table, row, at, position)
        write_update(block, after)
        return losses

    # One graph, or an error. Not by fullgraph=True: that counts the compiled calls of the whole process, and fails
    # now and then where threads make them side by side.
    with error_on_graph_break(True):
        _trace(compiled, program, device)
    torch.set_num_threads(threads)
    return call


def _tensors(block: Block) -> list[Tensor]:
    return [getattr(block, field.name) for field in fields(block)]


def _trace(
    compiled: Callable[..., tuple[Tensor, list[Tensor]]], program: Program, device: torch.device
) -> None:
    """Compile a step on made-up members, so that the code does not depend on which members come first."""
    num_members = min(block_size(program, device), 16)
    num_rows = program.batch_size + 3
    zeros = functools.partial(torch.zeros, device=device)
    size = (num_members, program.shape.num_parameters)
    block = Block(
        zeros(size), zeros(size), zeros(size), zeros(size),
        zeros(len(program.coefficient_names), num_members),
        zeros(num_members, 2, dtype=torch.int32), zeros(num_members, 2, dtype=torch.int32),
        zeros(num_members, dtype=torch.int64), zeros(num_members, dtype=torch.int32),
    )  # fmt: skip
    table = zeros(num_rows, program.shape.in_features + program.num_targets)
    row = torch.ones(3, num_members, device=device)
    for tensor in _tensors(block):
        mark_dynamic(tensor, 1 if tensor is block.coefficients else 0)
    mark_dynamic(table, 0)
    mark_dynamic(row, 1)
    # Two tensors: code that was traced with one for both would be good only where step and position are one.
    step, position = zeros((), dtype=torch.int32), zeros((), dtype=torch.int32)
    compiled(_tensors(block), table, row, step, position)
