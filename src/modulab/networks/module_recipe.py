"""Construction of a torch module from its class and arguments, with all generators seeded by the member's seed."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from modulab.errors import ConfigError
from modulab.random_state import own_random_state
from modulab.schema import import_target, suggest

KEY = "architecture.module"
"""The config key of a module, which errors name."""


@dataclass(frozen=True)
class ModuleRecipe:
    """A module's class and constructor arguments, and the names of its sites."""

    in_features: int
    out_features: int
    module_type: type[nn.Module]
    arguments: str
    """The arguments as JSON, so that recipes can be compared."""
    site_names: tuple[str, ...]
    unit_axis: int

    is_differentiated: ClassVar[bool] = True
    """Whether training needs derivatives of many members' calls at once."""

    @property
    def name(self) -> str:
        """Return the class's dotted path."""
        return f"{self.module_type.__module__}.{self.module_type.__qualname__}"

    def part(self, module: nn.Module) -> nn.Module:
        """Return the part of a newly constructed module that is the network: by default all of it."""
        return module


def construct(network: ModuleRecipe, seed: int) -> nn.Module:
    """Return a module as its constructor makes it from a random seed; the process's random state stays."""
    sizes = {"in_features": network.in_features, "out_features": network.out_features}
    arguments = checked_arguments(network.module_type, json.loads(network.arguments), KEY, sizes)
    with own_random_state(seed):
        return network.part(network.module_type(**arguments))


def row_of(module: nn.Module) -> Float[Tensor, " parameter"]:
    """Return the tensors of a module in the order of the layout: parameters, then buffers."""
    values = [*module.parameters(), *(each for each in module.buffers() if each.is_floating_point())]
    return torch.cat([value.detach().flatten() for value in values])


def module_class(settings: Mapping[str, Any], where: str, expected: type) -> tuple[Any, dict[str, Any]]:
    """Return the class that a `_target_` names and the arguments beside it. Raises: ConfigError for another class."""
    arguments = dict(settings)
    path = arguments.pop("_target_", None)
    kind = import_target(path, f"{where}._target_")
    if not (isinstance(kind, type) and issubclass(kind, expected)):
        raise ConfigError(
            f"{where}._target_={path} is not a class derived from {expected.__module__.partition('.')[0]}"
            f".{'nn.' if expected is nn.Module else ''}{expected.__name__}."
        )
    return kind, arguments


def checked_arguments(
    kind: Any, arguments: Mapping[str, Any], where: str, sizes: Mapping[str, int]
) -> dict[str, Any]:
    """Return the arguments of a constructor, with those sizes that it takes. Raises: ConfigError for unknown ones."""
    taken = inspect.signature(kind).parameters
    unknown = arguments.keys() - taken.keys()
    if unknown and not any(each.kind is each.VAR_KEYWORD for each in taken.values()):
        name = sorted(unknown)[0]
        raise ConfigError(
            f"{where}.{name}: the constructor of {kind.__qualname__} takes no such argument. {suggest(name, taken)}"
        )
    return {name: size for name, size in sizes.items() if name in taken} | dict(arguments)
