"""Trained members read back from disk: their weights, their configs, and the networks that both make."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from modulab.config.settings import Member, read_run
from modulab.config.trust import check_named_code
from modulab.errors import ConfigError
from modulab.networks.base import NetworkPopulation, Parameter, split_parameters
from modulab.results.manifest import POPULATIONS, manifest_of, read_manifest
from modulab.training.checkpoints import layout_of, read_checkpoint
from modulab.training.measuring import measure_each
from modulab.training.program import initialise, network_of


@dataclass(frozen=True)
class TrainedMembers:
    """Members read back from disk: their configs, and their parameters in the same order."""

    configs: list[dict[str, Any]]
    parameters: Float[Tensor, "member parameter"]
    layout: tuple[Parameter, ...]
    file: Path
    """The checkpoint."""
    steps: int
    """How many steps they were trained for when it was written."""

    @property
    def weights(self) -> dict[str, Float[Tensor, "member ..."]]:
        """Return the parts of the parameters by name, such as `weight.0` and `bias.0` of a perceptron's first layer."""
        return split_parameters(self.parameters, self.layout)

    def members(self, modules: Collection[str] = ()) -> list[Member]:
        """Return the members' settings. `modules` are the user's own whose code the configs may name.

        Raises: ConfigError where a config names other code, which is not imported, or cannot be read.
        """
        for config in self.configs:
            check_named_code(config, self.file, modules)
        return [read_run(config).member for config in self.configs]

    def population(self, modules: Collection[str] = ()) -> NetworkPopulation:
        """Return the networks, which can be run and measured. `modules` are as in `members`.

        Raises: ConfigError as `members` does, and where the configs ask for networks of other parameters.
        """
        return self._population(self.members(modules))

    def measures(self, modules: Collection[str] = ()) -> dict[str, list[float]]:
        """Measure the networks as they were measured after training; return one value per member by name, NaN for none.

        Raises: ConfigError as `population` does; ForeignError where a measure or task fails.
        """
        members = self.members(modules)
        networks = self._population(members)
        threads = torch.get_num_threads()
        # Sums over several threads are rounded otherwise.
        torch.set_num_threads(1)
        try:
            masks, _ = initialise(members, networks.network)
            return measure_each(members, networks, masks, members[0].probes, narrow=False).measures
        finally:
            torch.set_num_threads(threads)

    def _population(self, members: list[Member]) -> NetworkPopulation:
        networks = {network_of(member) for member in members}
        layouts = {network.layout for network in networks}
        # Whether a part is trained is not kept in a checkpoint.
        if len(networks) != 1 or [_kept(part) for part in layouts.pop()] != [
            _kept(part) for part in self.layout
        ]:
            raise ConfigError(f"{self.file}: it holds other parameters than its members' settings ask for.")
        return NetworkPopulation(networks.pop(), self.parameters)


def _kept(part: Parameter) -> tuple[object, ...]:
    return part.name, part.shape, part.is_weight


def load_members(path: str | Path) -> list[TrainedMembers]:
    """Return the trained members of a run's or sweep's folder, one group a population.

    Raises: ConfigError where there are none, or where a checkpoint is damaged or of another version.
    """
    files = sorted(Path(path).rglob(f"{POPULATIONS}/*.ckpt"))
    if not files:
        raise ConfigError(
            f"{path}: holds no {POPULATIONS}/*.ckpt. Give the folder that modulab train printed."
        )
    return [read_members(file) for file in files]


def read_members(file: Path) -> TrainedMembers:
    """Return the members of one checkpoint, in the order of its manifest.

    The manifest has their configs in full. Where it is gone, the checkpoint's own record stands in, which lacks the
    classes (`_target_`) that networks are made by.

    Raises: ConfigError where either cannot be read, or the two do not go together.
    """
    content = read_checkpoint(file)
    saved = content["modulab"]
    parameters = content["state_dict"]["parameters_by_row"][saved["row_of_member"]]
    configs: list[dict[str, Any]] = saved["members"]
    manifest = manifest_of(file)
    if manifest.exists():
        full = list(read_manifest(manifest).values())
        if [config.get("seed") for config in full] != [config.get("seed") for config in configs]:
            raise ConfigError(
                f"{manifest} and {file.name} do not list the same members. Restore them from a copy."
            )
        configs = full
    return TrainedMembers(
        configs, parameters, layout_of(content), file, int(content["state_dict"]["next_step"])
    )
