"""A trial of training steps whose network, loss or penalty is not modulab's own, before training begins.

Numbers of a wrong shape would be added to others all the same, by broadcasting, and networks that depend on those
beside them would be trained without an error.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int32
from torch import Tensor

from modulab.config.settings import Member
from modulab.errors import ForeignError
from modulab.foreign import check_tensor, dotted_name, is_foreign, own_draws_only
from modulab.regularisers import Pass
from modulab.streams import Stream, fold_in, member_keys
from modulab.training.points import first_points
from modulab.training.program import (
    Program,
    dtype_of,
    initialise,
    own_coefficients,
    program_of,
    stack_coefficients,
)
from modulab.training.step import population_losses

_MEMBERS = 3
"""Networks of a trial; the results of the first two must not depend on the third."""


def code_of(program: Program) -> list[object]:
    """Return what a step of a program calls: its network, its loss and, where it has one, its penalty."""
    return [program.network, program.loss, *([] if program.regulariser is None else [program.regulariser])]


def try_program(member: Member) -> None:
    """Compute the losses of a few networks like this one, with other seeds, if some of the step's code is foreign.

    Raises: ForeignError where a part of the step returns something else than it must, depends on other networks, or
    draws from a global random generator; and whatever that part raises.
    """
    program = program_of(member)
    foreign = [part for part in code_of(program) if is_foreign(part)]
    if not foreign:
        return
    seeds = [member.seed ^ place for place in range(_MEMBERS)]
    members = [member.model_copy(update={"seed": seed}) for seed in seeds]
    step = torch.zeros((), dtype=torch.int32)
    with own_draws_only(*foreign):
        rows = _rows(program, members)
        for part, shape, value in _parts(program, rows, step):
            check_tensor(value, shape, part)
        together, fewer = (
            population_losses(
                some.parameters, program, some.samples, some.mask, some.coefficients, some.noise_keys, step
            )[1]
            for some in (rows, rows.only(_MEMBERS - 1))
        )
    if not torch.allclose(together[: _MEMBERS - 1], fewer, rtol=1e-3, atol=1e-5, equal_nan=True):
        raise ForeignError(
            f"a wrong result of {' or '.join(map(dotted_name, foreign))}: the loss of a network depends on the other "
            "networks of its block. Compute each network's numbers from its own alone: axis 0 is that of networks."
        )


@dataclass(frozen=True)
class _Rows:
    """What the losses of some members are computed from."""

    parameters: Float[Tensor, "member parameter"]
    samples: Float[Tensor, "member batch feature"]
    mask: Float[Tensor, "member parameter"]
    coefficients: Mapping[str, Float[Tensor, " member"]]
    noise_keys: Int32[Tensor, "member 2"]

    def only(self, count: int) -> _Rows:
        """Return the first rows."""
        coefficients = {name: values[:count] for name, values in self.coefficients.items()}
        tensors = (self.parameters, self.samples, self.mask, self.noise_keys)
        parameters, samples, mask, keys = (values[:count] for values in tensors)
        return _Rows(parameters, samples, mask, coefficients, keys)


def _rows(program: Program, members: Sequence[Member]) -> _Rows:
    member, dtype = members[0], dtype_of(members)
    mask, parameters = initialise(members, program.network)
    keys = member_keys([each.seed for each in members])
    samples = first_points(member, keys, program.batch_size)
    coefficients = dict(zip(program.coefficient_names, stack_coefficients(members), strict=True))
    noise_keys = fold_in(keys, Stream.NOISE)
    return _Rows(parameters.to(dtype), samples.to(dtype), mask.to(dtype), coefficients, noise_keys)


def _parts(
    program: Program, rows: _Rows, step: Int32[Tensor, ""]
) -> Iterator[tuple[str, tuple[int, ...], object]]:
    """Yield the names of the parts of a step, the shapes of what they must return, and what they do."""
    network, loss, partition = program.network, program.loss, program.partition
    inputs, targets = rows.samples.tensor_split([network.in_features], dim=2)
    members, batch = inputs.shape[:2]
    recording = network.record(rows.parameters, inputs)
    outputs = recording.outputs
    yield f"{dotted_name(network)}.forward", (members, batch, network.out_features), outputs
    name, by_module = dotted_name(loss), (members, partition.modules)
    yield f"{name}.total", (members,), loss.total(outputs, targets, partition)
    yield f"{name}.by_module", by_module, loss.by_module(outputs, targets, partition)
    yield f"{name}.errors", by_module, loss.errors(outputs, targets, partition)
    yield f"{name}.constant_errors", by_module, loss.constant_errors(targets, partition)
    if program.regulariser is not None:
        own = own_coefficients(rows.coefficients, "regulariser")
        run = Pass(network, rows.parameters, rows.mask, inputs, recording, step)
        penalty = program.regulariser.penalty(run, own, program.variant)
        yield f"{dotted_name(program.regulariser)}.penalty", (members,), penalty
