"""How modular a network is: by its paths, by its input-output derivatives, and unit by unit.

The task's partition says which inputs and outputs module m of d owns; those that are shared belong to none and do not
count. A chance-corrected share is (s - 1/d) / (1 - 1/d): 0 at chance, 1 when perfect. With one module there is no
chance to correct for, and all modularity measures are NaN; so they are where nothing is there to share out (a network
of dead units).

Sums over evaluation points run over chunks of them and hold about 4 MiB per member (`probe.BATCH_ELEMENTS`),
or what one point needs if that is more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from modulab.metrics.measure import Column, measure
from modulab.metrics.native import NO_KERNELS, Kernels, RowFunction
from modulab.metrics.probe import BATCH_ELEMENTS, Probe
from modulab.metrics.row_functions import (
    AbsoluteDerivatives,
    Gating,
    PathStrengths,
    products,
    summed_product,
)
from modulab.metrics.without_units import ablation_loss_rises
from modulab.networks.base import Network, NetworkPopulation
from modulab.partition import Partition

_GROUP = 16
_CACHED_VALUES = 1 << 16
"""The number of elements at the points that native code sums at once: 256 KiB."""
Gates = Mapping[str, Float[Tensor, "member _unit batch"]]
"""activation'(z) of each hidden layer on all points, by site."""
LazyGates = Callable[[], Gates]
"""Returns gates on all points, which are computed on the first call: native code does not need them."""


class ChunkSum:
    """A sum of one tensor after another, in an order that is the same for all of their elements.

    They are added up in sixteens, those sums in sixteens again, and so on, with less rounding than one by one. A
    sum over a stack of them takes another order for the last elements of the stack, and so for the last members.
    """

    def __init__(self) -> None:
        self._levels: list[Tensor | None] = [None]
        self._count = 0

    def add(self, chunk: Tensor) -> None:
        """Add a tensor, of the shape of the others."""
        self._count += 1
        self._add(chunk, 0)
        level, count = 0, self._count
        while count % _GROUP == 0:
            full = self._levels[level]
            assert full is not None
            self._levels[level] = None
            level, count = level + 1, count // _GROUP
            self._add(full, level)

    def _add(self, values: Tensor, level: int) -> None:
        if level == len(self._levels):
            self._levels.append(None)
        before = self._levels[level]
        self._levels[level] = values if before is None else before + values

    def value(self) -> Tensor:
        """Return the sum of all that were added, one at least."""
        first, *others = (each for each in self._levels if each is not None)
        for each in others:
            first = first + each
        return first


def path_strength(
    network: NetworkPopulation,
    inputs: Float[Tensor, "member batch in_features"],
    gates: LazyGates | None = None,
) -> Float[Tensor, "member out_features in_features"]:
    """Return P = E_x[ |W_L| D_(L-1)(x) |W_(L-1)| ... D_1(x) |W_1| ], D = diag |activation'(z)|.

    The total absolute path weight from each input to each output; a dead unit has D = 0 and does not count.
    """
    weights = [edges.weights.abs() for edges in network.edges()]
    total = ChunkSum()
    for own, points in gate_chunks(network, inputs, gates=gates):
        total.add(summed_product(weights, own, points))
    return total.value() / inputs.shape[1]


def mean_absolute_jacobian(
    network: NetworkPopulation,
    inputs: Float[Tensor, "member batch in_features"],
    centred: Partition | None = None,
    gates: LazyGates | None = None,
) -> Float[Tensor, "member out_features in_features"]:
    """Return E_x |dy/dx|, where paths that cancel do not count. Of logits, where the task classifies.

    With a partition, it is the derivative of outputs less the mean over their module.
    """
    if not network.network.is_layered:
        return _general_jacobians(network, inputs, [centred])[0]
    weights = [edges.weights for edges in network.edges()]
    if centred is not None:
        weights[-1] = without_module_means(weights[-1], centred)
    if len(weights) == 1:
        return weights[0].abs()
    if len(weights) == 2:
        reads, writes = weights
        return _one_hidden_layer_jacobian(network, inputs, reads, writes, gates)
    total = ChunkSum()
    for own, _ in gate_chunks(network, inputs, gates=gates):
        total.add(products(weights, own).abs().sum(dim=1))
    return total.value() / inputs.shape[1]


def without_module_means(
    values: Float[Tensor, "*rows out_features column"], partition: Partition
) -> Float[Tensor, "*rows out_features column"]:
    """Return what belongs to each output less the mean over its module; shared outputs stay as they are."""
    centred = values.clone()
    for module in range(partition.modules):
        own = list(partition.outputs_of(module))
        total = values[..., own[0], :]
        for output in own[1:]:
            total = total + values[..., output, :]
        centred[..., own, :] -= (total / len(own))[..., None, :]
    return centred


