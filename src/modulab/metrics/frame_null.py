"""Structural modularity against rotated module axes: the part of it that is due to modules, not to alignment.

Hidden units that write in the direction in which they read score above chance without serving any module: if
directions are isotropic in the space of d modules, the chance-corrected share is

    S_0(d) = (1 - 2 / pi) / (1 + (d - 1) 2 / pi),

because E |g h| / E g^2 = 2 / pi for independent standard normals g and h. Nothing distinguishes the module axes from
other axes then. So S is compared with its mean over rotations O of the axes, drawn uniformly (Haar measure):

    S_rot = E_O S(O W_L, ..., W_1 O^T),

where O acts on modules, as O kron identity where a module has several inputs or outputs. Gates are those of the
network as it is, which on rotated inputs has the same ones. The excess S - S_rot is 0 for aligned isotropic units.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Float64, Int32
from pydantic import Field
from torch import Tensor

from modulab.metrics.measure import Column, Measure
from modulab.metrics.modularity import (
    ChunkSum,
    LazyGates,
    chance_corrected,
    gate_chunks,
    gates_of,
    native_sums,
    structural_modularity,
)
from modulab.metrics.native import NO_KERNELS, Kernels
from modulab.metrics.probe import BATCH_ELEMENTS, Probe
from modulab.metrics.row_functions import Gating, HiddenPathStrengths, hidden_path_sums
from modulab.networks.base import Network, NetworkPopulation
from modulab.partition import Partition
from modulab.streams import Stream, fold_in, orthogonal_matrices, uniforms
from modulab.tasks.base import Task

_NULL, _EXCESS = "modularity/structural_frame_null", "modularity/structural_excess"
_SCALED = "modularity/structural_excess_scaled"


class FrameNull(Measure):
    """S_rot, the excess S - S_rot of structural modularity, and (S - S_rot) / (1 - S_rot), which ends at 1.

    Rotations are drawn from the member's own key: arms of one seed share them, and seeds average over them.
    """

    rotations: int = Field(
        ge=1, description="number of rotations of the module axes over which the null is averaged"
    )

    @property
    def needs(self) -> tuple[str, ...]:
        """Return layers, through which paths lead, and modules at both of their ends."""
        return ("layers", "input_modules", "output_modules")

    @property
    def columns(self) -> tuple[Column, ...]:
        """Return the words for the null and the two excesses."""
        return (
            Column(_NULL, "Structural modularity of rotated axes", ends_at_one=True),
            Column(_EXCESS, "Excess of structural modularity", ends_at_one=True),
            Column(_SCALED, "Scaled excess of structural modularity", ends_at_one=True),
        )

    def lacking(self, network: Network, task: Task) -> str | None:
        """Return what other measures of layers lack, or why the axes of this task's modules cannot be rotated."""
        partition = task.partition
        missing = super().lacking(network, task)
        if missing is not None:
            return missing
        if partition.modules == 1:
            return "the task has one module"
        if any(equal_features(partition, side) is None for side in ("inputs", "outputs")):
            return "its modules differ in their numbers of inputs or outputs"
        return None

    def take(self, probe: Probe) -> dict[str, Float64[Tensor, " member"]]:
        """Return the three values."""
        partition = probe.task.partition
        rotations = module_rotations(probe.keys, partition.modules, self.rotations)
        rotated = rotated_modularity(
            probe.network, probe.samples.inputs, partition, rotations, gates_of(probe), probe.kernels
        )
        null, found = rotated.mean(dim=1), probe.once(structural_modularity)
        return {_NULL: null, _EXCESS: found - null, _SCALED: (found - null) / (1 - null)}


def module_rotations(
    keys: Int32[Tensor, "member 2"], modules: int, count: int
) -> Float64[Tensor, "member rotation module module"]:
    """Return random orthogonal matrices, each uniform by itself.

    Those of two modules are rotations by evenly spaced angles, the first at random. S does not change when axes swap
    or change sign, so it repeats after a quarter turn, and even spacing has far less sampling error than
    independent draws. Those of more modules are independent.
    """
    keys = fold_in(keys, Stream.FRAME_NULL)
    numbers = torch.arange(count, dtype=torch.int32, device=keys.device)
    if modules == 2:
        first = uniforms(keys, numbers[None, :1]).double()
        angles = (first + numbers) * (math.pi / 2 / count)
        cosine, sine = angles.cos(), angles.sin()
        return torch.stack([cosine, -sine, sine, cosine], dim=2).unflatten(2, (2, 2))
    each = fold_in(keys.repeat_interleave(count, dim=0), numbers.repeat(len(keys)))
    return orthogonal_matrices(each, modules).unflatten(0, (len(keys), count))


