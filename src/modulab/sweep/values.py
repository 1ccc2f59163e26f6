"""The values of a sweep, as `choice`, `range`, `sort`, `shuffle`, `glob` and `tag` in overrides give them.

Hydra reads the grammar. Its own `range` adds floats, so 0.1 + 0.1 + 0.1 is not 0.3, and its `sort` reverses
a range by its bounds instead of its values. Here a range is expanded in place, in exact decimals.
"""

# No postponed annotations here: Hydra checks arguments of its functions against their annotations.
import itertools
import math
import random
from collections.abc import Sequence
from fractions import Fraction
from typing import Any, cast

from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import (
    ChoiceSweep,
    Glob,
    IntervalSweep,
    Override,
    Quote,
    QuotedString,
    RangeSweep,
    Sweep,
    Transformer,
)
from hydra.errors import HydraException

from modulab.config.hydra_private import parser_with, quoted_value
from modulab.errors import ConfigError
from modulab.memory import check_plan
from modulab.schema import suggest

MAX_JOBS = 1_000_000


def expand_jobs(overrides: Sequence[Override]) -> list[list[str]]:
    """Return the overrides of every job of a sweep: the product of all values, of which the last vary fastest.

    A key that is given twice has its last values. Raises: ConfigError for a sweep without values, with too many,
    or of a kind that has no values to enumerate.
    """
    lists: dict[str, list[str]] = {}
    for override in overrides:
        key = override.get_key_element()
        lists[key] = [f"{key}={value}" for value in sweep_values(override)]
    count = math.prod(len(each) for each in lists.values())
    if count > MAX_JOBS:
        raise ConfigError(f"This sweep has {count:,} jobs, more than {MAX_JOBS:,}. Give fewer values.")
    check_plan(count, "This sweep")
    return [list(job) for job in itertools.product(*lists.values())]


def sweep_values(override: Override) -> list[str]:
    """Return every value of an override, written as Hydra reads it; one if the override is no sweep.

    Raises: ConfigError if there is none, or if values cannot be enumerated.
    """
    line = override.input_line or override.get_key_element()
    parser = parser_with({"range": _range, "shuffle": _shuffle})
    value: Any = None
    try:
        if override.is_sweep_override():
            value = parser.parse_override(line).value()
    except HydraException as error:
        raise ConfigError(f"{line}: {error.__cause__ or error}") from error
    if isinstance(value, Glob):
        return _matching(value, override)
    if isinstance(value, IntervalSweep):
        raise ConfigError(
            f"{line}: an interval has no values to enumerate. Give values, as in choice(0,0.1) or range(0,1,0.1), "
            "or a sweeper that searches, as hydra/sweeper=optuna."
        )
    try:
        elements = _elements(value, override)
    except ConfigError as error:
        raise ConfigError(f"{line}: {error}") from error
    if not elements:
        raise ConfigError(f"{line}: this sweep has no values. A range excludes its end.")
    try:
        return [_written(each, parser) for each in elements]
    except ConfigError as error:
        raise ConfigError(f"{line}: {error}") from error


def _elements(value: Any, override: Override) -> list[Any]:
    if not isinstance(value, ChoiceSweep | RangeSweep):
        return [quoted_value(override)]
    # A range of Hydra's own, where its functions cannot be replaced, has its bounds and no values.
    range_ = _range(value.start, value.stop, value.step) if isinstance(value, RangeSweep) else value
    values: list[Any] = range_.list
    return _shuffled(values) if value.shuffle else values


def _range(start: Any, stop: Any = None, step: Any = 1) -> ChoiceSweep:
    """Return a range's values: start + i * step up to but without `stop`, where floats are the decimals written."""
    if stop is None:
        start, stop = 0, start
    given = (start, stop, step)
    if not all(math.isfinite(each) for each in given) or step == 0:
        raise ConfigError("the bounds of a range are finite, and its step is not 0.")
    whole = all(isinstance(each, int) for each in given)
    first, end, by = (Fraction(each) if isinstance(each, int) else Fraction(repr(each)) for each in given)
    count = max(0, math.ceil((end - first) / by))
    if count > MAX_JOBS:
        raise ConfigError(f"this range has {count:,} values, more than {MAX_JOBS:,}.")
    values = [first + place * by for place in range(count)]
    return ChoiceSweep(list=[int(value) if whole else float(value) for value in values])


def _shuffle(*args: Any, **named: Any) -> Any:
    """Return a sweep or list in an order that depends on its values alone, so the same command continues."""
    given = [*args, *named.values()]
    if len(given) > 1:
        return ChoiceSweep(list=_shuffled(given), simple_form=True)
    [only] = given
    if isinstance(only, ChoiceSweep):
        return ChoiceSweep(list=_shuffled(cast("list[Any]", only.list)), tags=only.tags)
    return _shuffled(cast("list[Any]", only)) if isinstance(only, list) else [only]


def _shuffled(values: Sequence[Any]) -> list[Any]:
    return random.Random(repr(values)).sample(values, len(values))


def _matching(glob: Glob, override: Override) -> list[str]:
    group = override.key_or_group
    loader = override.config_loader
    known = loader.get_group_options(group, results_filter=ObjectType.CONFIG) if loader is not None else []
    if not known:
        raise ConfigError(f"{override.input_line}: glob takes files of a config group, which {group} is not.")
    found = glob.filter(known)
    if not found:
        raise ConfigError(
            f"{override.input_line}: no file of configs/{group}/ matches. "
            f"{suggest(' '.join(glob.include), known)} Those of folders below it are named one by one, with commas."
        )
    return found


def _written(value: Any, parser: OverridesParser) -> str:
    """Return a value as Hydra reads it."""
    return Transformer.str(_quoted(value, parser))


def _quoted(value: Any, parser: OverridesParser) -> Any:
    """Return a value in which text that would be read as something else, such as `str(1)`, is quoted."""
    if isinstance(value, Sweep | Glob):
        raise ConfigError("a sweep cannot stand inside a list, a dictionary or another sweep.")
    if isinstance(value, list):
        return [_quoted(each, parser) for each in cast("list[Any]", value)]
    if isinstance(value, dict):
        return {key: _quoted(each, parser) for key, each in cast("dict[Any, Any]", value).items()}
    if not isinstance(value, str):
        return value
    try:
        same = parser.parse_rule(Transformer.str(value), "primitive") == value
    except HydraException:
        same = False
    return value if same else QuotedString(value, Quote.single)
