"""Networks and probes for tests of measures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from modulab.config.settings import Probes
from modulab.metrics.probe import Probe, make_probe
from modulab.networks.base import NetworkPopulation
from modulab.networks.perceptron import Perceptron, architecture_mask, initial_parameters
from modulab.partition import Partition, even_shares
from modulab.schema import read_settings
from modulab.streams import member_keys
from modulab.tasks.base import Task
from tests.perceptrons import Perceptrons

CONFIGS = Path(__file__).parents[2] / "configs"


def make_task(name: str = "regression", **changes: Any) -> Task:
    config = yaml.safe_load((CONFIGS / "task" / f"{name}.yaml").read_text())
    return read_settings({**config, **changes}, "task", Task)


def make_settings(**changes: Any) -> Probes:
    config = yaml.safe_load((CONFIGS / "probes" / "default.yaml").read_text())
    return read_settings({**config, **changes}, "probes", Probes)


def make_shape(task: Task, *hidden: int, activation: str = "relu") -> Perceptron:
    return Perceptron(task.in_features, hidden, task.out_features, activation)


def make_parameters(
    shape: Perceptron, members: int, modules: int = 2, cross_connections: float = 1.0
) -> Tensor:
    keys = member_keys(range(members))
    partition = Partition(
        modules, even_shares(shape.in_features, modules), even_shares(shape.out_features, modules)
    )
    mask = architecture_mask(shape, partition, [cross_connections] * members, keys)
    return initial_parameters(shape, mask, torch.full((members,), 2.0), keys)


def make_network(
    task: Task, *hidden: int, members: int = 3, activation: str = "relu", cross_connections: float = 1.0
) -> Perceptrons:
    shape = make_shape(task, *hidden, activation=activation)
    return Perceptrons(shape, make_parameters(shape, members, task.modules, cross_connections))


def probe_of(task: Task, network: NetworkPopulation, **settings: Any) -> Probe:
    return make_probe(task, network, member_keys(range(network.num_members)), make_settings(**settings))