def rotated_modularity(
    network: NetworkPopulation,
    inputs: Float[Tensor, "member batch in_features"],
    partition: Partition,
    rotations: Float64[Tensor, "member rotation module module"],
    gates: LazyGates | None = None,
    kernels: Kernels = NO_KERNELS,
) -> Float64[Tensor, "member rotation"]:
    """Return structural modularity in each of the rotated frames.

    Only the first weights and the last ones change, so the strength of paths from the first hidden layer to the
    last is computed once.
    """
    weights = [edges.weights.double() for edges in network.edges()]
    reading, writing = equal_features(partition, "inputs"), equal_features(partition, "outputs")
    assert reading is not None
    assert writing is not None
    first, last = weights[0][:, :, reading], weights[-1].transpose(1, 2)[:, :, writing]
    middle = None if len(weights) == 1 else hidden_path_strength(network, inputs, gates, kernels).double()
    # A fourth of the elements, because these are doubles, and two such tensors exist at once.
    size = max(1, BATCH_ELEMENTS // (4 * max(first[0].numel(), last[0].numel())))
    pieces: list[Tensor] = []
    for some in rotations.split(size, dim=1):
        if middle is None:
            blocks = _rotated_blocks(weights[0], reading, writing, some)
            within, total = _sums(blocks)
        else:
            within, total = _path_sums(_rotated_sums(first, some), _rotated_sums(last, some), middle)
        pieces.append(chance_corrected(within / total, partition.modules))
    return torch.cat(pieces, dim=1)


def hidden_path_strength(
    network: NetworkPopulation,
    inputs: Float[Tensor, "member batch in_features"],
    gates: LazyGates | None = None,
    kernels: Kernels = NO_KERNELS,
) -> Float[Tensor, "member last_unit first_unit"] | Float[Tensor, "member unit"]:
    """Return E_x[ D_(L-1)(x) |W_(L-1)| ... |W_2| D_1(x) ], D = diag |activation'(z)|: paths between hidden layers.

    With one hidden layer it is diagonal, and its diagonal is returned.
    """
    structure = network.network
    if structure.num_stages == 2:
        sums = native_sums(network, inputs, Gating(structure, 0), kernels)
    else:
        sums = native_sums(network, inputs, HiddenPathStrengths(structure), kernels, structure.widest**2)
    if sums is None:
        middle = [edges.weights.abs() for edges in network.edges()][1:-1]
        total = ChunkSum()
        widest = max(site.units for site in structure.sites)
        for own, _ in gate_chunks(network, inputs, widest, gates):
            total.add(hidden_path_sums(middle, own))
        sums = total.value()
    return sums / inputs.shape[1]


def equal_features(partition: Partition, side: str) -> list[list[int]] | None:
    """Return the inputs or outputs of each module, or None if some modules have more than others."""
    of = partition.inputs_of if side == "inputs" else partition.outputs_of
    own = [list(of(module)) for module in range(partition.modules)]
    return own if len({len(each) for each in own}) == 1 else None


def _rotated_sums(
    weights: Float64[Tensor, "member unit module feature"],
    rotations: Float64[Tensor, "member rotation module module"],
) -> Float64[Tensor, "member rotation module unit"]:
    """Return each unit's summed absolute weights to the features of each rotated module."""
    count, modules = rotations.shape[1:3]
    by_module = weights.transpose(1, 2).flatten(2)
    rotated = torch.bmm(rotations.flatten(1, 2), by_module).abs_().unflatten(1, (count, modules))
    if weights.shape[3] == 1:
        return rotated  # torch takes nine times as long to sum over one feature as for all else here
    return rotated.unflatten(3, (-1, weights.shape[3])).sum(dim=4)


def _path_sums(reads: Tensor, writes: Tensor, middle: Tensor) -> tuple[Tensor, Tensor]:
    """Return the strength of all paths within modules, and of all, for each member and rotation."""
    if middle.dim() == 2:
        led = writes * middle[:, None, None, :]
    else:
        led = torch.bmm(writes.flatten(1, 2), middle).unflatten(1, writes.shape[1:3])
    within = (led * reads).flatten(2).sum(dim=2)
    return within, (_over_modules(led) * _over_modules(reads)).sum(dim=2)


def _over_modules(values: Float64[Tensor, "member rotation module unit"]) -> Tensor:
    # Added one by one: a sum over an axis that is not the innermost rounds by the place of what lies within it.
    total = values[:, :, 0]
    for module in range(1, values.shape[2]):
        total = total + values[:, :, module]
    return total


def _rotated_blocks(
    weight: Tensor, reading: list[list[int]], writing: list[list[int]], rotations: Tensor
) -> Float64[Tensor, "member rotation module_out module_in"]:
    """Return the summed absolute weights of each block of O W O^T, for a network without hidden layers."""
    count, modules = rotations.shape[1:3]
    blocks = weight[:, writing][:, :, :, reading]  # (member, module out, output, module in, input)
    outputs, inputs = blocks.shape[2], blocks.shape[4]
    rows = torch.bmm(rotations.flatten(1, 2), blocks.flatten(2))
    rows = rows.unflatten(2, (outputs, modules, inputs)).unflatten(1, (count, modules))
    turned = rows.transpose(4, 5).flatten(2, 4).flatten(0, 1)  # (member x rotation, rows, module in)
    both = torch.bmm(turned, rotations.flatten(0, 1).transpose(1, 2)).abs_()
    pairs = both.unflatten(1, (modules, outputs * inputs)).transpose(2, 3)
    return pairs.sum(dim=3).unflatten(0, (-1, count))


def _sums(blocks: Tensor) -> tuple[Tensor, Tensor]:
    """Return the sum of the diagonal of matrices, and that of all of their elements."""
    return torch.diagonal(blocks, dim1=2, dim2=3).sum(dim=2), blocks.flatten(2).sum(dim=2)
