"""Any LightningModule as an architecture that trains itself; the network in it is measured as a torch module is."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import nn

from modulab.errors import ConfigError, ForeignError, foreign_code
from modulab.lightning import LightningDataModule, LightningModule
from modulab.networks.base import Network, Parameter
from modulab.networks.module_recipe import checked_arguments, module_class
from modulab.networks.self_trained import SelfTrained
from modulab.networks.torch_module import TorchArchitecture, TorchNetwork
from modulab.networks.unmeasured import UnmeasuredNetwork
from modulab.random_state import own_random_state
from modulab.schema import STRUCTURAL, suggest
from modulab.tasks.base import Task

_MODULE = "architecture.module"
_DATA = "architecture.data_module"


class LightningArchitecture(TorchArchitecture, SelfTrained):
    """A user's LightningModule, by its dotted path and the arguments of its constructor."""

    engine: ClassVar[str] = "lightning"

    submodule: str | None = Field(
        description="submodule that is measured, which maps inputs to outputs; null measures the module's "
        "own forward",
        json_schema_extra=STRUCTURAL,
    )
    data_module: dict[str, Any] | None = Field(
        description="_target_ of a LightningDataModule and its arguments; null uses the module's own "
        "train_dataloader or, if it has none, the task's points",
        json_schema_extra=STRUCTURAL,
    )
    measured: bool | None = Field(
        description="whether to measure the network on the task's points; null does unless it has its own "
        "training data",
        json_schema_extra=STRUCTURAL,
    )

    def check(self) -> None:
        """Check that the named classes exist. Raises: ConfigError."""
        if self.module is not None:
            self._class()
        if self.data_module is not None:
            module_class(self.data_module, _DATA, LightningDataModule)

    def _class(self) -> tuple[Any, dict[str, Any]]:
        if self.module is None:
            raise ConfigError(
                f"{_MODULE}: a value is missing. Name your LightningModule and its arguments, as in "
                f"'{_MODULE}={{_target_: PACKAGE.MODULE.CLASS, ARGUMENT: VALUE}}'."
            )
        return module_class(self.module, _MODULE, LightningModule)

    @property
    def brings_data(self) -> bool:
        """Return whether there is a data module, or the module defines a train_dataloader."""
        kind, _ = self._class()
        return self.data_module is not None or kind.train_dataloader is not LightningModule.train_dataloader

    def build(self, task: Task) -> LightningModule:
        """Return a new module, given the task's sizes if its constructor asks for them."""
        kind, arguments = self._class()
        sizes = {"in_features": task.in_features, "out_features": task.out_features}
        return kind(**checked_arguments(kind, arguments, _MODULE, sizes))

    def build_data(self) -> LightningDataModule | None:
        """Return a new data module, where the config names one."""
        if self.data_module is None:
            return None
        kind, arguments = module_class(self.data_module, _DATA, LightningDataModule)
        return kind(**checked_arguments(kind, arguments, _DATA, {}))

    def described(self, module: LightningModule) -> nn.Module:
        """Return the submodule that is the network, or the whole module. Raises: ConfigError if it has none such."""
        return _part(module, self.submodule)

    def network(self, task: Task) -> Network:
        """Return the network that is measured; one that only lays out its parameters where it cannot be.

        Raises: ConfigError if the config asks for measures, by `measured`, sites or edges, that cannot be taken;
        whatever the module's constructor raises.
        """
        kind, arguments = self._class()
        if self.measured is False or (self.measured is None and self.brings_data):
            reason = (
                "architecture.measured is false" if self.measured is False else "it has its own training data"
            )
            return self._unmeasured(task, reason)
        network = LightningNetwork(
            task.in_features,
            task.out_features,
            kind,
            json.dumps(arguments, sort_keys=True),
            tuple(self.sites),
            self.unit_axis,
            self.stated_edges(),
            self.submodule,
        )
        try:
            with foreign_code():
                network.check_edges()
        except (ConfigError, ForeignError) as error:
            if self.measured or self.sites or self.edges:
                raise
            return self._unmeasured(task, f"the network cannot be measured ({error})")
        return network

    def _unmeasured(self, task: Task, reason: str) -> UnmeasuredNetwork:
        with own_random_state(0):
            part = self.described(self.build(task))
        named = [(name, value, True) for name, value in part.named_parameters()]
        named += [(name, value, False) for name, value in part.named_buffers() if value.is_floating_point()]
        parts = tuple(
            Parameter(name, tuple(value.shape), trained and value.dim() > 1, trained and value.requires_grad)
            for name, value, trained in named
            if value.numel() and not torch.nn.parameter.is_lazy(value)
        )
        return UnmeasuredNetwork(task.in_features, task.out_features, parts, reason)


@dataclass(frozen=True)
class LightningNetwork(TorchNetwork):
    """The network in a LightningModule in evaluation mode: without dropout, with running statistics."""

    submodule: str | None = None

    is_differentiated: ClassVar[bool] = False

    def part(self, module: nn.Module) -> nn.Module:
        """Return the submodule that is the network, or the whole module, in evaluation mode."""
        return _part(module, self.submodule).eval()


def _part(module: nn.Module, name: str | None) -> nn.Module:
    if name is None:
        return module
    known = {each: submodule for each, submodule in module.named_modules() if each}
    if name not in known:
        raise ConfigError(
            f"architecture.submodule: the module has no submodule '{name}'. {suggest(name, known)}"
        )
    return known[name]
