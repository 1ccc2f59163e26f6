"""Templates: composed configs whose leaves can be set directly, a thousand times faster than Hydra composes."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from modulab.config.omegaconf_words import words_for
from modulab.config.overrides import GROUPS, leaf_keys
from modulab.errors import ConfigError
from modulab.schema import import_target, is_renamed, suggest_key

if TYPE_CHECKING:
    from omegaconf import DictConfig
else:
    # Annotations are checked in tests, and DictConfig derives from deprecated generics, of which that check warns.
    DictConfig = object

MEMBER_KEYS = ("seed", *GROUPS)


class Template:
    """A composed config whose leaves can be set quickly: only what interpolates is resolved again."""

    def __init__(self, config: DictConfig, keys: Sequence[str]) -> None:
        plain = unresolved(config)
        for key in MEMBER_KEYS:
            if key not in plain:
                advice = f"Choose one with {key}=NAME." if key in GROUPS else f"Set it with {key}=VALUE."
                raise ConfigError(f"{key}: a value is missing. {advice}")
        self._plain = {key: plain[key] for key in MEMBER_KEYS}
        present = leaf_keys(self._plain)
        for key in keys:
            if not _reaches(self._plain, key):
                axes = OmegaConf.select(config, "population.sobol.axes") or {}
                place = "population.sobol.axes" if key in axes else "population.grid"
                raise ConfigError(f"{place}: there is no key {key}. {suggest_key(key, present)}")
        missing = [key for key in present if look_in(self._plain, key) == "???" and key not in keys]
        if missing:
            raise ConfigError(f"{missing[0]}: a value is missing. Set it with {missing[0]}=VALUE.")
        self._interpolating = [key for key in present if interpolates(look_in(self._plain, key))]
        self._config = copy.deepcopy(config)

    @property
    def interpolates(self) -> bool:
        """Return whether values refer to others, so they may differ between members of different seeds."""
        return bool(self._interpolating)

    def member(self, leaves: Mapping[str, Any]) -> dict[str, Any]:
        """Return the config with these leaves, unchecked; it shares what it can with its neighbours."""
        member = dict(self._plain)
        for key, value in leaves.items():
            _set(member, key, value)
        waiting = [key for key in self._interpolating if key not in leaves]
        waiting += [key for key, value in leaves.items() if interpolates(value)]
        remaining: list[str] = []
        for key in waiting:
            found, value = _look_up(member, look_in(member, key))
            if found:
                _set(member, key, value)
            else:
                remaining.append(key)
        if remaining:
            for key, value in leaves.items():
                OmegaConf.update(self._config, key, value, merge=False, force_add=True)
            for key in remaining:
                _set(member, key, resolved(self._config, key))
        return member


def _look_up(member: Mapping[str, Any], text: Any) -> tuple[bool, Any]:
    """Return whether an interpolation names a plain leaf, and its value; OmegaConf's parser is slow at this."""
    match = re.fullmatch(r"\$\{([\w.]+)\}", text) if isinstance(text, str) else None
    try:
        value = look_in(member, match[1]) if match else None
    except (KeyError, TypeError):
        return False, None
    return match is not None and not isinstance(value, dict) and not interpolates(value), value


def unresolved(config: DictConfig) -> dict[str, Any]:
    """Return a config as plain Python values, interpolations left as strings.

    Raises: ConfigError for a key of a member's settings that is not a name: only text without dots can be found again.
    """
    plain = cast("dict[str, Any]", OmegaConf.to_container(config, resolve=False))
    _check_names({key: plain[key] for key in MEMBER_KEYS if key in plain}, "")
    return plain


def _check_names(node: Mapping[Any, Any], prefix: str) -> None:
    for key, value in node.items():
        if not isinstance(key, str) or not key or "." in key:
            raise ConfigError(
                f"{prefix.rstrip('.')}: {key!r} is not a name of a key. Names are text without dots; put numbers, true "
                "and null in quotes."
            )
        if isinstance(value, dict):
            _check_names(cast("dict[Any, Any]", value), f"{prefix}{key}.")


def resolved(config: DictConfig, key: str) -> Any:
    """Return a node of a config as plain Python values."""
    if key not in config and "." not in key:
        raise ConfigError(f"{key}: a value is missing.")
    try:
        value = OmegaConf.select(config, key)
        return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
    except OmegaConfBaseException as error:
        raise ConfigError(f"{key}: {words_for(error)}.") from error


def interpolates(value: Any) -> bool:
    """Return whether a value, or one in a list, refers to others."""
    if isinstance(value, str):
        return "${" in value
    return isinstance(value, list) and any(interpolates(each) for each in cast("list[Any]", value))


def look_in(node: Any, key: str) -> Any:
    """Return the value of a dotted key. Raises: KeyError or TypeError if there is none."""
    for part in key.split("."):
        node = node[part]
    return node


def _set(node: dict[str, Any], key: str, value: Any) -> None:
    """Set a leaf; dicts on the way to it are copied first, because members share them."""
    *groups, last = key.split(".")
    for group in groups:
        inner = node.get(group)
        node[group] = dict(cast("dict[str, Any]", inner)) if isinstance(inner, dict) else {}
        node = node[group]
    node[last] = value


def _reaches(plain: Mapping[str, Any], key: str) -> bool:
    """Return whether a config contains a leaf, or it is a field of its group's class."""
    group, _, rest = key.partition(".")
    try:
        return not isinstance(look_in(plain, key), dict)
    except (KeyError, TypeError):
        if is_renamed(key):
            return True
        if group not in GROUPS or not isinstance(plain[group], dict) or "_target_" not in plain[group]:
            return False
        return rest in import_target(plain[group]["_target_"], f"{group}._target_").model_fields
