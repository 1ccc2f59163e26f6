"""The contract of a measure: a function of a probe, with parameters, needs, cost, and labels for its values.

A config names a measure under `probes.measures`: a function or measure by its dotted path, or a class derived from
`Measure` with its parameters (`_target_` and fields). It must be pure, and draw random numbers only from streams folded
from `probe.keys`, so the values of a member do not depend on packing.
"""

from __future__ import annotations

import functools
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Float, Float64
from omegaconf import OmegaConf
from torch import Tensor

from modulab import measure_names
from modulab.config.composing import config_folder
from modulab.config.settings import Probes
from modulab.errors import ConfigError, ForeignError, foreign_code
from modulab.foreign import dotted_name, is_foreign, kind_of, wrong_result
from modulab.measure_names import Better, current_measure, stands_for
from modulab.metrics.probe import Probe
from modulab.networks.base import Network
from modulab.schema import Settings, find_function, read_settings, suggest_measure
from modulab.tasks.base import Task

Values = Mapping[str, Float[Tensor, " member"]]


@dataclass(frozen=True)
class Column:
    """The name and label of one of the values that a measure returns, or of a family of values.

    A part of the name in braces stands for any text, as in "error_under/poisson@{level}", and can be used in the label.
    `family` is the label of all values of a family together, whose name ends before the @.
    """

    name: str
    label: str
    family: str | None = None
    ends_at_one: bool = False
    """Whether 1 is the largest value, so an axis ends there."""

    @property
    def better(self) -> Better | None:
        """Return which way is better, which the first part of the name determines; None if neither is."""
        return measure_names.better(self.name)

    def describes(self, name: str) -> dict[str, str] | None:
        """Return the texts of the parts in braces if `name` is one of these values, else None."""
        pattern = re.sub(r"\\{(\w+)\\}", r"(?P<\1>.+)", re.escape(self.name))
        found = re.fullmatch(pattern, name)
        return None if found is None else found.groupdict()

    def matches(self, pattern: str) -> bool:
        """Return whether a name, or a pattern such as modularity/*, matches some of these values."""
        example = re.sub(r"\{\w+\}", "0", self.name)
        return self.describes(current_measure(pattern)) is not None or stands_for(pattern, example)

    def label_of(self, name: str) -> str | None:
        """Return the label of a value or family with this name; None for any other name."""
        parts = self.describes(name)
        if parts is not None:
            # Not str.format: braces of other text are text.
            words = {part: text.replace("_", " ") for part, text in parts.items()}
            return re.sub(r"\{(\w+)\}", lambda found: words.get(found[1], found[0]), self.label)
        return self.family if self.family is not None and name == self.name.partition("@")[0] else None


_NEEDS: dict[str, tuple[Callable[[Network, Task], bool], str]] = {
    "edges": (lambda network, _: bool(network.connections), "the network has no weighted connections"),
    "layers": (
        lambda network, _: network.is_layered,
        "the network is not a sequence of layers",
    ),
    "sites": (
        # A layered network without hidden layers has no units that could be noisy or silent, which is an answer.
        lambda network, _: bool(network.sites) or network.is_layered,
        "the network defines no sites where units are active",
    ),
    "gate": (lambda network, _: network.gate_name is not None, "the network has no gate"),
    "withheld": (lambda _, task: task.withholds, "the task withholds no combinations"),
    "logits": (lambda _, task: task.loss_function.takes_logits, "the task's outputs are values, not logits"),
    "input_modules": (
        lambda _, task: set(range(task.modules)) <= set(task.partition.inputs),
        "not every module of the task has inputs of its own",
    ),
    "output_modules": (
        lambda _, task: set(range(task.modules)) <= set(task.partition.outputs),
        "not every module of the task has outputs of its own",
    ),
    "ranges": (lambda _, task: task.ranges, "the task's inputs have no range to widen"),
}
"""The needs of measures, and the reason that is stated if a member lacks one."""


def unmet(needs: Sequence[str], network: Network, task: Task) -> str | None:
    """Return what a network or its task lacks of these needs, as a reason, or None if it lacks nothing."""
    if network.unmeasured is not None:
        return network.unmeasured
    return next((reason for name in needs for has, reason in [_NEEDS[name]] if not has(network, task)), None)


