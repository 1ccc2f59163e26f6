"""Any `torch.nn.Module` as a network: a population of it is one vectorised call of the module.

The module is called through `torch.func.functional_call` with each member's own parameters, vectorised over members
by `torch.vmap`. Sites are submodules by name: what they return passes through the tap, which sees all members at once.

A member's result must depend on its own parameters and samples alone. So a module may not draw random numbers when it
is called, keep anything of a call for the next, let samples of a batch depend on one another, or hold what its
constructor drew anywhere but in parameters and buffers. A few calls before training show whether one does.
"""

from __future__ import annotations

import copy
import functools
import inspect
import json
import math
import random
import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import numpy as np
import torch
from jaxtyping import Float, Int32
from pydantic import Field, field_validator
from torch import Tensor, nn
from torch.func import functional_call

from modulab.errors import ConfigError, describe
from modulab.networks.base import (
    INPUT,
    OUTPUT,
    Architecture,
    Network,
    Parameter,
    Site,
    Tap,
    split_parameters,
)
from modulab.partition import Partition
from modulab.schema import STRUCTURAL, import_target, suggest
from modulab.streams import Stream, fold_in
from modulab.tasks.base import Task

_TRIAL_SAMPLES = 3
_WHERE = "architecture.module"


class TorchArchitecture(Architecture):
    """A torch module of one's own, by its dotted path and the arguments of its constructor."""

    module: dict[str, Any] | None = Field(
        description="_target_ of a torch.nn.Module and arguments of its constructor, of which in_features and "
        "out_features are the task's; null is a linear map",
        json_schema_extra=STRUCTURAL,
    )
    sites: list[str] = Field(
        description="names of submodules whose outputs are activity of units: noisy, ablated, recorded",
        json_schema_extra=STRUCTURAL,
    )
    unit_axis: int = Field(
        description="axis of these outputs that counts units: 1 for (batch, channel, ...), -1 for (batch, token, unit)",
        json_schema_extra=STRUCTURAL,
    )
    edges: dict[str, list[str]] = Field(
        description="weight matrices, a list of [name, source, target], of which each end is a site, input or output; "
        "null states none",
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

        Raises: ConfigError for a module that cannot be one; whatever its constructor or call raises.
        """
        kind, arguments = module_class(self.module or {"_target_": "torch.nn.Linear"}, _WHERE, nn.Module)
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


def module_class(settings: Mapping[str, Any], where: str, expected: type) -> tuple[Any, dict[str, Any]]:
    """Return the class that a `_target_` names and the arguments beside it. Raises: ConfigError for another class."""
    arguments = dict(settings)
    path = arguments.pop("_target_", None)
    kind = import_target(path, f"{where}._target_")
    if not (isinstance(kind, type) and issubclass(kind, expected)):
        raise ConfigError(
            f"{where}._target_={path} is no class derived from {expected.__module__.partition('.')[0]}"
            f".{'nn.' if expected is nn.Module else ''}{expected.__name__}."
        )
    return kind, arguments


@dataclass(frozen=True)
class TorchNetwork(Network):
    """A module's class and constructor arguments, the names of its sites, and the edges that its user states."""

    in_features: int
    out_features: int
    module_type: type[nn.Module]
    arguments: str
    """As JSON, so that networks can be compared."""
    site_names: tuple[str, ...]
    unit_axis: int
    stated_edges: tuple[tuple[str, str, str], ...]
    """Weight, source and target of each."""

    is_differentiated: ClassVar[bool] = True
    """Whether training needs derivatives of many members' calls at once."""

    @property
    def layout(self) -> tuple[Parameter, ...]:
        """Return the module's parameters by name, and its buffers as parts that are not trained."""
        return _facts(self).layout

    @property
    def sites(self) -> tuple[Site, ...]:
        """Return the chosen submodules, in the order in which a call comes to them."""
        return _facts(self).sites

    @property
    def total_values(self) -> int:
        """Return the number of values of a sample that submodules return: what a step holds in memory."""
        return max(_facts(self).values, sum(site.values for site in self.sites))

    def initialise(
        self, architectures: Sequence[Any], partition: Partition, keys: Int32[Tensor, "member 2"]
    ) -> tuple[Float[Tensor, "member parameter"], Float[Tensor, "member parameter"]]:
        """Return what the constructor makes of each member's seed of torch, NumPy and `random`; nothing is masked."""
        del architectures, partition
        _copy_of_this_thread(self)  # made here, for while a step is traced tensors are not real
        trained = torch.cat([torch.full((part.size,), float(part.trained)) for part in self.layout])
        seeds = _seeds(fold_in(keys, Stream.INITIALISATION))
        rows = [_row(_construct(self, seed)) for seed in seeds]
        return trained.repeat(len(rows), 1).to(keys.device), torch.stack(rows).to(keys.device)

    def forward(
        self,
        parameters: Float[Tensor, "member parameter"],
        inputs: Float[Tensor, "member batch in_features"],
        tap: Tap | None = None,
    ) -> Float[Tensor, "member batch out_features"]:
        """Return what the module returns for every member; `tap` is called at each call of a site's submodule."""
        module = _copy_of_this_thread(self)
        expected = (inputs.shape[1], self.out_features)
        with _tapped(module, self, tap):
            outputs = _side_by_side(module, _parts(parameters, self.layout), inputs)
        # Outputs of another shape would be subtracted from those of other members.
        if tuple(outputs.shape[1:]) != expected:
            raise ValueError(
                f"{_name(self)} returned shape {tuple(outputs.shape[1:])}, and {expected} is needed"
            )
        return outputs

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

    def part(self, module: nn.Module) -> nn.Module:
        """Return the part of a newly constructed module that is the network: by default all of it."""
        return module

    def check_edges(self) -> None:
        """Raise: ConfigError for an edge whose weight is no matrix from the units of one site to those of another."""
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


@dataclass(frozen=True)
class _Facts:
    """What a few calls of a module tell."""

    layout: tuple[Parameter, ...]
    sites: tuple[Site, ...]
    values: int


_lock = threading.RLock()


@functools.cache
def _template(network: TorchNetwork) -> nn.Module:
    return _construct(network, 0)


@functools.cache
def _facts(network: TorchNetwork) -> _Facts:
    """Call a module a few times. Raises: ConfigError for one that cannot be a population."""
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
        return _Facts(layout, _sites(shapes, network.unit_axis), values)


def _copy(network: TorchNetwork) -> nn.Module:
    """Return a copy of the template, as each thread has one. Raises: ConfigError for a module that has none."""
    template = _template(network)
    try:
        return copy.deepcopy(template)
    except Exception as error:
        raise ConfigError(
            f"{_WHERE}: {_name(network)} cannot be copied ({error}), as each thread needs one. Parameters must be made "
            "in the constructor, and not computed from others there."
        ) from error


def _watched_call(network: TorchNetwork, module: nn.Module) -> tuple[dict[str, list[Any]], int]:
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
    with own_random_state(0), torch.no_grad():
        state = _random_state()
        outputs: Any = module(_trial_inputs(network))
        drew = not _same_random_state(state, _random_state())
    for handle in handles:
        handle.remove()
    if drew:
        raise ConfigError(
            f"{_WHERE}: {_name(network)} draws random numbers when it is called, as torch.nn.Dropout does, and they "
            "would differ with the members trained beside it. Leave them out and use noise=dropout, or another noise, "
            "at architecture.sites."
        )
    expected = (_TRIAL_SAMPLES, network.out_features)
    if isinstance(outputs, Tensor) and not outputs.is_floating_point():
        raise ConfigError(
            f"{_WHERE}: {_name(network)} returns numbers of type {outputs.dtype}. Let it return floating-point numbers."
        )
    if not isinstance(outputs, Tensor) or tuple(outputs.shape) != expected:
        got = f"shape {tuple(outputs.shape)}" if isinstance(outputs, Tensor) else type(outputs).__name__
        raise ConfigError(
            f"{_WHERE}: {_name(network)} returns {got} for inputs of shape ({_TRIAL_SAMPLES}, {network.in_features}), "
            f"and the task needs {expected}. Let its constructor take in_features and out_features, which are those of "
            "the task."
        )
    return returned, values


def _trial_inputs(network: TorchNetwork) -> Float[Tensor, "batch in_features"]:
    return torch.rand(_TRIAL_SAMPLES, network.in_features, generator=torch.Generator().manual_seed(0))


def _name(network: TorchNetwork) -> str:
    return f"{network.module_type.__module__}.{network.module_type.__qualname__}"


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
                f"architecture.unit_axis={unit_axis} is no axis of units in the output of '{name}', whose shape is "
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


def _check_independence(network: TorchNetwork, module: nn.Module, layout: tuple[Parameter, ...]) -> None:
    """Check that outputs depend on parameters, buffers and a sample alone. Raises: ConfigError where they do not."""
    inputs = _trial_inputs(network)
    whole = f"{_WHERE}: {_name(network)}"
    before = _values(module)
    with torch.no_grad():
        first, second, fewer = module(inputs), module(inputs), module(inputs[:2])
    for key, value in _values(module).items():
        if key not in before or not _equal(value, before[key]):
            raise ConfigError(
                f"{whole} changes its parameter or buffer '{key}' when it is called, as batch normalisation does with "
                "its running statistics. Use a layer that keeps none, such as torch.nn.LayerNorm."
            )
    if not _equal(first, second):
        raise ConfigError(
            f"{whole} returns other outputs when it is called again with the same inputs. It must keep nothing of a "
            "call for the next."
        )
    if not torch.allclose(fewer, first[:2], rtol=1e-3, atol=1e-5, equal_nan=True):
        raise ConfigError(
            f"{whole} returns other outputs for a sample when others of its batch are left out, as batch normalisation "
            "does. Each sample must have outputs of its own; torch.nn.LayerNorm normalises each by itself."
        )
    with torch.no_grad():
        one = _construct(network, 1)
        row, again = _row(one), _row(_construct(network, 1))
        parts = {name: part[0] for name, part in split_parameters(row[None], layout).items()}
        swapped = functional_call(module, parts, (inputs,))
        own = one(inputs)
    if not _equal(row, again):
        raise ConfigError(
            f"{whole} begins otherwise when it is built again from the same seed of torch, NumPy and random: its "
            "constructor draws from a generator that has no seed, or counts how often it ran."
        )
    if not torch.allclose(own, swapped, rtol=1e-3, atol=1e-5, equal_nan=True):
        raise ConfigError(
            f"{whole} holds something that its constructor drew, or a parameter, where torch.func.functional_call "
            "cannot replace it: in a plain tensor, a list or a closure. Make it a parameter or a buffer "
            "(register_buffer), and reach it as an attribute of its module."
        )


def _check_vectorises(network: TorchNetwork, module: nn.Module, layout: tuple[Parameter, ...]) -> None:
    """Check that two members side by side do what each does alone. Raises: ConfigError where they do not.

    They cannot where operations depend on the values that they see, or where torch has none for a batch of members.
    """
    inputs = _trial_inputs(network).expand(2, -1, -1)
    rows = torch.stack([_row(module), _row(_construct(network, 1))])
    advice = (
        "Networks are trained side by side, as a batch that torch.vmap makes of calls of one. Use operations that it "
        "takes, without branches on values, or let the module train itself in a process of its own: "
        "architecture=lightning."
    )

    def outputs_of(rows: Tensor) -> Tensor:
        return _side_by_side(module, _parts(rows, layout), inputs)

    try:
        if network.is_differentiated:
            vjp: Any = torch.func.vjp
            outputs, pull_back = vjp(outputs_of, rows)
            pull_back(torch.ones_like(outputs))
        else:
            outputs = outputs_of(rows)
    except Exception as error:  # whatever torch makes of the user's code
        raise ConfigError(
            f"{_WHERE}: {_name(network)} cannot be called for several networks at once ({describe(error)}). {advice}"
        ) from error
    with torch.no_grad():
        alone = torch.cat(
            [_side_by_side(module, _parts(rows[[place]], layout), inputs[:1]) for place in range(2)]
        )
        first = module(inputs[0])
    # Wide enough for what is computed in half precision inside: a branch or a mean over networks shows all the same.
    bounds: dict[str, Any] = {"rtol": 0.02, "atol": 0.01, "equal_nan": True}
    outputs, alone, first = outputs.float(), alone.float(), first.float()
    if not (torch.allclose(outputs, alone, **bounds) and torch.allclose(outputs[0], first, **bounds)):
        raise ConfigError(
            f"{_WHERE}: {_name(network)} returns other outputs for a network when others are called beside it. {advice}"
        )


def _parts(rows: Tensor, layout: Sequence[Parameter]) -> dict[str, Tensor]:
    """Return the parts of rows by name, without derivatives by those that are not trained.

    torch has none by some of them, such as the statistics of a normalisation.
    """
    parts = split_parameters(rows, layout)
    return parts | {part.name: parts[part.name].detach() for part in layout if not part.trained}


def _side_by_side(
    module: nn.Module,
    parts: dict[str, Tensor],
    inputs: Float[Tensor, "member batch in_features"],
) -> Tensor:
    """Return what a module returns for every member."""
    fixed = {
        name: value.to(inputs.device)
        for name, value in module.named_buffers()
        if not value.is_floating_point()
    }

    def call(own: dict[str, Tensor], seen: Tensor) -> Tensor:
        return functional_call(module, own | fixed, (seen,))

    return torch.vmap(call)(parts, inputs)


def _values(module: nn.Module) -> dict[str, Tensor]:
    return {
        name: value.detach().clone() for name, value in (*module.named_parameters(), *module.named_buffers())
    }


def _equal(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and bool(((one == other) | (one.isnan() & other.isnan())).all())


def _layout(network: TorchNetwork) -> tuple[Parameter, ...]:
    """Return the parts of a member's row. Raises: ConfigError for what a row of numbers cannot hold."""
    module, other = _template(network), _construct(network, 1)
    parts: list[Parameter] = []
    storages: dict[int, str] = {}
    for name, value in module.named_parameters():
        _check_type(name, value)
        memory = value.untyped_storage().data_ptr()
        if memory in storages:
            raise ConfigError(
                f"{_WHERE}: the parameters '{storages[memory]}' and '{name}' share memory, which two rows of numbers "
                "cannot. Use one parameter in both places."
            )
        storages[memory] = name
        parts.append(Parameter(name, tuple(value.shape), value.dim() > 1, value.requires_grad))
    for name, value in module.named_buffers():
        if value.is_floating_point() or value.is_complex():
            _check_type(name, value)
            parts.append(Parameter(name, tuple(value.shape), is_weight=False, trained=False))
        elif not _equal(value, other.get_buffer(name)):
            raise ConfigError(
                f"{_WHERE}: the buffer '{name}' holds whole numbers that its constructor draws, so that members would "
                "differ in them. Make it a buffer of floating-point numbers."
            )
    if not any(part.trained for part in parts):
        raise ConfigError(f"{_WHERE}: {_name(network)} has no parameters to train.")
    return tuple(parts)


def _check_type(name: str, value: Tensor) -> None:
    if torch.nn.parameter.is_lazy(value):
        raise ConfigError(
            f"{_WHERE}: '{name}' has no shape before the module is called. Use the layer that is not lazy; the task's "
            "in_features is given to the constructor."
        )
    if value.dtype != torch.float32:
        raise ConfigError(
            f"{_WHERE}: '{name}' is of type {value.dtype}. Parameters and buffers of floating-point numbers must be "
            "torch.float32."
        )


def _construct(network: TorchNetwork, seed: int) -> nn.Module:
    """Return a module as its constructor makes it from a random seed; the process's random state stays."""
    sizes = {"in_features": network.in_features, "out_features": network.out_features}
    arguments = checked_arguments(network.module_type, json.loads(network.arguments), _WHERE, sizes)
    with own_random_state(seed):
        return network.part(network.module_type(**arguments))


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


def _row(module: nn.Module) -> Float[Tensor, " parameter"]:
    """Return what a module holds, in the order of the layout: parameters, then buffers."""
    values = [*module.parameters(), *(each for each in module.buffers() if each.is_floating_point())]
    return torch.cat([value.detach().flatten() for value in values])


def _seeds(keys: Int32[Tensor, "member 2"]) -> list[int]:
    """Return the two words of each key as one number."""
    return [((high & 0xFFFFFFFF) << 32) | (low & 0xFFFFFFFF) for high, low in keys.tolist()]


@contextmanager
def own_random_state(seed: int) -> Generator[None]:
    """Seed the generators that a constructor may draw from, and put them back afterwards."""
    state = _random_state()
    torch.default_generator.manual_seed(seed)  # and not that of CUDA, where nothing is constructed
    random.seed(seed)
    np.random.seed(seed & 0xFFFFFFFF)  # noqa: NPY002  (what a user's constructor may draw from)
    try:
        yield
    finally:
        torch.set_rng_state(state[0])
        random.setstate(state[1])
        np.random.set_state(state[2])  # noqa: NPY002


def _random_state() -> tuple[Tensor, tuple[Any, ...], Any]:
    return torch.get_rng_state(), random.getstate(), np.random.get_state()  # noqa: NPY002


def _same_random_state(one: tuple[Any, ...], other: tuple[Any, ...]) -> bool:
    (torch_one, python_one, numpy_one), (torch_other, python_other, numpy_other) = one, other
    return (
        torch.equal(torch_one, torch_other)
        and python_one == python_other
        and numpy_one[2] == numpy_other[2]
        and bool((numpy_one[1] == numpy_other[1]).all())
    )


class _Copies(threading.local):
    """Modules of one thread: `functional_call` puts a caller's parameters into the module while it runs."""

    def __init__(self) -> None:
        self.modules: dict[TorchNetwork, nn.Module] = {}


_copies = _Copies()


def _copy_of_this_thread(network: TorchNetwork) -> nn.Module:
    if network not in _copies.modules:
        with _lock:
            _copies.modules[network] = _copy(network)
    return _copies.modules[network]


@contextmanager
def _tapped(module: nn.Module, network: TorchNetwork, tap: Tap | None) -> Generator[None]:
    """Have the outputs of a module's sites pass through a tap."""
    handles: list[Any] = []
    if tap is not None:
        for name in network.site_names:
            place = functools.partial(_pass_on, tap=tap, name=name, unit_axis=network.unit_axis)
            hook = functools.partial(_through, place)
            handles.append(module.get_submodule(name).register_forward_hook(hook))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _through(place: Callable[[Tensor], Tensor], module: nn.Module, arguments: Any, output: Tensor) -> Tensor:
    del module, arguments
    return cast("Any", _OverMembers).apply(output, place)


def _pass_on(values: Tensor, tap: Tap, name: str, unit_axis: int) -> Tensor:
    """Return (member, batch, ...) values after a tap that takes them as (member, unit, batch x positions)."""
    axis = unit_axis if unit_axis < 0 else unit_axis + 1
    units_first = values.movedim(axis, 1)
    passed_on = tap(name, units_first.flatten(2)).unflatten(2, units_first.shape[2:])
    # A copy: the module may go on in place with what it is given here, and the tap may have kept that.
    return passed_on.movedim(1, axis).clone()


class _OverMembers(torch.autograd.Function):
    """Calls a function of all members' values from within a call that `vmap` makes for one of them.

    Only its rule for `vmap` is ever used. Derivatives are those of the operations in it.
    """

    @staticmethod
    def forward(values: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Only called for what is the same for all members."""
        del values, function
        raise ValueError(
            "a site in architecture.sites returned something in which no parameter or input plays a part"
        )

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Keep nothing."""

    @staticmethod
    def vmap(  # pyright: ignore[reportIncompatibleMethodOverride]
        info: Any, in_dims: tuple[int, None], values: Tensor, function: Callable[[Tensor], Tensor]
    ) -> tuple[Tensor, int]:
        """Return the function of the values of all members, their axis first."""
        del info
        return function(values.movedim(in_dims[0], 0)), 0
