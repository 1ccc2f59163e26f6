"""The Lightning module: a population's parameters and optimiser state, advanced a chunk of steps at a time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from modulab.config.settings import Member
from modulab.errors import foreign_code
from modulab.foreign import check_tensor, dotted_name, kind_of, own_draws_only, wrong_result
from modulab.lightning import LightningModule
from modulab.networks.base import NetworkPopulation
from modulab.regularisers import Rearrangement
from modulab.streams import Stream, fold_in, member_keys
from modulab.training.cuda_graph import GraphedSteps
from modulab.training.engine import Chunk, Engine, block_size, graphed_steps, run_chunk, step_function
from modulab.training.native.step import NativeStep
from modulab.training.program import (
    Program,
    dtype_of,
    initialise,
    own_coefficients,
    program_of,
    stack_coefficients,
)
from modulab.training.step import Block, rows_of
from modulab.training.trial import code_of

_WORTH_SHARING = 8
"""From this many members of a program on, two smaller blocks on two threads beat one."""


@dataclass(frozen=True)
class _Place:
    """The rows of a block and the members in them; a single member is padded with a duplicate."""

    start: int
    stop: int
    program: Program
    members: tuple[int, ...]


@dataclass(frozen=True)
class _Part:
    """The part of a block that continues: its present members, and their rows, None for the whole block in place."""

    place: _Place
    members: list[Member]
    rows: Int64[Tensor, " row"] | None
    block: Block


def arrange(members: Sequence[Member], device: torch.device) -> list[_Place]:
    """Return blocks of members of one program each, none of a single row.

    A batch of one matrix is multiplied by other code than a batch of several, with other rounding, so a
    member left alone in its block is doubled.
    """
    by_program: defaultdict[Program, list[int]] = defaultdict(list)
    for index, member in enumerate(members):
        by_program[program_of(member)].append(index)
    places: list[_Place] = []
    start = 0
    for program, indices in by_program.items():
        for block in _cut(indices, block_size(program, device), shared=device.type == "cpu"):
            rows = block * 2 if len(block) == 1 else block
            places.append(_Place(start, start + len(rows), program, tuple(rows)))
            start += len(rows)
    return places


def _cut(indices: list[int], largest: int, shared: bool) -> list[list[int]]:
    """Return consecutive parts of about equal size; if they are `shared` by threads, an even number of them."""
    count = -(-len(indices) // largest)
    if shared and len(indices) >= _WORTH_SHARING:
        count += count % 2
    ends = [len(indices) * part // count for part in range(count + 1)]
    return [indices[start:end] for start, end in pairwise(ends)]


def _differ(before: Member | None, now: Member | None) -> bool:
    if before is None or now is None:
        return before is not now
    return before.training.learning_rate != now.training.learning_rate


def _check_moved(moved: object, parameters: Tensor, source: str) -> None:
    """Check what a regulariser rearranged. Raises: ForeignError where it is something else than it must be."""
    if not isinstance(moved, Rearrangement):
        raise wrong_result(f"it is {kind_of(moved)}", "None, or modulab.regularisers.Rearrangement", source)
    check_tensor(moved.parameters, parameters.shape, source, "parameters")
    if moved.moments_of is not None:
        check_tensor(moved.moments_of, parameters.shape, source, "moments_of")


class PopulationLearner(LightningModule):
    """Trains members side by side; each ends where it would have ended alone.

    The parameters of all members are one (row, parameter) tensor, so an optimiser step is one fused
    update and a checkpoint one array. Rows are members in block order; `row_of_member` finds them again.
    """

    parameters_by_row: nn.Parameter
    first_moments: Tensor
    second_moments: Tensor
    next_step: Tensor
    diverged_at: Tensor

    def __init__(
        self, members: Sequence[Member], engine: Engine, device: torch.device, threads: int = 1
    ) -> None:
        """Lay out and initialise `members`, which share every structural setting; `threads` train their blocks."""
        super().__init__()
        self.automatic_optimization = False
        self._places = arrange(members, device)
        self.train_with(dict.fromkeys(self.programs, engine), threads)
        rows = [index for place in self._places for index in place.members]
        self._row_members = [members[index] for index in rows]
        self._going_on: list[Member | None] = list(members)
        self.member_of_row: Int64[Tensor, " row"] = torch.tensor(rows)
        row_of_member = torch.empty(len(members), dtype=torch.int64)
        row_of_member[self.member_of_row] = torch.arange(len(rows))
        self.row_of_member: Int64[Tensor, " member"] = row_of_member
        self.network = self._places[0].program.network
        keys = member_keys([member.seed for member in self._row_members])
        dtype = dtype_of(members)
        mask, parameters = (each.to(dtype) for each in initialise(self._row_members, self.network))
        self.parameters_by_row = nn.Parameter(parameters, requires_grad=False)
        self.register_buffer("first_moments", torch.zeros_like(parameters))
        self.register_buffer("second_moments", torch.zeros_like(parameters))
        self.register_buffer("next_step", torch.zeros((), dtype=torch.int64))
        self.register_buffer("diverged_at", torch.full((len(rows),), -1, dtype=torch.int64))
        self.register_buffer("mask", mask, persistent=False)
        self.register_buffer("minibatch_keys", fold_in(keys, Stream.MINIBATCH), persistent=False)
        self.register_buffer("noise_keys", fold_in(keys, Stream.NOISE), persistent=False)
        self._coefficients = [
            stack_coefficients([members[index] for index in place.members]) for place in self._places
        ]
        self._offsets = torch.zeros(len(rows), dtype=torch.int64)
        self._counts = torch.ones(len(rows), dtype=torch.int32)
        self.chunk_losses = torch.zeros(len(members))
        self._parts: list[_Part] = []
        self._graphs: dict[int, GraphedSteps] = {}

    @property
    def programs(self) -> list[Program]:
        """Return the population's programs, each once."""
        return list(dict.fromkeys(place.program for place in self._places))

    @property
    def row_members(self) -> Sequence[Member]:
        """Return the members in row order, duplicates included: the order in which data is laid out."""
        return self._row_members

    @property
    def member_programs(self) -> list[Program]:
        """Return each member's program, in the order in which the members were given."""
        programs = [place.program for place in self._places for _ in place.members]
        return [programs[row] for row in self.row_of_member.tolist()]

    def train_with(self, engines: Mapping[Program, Engine], threads: int) -> None:
        """Run the steps of each program by its own engine from now on, on `threads` threads."""
        self._engines, self.threads = dict(engines), threads

    @property
    def member_engines(self) -> list[Engine]:
        """Return the engine that trains each member, in the order in which the members were given."""
        engines: list[Engine] = []
        for place in self._places:
            engine = self._engines[place.program]
            engines.extend(engine for _ in place.members)
        return [engines[row] for row in self.row_of_member.tolist()]

    def read_data(self, offsets: Int64[Tensor, " row"], counts: torch.Tensor) -> None:
        """Take where each row's points lie in the data table, and how many there are."""
        self._offsets, self._counts = offsets, counts

    def configure_optimizers(self) -> None:
        """Return nothing: the update is part of the step."""

    def on_fit_start(self) -> None:
        """Cut the population into blocks, once its tensors are where they will be trained."""
        self._cut_blocks()

    def go_on_with(self, members: Sequence[Member | None]) -> None:
        """Train on with these members, whose learning rates alone may have changed; None stops one.

        A member that has stopped keeps its parameters. Blocks have fewer members then, which makes no difference to the
        others.
        """
        before, self._going_on = self._going_on, list(members)
        if self._parts and any(map(_differ, before, members)):
            self._cut_blocks()

    def _cut_blocks(self) -> None:
        device = self.device
        offsets, counts = self._offsets.to(device), self._counts.to(device)
        self._parts, self._graphs = [], {}
        for place, coefficients in zip(self._places, self._coefficients, strict=True):
            going_on = [self._going_on[index] for index in place.members]
            members = [member for member in going_on if member is not None]
            if not members:
                continue
            whole = Block(
                parameters=self.parameters_by_row.data[place.start : place.stop],
                first_moments=self.first_moments[place.start : place.stop],
                second_moments=self.second_moments[place.start : place.stop],
                mask=self._buffer("mask")[place.start : place.stop],
                coefficients=coefficients.to(device),
                minibatch_keys=self._buffer("minibatch_keys")[place.start : place.stop],
                noise_keys=self._buffer("noise_keys")[place.start : place.stop],
                offsets=offsets[place.start : place.stop],
                counts=counts[place.start : place.stop],
            )
            if len(members) == len(going_on):
                self._parts.append(_Part(place, members, None, whole))
                continue
            chosen = [row for row, member in enumerate(going_on) if member is not None]
            if len(chosen) == 1:  # never a block of a single row: see `arrange`
                chosen, members = chosen * 2, members * 2
            rows = torch.tensor(chosen, device=device)
            self._parts.append(_Part(place, members, place.start + rows, rows_of(whole, rows)))

    @property
    def blocks(self) -> list[Block]:
        """Return the blocks of members that continue, once the fit has begun."""
        return [part.block for part in self._parts]

    def _buffer(self, name: str) -> Tensor:
        return self.get_buffer(name)

    def training_step(self, chunk: Chunk) -> None:
        """Advance every block by a chunk of optimiser steps. Raises: ForeignError for whatever fails in them."""
        code = [part for program in self.programs for part in code_of(program)]
        with foreign_code(), own_draws_only(*code):  # Lightning takes StopIteration for the end of training.
            self._advance(chunk)
            self._rearrange()

    def _advance(self, chunk: Chunk) -> None:
        steps = [
            step_function(self._engines[part.place.program], part.place.program, self.device)
            for part in self._parts
        ]

        def advance(number: int) -> Tensor:
            part, step = self._parts[number], steps[number]
            program = part.place.program
            if self.device.type != "cuda" or isinstance(step, NativeStep):
                return run_chunk(step, program, part.block, part.members, chunk)
            if number not in self._graphs:
                self._graphs[number] = graphed_steps(step, program, part.block, part.members, chunk.table)
            return self._graphs[number].run(chunk.first_step, chunk.num_steps)

        numbers = range(len(self._parts))
        if self.threads > 1 and self.device.type == "cpu":
            with ThreadPoolExecutor(self.threads) as pool:
                losses = list(pool.map(advance, numbers))
        else:
            losses = [advance(number) for number in numbers]
        row_losses = torch.zeros(
            chunk.num_steps, len(self._row_members), dtype=self.first_moments.dtype, device=self.device
        )
        for part, own in zip(self._parts, losses, strict=True):
            row_losses[:, slice(part.place.start, part.place.stop) if part.rows is None else part.rows] = own
            self._keep(part)
        self._note_divergence(row_losses, chunk.first_step)
        self.chunk_losses = row_losses.T.contiguous().mean(dim=1)[self.row_of_member.to(self.device)].cpu()
        self.next_step += chunk.num_steps

    def _keep(self, part: _Part) -> None:
        """Write what a block has become to its rows, where it has copies of them."""
        if part.rows is not None:
            self.parameters_by_row.data[part.rows] = part.block.parameters
            self.first_moments[part.rows] = part.block.first_moments
            self.second_moments[part.rows] = part.block.second_moments

    def _rearrange(self) -> None:
        """Let regularisers rearrange the units of their members, as they do between chunks of steps."""
        for part in self._parts:
            program = part.place.program
            if program.regulariser is None:
                continue
            named = dict(zip(program.coefficient_names, part.block.coefficients, strict=True))
            own = own_coefficients(named, "regulariser")
            moved = program.regulariser.rearranged(
                program.network, part.block.parameters, own, int(self.next_step)
            )
            if moved is None:
                continue
            _check_moved(moved, part.block.parameters, f"{dotted_name(program.regulariser)}.rearranged")
            part.block.parameters.copy_(moved.parameters)
            if moved.moments_of is not None:
                for moments in (part.block.first_moments, part.block.second_moments):
                    moments.copy_(moments.gather(1, moved.moments_of))
            self._keep(part)

    def _note_divergence(self, losses: Float[Tensor, "step row"], first_step: int) -> None:
        broken = ~torch.isfinite(losses)
        # Other parts may be infinite, as the masks of attention are.
        unusable = ~torch.isfinite(self.network.trained_parts(self.parameters_by_row)).all(dim=1)
        first = torch.where(broken.any(dim=0), broken.int().argmax(dim=0), losses.shape[0] - 1) + first_step
        newly = (broken.any(dim=0) | unusable) & (self.diverged_at < 0)
        self.diverged_at = torch.where(newly, first, self.diverged_at)

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Return the chunk as it is: the data module keeps its table on the device."""
        del device, dataloader_idx
        return batch

    def member_parameters(self) -> Float[Tensor, "member parameter"]:
        """Return every member's parameters, in the order in which the members were given, on the CPU."""
        return self.parameters_by_row.detach()[self.row_of_member.to(self.parameters_by_row.device)].cpu()

    def member_networks(self) -> NetworkPopulation:
        """Return every member's network, with the parameters of `member_parameters` in the precision of measures."""
        return NetworkPopulation(self.network, self.member_parameters().float())

    def member_masks(self) -> Float[Tensor, "member parameter"]:
        """Return every member's 0/1 mask, in the order in which the members were given, on the CPU."""
        mask = self._buffer("mask")
        return mask[self.row_of_member.to(mask.device)].cpu().float()

    def member_divergence(self) -> Int64[Tensor, " member"]:
        """Return the step at which each member's loss or weights ceased to be finite, or -1."""
        return self.diverged_at[self.row_of_member.to(self.diverged_at.device)].cpu()
