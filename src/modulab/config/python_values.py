"""Settings as Python values, written as the overrides that a command line takes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from modulab.config.overrides import REPLACED
from modulab.errors import ConfigError

_PLAIN = re.compile(r"[A-Za-z_][\w./-]*")
_NOT_TEXT = ("true", "false", "null", "inf", "nan")
"""Words that Hydra's grammar reads as values of other types, in any case of letters."""


def overrides_of(given: str | Sequence[str] | Mapping[str, Any], settings: Mapping[str, Any]) -> list[str]:
    """Return overrides for the arguments of a call: one or several texts KEY=VALUE or a dictionary, and keywords.

    Dictionaries may be nested: `noise={"scale": 0.2}` is `noise.scale=0.2`.

    Raises: ConfigError if text is expected and something else is given, and for a value that no config can hold.
    """
    if isinstance(given, str):
        given = [given]
    if isinstance(given, Mapping):
        return [*_overrides(given), *_overrides(settings)]
    anything: Any = given
    for each in cast("Iterable[object]", anything) if isinstance(anything, Iterable) else [anything]:
        if not isinstance(each, str):
            raise ConfigError(
                f"{each!r}: an override is a text, as in 'noise.scale=0.2'. Settings as Python values are a "
                "dictionary, as in {'noise.scale': 0.2}."
            )
    return [*given, *_overrides(settings)]


def _overrides(settings: Mapping[str, Any]) -> list[str]:
    return [f"{key}={_written(value, key)}" for key, value in _leaves(settings)]


def _leaves(settings: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dotted key and the value of each leaf of nested dictionaries; a grid is a value."""
    for name, value in settings.items():
        key = f"{prefix}{name}"
        if isinstance(value, Mapping) and value and key.lstrip("+") not in REPLACED:
            yield from _leaves(cast("Mapping[Any, Any]", value), f"{key}.")
        else:
            yield key, value


def grid_override(grid: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> str:
    """Return the override that trains every point of a grid, or of several grids.

    Raises: ConfigError for an invalid grid, and for a value that no config can hold.
    """
    several = cast("list[Any]", [grid] if isinstance(grid, Mapping) else list(grid))
    if not several or not all(isinstance(each, Mapping) and each for each in several):
        raise ConfigError(
            f"{grid!r} is not a grid, which is a dictionary of lists, as in {{'noise.scale': [0, 0.1]}}, or a list of "
            "such dictionaries."
        )
    flat = [{key: value if _is_list(value) else [value] for key, value in _leaves(each)} for each in several]
    return f"population.grid={_written(flat[0] if len(flat) == 1 else flat, 'population.grid')}"


def _is_list(value: object) -> bool:
    return isinstance(value, list | tuple | range) or hasattr(value, "tolist")


def _written(value: Any, key: str) -> str:
    """Return a value in Hydra's grammar; arrays and numbers of NumPy and torch become lists and numbers."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if value is None:
        return "null"
    if isinstance(value, bool | int | float):
        return repr(value).lower()
    if isinstance(value, str | Path):
        return _text(str(value))
    if isinstance(value, list | tuple | range):
        return f"[{','.join(_written(each, key) for each in cast('Sequence[Any]', value))}]"
    if isinstance(value, Mapping):
        items = cast("Mapping[Any, Any]", value).items()
        return f"{{{','.join(f'{_text(str(name))}:{_written(each, key)}' for name, each in items)}}}"
    raise ConfigError(
        f"{key}: a setting is a number, a text, true or false, None, or a list or dictionary of these, not "
        f"{type(value).__name__}."
    )


def _text(text: str) -> str:
    """Return a text unchanged if it can only be read as text, otherwise in quotes."""
    if _PLAIN.fullmatch(text) and text.lower() not in _NOT_TEXT:
        return text
    from hydra.core.override_parser.types import Quote, QuotedString

    return QuotedString(text, Quote.single).with_quotes()
