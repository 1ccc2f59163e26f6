"""Trained members loaded from disk: their weights, their configs, and the networks."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from modulab.config.settings import Member, read_runs
from modulab.config.trust import check_named_code
from modulab.errors import ConfigError, foreign_code
from modulab.metrics.probe import drawn_samples
from modulab.networks.base import NetworkPopulation, Parameter, split_parameters
from modulab.results.manifest import POPULATIONS, manifest_of, read_manifest
from modulab.results.named_rows import row_numbers
from modulab.results.store import load_results
from modulab.streams import member_keys
from modulab.tasks.base import Region, as_seen
from modulab.training.checkpoints import layout_of, read_checkpoint
from modulab.training.measuring import measure_each
from modulab.training.program import initialise, network_of


@dataclass(frozen=True)
class TrainedMembers:
    """Members loaded from disk: their configs, and their parameters in the same order."""

    configs: list[dict[str, Any]]
    parameters: Float[Tensor, "member parameter"]
    layout: tuple[Parameter, ...]
    file: Path
    """The checkpoint."""
    steps: int
    """Number of steps for which they had been trained when it was written."""
    run_ids: tuple[str, ...] = ()
    """The run_ids of their rows in the table of results; empty if the manifest of the checkpoint is missing."""

    def __repr__(self) -> str:
        return f"<{len(self.configs)} trained members of {self.file}, {self.steps} steps>"

    def only(self, run_ids: Collection[str]) -> TrainedMembers:
        """Return the members that have one of these run_ids, in their present order."""
        places = [place for place, name in enumerate(self.run_ids) if name in run_ids]
        return replace(
            self,
            configs=[self.configs[place] for place in places],
            parameters=self.parameters[places],
            run_ids=tuple(self.run_ids[place] for place in places),
        )

    @property
    def weights(self) -> dict[str, Float[Tensor, "member ..."]]:
        """Return the parts of the parameters by name, such as `weight.0` and `bias.0` of a perceptron's first layer."""
        return split_parameters(self.parameters, self.layout)

    def members(self, modules: Collection[str] = ()) -> list[Member]:
        """Return the members' settings. `modules` are your own modules that may be imported if the configs name them.

        Raises: ConfigError if a config names other code, which is not imported, or cannot be read.
        """
        for config in self.configs:
            check_named_code(config, self.file, modules)
        return [run.member for run in read_runs(self.configs)]

    def population(self, modules: Collection[str] = ()) -> NetworkPopulation:
        """Return the networks, which can be run and measured. `modules` is as in `members`.

        Raises: ConfigError as `members` does, and if the configs describe networks with different parameters.
        """
        return self._population(self.members(modules))

    def points(
        self, count: int, region: Region = "full", modules: Collection[str] = ()
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return test points of the members' tasks: inputs (member, point, feature) as networks see them, and targets.

        `region` is `full`, `train` (the training support) or `withheld`. The first `probes.num_samples` points of
        `full` are those on which `error/test` is measured. `modules` is as in `members`.

        Raises: ConfigError as `members` does.
        """
        inputs: list[Tensor] = []
        targets: list[Tensor] = []
        for member in self.members(modules):
            with foreign_code():
                drawn = drawn_samples(member.task, member_keys([member.seed]), count, region)
                inputs.append(as_seen(member.task, drawn.inputs))
            targets.append(drawn.targets)
        return torch.cat(inputs).numpy(), torch.cat(targets).numpy()

    def outputs(self, inputs: ArrayLike, modules: Collection[str] = ()) -> NDArray[np.float32]:
        """Return the networks' outputs (member, point, output), without noise, as a NumPy array.

        `inputs` has the shape (point, feature) for all networks, or (member, point, feature) with separate points for
        each network, as `points` returns them. `modules` is as in `members`.

        Raises: ConfigError as `population` does, and for inputs of another shape.
        """
        networks = self.population(modules)
        given = torch.from_numpy(np.array(inputs, dtype=np.float32))
        features = networks.network.in_features
        if given.dim() == 2:
            given = given.expand(networks.num_members, *given.shape)
        if given.dim() != 3 or given.shape[::2] != (networks.num_members, features):
            raise ConfigError(
                f"inputs of shape {tuple(np.shape(inputs))}: give points of shape (point, {features}) for all "
                f"networks, or ({networks.num_members}, point, {features}) with separate points for each."
            )
        with torch.inference_mode(), foreign_code():
            return networks.forward(given).numpy()

    def measures(self, modules: Collection[str] = ()) -> dict[str, list[float]]:
        """Measure the networks as after training; return one value per member by name, NaN for missing values.

        Raises: ConfigError as `population` does; ForeignError if a measure or task fails.
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
            raise ConfigError(
                f"{self.file}: it contains different parameters than its members' settings require."
            )
        return NetworkPopulation(networks.pop(), self.parameters)


def _kept(part: Parameter) -> tuple[object, ...]:
    return part.name, part.shape, part.is_weight


def load_members(path: str | Path) -> list[TrainedMembers]:
    """Return the trained members of a run's or sweep's folder, one group per population.

    Raises: ConfigError if there are none, or if a checkpoint is damaged or of another version.
    """
    files = sorted(Path(path).rglob(f"{POPULATIONS}/*.ckpt"))
    if not files:
        raise ConfigError(
            f"{path}: holds no {POPULATIONS}/*.ckpt. Give the folder that modulab train printed."
        )
    return [read_members(file) for file in files]


def choose_members(folder: Path, members: Sequence[str] | None) -> list[TrainedMembers]:
    """Return those of `load_members` that are named, or all: rows, ranges such as 0-9, or first letters of run_ids.

    Raises: ConfigError as `load_members` does, and for members that are not there.
    """
    groups = load_members(folder)
    if members is None:
        return groups
    results = load_results(folder)
    names: list[str] = results["run_id"].tolist()
    wanted = {names[row]: row for row in row_numbers(results, members, "--members")}
    for name in set(wanted).difference(*(group.run_ids for group in groups)):
        raise ConfigError(f"--members {wanted[name]}: the weights of {name} are not kept in {folder}.")
    return [some for group in groups if (some := group.only(wanted)).configs]


def read_members(file: Path) -> TrainedMembers:
    """Return the members of one checkpoint, in the order of its manifest.

    The manifest has their configs in full. Without it, the checkpoint's own record is used, which lacks the
    classes (`_target_`) that networks are made by.

    Raises: ConfigError if either cannot be read, or the two do not go together.
    """
    content = read_checkpoint(file)
    saved = content["modulab"]
    parameters = content["state_dict"]["parameters_by_row"][saved["row_of_member"]].float()
    configs: list[dict[str, Any]] = saved["members"]
    manifest = manifest_of(file)
    run_ids: tuple[str, ...] = ()
    if manifest.exists():
        named = read_manifest(manifest)
        full, run_ids = list(named.values()), tuple(named)
        if [config.get("seed") for config in full] != [config.get("seed") for config in configs]:
            raise ConfigError(
                f"{manifest} and {file.name} do not list the same members. Restore them from a copy."
            )
        configs = full
    return TrainedMembers(
        configs, parameters, layout_of(content), file, int(content["state_dict"]["next_step"]), run_ids
    )
