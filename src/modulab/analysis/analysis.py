"""The contract of an analysis: a function of trained networks, with parameters, needs, cost, and labels of values.

A config names an analysis by `_target_`, a class derived from `Analysis`, with its parameters. It must be pure, and
draw random numbers only from streams folded from `trained.probe.keys`, so the values of a member do not depend on
which others are analysed. A measure (`metrics/measure.py`) can also be used as an analysis.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float64
from torch import Tensor

from modulab.config.settings import Member
from modulab.errors import ConfigError, ForeignError
from modulab.foreign import own_draws_only
from modulab.metrics.measure import (
    Column,
    Measure,
    Values,
    check_facts,
    find_measure,
    named_values,
    unmet,
    value_per_member,
)
from modulab.metrics.probe import Probe
from modulab.networks.base import Network
from modulab.schema import Settings, import_target, is_reserved, read_settings


@dataclass(frozen=True)
class Trained:
    """A block of trained networks that share a structure and a task."""

    members: tuple[Member, ...]
    """The settings of the networks."""
    probe: Probe
    """The networks, and the points at which they were measured after training."""


class Analysis(Settings):
    """An analysis with parameters. Derive a class from it, add fields, and return values by name from `take`."""

    @property
    def needs(self) -> tuple[str, ...]:
        """Return what a member must have, as `Measure.needs` does."""
        return ()

    @property
    def columns(self) -> tuple[Column, ...]:
        """Return names and labels of the values that `take` returns."""
        return ()

    def lacking(self, network: Network, member: Member) -> str | None:
        """Return why a member with this network cannot be analysed, or None if it can."""
        return unmet(self.needs, network, member.task)

    def seconds(self, network: Network, member: Member) -> float:
        """Return the approximate time for a network."""
        del network, member
        return 0.0

    def take(self, trained: Trained) -> Values:
        """Return one value per member for each name."""
        raise NotImplementedError

    @property
    def code(self) -> object:
        """Return the class or function that is called to take it."""
        return type(self)

    def column_name(self, key: str, name: str) -> str:
        """Return the column of results for a value, if the analysis is called `key`."""
        return f"{key}/{name}"


class MeasureAnalysis(Analysis):
    """A measure taken of networks that were trained without it, under the names that it has as a measure."""

    measure: Measure

    @property
    def needs(self) -> tuple[str, ...]:
        """Return what the measure needs."""
        return self.measure.needs

    @property
    def columns(self) -> tuple[Column, ...]:
        """Return the words for the measure's values."""
        return self.measure.columns

    def lacking(self, network: Network, member: Member) -> str | None:
        """Return why the measure cannot be taken."""
        return self.measure.lacking(network, member.task)

    def seconds(self, network: Network, member: Member) -> float:
        """Return the measure's own estimate."""
        del network
        return self.measure.seconds(member.probes)

    def take(self, trained: Trained) -> Values:
        """Return what the measure finds."""
        return self.measure(trained.probe)

    @property
    def code(self) -> object:
        """Return the measure's."""
        return self.measure.code

    def column_name(self, key: str, name: str) -> str:
        """Return the name that the measure gives."""
        del key
        return name


def find_analysis(value: str | Mapping[str, Any], where: str) -> Analysis:
    """Return the analysis that a config names: a class, or a function or class of a measure; `where` is its key.

    Raises: ConfigError if it names something else, or parameters that it does not take.
    """
    node: Mapping[str, Any] = {"_target_": value} if isinstance(value, str) else value
    if "_target_" not in node:
        raise ConfigError(
            f"{where}._target_: a value is missing. It names a class derived from modulab.analysis.analysis.Analysis."
        )
    found = import_target(node["_target_"], f"{where}._target_")
    if isinstance(found, type) and issubclass(found, Analysis):
        analysis = read_settings(node, where, Analysis)
        check_facts(where, analysis.code, lambda: (analysis.needs, analysis.columns, 0.0))
        return analysis
    if isinstance(found, type) and not issubclass(found, Measure):
        raise ConfigError(
            f"{where}._target_={node['_target_']}: it is not an analysis. Name a class derived from "
            "modulab.analysis.analysis.Analysis, or a measure."
        )
    measure = find_measure(node if len(node) > 1 else node["_target_"], where)
    check_facts(where, measure.code, lambda: (measure.needs, measure.columns, 0.0))
    return MeasureAnalysis(measure=measure)


def take_checked(analysis: Analysis, key: str, trained: Trained) -> dict[str, Float64[Tensor, " member"]]:
    """Return what an analysis finds by the columns that it stands in, checked: one value per member.

    Raises: ForeignError if an analysis returns something else, or draws from a global random generator.
    """
    members = len(trained.members)
    with torch.no_grad(), own_draws_only(analysis.code):
        values: Any = analysis.take(trained)
    found: dict[str, Tensor] = {}
    for name, value in named_values(values).items():
        column = analysis.column_name(key, str(name))
        if not isinstance(name, str) or not name or is_reserved(column):
            raise ForeignError(f"a wrong name: {name!r} cannot be that of a value. Rename it, as in 'rise'.")
        found[column] = value_per_member(name, value, members)
    return found
