"""A few calls of a torch module before training: its parts, its sites, and whether it can be a population."""

from __future__ import annotations

import copy
import functools
import math
import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call

from modulab.errors import ConfigError, describe
from modulab.networks.base import Parameter, Site, split_parameters
from modulab.networks.module_calls import parts_of, side_by_side
from modulab.networks.module_recipe import (
    KEY,
    ModuleRecipe,
    construct,
    row_of,
)
from modulab.random_state import changed_generators, own_random_state, random_state
from modulab.schema import suggest

_TRIAL_SAMPLES = 3
_MOST_SAMPLES = 4096
"""Number of samples of a batch above which a module is not expected to begin to draw."""

_lock = threading.RLock()


@dataclass(frozen=True)
class Facts:
    """The findings of a few calls of a module."""

    layout: tuple[Parameter, ...]
    sites: tuple[Site, ...]
    values: int


@functools.cache
def facts_of(network: ModuleRecipe) -> Facts:
    """Call a module a few times. Raises: ConfigError for one that cannot form a population."""
    with _lock:
        layout = _layout(network)
        module = _copy(network)
        returned, values = _watched_call(network, module)
        for name in network.site_names:
            if name not in returned:
                raise ConfigError(f"architecture.sites: the module does not call its submodule '{name}'.")
        shapes = {name: [_site_shape(name, each) for each in visits] for name, visits in returned.items()}
        _check_independence(network, module, layout)
        _check_vectorises(network, module, layout)
        return Facts(layout, _sites(shapes, network.unit_axis), values)


@functools.cache
def check_batch(network: ModuleRecipe, samples: int) -> None:
    """Raise ConfigError for a module whose outputs are not the same again in a batch of this size, or draws there.

    The other trial calls have few samples, by which a module may branch.
    """
    inputs = torch.rand(
        min(samples, _MOST_SAMPLES), network.in_features, generator=torch.Generator().manual_seed(1)
    )
    with _lock:
        module = _copy(network)
        with _without_draws(network, f"when it is called with {len(inputs)} samples"):
            first, second = module(inputs), module(inputs)
    _check_same(network, first, second, f"with the same {len(inputs)} inputs")


@functools.cache
def _template(network: ModuleRecipe) -> nn.Module:
    return construct(network, 0)


class _Copies(threading.local):
    """Modules of one thread: `functional_call` puts a caller's parameters into the module while it runs."""

    def __init__(self) -> None:
        self.modules: dict[ModuleRecipe, nn.Module] = {}


_copies = _Copies()


def copy_of_this_thread(network: ModuleRecipe) -> nn.Module:
    """Return the copy of a module that this thread calls. Raises: ConfigError for one that cannot be copied."""
    if network not in _copies.modules:
        with _lock:
            _copies.modules[network] = _copy(network)
    return _copies.modules[network]


def _copy(network: ModuleRecipe) -> nn.Module:
    """Return a copy of the template, as each thread has one. Raises: ConfigError for a module that has none."""
    template = _template(network)
    try:
        return copy.deepcopy(template)
    except Exception as error:
        raise ConfigError(
            f"{KEY}: {network.name} cannot be copied ({error}), and each thread needs a copy. Create "
            "parameters in the constructor, and do not compute them from others there."
        ) from error


def _layout(network: ModuleRecipe) -> tuple[Parameter, ...]:
    """Return the parts of a member's row. Raises: ConfigError for what a row of numbers cannot hold."""
    module, other = _template(network), construct(network, 1)
    parts: list[Parameter] = []
    storages: dict[int, str] = {}
    for name, value in module.named_parameters():
        _check_type(name, value)
        memory = value.untyped_storage().data_ptr()
        if memory in storages:
            raise ConfigError(
                f"{KEY}: the parameters '{storages[memory]}' and '{name}' share memory, which is not "
                "supported. Use one parameter in both places."
            )
        storages[memory] = name
        parts.append(Parameter(name, tuple(value.shape), value.dim() > 1, value.requires_grad))
    for name, value in module.named_buffers():
        if value.is_floating_point() or value.is_complex():
            _check_type(name, value)
            parts.append(Parameter(name, tuple(value.shape), is_weight=False, trained=False))
        elif not _equal(value, other.get_buffer(name)):
            raise ConfigError(
                f"{KEY}: the buffer '{name}' contains random whole numbers from its constructor, so members "
                "would differ in them. Make it a buffer of floating-point numbers."
            )
    if not any(part.trained for part in parts):
        raise ConfigError(f"{KEY}: {network.name} has no parameters to train.")
    return tuple(parts)


