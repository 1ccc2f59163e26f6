"""A network's weights with hidden units sorted by the module that they serve, before and after training."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from modulab.config.settings import Member, read_run
from modulab.config.trust import check_named_code
from modulab.errors import ConfigError, ForeignError, foreign_code
from modulab.metrics.modularity import (
    diagonal_modularity,
    measure_structural,
    path_strength,
    unit_strengths,
)
from modulab.metrics.probe import make_probe
from modulab.networks.base import Network, NetworkPopulation
from modulab.results.manifest import POPULATIONS, read_manifests
from modulab.streams import member_keys
from modulab.sweep.trained import TrainedMembers, read_members
from modulab.text import printable
from modulab.training.program import initialise, network_of

STATES = ("before training", "after training")
SILENT = -1
"""In the place of a hidden unit's module, if no path leads through it."""


@dataclass(frozen=True)
class Connectivity:
    """One network in one state: its absolute weights in module coordinates, units in the order to draw them in."""

    weights: list[NDArray[np.float64]]
    """Matrix by matrix, one row per unit that is written to and one column per unit that is read."""
    units: list[NDArray[np.int64]]
    """For inputs, each hidden layer and outputs: the units' numbers in the network, in this order."""
    modules: list[NDArray[np.int64]]
    """The module of each of them, or `SILENT`."""
    structural: float
    """`modularity/structural` of this state."""


