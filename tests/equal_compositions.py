"""Saves what Hydra does again and again in the many commands that tests run: the same files, merged in the same way.

Nothing that Hydra answers changes: what is kept is kept by the text of the files that were read for it, each caller
gets a copy of its own, and what fails is done anew each time.
"""

from __future__ import annotations

import contextlib
import inspect
import os
import pickle
from typing import Any

import pytest
from hydra._internal import defaults_list
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf

PLACES = (
    (OmegaConf, "load"),
    (ConfigLoaderImpl, "load_configuration"),
    (ConfigLoaderImpl, "_compose_config_from_defaults_list"),
    (defaults_list, "_create_interpolation_map"),
)
THEIRS = [inspect.getattr_static(holder, name) for holder, name in PLACES]


def compose_as_hydra_does(patch: pytest.MonkeyPatch) -> None:
    """Save nothing."""
    patch.delattr(ConfigStore, "__deepcopy__", raising=False)
    for (holder, name), theirs in zip(PLACES, THEIRS, strict=True):
        patch.setattr(holder, name, theirs)


def save_equal_work(patch: pytest.MonkeyPatch) -> None:
    """Parse equal YAML once, merge equal lists of equal files once, and prepare interpolations only where some are.

    For each command Hydra reads the same 26 files. Without this it composes for four times as long, half of it to
    merge them, and a quarter to prepare the choices to which entries of a defaults list may refer.
    """
    load, load_configuration = OmegaConf.load, ConfigLoaderImpl.load_configuration
    merge = ConfigLoaderImpl._compose_config_from_defaults_list
    choices = defaults_list._create_interpolation_map
    parsed: dict[str, bytes] = {}
    merged: dict[tuple[str, ...], bytes] = {}
    read: list[str] = []
    """The files that the present composition has read, in their order."""

    def load_once(file: Any) -> Any:
        if isinstance(file, str | os.PathLike):
            return load(file)
        text = file.read()
        read.append(text)
        if text not in parsed:
            file.seek(0)
            parsed[text] = pickle.dumps(load(file))
        return pickle.loads(parsed[text])

    def load_configuration_anew(self: ConfigLoaderImpl, *given: Any, **named: Any) -> DictConfig:
        read.clear()
        return load_configuration(self, *given, **named)

    def merge_once(self: ConfigLoaderImpl, defaults: list[Any], repo: Any) -> DictConfig:
        key = (*map(repr, defaults), *read)
        try:
            return pickle.loads(merged[key])
        except (KeyError, AttributeError):  # not merged yet, or a test hides Hydra's own types
            config = merge(self, defaults, repo)
        with contextlib.suppress(pickle.PicklingError):
            merged[key] = pickle.dumps(config)
        return config

    def choices_if_asked(overrides: Any, defaults: list[Any], self_added: bool) -> DictConfig | None:
        asked = any(entry.is_interpolation() for entry in defaults)
        return choices(overrides, defaults, self_added) if asked else None

    # Hydra copies its sources for each composition, and with them the store that all of a process share.
    patch.setattr(ConfigStore, "__deepcopy__", lambda self, _: self, raising=False)
    patch.setattr(OmegaConf, "load", staticmethod(load_once))
    patch.setattr(ConfigLoaderImpl, "load_configuration", load_configuration_anew)
    patch.setattr(ConfigLoaderImpl, "_compose_config_from_defaults_list", merge_once)
    patch.setattr(defaults_list, "_create_interpolation_map", choices_if_asked)