def _check_type(name: str, value: Tensor) -> None:
    if torch.nn.parameter.is_lazy(value):
        raise ConfigError(
            f"{KEY}: '{name}' has no shape before the module is called. Use a layer that is not lazy; the "
            "constructor receives the task's in_features."
        )
    if value.dtype != torch.float32:
        raise ConfigError(
            f"{KEY}: '{name}' is of type {value.dtype}. Parameters and buffers of floating-point numbers must be "
            "torch.float32."
        )


def _watched_call(network: ModuleRecipe, module: nn.Module) -> tuple[dict[str, list[Any]], int]:
    """Call a module once; return what its sites returned, call by call, and how many values a sample had in all.

    Raises: ConfigError for a call that draws random numbers, or that returns no outputs for the task.
    """
    sites = _find_submodules(module, network.site_names)
    returned: dict[str, list[Any]] = {}
    values = 0

    def watch(name: str) -> Callable[..., None]:
        def note(submodule: nn.Module, arguments: Any, output: Any) -> None:
            nonlocal values
            del arguments
            if name in sites:
                returned.setdefault(name, []).append(output)
            if next(submodule.children(), None) is None and isinstance(output, Tensor):
                values += output.numel() // _TRIAL_SAMPLES

        return note

    handles = [
        submodule.register_forward_hook(watch(name)) for name, submodule in list(module.named_modules())
    ]
    with _without_draws(network, "when it is called"):
        outputs: Any = module(_trial_inputs(network))
    for handle in handles:
        handle.remove()
    expected = (_TRIAL_SAMPLES, network.out_features)
    if isinstance(outputs, Tensor) and not outputs.is_floating_point():
        raise ConfigError(
            f"{KEY}: {network.name} returns numbers of type {outputs.dtype}. Let it return floating-point numbers."
        )
    if not isinstance(outputs, Tensor) or tuple(outputs.shape) != expected:
        got = f"shape {tuple(outputs.shape)}" if isinstance(outputs, Tensor) else type(outputs).__name__
        raise ConfigError(
            f"{KEY}: {network.name} returns {got} for inputs of shape ({_TRIAL_SAMPLES}, {network.in_features}), "
            f"and the task needs {expected}. Give its constructor the arguments in_features and out_features, "
            "which modulab passes."
        )
    return returned, values


@contextmanager
def _without_draws(network: ModuleRecipe, when: str) -> Generator[None]:
    """Call a module without derivatives. Raises: ConfigError where it draws random numbers."""
    with own_random_state(0), torch.no_grad():
        state = random_state()
        yield
        drew = changed_generators(state, random_state())
    if drew:
        raise ConfigError(
            f"{KEY}: {network.name} draws random numbers {when}, as torch.nn.Dropout does, so its results would depend "
            "on packing. Remove this, and use noise=dropout, or another noise, at architecture.sites."
        )


def _check_same(network: ModuleRecipe, first: Tensor, second: Tensor, how: str) -> None:
    if not _equal(first, second):
        raise ConfigError(
            f"{KEY}: {network.name} returns different outputs when it is called again {how}. It must not keep state "
            "between calls, and not draw random numbers."
        )


def _trial_inputs(network: ModuleRecipe) -> Float[Tensor, "batch in_features"]:
    return torch.rand(_TRIAL_SAMPLES, network.in_features, generator=torch.Generator().manual_seed(0))


def _find_submodules(module: nn.Module, names: Sequence[str]) -> dict[str, nn.Module]:
    known = {name: submodule for name, submodule in module.named_modules() if name}
    for name in names:
        if name not in known:
            raise ConfigError(
                f"architecture.sites: the module has no submodule '{name}'. {suggest(name, known)} A site is what a "
                "submodule returns, which may be a torch.nn.ReLU() or a torch.nn.Identity()."
            )
    return {name: known[name] for name in names}


def _site_shape(name: str, output: Any) -> tuple[int, ...]:
    if not isinstance(output, Tensor) or output.dim() < 2 or output.shape[0] != _TRIAL_SAMPLES:
        got = f"shape {tuple(output.shape)}" if isinstance(output, Tensor) else type(output).__name__
        raise ConfigError(
            f"architecture.sites: '{name}' returns {got} for {_TRIAL_SAMPLES} samples. A site's submodule returns a "
            "tensor whose first axis is the batch and another the units."
        )
    return tuple(output.shape)


