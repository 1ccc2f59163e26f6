"""How far hidden units read the inputs of one module alone: for tasks whose outputs belong to no module.

Of a unit j, r_jf is the strength of all active paths from input f to it, g_j its mean |activation'(z)|, and w_j the
strength of all paths from it to the outputs. With modules m of the inputs,

    S_in = sum_j s_j max_m (sum_{f in m} r_jf) / (sum_f r_jf) / sum_j s_j,    s_j = g_j w_j sum_f r_jf,

chance-corrected: 1 where every unit reads one module, 0 where all read all modules alike. It is the specialisation of
units (`modularity.unit_specialisation`) without what they write to.

A unit that reads few inputs, or some more than others, scores above 0 whatever the modules are. S_in is compared with
its mean over random partitions of the same inputs into modules of the same sizes. Inputs of untrained networks are
exchangeable, so the excess over it is 0 on average there.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Float64, Int64
from pydantic import Field
from torch import Tensor

from modulab.metrics.measure import Column, Measure
from modulab.metrics.modularity import (
    ChunkSum,
    gate_chunks,
    rows_between_hidden_and_ends,
    selectivity,
    summed_product,
    sums_by_module,
)
from modulab.metrics.probe import Probe
from modulab.networks.base import Network, NetworkPopulation
from modulab.partition import SHARED, Partition
from modulab.streams import Stream, fold_in, random_bits
from modulab.tasks.base import Task

_NAME = "modularity/input_specialisation"


class InputSpecialisation(Measure):
    """S_in, its mean over random partitions of the inputs, and the excess of the first over the second."""

    partitions: int = Field(
        ge=1, description="number of random partitions of the inputs over which the null is averaged"
    )

    @property
    def needs(self) -> tuple[str, ...]:
        """Return layers, through which paths lead, and modules of the inputs."""
        return ("layers", "input_modules")

    @property
    def columns(self) -> tuple[Column, ...]:
        """Return the words for the three values."""
        return (
            Column(_NAME, "Specialisation to inputs", ends_at_one=True),
            Column(f"{_NAME}_null", "Specialisation to random partitions of inputs", ends_at_one=True),
            Column(f"{_NAME}_excess", "Excess of specialisation to inputs", ends_at_one=True),
        )

    def lacking(self, network: Network, task: Task) -> str | None:
        """Return what other measures of layers lack, or that there are no hidden units or no two modules."""
        missing = super().lacking(network, task)
        if missing is None and task.modules == 1:
            return "the task has one module"
        return "the network has no hidden units" if missing is None and not network.sites else missing

    def take(self, probe: Probe) -> dict[str, Float64[Tensor, " member"]]:
        """Return the three values."""
        partition = probe.task.partition
        reads, outgoing = reading_strengths(probe.network, probe.samples.inputs)
        found = specialisation(reads, outgoing, partition)
        owned = [place for place, module in enumerate(partition.inputs) if module != SHARED]
        total = torch.zeros_like(found)
        for order in self._orders(probe, len(owned)).unbind(dim=1):
            shuffled = reads.clone()
            shuffled[:, :, owned] = reads[:, :, owned].gather(
                2, order[:, None].expand(-1, reads.shape[1], -1)
            )
            total = total + specialisation(shuffled, outgoing, partition)
        null = total / self.partitions
        return {_NAME: found, f"{_NAME}_null": null, f"{_NAME}_excess": found - null}

    def _orders(self, probe: Probe, inputs: int) -> Int64[Tensor, "member partition input"]:
        """Return random orders of the inputs, which the modules then share out."""
        keys = fold_in(probe.keys, Stream.INPUT_PARTITIONS)
        counters = torch.arange(self.partitions * inputs, dtype=torch.int32, device=keys.device)
        return random_bits(keys, counters.view(1, self.partitions, inputs)).argsort(dim=2, stable=True)


def reading_strengths(
    network: NetworkPopulation, inputs: Float[Tensor, "member batch in_features"]
) -> tuple[Float64[Tensor, "member unit in_features"], Float64[Tensor, "member unit"]]:
    """Return r_jf and g_j w_j of every hidden unit j, layer after layer.

    The three means over x are taken apart, which is exact with one hidden layer.
    """
    weights = [edges.weights.abs() for edges in network.edges()]
    hidden = range(1, len(weights))
    reads, writes, gates = ([ChunkSum() for _ in hidden] for _ in range(3))
    batch = inputs.shape[1]
    for chunk, points in gate_chunks(network, inputs, rows_between_hidden_and_ends(network.network)):
        magnitudes = [gate.abs() for gate in chunk]
        for index, layer in enumerate(hidden):
            read = summed_product(weights[:layer], magnitudes[: layer - 1], points)
            written = summed_product(weights[layer:], magnitudes[layer:], points)
            reads[index].add((read / batch).double())
            writes[index].add((written / batch).double().sum(dim=1))
            gates[index].add(magnitudes[index].double().sum(dim=2) / batch)
    outgoing = [gate.value() * written.value() for gate, written in zip(gates, writes, strict=True)]
    return torch.cat([read.value() for read in reads], dim=1), torch.cat(outgoing, dim=1)


def specialisation(
    reads: Float64[Tensor, "member unit in_features"],
    outgoing: Float64[Tensor, "member unit"],
    partition: Partition,
) -> Float64[Tensor, " member"]:
    """Return S_in under a partition of the inputs, of which those that are shared do not count."""
    by_module = sums_by_module(reads, partition.inputs, partition.modules)
    return selectivity(by_module, by_module.sum(dim=2) * outgoing)
