"""Any `torch.nn.Module` as a network: a population of it is one vectorised call of the module.

The module is called through `torch.func.functional_call` with each member's own parameters, vectorised over members
by `torch.vmap`. Sites are submodules by name: what they return passes through the tap, which sees all members at once.

A member's result must depend on its own parameters and samples alone. So a module may not draw random numbers when it
is called, keep anything of a call for the next, let samples of a batch depend on one another, or hold what its
constructor drew anywhere but in parameters and buffers. A few calls before training show whether one does.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from jaxtyping import Float, Int32
from pydantic import Field, field_validator
from torch import Tensor, nn

from modulab.errors import ConfigError
from modulab.networks.base import INPUT, OUTPUT, Architecture, Network, Parameter, Site, Tap
from modulab.networks.module_calls import parts_of, side_by_side, tapped
from modulab.networks.module_recipe import KEY, ModuleRecipe, construct, module_class, row_of
from modulab.networks.module_trials import check_batch, copy_of_this_thread, facts_of
from modulab.partition import Partition
from modulab.schema import STRUCTURAL, suggest
from modulab.streams import Stream, fold_in
from modulab.tasks.base import Task


class TorchArchitecture(Architecture):
    """A user's torch module, by its dotted path and the arguments of its constructor."""

    module: dict[str, Any] | None = Field(
        description="a torch.nn.Module and arguments of its constructor, as in {_target_: nets.Net, width: 32}; "
        "in_features and out_features are the task's; null is a linear map",
        json_schema_extra=STRUCTURAL,
    )
    sites: list[str] = Field(
        description="names of submodules whose outputs are the activity of units, where noise, ablation and "
        "recording act",
        json_schema_extra=STRUCTURAL,
    )
    unit_axis: int = Field(
        description="axis of units in these outputs: 1 for (batch, channel, ...), -1 for (batch, token, unit)",
        json_schema_extra=STRUCTURAL,
    )
    edges: dict[str, list[str]] = Field(
        description="weight matrices, a list of [name, source, target], where source and target are sites, "
        "input or output; null for none",
        json_schema_extra=STRUCTURAL,
    )

    @field_validator("edges", mode="before")
    @classmethod
    def _by_name(cls, edges: Any) -> Any:
        # Lists, as configs take no dots in names, which those of parameters have. They are kept by name.
        if not isinstance(edges, list):
            return {} if edges is None else edges
        listed = cast("list[Any]", edges)
        if not all(isinstance(each, list) and each for each in listed):
            raise ValueError("should be a list of lists: [[NAME, SOURCE, TARGET], ...]")
        by_name: dict[Any, Any] = {name: ends for name, *ends in listed}
        if len(by_name) < len(listed):
            raise ValueError("names a weight twice")
        return by_name

    def network(self, task: Task) -> Network:
        """Return a network of this module for a task.

        Raises: ConfigError for a module that cannot form a population; whatever its constructor or call raises.
        """
        kind, arguments = module_class(self.module or {"_target_": "torch.nn.Linear"}, KEY, nn.Module)
        network = TorchNetwork(
            task.in_features,
            task.out_features,
            kind,
            json.dumps(arguments, sort_keys=True),
            tuple(self.sites),
            self.unit_axis,
            self.stated_edges(),
        )
        network.check_edges()
        return network

    def stated_edges(self) -> tuple[tuple[str, str, str], ...]:
        """Return the weight, source and target of each of `edges`. Raises: ConfigError for one without two ends."""
        for name, ends in self.edges.items():
            if len(ends) != 2:
                raise ConfigError(
                    f"architecture.edges: {name} has the ends {ends}, and needs two: the site that it leads from and "
                    f"the one that it leads to, as in [{name}, {INPUT}, {self.sites[0] if self.sites else OUTPUT}]."
                )
        return tuple((name, ends[0], ends[1]) for name, ends in sorted(self.edges.items()))