def _sites(shapes: Mapping[str, Sequence[tuple[int, ...]]], unit_axis: int) -> tuple[Site, ...]:
    found: list[Site] = []
    for name, visits in shapes.items():
        shape = visits[0]
        if not -len(shape) < unit_axis < len(shape) or unit_axis == 0:
            raise ConfigError(
                f"architecture.unit_axis={unit_axis} is not an axis of units in the output of '{name}', whose "
                "shape is "
                f"{shape}, the batch first."
            )
        if len(set(visits)) > 1:
            raise ConfigError(
                f"architecture.sites: '{name}' returns other shapes from call to call: {visits}."
            )
        units = shape[unit_axis]
        positions = math.prod(shape[1:]) // units
        found.append(Site(name, units, positions, len(visits)))
    return tuple(found)


def _check_independence(network: ModuleRecipe, module: nn.Module, layout: tuple[Parameter, ...]) -> None:
    """Check that outputs depend on parameters, buffers and a sample alone. Raises: ConfigError if they do not."""
    inputs = _trial_inputs(network)
    whole = f"{KEY}: {network.name}"
    before = _values(module)
    with torch.no_grad():
        first, second, fewer = module(inputs), module(inputs), module(inputs[:2])
    for key, value in _values(module).items():
        if key not in before or not _equal(value, before[key]):
            raise ConfigError(
                f"{whole} changes its parameter or buffer '{key}' when it is called, as batch normalisation "
                "does with "
                "its running statistics. Use a layer that keeps none, such as torch.nn.LayerNorm."
            )
    _check_same(network, first, second, "with the same inputs")
    if not torch.allclose(fewer, first[:2], rtol=1e-3, atol=1e-5, equal_nan=True):
        raise ConfigError(
            f"{whole} returns different outputs for a sample if other samples of its batch are missing, as batch "
            "normalisation does. Outputs of a sample must not depend on other samples; torch.nn.LayerNorm normalises "
            "each sample separately."
        )
    with torch.no_grad():
        one = construct(network, 1)
        row, again = row_of(one), row_of(construct(network, 1))
        parts = {name: part[0] for name, part in split_parameters(row[None], layout).items()}
        swapped = functional_call(module, parts, (inputs,))
        own = one(inputs)
    if not _equal(row, again):
        raise ConfigError(
            f"{whole} has other initial values when it is built again from the same seed of torch, NumPy and random: "
            "its constructor draws from a generator without that seed, or counts its calls."
        )
    if not torch.allclose(own, swapped, rtol=1e-3, atol=1e-5, equal_nan=True):
        raise ConfigError(
            f"{whole} holds something that its constructor drew, or a parameter, where torch.func.functional_call "
            "cannot replace it: in a plain tensor, a list or a closure. Make it a parameter or a buffer "
            "(register_buffer), and reach it as an attribute of its module."
        )


def _check_vectorises(network: ModuleRecipe, module: nn.Module, layout: tuple[Parameter, ...]) -> None:
    """Check that two members side by side do what each does alone. Raises: ConfigError if they do not.

    They cannot where operations depend on the values that they see, or where torch has none for a batch of members.
    """
    inputs = _trial_inputs(network).expand(2, -1, -1)
    rows = torch.stack([row_of(module), row_of(construct(network, 1))])
    advice = (
        "torch.vmap calls the module for several networks at once. Use operations that it supports, without branches "
        "on values, or train each network in a separate process: architecture=lightning."
    )

    def outputs_of(rows: Tensor) -> Tensor:
        return side_by_side(module, parts_of(rows, layout), inputs)

    try:
        if network.is_differentiated:
            vjp: Any = torch.func.vjp
            outputs, pull_back = vjp(outputs_of, rows)
            pull_back(torch.ones_like(outputs))
        else:
            outputs = outputs_of(rows)
    except Exception as error:  # torch may raise anything for the user's code
        raise ConfigError(
            f"{KEY}: {network.name} cannot be called for several networks at once ({describe(error)}). {advice}"
        ) from error
    with torch.no_grad():
        alone = torch.cat(
            [side_by_side(module, parts_of(rows[[place]], layout), inputs[:1]) for place in range(2)]
        )
        first = module(inputs[0])
    # Wide enough for what is computed in half precision inside: a branch or a mean over networks shows all the same.
    bounds: dict[str, Any] = {"rtol": 0.02, "atol": 0.01, "equal_nan": True}
    outputs, alone, first = outputs.float(), alone.float(), first.float()
    if not (torch.allclose(outputs, alone, **bounds) and torch.allclose(outputs[0], first, **bounds)):
        raise ConfigError(
            f"{KEY}: {network.name} returns different outputs for a network when it is called together with others. "
            f"{advice}"
        )


def _values(module: nn.Module) -> dict[str, Tensor]:
    return {
        name: value.detach().clone() for name, value in (*module.named_parameters(), *module.named_buffers())
    }


def _equal(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and bool(((one == other) | (one.isnan() & other.isnan())).all())
