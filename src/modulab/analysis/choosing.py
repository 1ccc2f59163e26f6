"""Which analyses a command or call asks for: shipped ones by name, a user's own by file or dotted path."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from modulab.analysis.analysis import Analysis, find_analysis
from modulab.config.composing import config_folder
from modulab.config.omegaconf_words import words_for
from modulab.config.overrides import check_given_once
from modulab.errors import ConfigError
from modulab.metrics.measure import Column
from modulab.schema import suggest

_NAME = re.compile(r"\w+")


@dataclass(frozen=True)
class Chosen:
    """An analysis, and the name that its values and its file have."""

    name: str
    analysis: Analysis
    settings: str
    """The config of the analysis in one line. Members analysed with another config are analysed again."""


def shipped_analyses() -> dict[str, Path]:
    """Return the config files of the analyses that come with modulab, by name."""
    return {file.stem: file for file in sorted((config_folder() / "analysis").glob("*.yaml"))}


def shipped_columns() -> list[Column]:
    """Return the words for the columns of results that shipped analyses give under their own names."""
    return [
        replace(column, name=each.analysis.column_name(each.name, column.name))
        for each in choose_analyses(list(shipped_analyses()))
        for column in each.analysis.columns
    ]


def choose_analyses(wanted: Sequence[str], overrides: Sequence[str] = ()) -> list[Chosen]:
    """Return the analyses that are asked for, each as NAME, FILE.yaml or package.module.Class.

    OWN_NAME= before one gives it another name. `overrides` set their fields: NAME.FIELD=VALUE.

    Raises: ConfigError for an unknown one, a name or field that is given twice, and a wrong field or value.
    """
    nodes: dict[str, dict[str, Any]] = {}
    for each in wanted:
        name, node = _read(each)
        if name in nodes:
            raise ConfigError(
                f"--with {each}: '{name}' is named twice. Give one of them another name: OTHER_NAME={each}."
            )
        nodes[name] = node
    check_given_once(overrides)
    for override in overrides:
        _set(nodes, override)
    return [
        Chosen(name, find_analysis(node, name), json.dumps(node, sort_keys=True))
        for name, node in nodes.items()
    ]


def _read(wanted: str) -> tuple[str, dict[str, Any]]:
    """Return the name and the plain config of an analysis."""
    own_name, sign, what = wanted.rpartition("=")
    shipped = shipped_analyses()
    if what in shipped:
        name, node = what, _content(shipped[what])
    elif what.endswith((".yaml", ".yml")):
        if not Path(what).is_file():
            raise ConfigError(f"--with {wanted}: there is no such file. {suggest(what, shipped)}")
        name, node = Path(what).stem, _content(Path(what))
    elif "." in what:
        name, node = what.rpartition(".")[2], {"_target_": what}
    else:
        raise ConfigError(
            f"--with {wanted}: there is no such analysis. {suggest(what, shipped)} Your own analysis is named by its "
            "file, FILE.yaml, or by its dotted path, package.module.Class."
        )
    name = own_name if sign else name
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"--with {wanted}: {name!r} cannot be the name of an analysis, which is made of letters, digits and _. "
            f"Give it one: my_name={what}."
        )
    return name, node


def _content(file: Path) -> dict[str, Any]:
    try:
        content: Any = OmegaConf.to_container(OmegaConf.load(file), resolve=True)
    except (OSError, UnicodeDecodeError, YAMLError, OmegaConfBaseException) as error:
        reason = words_for(error)
        raise ConfigError(f"{file}: it cannot be read ({reason}).") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{file}: it is not a group of settings. Write a _target_ and its fields in it.")
    return {str(key): value for key, value in cast("dict[object, Any]", content).items()}


def _set(nodes: Mapping[str, dict[str, Any]], override: str) -> None:
    key, sign, _ = override.partition("=")
    name, dot, field = key.partition(".")
    if not sign or not dot or not field:
        raise ConfigError(f"{override}: settings of an analysis are given as NAME.FIELD=VALUE.")
    if name not in nodes:
        raise ConfigError(f"{override}: --with does not name '{name}'. {suggest(name, nodes)}")
    try:
        changed: Any = OmegaConf.to_container(
            OmegaConf.merge(OmegaConf.create(nodes[name]), OmegaConf.from_dotlist([override])[name])
        )
    except (YAMLError, OmegaConfBaseException) as error:
        reason = words_for(error)
        raise ConfigError(f"{override}: the value cannot be read ({reason}).") from error
    nodes[name].update(changed)
