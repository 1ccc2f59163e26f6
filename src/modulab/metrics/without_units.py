"""How much the losses of a network's modules rise when one of its units is silenced."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from modulab.losses import Loss
from modulab.metrics.native import module_errors
from modulab.metrics.probe import BATCH_ELEMENTS, Probe, native_pass, outputs_in_parts, rows_in_cache
from modulab.metrics.row_functions import (
    OutputsLessUnit,
    RisesWithoutUnits,
    SilencedOutputs,
    sums_less_unit,
)

_NATIVE_OUTPUTS = 4 * BATCH_ELEMENTS
"""Elements of the outputs without some units, of all members, that native code writes at once. Its rows do not depend
on one another, so it does not matter how many there are."""


def ablation_loss_rises(probe: Probe) -> Float[Tensor, "member unit module"]:
    """Return how much each module's loss rises when one unit is silenced: unit after unit, site after site.

    Units are taken a few at a time, about 4 MiB per member.
    """
    structure = probe.network.network
    # Allocated first: small results between temporary large ones would fragment memory.
    rises = probe.network.parameters.new_empty(len(probe.keys), structure.total_units, probe.task.modules)
    by_site = rises.split([site.units for site in structure.sites], dim=1)
    closed = _closed_rises(probe)
    if closed is not None:
        by_site[-1].copy_(closed)
        by_site = by_site[:-1]
    if by_site:
        for rows, part in _parts(probe):
            for layer, own in enumerate(by_site):
                _write_rises(part, layer, own[rows])
    return rises


def _closed_rises(probe: Probe) -> Float[Tensor, "member unit module"] | None:
    """Return the rises without units of the last site by the loss's closed form, if its readout has one."""
    structure, parameters, inputs = probe.network.network, probe.network.parameters, probe.samples.inputs
    loss, partition = probe.task.loss_function, probe.task.partition
    if not structure.is_layered or not structure.sites:
        return None
    if type(loss).rises_without_units is Loss.rises_without_units:
        return None
    given = parameters, inputs.transpose(1, 2), probe.samples.targets.transpose(1, 2)
    run = probe.kernels.compiled(RisesWithoutUnits(structure, loss, partition), *given)
    if run is not None:
        return run(*given)
    return loss.rises_without_units(
        structure.edges(parameters)[-1].weights,
        probe.activities()[-1],
        probe.clean.outputs,
        probe.samples.targets,
        partition,
    )


def _parts(probe: Probe) -> Iterator[tuple[slice, Probe]]:
    """Yield the members whose passes are taken together, and their probe.

    Native code of layered networks needs the recorded passes of a few members only; by torch, measures share those of
    all.
    """
    is_layered = probe.network.network.is_layered
    if not is_layered or native_pass(probe.network, probe.samples.inputs, probe.kernels) is None:
        yield slice(None), probe
        return
    # Recorded passes hold pre-activations as well. Products of one matrix round otherwise than those of many.
    for rows in rows_in_cache(probe, times=2, least=2):
        yield rows, probe.of(rows)


@dataclass(frozen=True)
class _OutputsWithout:
    """Outputs without units of one site, all by the same code, so a unit that is never active raises no loss."""

    none: Float[Tensor, "member batch out_features"]
    each_of: Callable[[slice], Float[Tensor, "member_and_unit batch out_features"]]
    """Returns the outputs without each of some units: several rows for each member, side by side."""
    at_once: int
    """How many units to ask for."""


def _write_rises(probe: Probe, layer: int, rises: Float[Tensor, "member unit module"]) -> None:
    """Write how much each module's loss rises without each unit of a site, by passes without it."""
    is_layered, targets = probe.network.network.is_layered, probe.samples.targets
    without = _passes_behind(probe, layer) if is_layered else _whole_passes(probe, layer)

    def losses_of(outputs: Tensor) -> Tensor:
        return module_errors(probe.task, outputs, targets, probe.kernels, of_loss=True)

    clean = losses_of(without.none)
    for start in range(0, rises.shape[1], without.at_once):
        written = rises[:, start : start + without.at_once]
        losses = losses_of(without.each_of(slice(start, start + written.shape[1])))
        written.copy_(losses.unflatten(0, written.shape[:2]) - clean[:, None])


