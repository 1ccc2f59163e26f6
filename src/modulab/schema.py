"""Checked settings: what a user may write, with types, ranges, meanings, and errors that say how to fix them."""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Iterable, Mapping
from typing import Any, Self, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from modulab.errors import ConfigError, ForeignError, foreign_code
from modulab.foreign import own_draws_only
from modulab.text import say_once

LARGEST_COUNT = 2**31 - 1
"""The largest whole number that a setting may have, unless it is a seed."""


_MOST_SUGGESTED = 12
"""Number of names that a message lists; of more it lists the groups."""

_HASH = "_hash"
"""Where settings keep their hash, beside the values of their fields."""


class Settings(BaseModel):
    """A checked, immutable group of settings: unknown keys, wrong types and values out of range are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    @field_validator("*")
    @classmethod
    def _countable(cls, value: Any, info: Any) -> Any:
        # Steps, points and units are counted in 32 bits; seeds are keys, and have their own limits.
        if (
            isinstance(value, int)
            and abs(value) > LARGEST_COUNT
            and not str(info.field_name).endswith("seed")
        ):
            raise ValueError(f"{value}: the largest whole number here is {LARGEST_COUNT}.")
        return value

    def __hash__(self) -> int:
        # pydantic's own hash of a frozen model fails on fields that are lists. Kept, as populations of thousands ask
        # for those of a few groups again and again; pydantic compares fields alone.
        kept = vars(self)
        if _HASH not in kept:
            kept[_HASH] = hash((type(self), self.model_dump_json(serialize_as_any=True)))
        return kept[_HASH]

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Return a copy, with other values of some fields, which are not checked."""
        copied = super().model_copy(update=update, deep=deep)
        vars(copied).pop(_HASH, None)
        return copied

    def __getstate__(self) -> dict[Any, Any]:
        # Texts have other hashes in other processes.
        state = super().__getstate__()
        return state | {"__dict__": {key: value for key, value in state["__dict__"].items() if key != _HASH}}


SettingsType = TypeVar("SettingsType", bound=Settings)

STRUCTURAL: dict[str, Any] = {"structural": True}
"""Marks a field whose value all members of a population share: it sets tensor shapes or the compiled step."""


MOVED_CODE = {
    "modulab.training.forgetting.measure_forgetting": "modulab.metrics.forgetting.measure_forgetting",
}
"""Where code that a config may name lies now, by the dotted path that it had first. Part of every run_id: an entry
stays, and a path that moves again changes on the right."""


RENAMED_KEYS: dict[tuple[str, str], tuple[str, dict[bool, str]]] = {
    ("task", "mixing"): ("code", {False: "coordinate", True: "mixed"}),
}
"""Keys, as group and name, that were first called so, with the name that each has now and what their values became.
Part of every run_id: entries stay. The first value was the default."""


FIXED_COLUMNS = ("run_id", "status", "error", "seconds", "skipped", "engine", "device")
"""Columns of results beside settings, measures and versions; the last three are null where nothing was trained."""


def is_reserved(name: str) -> bool:
    """Return whether a column of results has this name, and is not a measure."""
    return name in FIXED_COLUMNS or name.startswith(("config.", "version."))


def is_renamed(key: str) -> bool:
    """Return whether a dotted key is one under its first name, and if so print what it is called now."""
    return current_name(key) != key


def current_name(key: str) -> str:
    """Return what a dotted key is called now; print it where that is not how it was given."""
    group, _, old = key.partition(".")
    if (group, old) not in RENAMED_KEYS:
        return key
    new, values = RENAMED_KEYS[group, old]
    meanings = " and ".join(f"{str(before).lower()} is {now}" for before, now in values.items())
    say_once(f"{key} is called {group}.{new} now, where {meanings}.")
    return f"{group}.{new}"


def suggest(word: str, known: Iterable[str]) -> str:
    """Return a sentence that names the closest known word or, where none is close, all of them.

    Upper and lower case do not matter.
    """
    candidates = sorted(set(known))
    by_lower = {each.lower(): each for each in reversed(candidates)}
    close = difflib.get_close_matches(word.lower(), by_lower, n=1, cutoff=0.6)
    if close:
        return f"Did you mean '{by_lower[close[0]]}'?"
    return f"Known: {', '.join(candidates)}." if candidates else ""


def suggest_key(key: str, known: Iterable[str]) -> str:
    """Return a sentence that names the known dotted keys closest to `key`: in its group, or by its ending."""
    known = sorted(set(known))
    groups = {name.split(".")[0] for name in known}
    group, _, _ = key.partition(".")
    if "." in key and group in groups:
        return suggest(key, [name for name in known if name.startswith(f"{group}.")])
    last = key.rsplit(".", 1)[-1]
    same_ending = [name for name in known if name.rsplit(".", 1)[-1] == last]
    if same_ending:
        return f"Did you mean {' or '.join(repr(name) for name in same_ending)}?"
    close = suggest(key, known)
    return close if close.startswith("Did") else suggest(group, groups)


