"""The search space: the swept keys of a command, as Optuna's distributions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, QuotedString, RangeSweep
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from modulab.errors import ConfigError
from modulab.sweep.values import sweep_values

Value = bool | int | float | str | None
"""The types of values that Optuna draws and stores."""


@dataclass(frozen=True)
class Dimension:
    """A swept key: what Optuna draws for it, and how what is drawn is written in an override."""

    key: str
    distribution: BaseDistribution
    written: Mapping[Value, str] = field(default_factory=dict[Value, str])
    """Every value as it is written, where they can be enumerated."""

    def exact(self, drawn: Value) -> Value:
        """Return the value meant by a draw: of a range of floats, the decimal nearest to it."""
        if isinstance(self.distribution, FloatDistribution) and self.written:
            near = float(drawn or 0)
            return min(self.written, key=lambda value: abs(float(value or 0) - near))
        return drawn

    def override(self, drawn: Value) -> str:
        """Return the override that sets the key to what was drawn."""
        value = self.exact(drawn)
        return f"{self.key}={self.written.get(value, repr(value))}"


def split_search(overrides: Sequence[Override]) -> tuple[list[Dimension], list[str]]:
    """Return the dimensions of a search, and the overrides that all of its trials share.

    A key that is given twice has its last values. Raises: ConfigError for values that cannot be drawn from, and
    where nothing is swept.
    """
    last = {override.get_key_element(): override for override in overrides}
    dimensions = [dimension_of(override) for override in last.values() if override.is_sweep_override()]
    if not dimensions:
        raise ConfigError(
            "hydra/sweeper: there is nothing to search. Give ranges or values, as in "
            "'noise.scale=interval(0,1)' or 'architecture=dense,premodular'."
        )
    fixed = [
        f"{key}={sweep_values(override)[0]}"
        for key, override in last.items()
        if not override.is_sweep_override()
    ]
    return dimensions, fixed


def dimension_of(override: Override) -> Dimension:
    """Return the dimension that a sweep stands for. Raises: ConfigError if it cannot be drawn from.

    An interval holds both of its ends, as Hydra and Optuna have it; a range excludes its end. `tag(log, ...)` draws
    the logarithm evenly.
    """
    line = override.input_line or override.get_key_element()
    key = override.get_key_element()
    value: Any = override.value()
    tags: set[str] = set(getattr(value, "tags", ()))
    if unknown := sorted(str(tag) for tag in tags - {"log"}):
        raise ConfigError(
            f"{line}: a search knows no tag {', '.join(unknown)}. Use tag(log, interval(1e-4,1))."
        )
    log = "log" in tags
    if isinstance(value, IntervalSweep):
        return Dimension(key, _interval(value.start, value.end, log, line))
    written = sweep_values(override)
    if isinstance(value, RangeSweep):
        numbers: dict[Value, str] = {float(each): each for each in written}
        return Dimension(key, _range(sorted({Fraction(each) for each in written}), log, line), numbers)
    if log:
        raise ConfigError(f"{line}: tag(log, ...) takes an interval or a range of whole numbers.")
    parser = OverridesParser.create()
    labels: dict[Value, str] = {
        _plain(parser.parse_override(f"_={text}").value(), text): text for text in written
    }
    if len(labels) < len(set(written)):  # true and 1 are equal
        labels = dict(zip(written, written, strict=True))
    return Dimension(key, CategoricalDistribution(list(labels)), labels)


def _plain(value: object, written: str) -> Value:
    """Return a choice as Optuna stores it: numbers and names as they are, all else as it is written."""
    if isinstance(value, QuotedString):
        return value.text
    return value if isinstance(value, bool | int | float | str) or value is None else written


def _interval(start: object, end: object, log: bool, line: str) -> BaseDistribution:
    assert isinstance(start, int | float)
    assert isinstance(end, int | float)
    if not (math.isfinite(start) and math.isfinite(end) and start <= end and not (log and start <= 0)):
        raise ConfigError(
            f"{line}: give an interval of finite numbers, the smaller one first{', above 0' if log else ''}."
        )
    if isinstance(start, int) and isinstance(end, int):
        return IntDistribution(start, end, log=log)
    return FloatDistribution(start, end, log=log)


def _range(values: Sequence[Fraction], log: bool, line: str) -> BaseDistribution:
    low, high = values[0], values[-1]
    step = (high - low) / (len(values) - 1) if len(values) > 1 else Fraction(1)
    whole = low.denominator == step.denominator == 1
    if log and not (whole and step == 1 and low >= 1):
        raise ConfigError(
            f"{line}: tag(log, range(...)) takes whole numbers above 0, in steps of 1. Use tag(log, interval(1e-4,1))."
        )
    if whole:
        return IntDistribution(int(low), int(high), log=log, step=int(step))
    return FloatDistribution(float(low), float(high), step=float(step))