@dataclass(frozen=True)
class TorchNetwork(ModuleRecipe, Network):
    """A module's class and constructor arguments, the names of its sites, and the edges that its user states."""

    stated_edges: tuple[tuple[str, str, str], ...]
    """Weight, source and target of each."""

    @property
    def layout(self) -> tuple[Parameter, ...]:
        """Return the module's parameters by name, and its buffers as parts that are not trained."""
        return facts_of(self).layout

    @property
    def sites(self) -> tuple[Site, ...]:
        """Return the chosen submodules, in the order in which a call comes to them."""
        return facts_of(self).sites

    @property
    def total_values(self) -> int:
        """Return the number of values of a sample that submodules return: what a step holds in memory."""
        return max(facts_of(self).values, sum(site.values for site in self.sites))

    def initialise(
        self, architectures: Sequence[Any], partition: Partition, keys: Int32[Tensor, "member 2"]
    ) -> tuple[Float[Tensor, "member parameter"], Float[Tensor, "member parameter"]]:
        """Return what the constructor makes of each member's seed of torch, NumPy and `random`; nothing is masked."""
        del architectures, partition
        copy_of_this_thread(self)  # made here, for while a step is traced tensors are not real
        trained = torch.cat([torch.full((part.size,), float(part.trained)) for part in self.layout])
        seeds = _seeds(fold_in(keys, Stream.INITIALISATION))
        rows = [row_of(construct(self, seed)) for seed in seeds]
        return trained.repeat(len(rows), 1).to(keys.device), torch.stack(rows).to(keys.device)

    def forward(
        self,
        parameters: Float[Tensor, "member parameter"],
        inputs: Float[Tensor, "member batch in_features"],
        tap: Tap | None = None,
    ) -> Float[Tensor, "member batch out_features"]:
        """Return what the module returns for every member; `tap` is called at each call of a site's submodule."""
        module = copy_of_this_thread(self)
        expected = (inputs.shape[1], self.out_features)
        with tapped(module, self, tap):
            outputs = side_by_side(module, parts_of(parameters, self.layout), inputs)
        # Outputs of another shape would be subtracted from those of other members.
        if tuple(outputs.shape[1:]) != expected:
            raise ValueError(
                f"{self.name} returned shape {tuple(outputs.shape[1:])}, and {expected} is needed"
            )
        return outputs

    def check_batch(self, samples: int) -> None:
        """Raise ConfigError for a module that draws random numbers in a batch of this many samples."""
        check_batch(self, samples)

    @property
    def connections(self) -> tuple[tuple[str, str], ...]:
        """Return the ends of the edges that the config states."""
        return tuple((source, target) for _, source, target in self.stated_edges)

    def edge_weights(
        self, parameters: Float[Tensor, "member parameter"]
    ) -> Sequence[Float[Tensor, "member _target_unit _source_unit"]]:
        """Return the weights that the config states."""
        parts = self.split(parameters)
        return [parts[name] for name, _, _ in self.stated_edges]

    def check_edges(self) -> None:
        """Raise ConfigError for an edge whose weight is not a matrix from the units of one site to those of another."""
        units = {site.name: site.units for site in self.sites}
        units |= {INPUT: self.in_features, OUTPUT: self.out_features}
        shapes = {part.name: part.shape for part in self.layout}
        for name, source, target in self.stated_edges:
            where = f"architecture.edges.{name}"
            if name not in shapes:
                raise ConfigError(
                    f"{where}: the module has no parameter of that name. {suggest(name, shapes)}"
                )
            for end in (source, target):
                if end not in units:
                    raise ConfigError(
                        f"{where}: {end} is neither a site nor {INPUT} or {OUTPUT}. {suggest(end, units)}"
                    )
            if shapes[name] != (units[target], units[source]):
                raise ConfigError(
                    f"{where}: its shape {shapes[name]} is not ({units[target]}, {units[source]}), the units of "
                    f"{target} and of {source}."
                )


def _seeds(keys: Int32[Tensor, "member 2"]) -> list[int]:
    """Return the two words of each key as one number."""
    return [((high & 0xFFFFFFFF) << 32) | (low & 0xFFFFFFFF) for high, low in keys.tolist()]