def _passes_behind(probe: Probe, layer: int) -> _OutputsWithout:
    """Return outputs without units of a hidden layer: what they add is taken from the sums of the next layer."""
    network, structure, stage = probe.network, probe.network.network, layer + 1
    sums = structure.recorded_sums(probe.clean, stage, probe.samples.inputs)
    activity, weights = probe.activities()[layer], network.edges()[stage].weights.transpose(1, 2)
    function = OutputsLessUnit(structure, stage)
    run = probe.kernels.compiled(function, network.parameters, sums, weights[:, 0], activity[:, 0])
    if run is not None:

        def natively(units: slice) -> Tensor:
            read, lost = weights[:, units].flatten(0, 1), activity[:, units].flatten(0, 1)
            return run(network.parameters, sums, read, lost).transpose(1, 2)

        clean = run(network.parameters, sums, torch.zeros_like(weights[:, 0]), activity[:, 0])
        return _OutputsWithout(clean.transpose(1, 2), natively, _natively_at_once(probe))

    def by_torch(units: slice) -> Tensor:
        left = sums_less_unit(sums[:, None], weights[:, units], activity[:, units])
        if stage == structure.num_stages - 1:  # whose sums are the outputs: parameters need not be repeated
            return left.flatten(0, 1).transpose(1, 2)
        many = network.repeated(left.shape[1])
        return structure.run_from(many.parameters, stage, left.flatten(0, 1))

    return _OutputsWithout(probe.clean.outputs, by_torch, _by_torch_at_once(probe, stage))


def _whole_passes(probe: Probe, number: int) -> _OutputsWithout:
    """Return outputs without units of a site of any network, by a whole pass for each unit."""
    network, structure, inputs = probe.network, probe.network.network, probe.samples.inputs
    members, site = len(inputs), structure.sites[number]
    given, like = inputs.transpose(1, 2), network.parameters.new_empty(0, structure.total_units)
    run = probe.kernels.compiled(SilencedOutputs(structure), network.parameters, given, like)
    if run is not None:
        first = sum(other.units for other in structure.sites[:number])

        def outputs_of(kept: Float[Tensor, "kept unit"]) -> Tensor:
            return run(network.parameters, given, kept.repeat(members, 1)).transpose(1, 2)

        def natively(units: slice) -> Tensor:
            silenced = torch.arange(units.start, units.stop)
            kept = torch.ones(len(silenced), structure.total_units)
            kept[torch.arange(len(silenced)), first + silenced] = 0
            return outputs_of(kept)

        clean = outputs_of(torch.ones(1, structure.total_units))
        return _OutputsWithout(clean, natively, _natively_at_once(probe))

    def by_torch(units: slice) -> Tensor:
        silenced = torch.arange(units.start, units.stop, device=inputs.device)
        many, points = network.repeated(len(silenced)), inputs.repeat_interleave(len(silenced), dim=0)
        own = silenced.repeat(members)

        def outputs_of(rows: slice) -> Tensor:
            def silence(place: str, values: Tensor) -> Tensor:
                if place != site.name:
                    return values
                kept = torch.arange(values.shape[1], device=values.device) != own[rows, None]
                return values * kept[:, :, None]

            return many.select(rows).forward(points[rows], silence)

        return outputs_in_parts(structure, len(own), inputs.shape[1], outputs_of)

    return _OutputsWithout(probe.clean.outputs, by_torch, _by_torch_at_once(probe, 0))


def _natively_at_once(probe: Probe) -> int:
    members, points, _ = probe.samples.inputs.shape
    return max(1, _NATIVE_OUTPUTS // (members * points * probe.network.network.out_features))


def _by_torch_at_once(probe: Probe, first: int) -> int:
    """Return how many units are silenced at once in passes through sites from the first on."""
    structure = probe.network.network
    widest = max((*(site.values for site in structure.sites[first:]), structure.out_features))
    return max(1, BATCH_ELEMENTS // (widest * probe.samples.inputs.shape[1]))
