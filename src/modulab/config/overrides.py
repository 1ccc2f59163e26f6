"""Overrides on the command line: how they are read, and messages for wrong ones."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import re
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn, cast, get_type_hints

from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from modulab.config.hydra_private import arguments_parser, group_options, hydra_schema
from modulab.config.omegaconf_words import words_for
from modulab.errors import ConfigError
from modulab.schema import is_renamed, suggest, suggest_key

if TYPE_CHECKING:
    from omegaconf import DictConfig
else:
    # Annotations are checked in tests, with a warning of the deprecated generics that DictConfig derives from.
    DictConfig = object

Compose = Callable[[Sequence[str]], DictConfig]
"""Composes a config from overrides, as on the command line."""

GROUPS = ("task", "architecture", "noise", "regulariser", "data", "training", "probes")
"""The config groups that describe a member."""

COMPOSING_ERRORS = (Exception,)
"""Errors raised for a mistake in an override or a file, of any type. `explain` describes them in words."""

READING_ERRORS = (HydraException, OmegaConfBaseException, YAMLError)
"""Errors that only composing raises, also after jobs have begun."""

_FOLDER_WORDS = ("dir", "folder", "out", "output", "output_dir", "path")
"""Words that users try in place of the key of the folder."""

_REPEATABLE = ("--config-dir", "--multirun")
"""Options that may be given several times."""


_SENTENCES = (
    (r"Additional config directory '([^']+)' not found", "--config-dir {0}: there is no such folder."),
    (
        r"Primary config module '.+' not found",
        "--config-path: modulab has its own folder of configs. Name additional folders with --config-dir FOLDER.",
    ),
    (
        r"Could not append to config. An item is already at '([^']+)'",
        "{0} exists already. Set it with {0}=VALUE, without +.",
    ),
    (
        r"Ambiguous value for argument '(logger)=(.+)'",
        "{0}={1}: several loggers are a list, as in '{0}=[{1}]'.",
    ),
    (
        r"(?:Sweep parameters|Ambiguous value for argument) '(.+)'",
        "{0} is a sweep. Add -m, or give the values to population.grid.",
    ),
    (
        r"'utf-8' codec can't decode .+: (.+)",
        "{overrides}: a config file is not UTF-8 text ({0}). Save it as UTF-8.",
    ),
    (r"Could not delete '([^']+)'", "~{0}: there is no such group to remove."),
    (
        r"Config group override must be a string or a list|argument of type '\w+' is not (?:iterable|a container)",
        "{overrides}: a group takes the name of a file, as in noise=none. modulab train --help lists them.",
    ),
)
"""Patterns of Hydra's messages, and the messages that replace them."""