def _general_jacobians(
    network: NetworkPopulation, inputs: Tensor, partitions: Sequence[Partition | None]
) -> list[Tensor]:
    """Return E_x |dy/dx| by backpropagation from each output, a chunk of points at a time, for each of `partitions`.

    With a partition, it is that of outputs less the mean over their module.
    """
    structure = network.network
    size = max(1, BATCH_ELEMENTS // (structure.out_features * structure.step_units))
    totals = [ChunkSum() for _ in partitions]
    for chunk in inputs.split(size, dim=1):
        jacobian = structure.input_jacobian(network.parameters, chunk)
        for total, centred in zip(totals, partitions, strict=True):
            own = jacobian if centred is None else without_module_means(jacobian, centred)
            total.add(own.abs().sum(dim=1))
    return [total.value() / inputs.shape[1] for total in totals]


def _native_jacobians(
    network: NetworkPopulation, inputs: Tensor, partitions: Sequence[Partition | None], kernels: Kernels
) -> list[Tensor] | None:
    """Return what `_general_jacobians` does by native code, a piece of the points at a time, if there is any."""
    structure = network.network
    parts = _in_pieces(inputs, structure.step_units)
    run = kernels.compiled(
        AbsoluteDerivatives(structure), network.parameters, parts, inputs.new_empty(0, structure.out_features)
    )
    if run is None:
        return None
    identity = torch.eye(structure.out_features)[None]
    found: list[Tensor] = []
    for centred in partitions:
        weights = (identity if centred is None else without_module_means(identity, centred))[0]
        sums = run(network.parameters, parts, weights.repeat(len(parts), 1)).unflatten(0, (-1, len(weights)))
        found.append(_summed_pieces(sums, len(inputs)) / inputs.shape[1])
    return found


def _summed_pieces(sums: Float[Tensor, "member_and_piece ..."], members: int) -> Float[Tensor, "member ..."]:
    total = ChunkSum()
    for piece in sums.unflatten(0, (members, -1)).unbind(dim=1):
        total.add(piece)
    return total.value()


def _in_pieces(
    inputs: Float[Tensor, "member batch in_features"], values: int
) -> Float[Tensor, "member_and_piece in_features _points"]:
    """Return inputs in equal pieces, points along the last axis, so all values of a piece fit into a cache."""
    points = inputs.shape[1]
    pieces = next(
        count
        for count in range(1, points + 1)
        if points % count == 0 and (points // count * values <= _CACHED_VALUES or count == points)
    )
    return inputs.transpose(1, 2).unflatten(2, (pieces, -1)).transpose(1, 2).flatten(0, 1)


def _general_jacobians_of_probe(probe: Probe) -> list[Tensor] | None:
    """Return E_x |dy/dx| and, where outputs are logits, that of centred ones beside it.

    None for networks with layers for which there is no native code: `mean_absolute_jacobian` is faster.
    """
    centred = [probe.task.partition] if probe.task.loss_function.takes_logits else []
    partitions, network, inputs = [None, *centred], probe.network, probe.samples.inputs
    found = _native_jacobians(network, inputs, partitions, probe.kernels)
    if found is None and not network.network.is_layered:
        return _general_jacobians(network, inputs, partitions)
    return found


def _one_hidden_layer_jacobian(
    network: NetworkPopulation, inputs: Tensor, reads: Tensor, writes: Tensor, gates: LazyGates | None
) -> Tensor:
    """Return E_x |dy/dx|: each derivative is a sum over hidden units of their gate times two weights."""
    total = torch.zeros_like(writes[:, :, :1] * reads[:, :1])
    for own, _ in gate_chunks(network, inputs, gates=gates):
        for output in range(writes.shape[1]):
            pairs = writes[:, output, None, :] * reads.transpose(1, 2)
            total[:, output] += torch.bmm(pairs, own[0]).abs_().sum(dim=2)
    return total / inputs.shape[1]


def block_sums(
    matrix: Float[Tensor, "member out_features in_features"], partition: Partition
) -> Float64[Tensor, "member module_out module_in"]:
    """Return the sum of each block that one module's inputs and one module's outputs span; shared ones are in none."""
    inputs = sums_by_module(matrix.double(), partition.inputs, partition.modules)
    return sums_by_module(inputs.transpose(1, 2), partition.outputs, partition.modules).transpose(1, 2)


def sums_by_module(
    values: Float64[Tensor, "member unit feature"], labels: Sequence[int], modules: int
) -> Float64[Tensor, "member unit module"]:
    """Return sums over the features of each module."""
    columns = [
        values[:, :, [feature for feature, label in enumerate(labels) if label == module]].sum(dim=2)
        for module in range(modules)
    ]
    return torch.stack(columns, dim=2)


def chance_corrected(share: Float64[Tensor, "*shape"], modules: int) -> Float64[Tensor, "*shape"]:
    """Return (s - 1/d) / (1 - 1/d), written so that s = 1 gives exactly 1. NaN with one module."""
    if modules == 1:
        return torch.full_like(share, torch.nan)
    return (modules * share - 1) / (modules - 1)


def diagonal_modularity(
    matrix: Float[Tensor, "member out_features in_features"], partition: Partition
) -> Float64[Tensor, " member"]:
    """Return the chance-corrected share of a non-negative matrix that lies on its diagonal blocks."""
    blocks, modules = block_sums(matrix, partition), partition.modules
    within = torch.diagonal(blocks, dim1=1, dim2=2).sum(dim=1)
    # Within and across are added apart, so nothing across gives a share of exactly 1.
    across = torch.where(torch.eye(modules, dtype=torch.bool, device=matrix.device), 0.0, blocks).sum(
        dim=(1, 2)
    )
    return chance_corrected(within / (within + across), modules)


def selectivity(
    strengths: Float[Tensor, "member unit module"], weights: Float[Tensor, "member unit"]
) -> Float64[Tensor, " member"]:
    """Return the share of each unit's best module, averaged over units by weight, chance-corrected.

    A unit that serves no module (all strengths 0) counts as serving all alike.
    """
    modules = strengths.shape[2]
    strengths, weights = strengths.double(), weights.double()
    best, total = strengths.amax(dim=2), strengths.sum(dim=2)
    shares = torch.where(total == 0, 1 / modules, best / torch.where(total == 0, 1.0, total))
    return chance_corrected((weights * shares).sum(dim=1) / weights.sum(dim=1), modules)


def unit_specialisation(
    network: NetworkPopulation,
    inputs: Float[Tensor, "member batch in_features"],
    partition: Partition,
    gates: LazyGates | None = None,
    kernels: Kernels = NO_KERNELS,
) -> Float64[Tensor, " member"]:
    """Return how far each hidden unit carries one module's paths only, over all hidden layers.

    A mean over units by the strength of all their paths. NaN without hidden layers.
    """
    if not network.network.sites:
        return torch.full((len(inputs),), torch.nan, dtype=torch.float64, device=inputs.device)
    strengths, totals = unit_strengths(network, inputs, partition, gates, kernels)
    return selectivity(strengths, totals)


def unit_strengths(
    network: NetworkPopulation,
    inputs: Float[Tensor, "member batch in_features"],
    partition: Partition,
    gates: LazyGates | None = None,
    kernels: Kernels = NO_KERNELS,
) -> tuple[Float64[Tensor, "member unit module"], Float64[Tensor, "member unit"]]:
    """Return each hidden unit's strength for each module and over all paths, layer after layer.

    A unit's strength for module m is its path strength from m's inputs, times its mean gate, times its path
    strength to m's outputs; over all paths it is the same with all inputs and all outputs. The three means
    over x are taken apart, which is exact with one hidden layer.
    """
    means = _native_unit_means(network, inputs, partition, kernels)
    if means is None:
        means = _unit_means(network, inputs, partition, gates)
    strengths = [reads * gate[:, :, None] * writes for reads, writes, gate in means]
    totals = [reads.sum(dim=2) * gate * writes.sum(dim=2) for reads, writes, gate in means]
    return torch.cat(strengths, dim=1), torch.cat(totals, dim=1)


_UnitMeans = Sequence[tuple[Tensor, Tensor, Tensor]]
"""Of each hidden layer, means over x of the strength of paths to its units by the module of the inputs, and from them
by the module of the outputs, (member, unit, module), and of gates, (member, unit)."""


def _unit_means(
    network: NetworkPopulation, inputs: Tensor, partition: Partition, gates: LazyGates | None
) -> _UnitMeans:
    weights = [edges.weights.abs() for edges in network.edges()]
    sums = [tuple(ChunkSum() for _ in range(3)) for _ in weights[1:]]
    batch = inputs.shape[1]
    for own, points in gate_chunks(network, inputs, rows_between_hidden_and_ends(network.network), gates):
        magnitudes = [gate.abs() for gate in own]
        for layer, (incoming, outgoing, mean_gate) in enumerate(sums, start=1):
            reads = summed_product(weights[:layer], magnitudes[: layer - 1], points)
            writes = summed_product(weights[layer:], magnitudes[layer:], points)
            incoming.add(_read_by_module(reads / batch, partition))
            outgoing.add(_written_by_module(writes / batch, partition))
            mean_gate.add(magnitudes[layer - 1].double().sum(dim=2) / batch)
    return [(reads.value(), writes.value(), gate.value()) for reads, writes, gate in sums]


def _read_by_module(strength: Tensor, partition: Partition) -> Float64[Tensor, "member unit module"]:
    return sums_by_module(strength.double(), partition.inputs, partition.modules)


def _written_by_module(strength: Tensor, partition: Partition) -> Float64[Tensor, "member unit module"]:
    return sums_by_module(strength.transpose(1, 2).double(), partition.outputs, partition.modules)


def _native_unit_means(
    network: NetworkPopulation, inputs: Tensor, partition: Partition, kernels: Kernels
) -> _UnitMeans | None:
    """Return what `_unit_means` does by native code, if there is any."""
    structure, batch = network.network, inputs.shape[1]
    last = structure.num_stages
    means: list[tuple[Tensor, Tensor, Tensor]] = []
    for layer in range(1, last):
        reads = _native_path_sums(network, inputs, 0, layer, kernels)
        writes = _native_path_sums(network, inputs, layer, last, kernels)
        gates = native_sums(network, inputs, Gating(structure, layer - 1), kernels)
        if reads is None or writes is None or gates is None:
            return None
        means.append(
            (
                _read_by_module(reads / batch, partition),
                _written_by_module(writes / batch, partition),
                gates.double() / batch,
            )
        )
    return means


def ablation_selectivity(probe: Probe) -> Float64[Tensor, " member"]:
    """Return how far silencing one unit hurts one module only, over all hidden units; NaN without any.

    A loss that falls counts as one that does not rise.
    """
    if not probe.network.network.sites:
        return torch.full((len(probe.keys),), torch.nan, dtype=torch.float64, device=probe.keys.device)
    rises = ablation_loss_rises(probe).double().clamp(min=0)
    return selectivity(rises, rises.sum(dim=2))


def structural_modularity(probe: Probe) -> Float64[Tensor, " member"]:
    """Return the chance-corrected share of path strength that lies within modules."""
    strength = _native_path_strength(probe)
    if strength is None:
        strength = path_strength(probe.network, probe.samples.inputs, gates_of(probe))
    return diagonal_modularity(strength, probe.task.partition)


def native_sums(
    network: NetworkPopulation,
    inputs: Float[Tensor, "member batch in_features"],
    function: RowFunction,
    kernels: Kernels,
    values: int = 1,
) -> Float[Tensor, "member ..."] | None:
    """Return what a function of parameters and points adds up over points, by native code where there is any.

    It makes up to so many `values` of each point, or as many as there are units, if that is more.
    """
    parts = _in_pieces(inputs, max(values, network.network.step_units))
    run = kernels.compiled(function, network.parameters, parts)
    return None if run is None else _summed_pieces(run(network.parameters, parts), len(inputs))


def _native_path_sums(
    network: NetworkPopulation, inputs: Tensor, first: int, last: int, kernels: Kernels
) -> Float[Tensor, "member last_unit first_unit"] | None:
    """Return the strength of all paths from one layer to another, added up over points, by native code if there is any.

    Only with two hidden layers between them, each point has a matrix; otherwise sums of gates are enough.
    """
    structure = network.network
    weights = [edges.weights.abs() for edges in network.edges()[first:last]]
    if len(weights) == 1:
        return weights[0] * inputs.shape[1]
    if len(weights) > 2:
        values = min(weights[0].shape[2], weights[-1].shape[1]) * structure.widest
        return native_sums(network, inputs, PathStrengths(structure, first, last), kernels, values)
    gates = native_sums(network, inputs, Gating(structure, first), kernels)
    return None if gates is None else torch.bmm(weights[1] * gates[:, None, :], weights[0])


def _native_path_strength(probe: Probe) -> Tensor | None:
    """Return what `path_strength` does by native code, if there is any and where paths have gates."""
    inputs, last = probe.samples.inputs, probe.network.network.num_stages
    sums = None if last == 1 else _native_path_sums(probe.network, inputs, 0, last, probe.kernels)
    return None if sums is None else sums / inputs.shape[1]


@measure(
    Column("modularity/structural", "Structural modularity", ends_at_one=True),
    needs=("layers", "input_modules", "output_modules"),
)
def measure_structural(probe: Probe) -> dict[str, Float64[Tensor, " member"]]:
    """Return `modularity/structural`, from path strength."""
    return {"modularity/structural": probe.once(structural_modularity)}


@measure(
    Column("modularity/functional", "Functional modularity", ends_at_one=True),
    needs=("input_modules", "output_modules"),
)
def measure_functional(probe: Probe) -> dict[str, Float64[Tensor, " member"]]:
    """Return `modularity/functional`, from the mean absolute Jacobian."""
    return {"modularity/functional": diagonal_modularity(_jacobian(probe), probe.task.partition)}


def _jacobian(probe: Probe, centred: bool = False) -> Tensor:
    """Return `mean_absolute_jacobian` of a probe."""
    found = probe.once(_general_jacobians_of_probe)
    if found is not None:
        return found[int(centred)]
    partition = probe.task.partition if centred else None
    return mean_absolute_jacobian(probe.network, probe.samples.inputs, partition, gates_of(probe))


@measure(
    Column("modularity/functional_centred", "Functional modularity of centred logits", ends_at_one=True),
    needs=("logits", "input_modules", "output_modules"),
)
def measure_functional_centred(probe: Probe) -> dict[str, Float64[Tensor, " member"]]:
    """Return `modularity/functional_centred`, from logits less the mean over their module.

    A softmax ignores what is added to all logits of its module, even if it is a function of other modules' inputs. Such
    a function counts in `modularity/functional` and not here. The two are kept apart under two names, because results
    of earlier versions hold the first.
    """
    jacobian = _jacobian(probe, centred=True)
    return {"modularity/functional_centred": diagonal_modularity(jacobian, probe.task.partition)}


@measure(
    Column("modularity/unit_specialisation", "Unit specialisation", ends_at_one=True),
    needs=("layers", "input_modules", "output_modules"),
)
def measure_unit_specialisation(probe: Probe) -> dict[str, Float64[Tensor, " member"]]:
    """Return `modularity/unit_specialisation`."""
    inputs, partition = probe.samples.inputs, probe.task.partition
    values = unit_specialisation(probe.network, inputs, partition, gates_of(probe), probe.kernels)
    return {"modularity/unit_specialisation": values}


@measure(
    Column("modularity/ablation", "Selectivity of ablations", ends_at_one=True),
    needs=("sites", "output_modules"),
)
def measure_ablation(probe: Probe) -> dict[str, Float64[Tensor, " member"]]:
    """Return `modularity/ablation`."""
    return {"modularity/ablation": ablation_selectivity(probe)}


def gates_of(probe: Probe) -> LazyGates:
    """Return a function that returns the gates of the clean pass of a probe; none where a network has no layers."""
    return lambda: probe.once(_clean_gates)


def _clean_gates(probe: Probe) -> Gates:
    structure = probe.network.network
    return structure.gates(probe.clean) if structure.is_layered else {}


def rows_between_hidden_and_ends(structure: Network) -> int:
    """Return how many rows the matrix of a point has at most in `summed_product` to or from a hidden layer."""
    widest = max(site.units for site in structure.sites)
    return max(structure.out_features, min(structure.in_features, widest))


def gate_chunks(
    network: NetworkPopulation,
    inputs: Float[Tensor, "member batch in_features"],
    rows: int | None = None,
    gates: LazyGates | None = None,
) -> Iterator[tuple[list[Tensor], int]]:
    """Yield each hidden layer's activation'(z) and the number of points, a chunk of points at a time.

    A chunk is sized so that one matrix per point, of `rows` rows, or of one for each output, and of as many columns as
    the widest layer has units, keeps to `BATCH_ELEMENTS`. With one hidden layer there is no such matrix.
    With `gates` of all points, no pass is made.
    """
    structure = network.network
    on_all_points = None if gates is None else gates()
    widths = [*(site.units for site in structure.sites), structure.out_features]
    if len(structure.sites) == 1:
        rows = 1
    size = max(1, BATCH_ELEMENTS // ((rows or structure.out_features) * max(*widths, structure.in_features)))
    for start in range(0, inputs.shape[1], size):
        chunk = inputs[:, start : start + size]
        points = chunk.shape[1]
        own = structure.gates(network.record(chunk)) if on_all_points is None else on_all_points
        first = 0 if on_all_points is None else start
        yield [own[site.name][:, :, first : first + points] for site in structure.sites], points
