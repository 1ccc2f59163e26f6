"""Blocks of networks for tests of analyses: as initialised, or with parameters of the test's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from modulab.analysis.analysis import Analysis, Trained, find_analysis
from modulab.analysis.choosing import choose_analyses
from modulab.config.settings import Member
from modulab.metrics.probe import make_probe
from modulab.networks.base import Network, NetworkPopulation, Parameter, Site, Tap
from modulab.streams import member_keys
from modulab.training.learner import initialise
from modulab.training.program import network_of
from tests.members import make_member


def members(
    count: int = 3, architecture: str = "dense", task: str = "regression", **settings: Any
) -> list[Member]:
    """Return members of the reference setting, in small; a name that ends in premodular keeps no cross connections."""
    small: dict[str, Any] = {"probes__num_samples": 48, "training__batch_size": 8, "data__num_samples": 32}
    if architecture.endswith("premodular"):
        small["architecture__cross_connections"] = 0.0
        architecture = architecture.removesuffix("premodular").removesuffix("_") or "dense"
    choices = {"architecture": architecture, "task": task}
    return [make_member(choices, seed=seed, **(small | settings)) for seed in range(count)]


def block(
    some: Sequence[Member], parameters: Tensor | None = None, network: Network | None = None
) -> Trained:
    """Return a block of members, by default as they are before training, but with biases that are not 0."""
    network = network or network_of(some[0])
    masks, initial = initialise(some, network)
    if parameters is None:
        parameters = (initial + 0.1 * torch.sin(torch.arange(initial.shape[1]))) * masks
    keys = member_keys([member.seed for member in some])
    population = NetworkPopulation(network, parameters)
    return Trained(tuple(some), make_probe(some[0].task, population, keys, some[0].probes, masks))


def shipped(name: str, **fields: Any) -> Analysis:
    """Return a shipped analysis with other fields."""
    [chosen] = choose_analyses([name])
    target = f"{type(chosen.analysis).__module__}.{type(chosen.analysis).__qualname__}"
    return find_analysis({"_target_": target, **chosen.analysis.model_dump(), **fields}, name)


def clusters(experts: int, rows: str = "incoming_weights", restarts: int = 2) -> dict[str, Any]:
    """Return the config of balanced clusters."""
    return {
        "_target_": "modulab.analysis.balanced.BalancedClusters",
        "experts": experts,
        "rows": f"modulab.analysis.balanced.{rows}",
        "restarts": restarts,
    }


@dataclass(frozen=True)
class Formula(Network):
    """A network whose outputs are a formula of its inputs; it has no parameter that counts."""

    in_features: int
    out_features: int
    formula: Callable[[Tensor], Tensor]

    @property
    def layout(self) -> tuple[Parameter, ...]:
        return (Parameter("unused", (1,)),)

    @property
    def sites(self) -> tuple[Site, ...]:
        return ()

    def initialise(
        self, architectures: Sequence[Any], partition: object, keys: Tensor
    ) -> tuple[Tensor, Tensor]:
        return torch.ones(len(keys), 1), torch.zeros(len(keys), 1)

    def forward(self, parameters: Tensor, inputs: Tensor, tap: Tap | None = None) -> Tensor:
        return self.formula(inputs)