def split_words(given: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return a command line's options with their values, and its overrides, in any order.

    Hydra itself takes overrides before or after all options, not on both sides.

    Raises: ConfigError for options that are unknown or given twice, or whose values are missing or wrong.
    """

    parser = arguments_parser()

    def refuse(message: str) -> NoReturn:
        keys = ""
        if message.startswith("unrecognized"):
            keys = " Keys are set without dashes, as in seed=1 or, to train nothing, sweep.dry_run=true."
            unknown = message.partition(": ")[2].split()[0]
            keys += f" {_meant_by_option(unknown, given, re.findall(r'--[a-z-]+', parser.format_usage()))}"
        raise ConfigError(f"{message}.{keys.rstrip()} See modulab train --help.")

    parser.error = refuse
    # Separate objects, which the parser passes on, because the value of an option may look like an override.
    words = [_Word(word) for word in given]
    overrides: list[str] = parser.parse_intermixed_args(words).overrides
    taken = {id(override) for override in overrides}
    options = [str(word) for word in words if id(word) not in taken]
    names = [word.partition("=")[0] for word in options if word.startswith("--")]
    twice = next((name for name in names if names.count(name) > 1 and name not in _REPEATABLE), None)
    if twice is not None:
        raise ConfigError(f"{twice} is given twice. Give it once.")
    return options, [str(override) for override in overrides]


def _meant_by_option(unknown: str, given: Sequence[str], known: Sequence[str]) -> str:
    """Return a sentence that says what an unknown option was meant for; empty if nothing is near."""
    name, equals, value = unknown.partition("=")
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.8)
    if close:
        return f"Did you mean {close[0]}?"
    return _meant(name.lstrip("-"), value if equals else _word_after(unknown, given))


def _word_after(word: str, given: Sequence[str]) -> str:
    """Return the word after one of a command where it can be the value of a setting, else VALUE."""
    place = given.index(word) + 1 if word in given else len(given)
    after = given[place] if place < len(given) else ""
    return after if re.fullmatch(r"[\w.-]+", after) and not after.startswith("--") else "VALUE"


def _meant(word: str, value: str) -> str:
    """Return a sentence with the setting that a word was meant for, with a value; empty if nothing is near."""
    from modulab.config.composing import config_folder
    from modulab.config.described import families, group_names, option_files

    places = [config_folder()]
    groups = group_names(places)
    owners = [group for group in groups if word in option_files(group, places)]
    if owners:
        return f"Did you mean {' or '.join(f'{group}={word}' for group in owners)}?"
    if word in groups:
        return f"It is a group: {word}=NAME, of modulab list {word}."
    keys = {key.name for group in groups for family in families(group, places) for key in family.keys}
    if word in {"seed", *keys}:
        return f"Did you mean {word}={value}?"
    hint = suggest_key(word, {"seed", *keys})
    return hint if hint.startswith("Did") and "." in hint else ""


class _Word(str):
    __slots__ = ()


def check_given_once(overrides: Iterable[str]) -> None:
    """Raise ConfigError for a key or group that is given twice, of which Hydra silently takes the last value.

    One that is removed, as in `~KEY +KEY=VALUE`, may be given as well. A key must not be empty, nor a folder: results
    would go to the current one.
    """
    given: dict[str, str] = {}
    for override in overrides:
        key = override.partition("=")[0].lstrip("+")
        if not key:
            raise ConfigError(f"{override!r}: a setting is KEY=VALUE, as in seed=1, without spaces around =.")
        if override in ("hydra.run.dir=", "hydra.sweep.dir="):
            raise ConfigError(f"{override} names no folder. Give one, as in {override}outputs/mine.")
        if key in given:
            several = " Several loggers are a list, as in 'logger=[csv,wandb]'." if key == "logger" else ""
            raise ConfigError(f"{key} is given twice: {given[key]} and {override}. Give it once.{several}")
        given[key] = override


def override_key(override: str) -> str:
    """Return the key or group that an override sets."""
    return override.split("=", 1)[0].lstrip("+~").split("@", 1)[0]


_LEAF = re.compile(r"seed|\w+(\.\w+)+")
_WHOLE_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)")
_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")


def plain_leaf(override: str) -> tuple[str, Any] | None:
    """Return the key and value of an override that sets one leaf of a member to a plain value, else None.

    Everything else is left to Hydra: choices, additions, deletions, interpolations and nested values.
    """
    key, _, text = override.partition("=")
    if not _LEAF.fullmatch(key) or key.split(".")[0] not in ("seed", *GROUPS):
        return None
    # Hydra's parser takes a millisecond for each, and large sweeps have as many numbers as members.
    if _WHOLE_NUMBER.fullmatch(text):
        return key, int(text)
    return (key, float(text)) if _NUMBER.fullmatch(text) else _parsed_leaf(override, key)


@functools.cache
def _parsed_leaf(override: str, key: str) -> tuple[str, Any] | None:
    try:
        parsed = OverridesParser.create().parse_override(override)
    except HydraException:
        return None
    if parsed.is_sweep_override():
        return None
    value: Any = parsed.value()
    values: list[Any] = cast("list[Any]", value) if isinstance(value, list) else [value]
    plain = all(each is None or isinstance(each, int | float | str) for each in values)
    interpolates = any(isinstance(each, str) and "${" in each for each in values)
    return (key, value) if plain and not interpolates else None


REPLACED = ("population.grid", "population.sobol.axes")
"""Keys of dictionaries that an override replaces as a whole; Hydra would join it to the configs' own."""


def replace_grid(overrides: Iterable[str]) -> list[str]:
    """Return overrides in which `population.grid=...` or axes replace those of the configs, instead of joining them.

    Keys under their first names, which configs no longer have, are added to them.
    """
    replaced: list[str] = []
    for override in overrides:
        key, _, value = override.partition("=")
        if key in REPLACED:
            replaced += [f"~{key}", f"+{key}={value}"]
        elif is_renamed(override_key(override)) and not override.startswith(("+", "~")):
            replaced.append(f"++{override}")
        else:
            replaced.append(override)
    return replaced


def restore_grid(overrides: Iterable[str]) -> list[str]:
    """Return overrides as they were written, given those that `replace_grid` returned."""
    removed, added = [f"~{key}" for key in REPLACED], tuple(f"+{key}=" for key in REPLACED)
    return [
        override.lstrip("+") if override.startswith(added) or is_renamed(override_key(override)) else override
        for override in overrides
        if override not in removed
    ]


def leaf_keys(node: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Return the dotted keys of a nested dict's leaves; lists and empty dicts are leaves."""
    found: list[str] = []
    for key, value in node.items():
        if isinstance(value, dict) and value:
            found += leaf_keys(cast("dict[str, Any]", value), f"{prefix}{key}.")
        else:
            found.append(f"{prefix}{key}")
    return found


_UNKNOWN_KEY = re.compile(r"Could not (?:override|delete from config\.) '([^']+)'")


def names_unknown_key(error: Exception) -> bool:
    """Return whether an error of Hydra says that a key does not exist."""
    return _UNKNOWN_KEY.match(str(error)) is not None


def explain(error: Exception, overrides: Sequence[str], compose: Compose) -> str:
    """Return a readable sentence for an error of Hydra or OmegaConf in these overrides."""
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, name = _missing_option(error.missing_cfg_file, overrides)
        options = group_options(group) or error.options or _options(group, name, compose)
        if not group:
            return (
                f"--config-name {name}: there is no such option. Leave it out; see modulab list experiment."
            )
        place = f"{group}={name}"
        return f"{place}: there is no such option. {_suggest_option(name, options)}".rstrip()
    text = str(error)
    if match := _UNKNOWN_KEY.match(text):
        return _explain_key(match[1].split("@")[0], overrides, compose)
    if isinstance(error, OverrideParseException):
        return _explain_unreadable(error, overrides)
    for pattern, sentence in _SENTENCES:
        if match := re.match(pattern, text):
            of_groups = [
                each for each in overrides if "." not in override_key(each) and override_key(each) != "seed"
            ]
            return sentence.format(*match.groups(), overrides=" ".join(of_groups or overrides))
    return _explain_value(error, overrides) or _explain_others(error, overrides)


def _explain_value(error: Exception, overrides: Sequence[str]) -> str:
    """Return the message for a value that OmegaConf rejects, with its key; empty for any other error."""
    cause = error.__cause__
    if any(str(each).startswith("Unexpected type annotation") for each in (error, cause)):
        return f"{' '.join(overrides)}: a sweep cannot stand inside a list or a dictionary. Write its values."
    refused = re.match(r"Error merging override (.+)", str(error))
    if refused and isinstance(cause, OmegaConfBaseException):
        return f"{refused[1]}: {words_for(cause)}."
    if isinstance(error, OmegaConfBaseException) and error.full_key:
        return f"{error.full_key}: {words_for(error)}."
    return ""


def _explain_others(error: Exception, overrides: Sequence[str]) -> str:
    """Return the words of an error of no known kind, those of its cause included."""
    causes = [str(error)]
    if isinstance(error.__cause__, OmegaConfBaseException):
        causes.append(str(error.__cause__))
    if not isinstance(error, (*READING_ERRORS, ValueError)):
        causes.insert(0, f"{' '.join(overrides)}: cannot be composed ({type(error).__name__}):")
    lines = [line.strip() for cause in causes for line in cause.splitlines()]
    return " ".join(line for line in lines if line and not line.startswith(("object_type=", "full_key:")))


def _explain_unreadable(error: OverrideParseException, overrides: Sequence[str]) -> str:
    """Return the message for an override that Hydra's grammar does not accept."""
    if evaluated := re.search(r"\w+ while evaluating '(.+)': (.+)", str(error)):
        return f"{error.override}: {evaluated[1]} cannot be evaluated: {evaluated[2].rstrip('.')}."
    if re.search(r"[=,]\s*,|,\s*$", error.override):
        return (
            f"{error.override}: a value is missing next to a comma. Leave the comma out, or quote the value."
        )
    key = error.override.partition("=")[0].lstrip("+")
    if key == "population.grid":
        return (
            f"{key}: cannot be read. Write it in quotes, as in 'population.grid={{noise.scale: [0, 0.1]}}'."
        )
    if match := re.fullmatch(r"([\w./-]+)(?::\s*(\S+))?", error.override):
        hint = _meant(match[1], match[2] or _word_after(error.override, overrides))
        return f"{error.override}: a setting is KEY=VALUE, as in seed=1. {hint}".rstrip()
    key, equals, value = error.override.partition("=")
    if equals and re.fullmatch(r"[\w./@+~-]+", key) and "'" not in value:
        quoted = shlex.quote(f"{key}='{value}'")
        return f"{error.override}: cannot be read as KEY=VALUE. Quote a text with spaces or signs: {quoted}."
    return f"{error.override}: cannot be read as KEY=VALUE. Put it in quotes if it holds spaces or brackets."


def _missing_option(file: str, overrides: Sequence[str]) -> tuple[str, str]:
    """Return the group and the option of a missing config file, as they were given."""
    for override in overrides:
        key, value = override_key(override), override.partition("=")[2]
        if file.startswith(f"{key}/") and file.removeprefix(f"{key}/") in value:
            return key, file.removeprefix(f"{key}/")
    group, _, name = file.rpartition("/")
    return group, name


def _suggest_option(name: str, options: Sequence[str]) -> str:
    """Return a sentence that names the option closest to a name, or to its end: of those in groups, the last part."""
    found = suggest(name, options)
    by_end = {option.rpartition("/")[2]: option for option in reversed(options)}
    close = difflib.get_close_matches(name.rpartition("/")[2], by_end, n=1)
    return f"Did you mean '{by_end[close[0]]}'?" if close and found.startswith("Known") else found


def _options(group: str, name: str, compose: Compose) -> Sequence[str]:
    """Return the options of a group, which Hydra's error does not list where a wrong one is in a list."""
    try:
        compose([f"{group}={name}"])
    except COMPOSING_ERRORS as error:
        return error.options or [] if isinstance(error, MissingConfigException) else []
    return []


def _explain_key(key: str, overrides: Sequence[str], compose: Compose) -> str:
    """Return the message for a key that Hydra does not find."""
    if key.startswith("hydra."):
        hint = _explain_hydra_key(key, overrides)
        if f"'{key}'" in hint:
            return f"{key}: its keys are set one by one, as in +{key}.KEY=VALUE."
        return f"{key}: there is no such key. {hint}".rstrip()
    try:
        base = cast("dict[str, Any]", OmegaConf.to_container(compose(_selections(overrides, key))))
    except COMPOSING_ERRORS:
        base = cast("dict[str, Any]", OmegaConf.to_container(compose([])))
    if key.startswith("logger.") and not base.get("logger"):
        name = key.split(".")[1]
        return f"{key}: no logger is chosen. Choose one in the same command, as in logger={name}."
    known = [*leaf_keys(base), *(name for name, node in base.items() if isinstance(node, dict))]
    if any(name == key or name.startswith(f"{key}.") for name in known):
        given = " ".join(override for override in overrides if override_key(override) == key)
        if given.startswith("~") and "=" not in given:  # Hydra takes null for a key that is not there
            why = f"this key is null, and every key of a group has a value. Leave it out, or set {key}=VALUE."
        else:
            why = "the names in a group of settings are text. Put numbers, true and null in quotes there."
        return f"{given}: {why}"
    group = key.partition(".")[0]
    chosen = [given for given in overrides if override_key(given) == group and "," not in given]
    if chosen and group != key and chosen[-1].startswith("~"):
        return f"{chosen[-1]} removes the group of {key}. Leave one of the two out."
    beside = f" in {chosen[-1]}" if chosen and group != key else ""
    hint = suggest_key(key, [*known, "experiment"])
    if key.rpartition(".")[2] in _FOLDER_WORDS:
        hint = "The folder of results is hydra.run.dir or, of a sweep, hydra.sweep.dir."
    return f"{key}: there is no such key{beside}. {hint}"


def _selections(overrides: Sequence[str], unknown: str) -> list[str]:
    keys = ((override_key(override), override) for override in overrides)
    return [override for key, override in keys if key in (*GROUPS, "experiment", "logger") and key != unknown]


def _explain_hydra_key(unknown: str, overrides: Sequence[str]) -> str:
    """Return the message for a key below `hydra`: those of its launcher and sweeper depend on which is chosen."""
    parent, _, _ = unknown.rpartition(".")
    chosen = {"hydra.launcher": "population", "hydra.sweeper": "grid"}
    if parent not in chosen:
        schema = hydra_schema()
        if schema is None:
            return ""
        known = leaf_keys({"hydra": OmegaConf.to_container(OmegaConf.structured(schema))})
        return suggest(unknown, [key for key in known if key.startswith(f"{parent}.")] or known)
    group = parent.replace(".", "/")
    given = [override.partition("=")[2] for override in overrides if override_key(override) == group]
    option = (given or [chosen[parent]])[-1]
    try:
        node = ConfigStore.instance().load(f"{group}/{option}.yaml").node
    except HydraException:  # a file of the user's
        return ""
    known = [f"{parent}.{key}" for key in node if key != "_target_"]
    return (
        suggest(unknown, known)
        or f"{group}={option} has none; others may, as hydra/launcher=population_slurm or population_ray."
    )


def check_hydra_keys(hydra_config: Any) -> None:
    """Raise ConfigError for a key below `hydra` that Hydra does not know, as in `++hydra.typo=1`."""
    schema = hydra_schema()
    if schema is None:
        return
    plain = cast("dict[str, Any]", OmegaConf.to_container(hydra_config, resolve=False))
    plain.pop("env", None)  # Hydra's own defaults add this group, which its schema lacks.
    unknown = _unknown_key(plain, schema)
    if unknown is not None:
        known = leaf_keys(cast("dict[str, Any]", OmegaConf.to_container(OmegaConf.structured(schema))))
        key = f"hydra.{unknown}"
        raise ConfigError(f"{key}: there is no such key. {suggest(key, [f'hydra.{name}' for name in known])}")


def _unknown_key(plain: Mapping[str, Any], schema: Any) -> str | None:
    """Return the first key that the dataclass `schema` or one within it lacks; Hydra has checked the values."""
    types = get_type_hints(schema)
    types.pop("defaults", None)  # of which Hydra leaves nothing in a config
    for key, value in plain.items():
        if key not in types:
            return key
        if dataclasses.is_dataclass(types[key]) and isinstance(value, dict):
            inner = _unknown_key(cast("dict[str, Any]", value), types[key])
            if inner is not None:
                return f"{key}.{inner}"
    return None
