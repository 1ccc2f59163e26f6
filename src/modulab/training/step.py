"""One optimiser step of a block of members: draw a minibatch, run, differentiate, update."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

import torch
from jaxtyping import Float, Int32, Int64
from torch import Tensor
from torch.func import grad_and_value

from modulab.networks.base import Tap, by_visit
from modulab.noise import INPUT_NUMBER, NoiseLaw, add_activity_noise, site_keys, visit_keys
from modulab.optimisers import UPDATES, clip_gradients
from modulab.regularisers import Pass
from modulab.streams import fold_in, integers
from modulab.training.program import Program, own_coefficients


@dataclass(frozen=True)
class Block:
    """Members of one program, trained together: the tensors that a step reads; it changes the first three."""

    parameters: Float[Tensor, "member parameter"]
    first_moments: Float[Tensor, "member parameter"]
    second_moments: Float[Tensor, "member parameter"]
    mask: Float[Tensor, "member parameter"]
    coefficients: Float[Tensor, "coefficient member"]
    minibatch_keys: Int32[Tensor, "member 2"]
    noise_keys: Int32[Tensor, "member 2"]
    offsets: Int64[Tensor, " member"]
    """The position at which each member's points begin in the data table."""
    counts: Int32[Tensor, " member"]
    """The number of points from which each member draws minibatches; 0 takes the next points in order, all fresh."""


def rows_of(block: Block, rows: Int64[Tensor, " row"]) -> Block:
    """Return a block of copies of some rows of another."""
    own = {each.name: getattr(block, each.name) for each in fields(Block)}
    coefficients = own.pop("coefficients")[:, rows]
    return Block(coefficients=coefficients, **{name: values[rows] for name, values in own.items()})


def population_losses(
    parameters: Float[Tensor, "member parameter"],
    program: Program,
    samples: Float[Tensor, "member batch feature"],
    mask: Float[Tensor, "member parameter"],
    coefficients: Mapping[str, Tensor],
    noise_keys: Int32[Tensor, "member 2"],
    step: Int32[Tensor, ""],
) -> tuple[Float[Tensor, ""], Float[Tensor, " member"]]:
    """Return the sum over members, which separates into their gradients, and each member's loss with its penalty."""
    network = program.network
    inputs = _inputs_read(program, samples[:, :, : network.in_features], coefficients, noise_keys)
    targets = samples[:, :, network.in_features :]

    recording = network.record(parameters, inputs, _tap_of_noise(program, coefficients, noise_keys))
    losses = program.loss.total(recording.outputs, targets, program.partition)
    if program.regulariser is not None:
        own = own_coefficients(coefficients, "regulariser")
        run = Pass(network, parameters, mask, inputs, recording, step)
        losses = losses + own["strength"] * program.regulariser.penalty(run, own, program.variant)
    return losses.sum(), losses


def _inputs_read(
    program: Program, inputs: Tensor, coefficients: Mapping[str, Tensor], noise_keys: Tensor
) -> Tensor:
    """Return the inputs that the network and its penalty read, with noise where it acts on inputs."""
    if program.noise is None or not program.noisy_inputs:
        return inputs
    law = NoiseLaw(**own_coefficients(coefficients, "noise"))
    keys = site_keys(noise_keys, INPUT_NUMBER)
    return add_activity_noise(inputs.transpose(1, 2), law, keys, program.noise).transpose(1, 2)


def _tap_of_noise(program: Program, coefficients: Mapping[str, Tensor], noise_keys: Tensor) -> Tap | None:
    distribution = program.noise
    if distribution is None or not program.noisy_sites:
        return None
    law = NoiseLaw(**own_coefficients(coefficients, "noise"))
    numbers = {site.name: number for number, site in enumerate(program.network.sites)}
    # A site and its pre-activations share a number, so the same draws disturb one or the other.
    numbers |= {place: numbers[site] for site, place in program.network.pre_activations.items()}

    def add_noise(place: str, values: Tensor, visit: int) -> Tensor:
        if place not in program.noisy_sites:
            return values
        keys = visit_keys(site_keys(noise_keys, numbers[place]), visit)
        return add_activity_noise(values, law, keys, distribution)

    return by_visit(add_noise)


def draw_minibatch(
    block: Block,
    table: Float[Tensor, "row feature"],
    batch_size: int,
    step: Int32[Tensor, ""],
    position: Int32[Tensor, ""],
) -> Float[Tensor, "member batch feature"]:
    """Return each member's minibatch: points drawn with replacement or, where they are fresh, those at `position`."""
    counters = torch.arange(batch_size, dtype=torch.int32, device=table.device).view(1, batch_size)
    drawn = integers(fold_in(block.minibatch_keys, step), counters, block.counts.clamp(min=1))
    rows = torch.where(block.counts[:, None] > 0, drawn, counters + position)
    # Rows are stored: otherwise the compiler computes each draw, whose integer remainder is slow, once per feature.
    samples = table[block.offsets[:, None] + _stored(rows)].transpose(1, 2).contiguous()
    # Laid out with the batch innermost, as `forward` reads it: strided loads would halve the step's speed. And
    # stored, else each sample is looked up wherever it is used.
    return _stored(samples).transpose(1, 2)


def _stored(values: Tensor) -> Tensor:
    """Return contiguous values as they are; compiled, they become a buffer, because only a buffer has strides."""
    return values.as_strided(values.shape, values.stride())


def population_update(
    program: Program,
    block: Block,
    table: Float[Tensor, "row feature"],
    row: Float[Tensor, "3 member"],
    step: Int32[Tensor, ""],
    position: Int32[Tensor, ""],
) -> tuple[Float[Tensor, " member"], list[Tensor]]:
    """Return the losses before an optimiser step, and the parameters and moments after it.

    `row` holds the learning rates and bias corrections of this step; `position` is where the step's fresh
    points begin within each member's part of the table.
    """
    coefficients = dict(zip(program.coefficient_names, block.coefficients, strict=True))
    samples = draw_minibatch(block, table, program.batch_size, step, position)
    gradients, (_, losses) = grad_and_value(population_losses, has_aux=True)(
        block.parameters, program, samples, block.mask, coefficients, fold_in(block.noise_keys, step), step
    )
    gradients = clip_gradients(gradients * block.mask, coefficients["gradient_clip"])
    parameters, moments = UPDATES[program.optimiser](
        block.parameters, gradients, (block.first_moments, block.second_moments), coefficients, row
    )
    return losses, [program.network.with_untrained(parameters, block.parameters), *moments]