def suggest_measure(name: str, names: Iterable[str]) -> str:
    """Return a sentence that names the closest measure or, where none is close, the first parts of all."""
    known = sorted(set(names))
    close = suggest(name, known)
    if close.startswith("Did") or len(known) <= _MOST_SUGGESTED:
        return close
    first = dict.fromkeys(each.partition("/")[0] for each in known)
    return suggest(name.partition("/")[0], first).replace("'?", "/*'?")


def import_target(path: object, key: str) -> Any:
    """Return the object that a dotted path names. Raises ConfigError where there is none; `key` says where it stood."""
    if not isinstance(path, str) or "." not in path:
        raise ConfigError(f"{key}={path!r} is not a dotted path. Write it as package.module.Name.")
    path = MOVED_CODE.get(path, path)
    module_name, _, attribute = path.rpartition(".")
    try:
        with foreign_code():
            try:
                module = importlib.import_module(module_name)
            except ImportError as error:
                raise ConfigError(
                    f"{key}={path}: cannot import '{module_name}' ({error}). "
                    "Check the spelling; your own module must be on PYTHONPATH or, for modulab train, in the "
                    "current folder."
                ) from error
    except ForeignError as error:
        raise ConfigError(
            f"{key}={path}: importing '{module_name}' failed with {error}. "
            f"Run python -c 'import {module_name}' to see where."
        ) from error
    if not hasattr(module, attribute):
        public = [name for name in vars(module) if not name.startswith("_")]
        raise ConfigError(f"{key}={path}: '{module_name}' has no '{attribute}'. {suggest(attribute, public)}")
    return getattr(module, attribute)


def read_settings(node: object, path: str, expected: type[SettingsType]) -> SettingsType:
    """Return checked settings from one group of a config.

    A group with a `_target_` is read by the class that it names, which must derive from `expected`.

    Raises: ConfigError, which names every wrong key of the group with its path.
    """
    if not isinstance(node, Mapping):
        raise ConfigError(
            f"{path}={node!r} should be a group of settings. "
            f"Choose one with {path}=NAME, a file in configs/{path}/, or set its keys as {path}.KEY=VALUE."
        )
    values = {str(key): value for key, value in node.items()}
    schema: type[SettingsType] = expected
    if "_target_" in values:
        target = import_target(values.pop("_target_"), f"{path}._target_")
        if not (isinstance(target, type) and issubclass(target, expected)):
            raise ConfigError(
                f"{path}._target_ must name a class derived from {expected.__module__}.{expected.__name__}."
            )
        schema = target
    if inspect.isabstract(schema):
        raise ConfigError(
            f"{path}._target_: a value is missing. It names the class of {path}, derived from "
            f"{expected.__module__}.{expected.__name__}. Choose a file of configs/{path}/ with {path}=NAME."
        )
    try:
        with foreign_code(), own_draws_only(schema):
            return _validated(schema, values, path)
    except ForeignError as error:
        raise ConfigError(
            f"{path}: {schema.__module__}.{schema.__name__} failed with {error} while it checked its settings. "
            "Fix the class, or choose other settings."
        ) from error


def find_function(value: str | Mapping[str, Any], where: str, expected: type[Settings]) -> Any:
    """Return what a config names in place of a function: by its dotted path, or by a `_target_` with its fields.

    Raises: ConfigError if it cannot be called, cannot be found, or has other fields; or where a `_target_` is no
    class derived from `expected`.
    """
    found = (
        read_settings(value, where, expected) if isinstance(value, Mapping) else import_target(value, where)
    )
    if not callable(found):
        raise ConfigError(f"{where}={value} is not a function. Name one that takes a Probe.")
    return found


def _validated(schema: type[SettingsType], values: dict[str, Any], path: str) -> SettingsType:
    try:
        return schema.model_validate(values)
    except ValidationError as error:
        raise ConfigError("\n".join(_sentences(error, path, schema))) from None


def _sentences(error: ValidationError, path: str, schema: type[BaseModel]) -> list[str]:
    sentences: list[str] = []
    for problem in error.errors():
        location = ".".join([*([path] if path else []), *(str(part) for part in problem["loc"])])
        name = str(problem["loc"][-1]) if problem["loc"] else ""
        match problem["type"]:
            case "extra_forbidden":
                hint = suggest(name, schema.model_fields)
                sentences.append(f"{location}: there is no such key. {hint}")
            case "missing":
                sentences.append(f"{location}: a value is missing. {_meaning(schema, name)}")
            case "value_error":
                reason = str(problem.get("ctx", {}).get("error"))
                sentences.append(reason if reason.startswith(location) else f"{location}: {reason}")
            case _:
                sentences.append(
                    f"{location}={problem['input']!r}: {problem['msg']}. {_meaning(schema, name)}"
                )
    return [sentence.rstrip() for sentence in sentences]


def _meaning(schema: type[BaseModel], name: str) -> str:
    field = schema.model_fields.get(name)
    return f"It means: {field.description}." if field is not None and field.description else ""