def sort_units(
    strengths: Float[Tensor, "unit module"], totals: Float[Tensor, " unit"]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the units of a layer by module, the strongest first in each, and the module of each of them.

    A unit's module is that for which it is strongest. Units without strength come last, as `SILENT`.
    """
    modules = np.where(totals.numpy() > 0, strengths.argmax(dim=1).numpy(), SILENT)
    last = np.where(modules == SILENT, strengths.shape[1], modules)
    order = np.lexsort((-totals.numpy(), last))
    return order, modules[order]


def connectivity(member: Member, network: NetworkPopulation) -> Connectivity:
    """Return how one member's network, as it is, is to be drawn; its units are sorted by its own weights."""
    task, partition = member.task, member.task.partition
    with torch.no_grad():
        probe = make_probe(task, network, member_keys([member.seed]), member.probes)
        structural = diagonal_modularity(path_strength(probe.network, probe.samples.inputs), partition)
        units = [np.arange(task.in_features)]
        modules = [np.array(partition.inputs)]
        widths = [site.units for site in network.network.sites]
        if widths:
            strengths, totals = unit_strengths(probe.network, probe.samples.inputs, partition)
            for layer in zip(strengths[0].split(widths), totals[0].split(widths), strict=True):
                order, served = sort_units(*layer)
                units.append(order)
                modules.append(served)
    units.append(np.arange(task.out_features))
    modules.append(np.array(partition.outputs))
    weights = [
        edges.weights[0].abs().double().numpy()[np.ix_(units[layer + 1], units[layer])]
        for layer, edges in enumerate(probe.network.edges())
    ]
    return Connectivity(weights, units, modules, float(structural[0]))


@dataclass(frozen=True)
class Pictured:
    """A member that is to be drawn, and its network after training."""

    run_id: str
    member: Member
    trained: NetworkPopulation


def pictured_members(
    folder: Path,
    run_ids: Sequence[str],
    modules: Collection[str],
    check: Callable[[Member, Network], str | None],
) -> Iterator[Pictured]:
    """Yield those of some members of a run's or sweep's folder that can be drawn.

    Members whose population left no checkpoint, or whose config names code that is neither modulab's nor of the user's
    `modules`, are left out, and so are those of which `check` returns why they cannot be drawn.
    """
    wanted = set(run_ids)
    for populations in sorted(folder.rglob(POPULATIONS)):
        for manifest, configs in read_manifests(populations.parent):
            checkpoint = manifest.with_name(manifest.name.partition(".")[0] + ".ckpt")
            own = [run_id for run_id in configs if run_id in wanted]
            if not own or not checkpoint.exists():
                continue
            trained = read_members(checkpoint)
            places = {run_id: place for place, run_id in enumerate(configs)}
            for run_id in own:
                try:
                    check_named_code(configs[run_id], manifest, modules)
                    with foreign_code():
                        member = read_run(configs[run_id]).member
                        network = _drawable_network(member, trained, check)
                except (ConfigError, ForeignError) as error:
                    _leave_out(run_id, error)
                    continue
                wanted.discard(run_id)
                after = trained.parameters[places[run_id] : places[run_id] + 1]
                yield Pictured(run_id, member, NetworkPopulation(network, after))


Drawn = TypeVar("Drawn")


def drawn(pictured: Iterable[Pictured], draw: Callable[[Pictured], Drawn]) -> dict[str, Drawn]:
    """Return what `draw` makes of members, by run_id, without those whose code, which may be the user's, fails."""
    found: dict[str, Drawn] = {}
    for each in pictured:
        try:
            with foreign_code():
                found[each.run_id] = draw(each)
        except ForeignError as error:
            _leave_out(each.run_id, error)
    return found


def _leave_out(run_id: str, error: Exception) -> None:
    print(printable(f"The picture of {run_id} is left out: {error}"), file=sys.stderr)


def trained_connectivity(
    folder: Path, run_ids: Sequence[str], modules: Collection[str] = ()
) -> dict[str, tuple[Connectivity, Connectivity]]:
    """Return members of a run's or sweep's folder before and after training, by run_id; see `pictured_members`.

    Initial weights follow from a member's settings and are computed again.
    """
    found = drawn(pictured_members(folder, run_ids, modules, _connectivity_lacking), _before_and_after)
    return {run_id: found[run_id] for run_id in run_ids if run_id in found}


def _before_and_after(pictured: Pictured) -> tuple[Connectivity, Connectivity]:
    network = pictured.trained.network
    before = initialise([pictured.member], network)[1]
    return (
        connectivity(pictured.member, NetworkPopulation(network, before)),
        connectivity(pictured.member, pictured.trained),
    )


def _connectivity_lacking(member: Member, network: Network) -> str | None:
    """Return why a network's connectivity cannot be drawn: it has no layers, or its task no modules."""
    if not network.is_layered:
        return "the network is not a sequence of layers of weighted connections"
    return measure_structural.lacking(network, member.task)


def _drawable_network(
    member: Member, trained: TrainedMembers, check: Callable[[Member, Network], str | None]
) -> Network:
    """Return a member's network.

    Raises: ConfigError if it cannot be drawn, or if its checkpoint has other parameters.
    """
    network = network_of(member)
    reason = check(member, network)
    if reason is not None:
        raise ConfigError(f"{reason}.")
    if network.layout != trained.layout:
        raise ConfigError("its checkpoint contains different parameters than its settings require.")
    return network


def connectivity_data(networks: dict[str, tuple[Connectivity, Connectivity]]) -> pd.DataFrame:
    """Return one row per weight: network, state, layer, place in the drawing, units in the network, their modules."""
    parts: list[pd.DataFrame] = []
    for name, states in networks.items():
        for state, drawn in zip(STATES, states, strict=True):
            for layer, matrix in enumerate(drawn.weights):
                rows, columns = (each.ravel() for each in np.indices(matrix.shape))
                parts.append(
                    pd.DataFrame(
                        {
                            "network": name,
                            "state": state,
                            "layer": layer + 1,
                            "to_place": rows,
                            "from_place": columns,
                            "to_unit": drawn.units[layer + 1][rows],
                            "from_unit": drawn.units[layer][columns],
                            "to_module": drawn.modules[layer + 1][rows],
                            "from_module": drawn.modules[layer][columns],
                            "absolute_weight": matrix.ravel(),
                        }
                    )
                )
    if not parts:
        raise ConfigError("there is no network whose connectivity could be drawn.")
    return pd.concat(parts, ignore_index=True)
