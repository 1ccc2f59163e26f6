"""The settings that all networks of a report share, with their meanings: those that differ from the defaults first."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pandas as pd

from modulab.config.composing import config_folder
from modulab.config.described import (
    NOTHING,
    Key,
    default_option,
    group_names,
    option_files,
    option_keys,
    read_option,
    written,
)
from modulab.report.page import PageTable, Section
from modulab.report.style import arm_text
from modulab.results.summary import choose_settings

_CLASS = "_target_"
_CLASS_MEANING = "class or function that this part of the config constructs"


@dataclass(frozen=True)
class _Setting:
    """The default of a setting, as text, and what it means; both empty if they are unknown."""

    default: str = ""
    meaning: str = ""


def shared_settings(results: pd.DataFrame) -> Section:
    """Return the settings that all networks share, as two tables that can be searched.

    The defaults are those of the options of modulab's own config groups that the networks name.
    """
    varied = {"config.seed", *choose_settings(results, None)}
    known = _known(results)
    changed: list[list[str]] = []
    unchanged: list[list[str]] = []
    for column in (str(name) for name in results if str(name).startswith("config.")):
        values = list(
            dict.fromkeys(_value_text(value) for value in results[column].drop_duplicates().tolist())
        )
        if column in varied or len(values) != 1:
            continue
        key = column.removeprefix("config.")
        setting = known.get(key, _Setting())
        if setting.default == values[0]:
            unchanged.append([key, values[0], setting.meaning])
        else:
            changed.append([key, values[0], setting.default or "-", setting.meaning])
    tables = [PageTable(("setting", "value", "default", "meaning"), changed)] if changed else []
    words = [] if changed else ["All of them have their defaults."]
    others = PageTable(
        ("setting", "default value", "meaning"),
        unchanged,
        on_paper="modulab train --help lists them, with their meanings.",
    )
    title = f"{len(unchanged)} settings with their default value"
    return Section(
        "Settings" if len(results) == 1 else "Settings that all networks share",
        words,
        tables=tables,
        sections=[Section(title, tables=[others], folded=True)] if unchanged else [],
    )


def _known(results: pd.DataFrame) -> dict[str, _Setting]:
    """Return what modulab's own configs say of each key; keys of options that no network names come last."""
    places = [config_folder()]
    found: dict[str, _Setting] = {}
    for group in group_names(places):
        files = option_files(group, places)
        column = f"config.{group}.name"
        names = set(results[column].dropna().tolist()) if column in results else set[object]()
        for option in sorted(files, key=lambda each: _rank(each, group, files, names)):
            keys = option_keys(group, files[option])
            for key, setting in _flat(group, keys, read_option(files[option])):
                found.setdefault(key, setting)
    return found


def _rank(option: str, group: str, files: Mapping[str, Path], names: set[object]) -> tuple[int, str]:
    """Return the place of an option: the default one first if networks have its name, then those that they name."""
    default = option == default_option(group)
    named = read_option(files[option]).get("name") in names if default else option in names
    return (0 if default and (named or not names) else 1 if named else 2, option)


def _flat(group: str, keys: Sequence[Key], values: Mapping[str, Any]) -> Iterator[tuple[str, _Setting]]:
    """Yield the columns of results that belong to the keys of an option: mappings have one for each entry."""
    meanings = {key.name: key.meaning for key in keys}
    defaults = {key.name: key.default for key in keys}
    waiting: list[tuple[str, Any, str]] = [(f"{group}.{name}", value, "") for name, value in values.items()]
    waiting += [(name, default, "") for name, default in defaults.items()]
    while waiting:
        name, value, above = waiting.pop(0)
        meaning = meanings.get(name, above)
        if isinstance(value, dict):
            # What is said of a mapping is true of its entries, but not of the parameters that they have.
            entries = cast("dict[str, Any]", value)
            waiting += [(f"{name}.{inner}", each, meanings.get(name, "")) for inner, each in entries.items()]
        elif name.endswith(f".{_CLASS}"):
            yield name, _Setting(str(value), _CLASS_MEANING)
        else:
            yield name, _Setting(_default_text(value), meaning)


def _default_text(value: Any) -> str:
    """Return a default as `_value_text` writes the same value of a network; empty for one that others determine."""
    if value is NOTHING or (isinstance(value, str) and ("${" in value or value == "???")):
        return ""
    if isinstance(value, list):
        return _value_text(json.dumps(value))
    try:
        return _value_text(float(value) if isinstance(value, str) else value)  # YAML reads 3e-3 as a text
    except ValueError:
        return _value_text(value)


def _value_text(value: object) -> str:
    """Return a value of a setting as it is written on a command line: numbers short, and null where it has none."""
    if isinstance(value, bool) or value is None:
        return written(value)
    if isinstance(value, int):
        return f"{value:g}" if abs(value) < 1e6 else str(value)
    text = arm_text(value)
    return "null" if text == "-" else text