class Measure(Settings):
    """A measure with parameters. Derive a class from it, add fields, and return values by name from `take`."""

    @property
    def needs(self) -> tuple[str, ...]:
        """Return what a member must have, from: edges, layers, sites, gate, withheld, logits, input_modules,
        output_modules, ranges."""
        return ()

    @property
    def columns(self) -> tuple[Column, ...]:
        """Return names and labels of its values; a value that is not listed is labelled with its name."""
        return ()

    def seconds(self, probes: Probes) -> float:
        """Return the approximate time for a network, beyond the usual time for each evaluation point."""
        del probes
        return 0.0

    def check(self, where: str, probes: Probes) -> None:
        """Raise ConfigError if it cannot be computed with these probes or on this machine; `where` is its key."""

    def take(self, probe: Probe) -> Values:
        """Return one value per member for each name."""
        raise NotImplementedError

    @property
    def code(self) -> object:
        """Return the class or function that is called to take it."""
        return type(self)

    def lacking(self, network: Network, task: Task) -> str | None:
        """Return why members with this network and task cannot be measured, or None if they can."""
        return unmet(self.needs, network, task)

    def __call__(self, probe: Probe) -> Any:
        """Return one value per member for each name; an empty mapping for members that lack what it needs.

        User code may return anything else; `taking.take_measures` checks it.
        """
        return {} if self.lacking(probe.network.network, probe.task) else self.take(probe)


class FunctionMeasure(Measure):
    """A function as a measure, without parameters."""

    function: Callable[[Probe], Values]
    needed: tuple[str, ...] = ()
    described: tuple[Column, ...] = ()
    cost: Callable[[Probes], float] | None = None

    @property
    def needs(self) -> tuple[str, ...]:
        """Return the argument of the decorator."""
        return self.needed

    @property
    def columns(self) -> tuple[Column, ...]:
        """Return the argument of the decorator."""
        return self.described

    def seconds(self, probes: Probes) -> float:
        """Return the argument of the decorator."""
        return 0.0 if self.cost is None else self.cost(probes)

    @property
    def code(self) -> object:
        """Return the function."""
        return self.function

    def take(self, probe: Probe) -> Any:
        """Return the values of the function."""
        return self.function(probe)


def measure(
    *columns: Column, needs: tuple[str, ...] = (), seconds: Callable[[Probes], float] | None = None
) -> Callable[[Callable[[Probe], Values]], FunctionMeasure]:
    """Return a decorator that turns a function into a measure; see `Measure` for the arguments."""

    def decorate(function: Callable[[Probe], Values]) -> FunctionMeasure:
        return FunctionMeasure(function=function, needed=needs, described=columns, cost=seconds)

    return decorate


def named_values(values: object) -> Mapping[object, object]:
    """Return what a measure or an analysis gave as values by name. Raises: ForeignError if it is not a mapping."""
    if not isinstance(values, Mapping):
        raise wrong_result(f"it is {kind_of(values)}", "a dict from names to tensors of shape (member,)")
    return cast("Mapping[object, object]", values)


def value_per_member(name: str, value: object, members: int) -> Float64[Tensor, " member"]:
    """Return a value that a measure or an analysis gave: a tensor, an array or a list, of one number per member.

    Raises: ForeignError if it is something else.
    """
    given = value
    if isinstance(value, np.ndarray | list | tuple):
        with suppress(TypeError, ValueError, RuntimeError):  # numbers of unequal lengths, texts and the like
            given = torch.as_tensor(value)
    if not isinstance(given, Tensor) or given.shape != (members,) or given.is_complex():
        raise wrong_result(
            f"'{name}' is {kind_of(given)}, for {members} networks",
            "one real number per network, a tensor of shape (member,)",
        )
    return given.detach().to("cpu", torch.float64)


def find_measure(value: str | Mapping[str, Any], where: str) -> Measure:
    """Return the measure that a config names; `where` is its key.

    Raises: ConfigError if it names something that is not a measure, or parameters that it does not take.
    """
    found = find_function(value, where, Measure)
    if isinstance(found, type) and issubclass(found, Measure):
        return read_settings({"_target_": value}, where, Measure)
    return found if isinstance(found, Measure) else FunctionMeasure(function=found)


def find_measures(probes: Probes) -> dict[str, Measure]:
    """Return the measures that a member takes, by their keys under `probes.measures`.

    Raises: ConfigError for one that cannot be used.
    """
    found = {
        key: find_measure(value, f"probes.measures.{key}")
        for key, value in probes.measures.items()
        if value is not None
    }
    for key, each in found.items():
        where = f"probes.measures.{key}"
        check_facts(where, each.code, functools.partial(_facts, each, probes))
        each.check(where, probes)
    return found


def _facts(measure: Measure, probes: Probes) -> tuple[Any, Any, Any]:
    return measure.needs, measure.columns, measure.seconds(probes)


