"""How alike the units of networks represent the same points: linear CKA between members, site by site.

Each network is compared with one of reference at the same evaluation points (see `metrics.communities.similarity` for
the formula). The reference is a given network of a folder of results, or each network as it was before training.
"""

from __future__ import annotations

import functools
from pathlib import Path

import torch
from jaxtyping import Float, Float64
from pydantic import Field, model_validator
from torch import Tensor

from modulab.analysis.analysis import Analysis, Trained
from modulab.config.settings import Member
from modulab.errors import ConfigError
from modulab.metrics.communities.similarity import linear_cka, values_per_unit
from modulab.metrics.measure import Column
from modulab.metrics.probe import in_module_coordinates
from modulab.networks.base import Network, NetworkPopulation
from modulab.results.manifest import manifest_of, read_manifest
from modulab.results.named_rows import row_number
from modulab.results.store import load_results
from modulab.sweep.trained import load_members
from modulab.training.program import initialise

_SECONDS_PER_VALUE = 2e-8
"""For each value of a sample at a site, and each unit of the widest one."""


class Likeness(Analysis):
    """Linear CKA of each site with the same site of another network: its own before training, or a given one."""

    folder: str | None = Field(
        description="folder of results with the reference network; null compares each network with itself "
        "before training"
    )
    row: int | str | None = Field(
        description="row of the reference network in that folder, or the first letters of its run_id"
    )

    @model_validator(mode="after")
    def _both_or_neither(self) -> Likeness:
        if (self.folder is None) != (self.row is None):
            raise ValueError("folder and row name one network together. Give both, or neither.")
        return self

    @property
    def needs(self) -> tuple[str, ...]:
        """Return sites."""
        return ("sites",)

    @property
    def columns(self) -> tuple[Column, ...]:
        """Return the words for the mean over sites, and for each site."""
        return (
            Column("cka", "Linear CKA with the reference network", ends_at_one=True),
            Column(
                "cka_site_{site}", "Linear CKA with the reference network at site {site}", ends_at_one=True
            ),
        )

    def lacking(self, network: Network, member: Member) -> str | None:
        """Return why sites cannot be compared with those of the reference."""
        reason = super().lacking(network, member)
        if reason is None and not network.sites:
            reason = "the network has no hidden units"
        if reason is None and self.folder is not None:
            other = _reference(self.folder, f"{self.row}").network
            if [values_per_unit(site) for site in network.sites] != [
                values_per_unit(site) for site in other.sites
            ]:
                reason = "its sites are not those of the network of reference"
            elif network.in_features != other.in_features:
                reason = "its inputs are not those of the network of reference"
        return reason

    def seconds(self, network: Network, member: Member) -> float:
        """Return about how long the products of activities take."""
        return _SECONDS_PER_VALUE * network.step_units * member.probes.num_samples * max(1, network.widest)

    def take(self, trained: Trained) -> dict[str, Float64[Tensor, " member"]]:
        """Return CKA of each site, counted from 1, and the mean over sites."""
        probe = trained.probe
        network, other = probe.network.network, self._other(trained)
        recorded = other.record(probe.samples.inputs)
        # Sites of two networks correspond by their order; those of one kind of network have the same names.
        found = [
            linear_cka(probe.clean.values[site.name], recorded.values[twin.name])
            for site, twin in zip(network.sites, other.network.sites, strict=True)
        ]
        values = {f"cka_site_{place + 1}": each for place, each in enumerate(found)}
        return {"cka": torch.stack(found, dim=1).mean(dim=1)} | values

    def _other(self, trained: Trained) -> NetworkPopulation:
        """Return the network of reference of each member, in module coordinates."""
        probe = trained.probe
        if self.folder is None:
            _, start = initialise(list(trained.members), probe.network.network)
            return in_module_coordinates(NetworkPopulation(probe.network.network, start), probe.rotation)
        one = _reference(self.folder, f"{self.row}")
        every: Float[Tensor, "member parameter"] = one.parameters.expand(
            len(trained.members), -1
        ).contiguous()
        return in_module_coordinates(NetworkPopulation(one.network, every), probe.rotation)


@functools.lru_cache(maxsize=4)
def _reference(folder: str, row: str) -> NetworkPopulation:
    """Return one finished network of a folder. Raises: ConfigError if it is not there."""
    results = load_results(folder)
    name = results["run_id"].tolist()[row_number(results, row, "row")]
    for group in load_members(folder):
        for place, run_id in enumerate(read_manifest(manifest_of(group.file))):
            if run_id == name:
                return group.population().select(slice(place, place + 1))
    raise ConfigError(f"row={row}: the network of this row is not kept in {Path(folder)}.")
