"""Steps on a CUDA device as graphs: the kernels of some steps are recorded once, and launched again together.

A step of small networks is some dozens of kernels that each take microseconds, less than it takes Python and the
driver to launch them one by one. A graph launches them together. It reads and writes the same memory each time, so
whatever differs from step to step (its number, its learning rates, where its losses go) is looked up on the device
by a counter that the graph itself advances.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import torch
from jaxtyping import Float
from torch import Tensor

from modulab.config.settings import Member
from modulab.text import say_once
from modulab.training.program import Program
from modulab.training.schedule import distinct_schedules, schedule_columns
from modulab.training.step import Block

CHANGED = ("parameters", "first_moments", "second_moments")
"""The tensors of a block that a step changes."""

STEPS_OF_A_GRAPH = 8
"""The number of steps per launch. Capturing takes as long as launching them one by one, once for each block."""


class GraphedSteps:
    """The steps of one block on a CUDA device, which change it in place."""

    def __init__(
        self,
        step: Callable[[Block, Tensor, Tensor, Tensor, Tensor], tuple[Tensor, list[Tensor]]],
        program: Program,
        block: Block,
        members: Sequence[Member],
        table: Float[Tensor, "row feature"],
        captured_in: Callable[[], AbstractContextManager[None]],
    ) -> None:
        """`step` returns what `population_update` does, and runs within `captured_in`."""
        self._step, self._program, self._block, self._table = step, program, block, table
        self._captured_in = captured_in
        device = block.parameters.device
        self._schedules, places = distinct_schedules(members)
        self._places = places.to(device)
        longest = min(members[0].training.curve_every, members[0].training.steps)
        dtype = block.parameters.dtype
        self._rows = torch.zeros(longest, 3, len(members), dtype=dtype, device=device)
        self._losses = torch.zeros(longest, len(members), dtype=dtype, device=device)
        self._at = torch.zeros((), dtype=torch.int32, device=device)
        self._place = torch.zeros(1, dtype=torch.int64, device=device)
        self._graphs: dict[int, torch.cuda.CUDAGraph] = {}
        self._can_be_captured = True

    def run(self, first_step: int, num_steps: int) -> Float[Tensor, "step member"]:
        """Take the block through a chunk of steps, and return the loss before each of them."""
        columns = schedule_columns(self._schedules, first_step, num_steps).to(self._rows.device)
        torch.index_select(columns, 2, self._places, out=self._rows[:num_steps])
        launches = self._launches(num_steps)
        self._at.fill_(first_step)
        self._place.zero_()
        with self._captured_in():
            for launch in launches:
                launch()
        return self._losses[:num_steps].clone()

    def _launches(self, num_steps: int) -> list[Callable[[], None]]:
        """Return functions that take `num_steps` steps: graphs or, if they cannot be captured, single steps."""
        many, left = divmod(num_steps, STEPS_OF_A_GRAPH)
        if self._can_be_captured:
            if not self._graphs:
                with self._captured_in():
                    self._updated_beside()
            try:
                return [
                    self._graph(steps).replay
                    for steps, count in ((STEPS_OF_A_GRAPH, many), (1, left))
                    for _ in range(count)
                ]
            except RuntimeError as error:
                self._can_be_captured = False
                reason = next(iter(str(error).splitlines()), type(error).__name__)
                say_once(
                    f"steps are launched one by one, because they cannot be captured in a CUDA graph: {reason}"
                )
        return [self._advance] * num_steps

    def _graph(self, steps: int) -> torch.cuda.CUDAGraph:
        """Return the graph of `steps` steps, captured now if it does not exist yet, which runs none of them."""
        if steps not in self._graphs:
            graph = torch.cuda.CUDAGraph()
            # They take turns, and so may use the same memory between their steps.
            pool = next((other.pool() for other in self._graphs.values()), None)
            with self._captured_in(), torch.cuda.graph(graph, pool=pool):
                for _ in range(steps):
                    self._advance()
            self._graphs[steps] = graph
        return self._graphs[steps]

    def _updated_beside(self) -> None:
        """Run a step whose results are dropped: libraries set themselves up at their first call, outside a graph.

        An error of the step itself is raised here, as it is.
        """
        beside = torch.cuda.Stream()
        beside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(beside):
            self._updated()
        torch.cuda.current_stream().wait_stream(beside)

    def _updated(self) -> tuple[Tensor, list[Tensor]]:
        row = self._rows.index_select(0, self._place)[0]
        position = (self._place[0] * self._program.batch_size).int()
        return self._step(self._block, self._table, row, self._at, position)

    def _advance(self) -> None:
        losses, after = self._updated()
        self._losses.index_copy_(0, self._place, losses[None])
        for name, values in zip(CHANGED, after, strict=True):
            getattr(self._block, name).copy_(values)
        self._at += 1
        self._place += 1
