"""Labels: which module each unit of a network is taken to belong to, member by member.

An analysis takes labels from a function of a probe that its config names under `labels`. The function returns, for each
place of a network, the inputs and outputs among them, the module of each unit, or `SHARED` for none. Inputs are the
units that edges read (`Network.inputs_read`). `served_modules` are those of the task; `FoundLabels` are those that a
search finds in the network.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any

import torch
from jaxtyping import Bool, Int64
from pydantic import AfterValidator, Field, field_validator
from torch import Tensor

from modulab.errors import ConfigError
from modulab.metrics.communities.found import FoundModules, found_modules
from modulab.metrics.measure import find_measure
from modulab.metrics.modularity import unit_strengths
from modulab.metrics.probe import Probe
from modulab.metrics.without_units import ablation_loss_rises
from modulab.networks.base import INPUT, OUTPUT, Network
from modulab.partition import SHARED, Partition
from modulab.schema import Settings, find_function
from modulab.tasks.base import Task

Labels = Mapping[str, Int64[Tensor, "member _unit"]]
LabelFunction = Callable[[Probe], Labels]


class LabelMethod(Settings):
    """A function that gives labels and has parameters. Derive from it, add fields, and define `__call__`."""

    def __call__(self, probe: Probe) -> Labels:
        """Return the labels of each place."""
        raise NotImplementedError

    def lacking(self, network: Network, task: Task) -> str | None:
        """Return why there are no labels of networks on a task, or None if there are."""
        del network, task
        return None


def find_labels(value: str | Mapping[str, Any]) -> LabelFunction:
    """Return the function that a config names under `labels`.

    Raises: ConfigError if it names none, or parameters that it does not take.
    """
    found = find_function(value, "labels", LabelMethod)
    if isinstance(found, type) and issubclass(found, LabelMethod):
        return found()
    return found


def labels_lacking(value: str | Mapping[str, Any], network: Network, task: Task) -> str | None:
    """Return why the function that a config names under `labels` has no labels of such networks, or None."""
    found = find_labels(value)
    return found.lacking(network, task) if isinstance(found, LabelMethod) else None


def _checked(value: str | dict[str, Any]) -> str | dict[str, Any]:
    find_labels(value)
    return value


LabelSource = Annotated[str | dict[str, Any], AfterValidator(_checked)]
"""A field that names a function of labels: by its dotted path, or a `LabelMethod` by `_target_` and its fields."""


def served_modules(probe: Probe) -> Labels:
    """Return the task's module of each input and output, and of each unit the one that it serves most strongly.

    In a network of layers a unit serves modules by its paths (`modularity.unit_strengths`). In any other network, or
    where a module has no inputs of its own, it is by the change of each module's loss when the unit is silenced. Units
    that serve none, such as dead ones, are `SHARED`.
    """
    task, network = probe.task, probe.network.network
    members, device = probe.network.num_members, probe.keys.device
    ends = {
        INPUT: input_labels(network, task.partition),
        OUTPUT: torch.tensor(task.partition.outputs),
    }
    found = {place: labels.to(device).expand(members, -1) for place, labels in ends.items()}
    if not network.sites:
        return found
    if network.is_layered and set(range(task.modules)) <= set(task.partition.inputs):
        strengths, _ = unit_strengths(probe.network, probe.samples.inputs, task.partition)
    else:
        strengths = ablation_loss_rises(probe).abs()
    served = torch.where(strengths.amax(dim=2) > 0, strengths.argmax(dim=2), SHARED)
    sizes = [site.units for site in network.sites]
    return found | dict(zip((site.name for site in network.sites), served.split(sizes, dim=1), strict=True))


class FoundLabels(LabelMethod):
    """The modules that a search finds in each network, as its measure does, from the same seeds.

    They have their own numbers, by size, which are not those of the task's modules. Places that the search's graph
    lacks, and nodes that it leaves out, are `SHARED`.
    """

    search: dict[str, Any] = Field(description="_target_ and fields of a measure that finds modules")

    @field_validator("search")
    @classmethod
    def _finds(cls, search: dict[str, Any]) -> dict[str, Any]:
        _search(search)
        return search

    def lacking(self, network: Network, task: Task) -> str | None:
        """Return why networks have no graph that is searched."""
        return _search(self.search).lacking(network, task)

    def __call__(self, probe: Probe) -> Labels:
        """Return the partition of the best score."""
        graph, found = found_modules(probe, _search(self.search))
        labels = torch.full((len(found), graph.num_nodes), SHARED, device=probe.keys.device)
        for row, each in enumerate(found):
            if each is not None:
                labels[row] = torch.from_numpy(each.best).to(labels.device)
        network, parts = probe.network.network, [part.name for part in graph.parts]
        sizes = {INPUT: len(input_labels(network, probe.task.partition)), OUTPUT: network.out_features}
        sizes |= {site.name: site.units for site in network.sites}
        return {
            place: labels[:, graph.nodes_of(parts.index(place))]
            if place in parts
            else torch.full((len(found), size), SHARED, device=probe.keys.device)
            for place, size in sizes.items()
        }


def _search(value: Mapping[str, Any]) -> FoundModules:
    found = find_measure(value, "search")
    if not isinstance(found, FoundModules):
        raise ConfigError(
            f"search={value.get('_target_')}: it finds no modules. Name a search of "
            "modulab.metrics.communities.measures."
        )
    return found


def input_labels(network: Network, partition: Partition) -> Int64[Tensor, " unit"]:
    """Return the module of each unit that edges from the inputs read: that of all of its inputs, or `SHARED`.

    Those inputs are found by passing the labels themselves through the network.
    """
    labels = torch.tensor(partition.inputs, dtype=torch.float32)[None, None]
    read = network.inputs_read(labels)[0]
    same = (read == read[:, :1]).all(dim=1)
    return torch.where(same, read[:, 0], float(SHARED)).round().long()


def within(
    targets: Int64[Tensor, "member target"], sources: Int64[Tensor, "member source"]
) -> Bool[Tensor, "member target source"]:
    """Return which pairs of units belong to one module; what is shared belongs to all of them.

    It is `partition.within_modules` with labels of each member's own.
    """
    rows, columns = targets[:, :, None], sources[:, None, :]
    return (rows == columns) | (rows == SHARED) | (columns == SHARED)
