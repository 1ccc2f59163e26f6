"""Native steps: libraries of generated C++, called once per chunk.

A step is traced for one member, so that all sizes are known to the compiler and activity stays in the first caches. The
library takes one member after another through all steps of a chunk: what a member becomes cannot depend on
other members, on threads or on chunks. Programs with an operation for which no code is generated have no native step.
"""

from __future__ import annotations

import ctypes
import functools
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor
from torch.fx import GraphModule

from modulab.training.compiled_step import explained, flat_update, graph_text, made_up_tensors
from modulab.training.libraries import ADVICE, CannotCompile, writing
from modulab.training.native.building import build, is_settled, named
from modulab.training.native.emitting import step_source
from modulab.training.native.lowering import lowered
from modulab.training.program import Program
from modulab.training.step import Block
from modulab.training.step_code import is_own, source_text
from modulab.training.torch_private import trace_sizes


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
        return is_own(program) and is_settled(_library(program, None))


def _build(program: Program) -> Path:
    traced = None if is_own(program) else _trace(program)
    with writing():
        library = _library(program, traced)
    build(library, lambda: _source(program, traced or _trace(program)))
    return library


def _library(program: Program, traced: GraphModule | None) -> Path:
    return named((repr(program), source_text(program), *([] if traced is None else [graph_text(traced)])))


def _trace(program: Program) -> GraphModule:
    examples = [tensor for tensor, _ in made_up_tensors(program, members=1)]
    with explained(program):
        return trace_sizes(functools.partial(flat_update, program), examples)


def _source(program: Program, graph: GraphModule) -> str:
    sizes = (program.network.num_parameters, len(program.coefficient_names), program.batch_size)
    return step_source(lowered(graph), *sizes)