def check_facts(where: str, code: object, facts: Callable[[], tuple[Any, Any, Any]]) -> None:
    """Raise ConfigError if the needs, columns and seconds of a measure or analysis are not of the form they must be.

    `code` is its class or function, which is trusted if it is modulab's own, and `facts` returns the three.
    """
    if not is_foreign(code):
        return
    name = f"{where}: {dotted_name(code)}"
    try:
        with foreign_code():
            needs, columns, cost = facts()
            if isinstance(needs, str) or not set(needs) <= set(_NEEDS):
                raise ConfigError(
                    f"{name}.needs is {needs!r}. Return a tuple of names from {', '.join(_NEEDS)}."
                )
            if not all(isinstance(column, Column) for column in columns):
                raise ConfigError(
                    f"{name}.columns is {columns!r}. Return a tuple of modulab.metrics.measure.Column(name, label)."
                )
            if not isinstance(cost, int | float) or not 0 <= cost < math.inf:
                raise ConfigError(f"{name}.seconds returned {cost!r}. Return a number of seconds, 0 or more.")
    except ForeignError as error:
        raise ConfigError(
            f"{name} failed with {error} while it stated its needs, columns and seconds."
        ) from error


def curve_measures(probes: Probes) -> dict[str, str | dict[str, Any]]:
    """Return the measures that give `probes.curves` and `probes.sparse_curves`, as a config names them.

    They are sought among the member's measures and then among those that come with modulab. A measure that does not
    name its values is assumed to give every name that no other measure has.

    Raises: ConfigError for a name that none can give.
    """
    own = find_measures(probes)
    named = shipped_measures()
    silent = [key for key, each in own.items() if not each.columns]

    @functools.cache
    def shipped() -> dict[str, Measure]:
        # Importing all of them takes as long as training some networks.
        return {path: find_measure(value, path) for path, value in named.items()}

    chosen: dict[str, str | dict[str, Any]] = {}
    for key in ("curves", "sparse_curves"):
        for pattern in getattr(probes, key):
            givers = _givers(own, pattern) or silent or _givers(shipped(), pattern)
            if not givers:
                names = _names_of(own) + _names_of(shipped())
                raise ConfigError(
                    f"probes.{key}: no measure gives {pattern!r}. {suggest_measure(pattern, names)}"
                )
            chosen |= {giver: probes.measures.get(giver) or named[giver] for giver in givers}
    return chosen


def check_monitor(name: str, is_used: bool, probes: Probes) -> None:
    """Raise ConfigError if `training.monitor` names no curve, whether or not training depends on it.

    Where it does, a measure of `probes.curves` must give the curve; else any may that comes with modulab.
    """
    if name == "training/loss":
        return
    measures = find_measures(probes)
    if is_used:
        measures = {key: find_measure(value, key) for key, value in curve_measures(probes).items()}
    if any(not each.columns for each in measures.values()) or _givers(measures, name):
        return
    if not is_used:
        measures |= {path: find_measure(value, path) for path, value in shipped_measures().items()}
    if not _givers(measures, name):
        known = ["training/loss", *_names_of(measures)]
        raise ConfigError(
            f"training.monitor={name}: no measure gives a curve of this name. {suggest_measure(name, known)}"
        )


def check_objectives(names: Sequence[str], settings: Iterable[Probes]) -> None:
    """Raise ConfigError for a name of `sweep.objective` that no measure of any member can give.

    A measure that does not name its values is assumed to give every name.
    """
    given = [each for probes in settings for each in find_measures(probes).values()]
    if any(not each.columns for each in given):
        return
    columns = [column for each in given for column in each.columns]
    for name in names:
        if not any(column.describes(current_measure(name)) is not None for column in columns):
            raise ConfigError(
                f"sweep.objective={name}: there is no such measure. "
                f"{suggest_measure(name, [column.name for column in columns])}"
            )


def _names_of(measures: Mapping[str, Measure]) -> list[str]:
    return [column.name for each in measures.values() for column in each.columns]


def _givers(measures: Mapping[str, Measure], pattern: str) -> list[str]:
    return [key for key, each in measures.items() if any(column.matches(pattern) for column in each.columns)]


@functools.cache
def shipped_measures() -> dict[str, str | dict[str, Any]]:
    """Return the measures that come with modulab as shipped configs name them, by their dotted paths.

    Of a class that is taken with several parameters, the key of each follows: `path:key`.
    """
    named: dict[str, str | dict[str, Any]] = {}
    for file in sorted((config_folder() / "probes").glob("*.yaml")):
        content: Any = OmegaConf.to_container(OmegaConf.load(file))
        named |= {key: value for key, value in content.get("measures", {}).items() if value is not None}
    paths = {key: value["_target_"] if isinstance(value, dict) else value for key, value in named.items()}
    often = Counter(paths.values())
    found = {path if often[path] == 1 else f"{path}:{key}": named[key] for key, path in paths.items()}
    return dict(sorted(found.items()))


def skipped_measures(measures: Mapping[str, Measure], network: Network, task: Task) -> dict[str, str]:
    """Return why members of this network and task lack measures, by the measures' keys."""
    reasons = {key: each.lacking(network, task) for key, each in measures.items()}
    return {key: reason for key, reason in reasons.items() if reason is not None}
