"""Which code a folder of results may name. A folder is data: code that it names is not imported for that reason."""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from modulab.config.composing import config_folder, plain_yaml
from modulab.errors import ConfigError
from modulab.schema import MOVED_CODE


def check_named_code(config: Mapping[str, Any], file: Path, modules: Collection[str] = ()) -> None:
    """Check that a config read from `file` names no code but that of shipped configs and of the user's `modules`.

    Nothing is imported. Raises: ConfigError for a class or function of anything else.
    """
    for key, path in named_code(config):
        module = str(path).rpartition(".")[0]
        own = any(module == each or module.startswith(f"{each}.") for each in modules)
        if not own and MOVED_CODE.get(str(path), path) not in shipped_code():
            raise ConfigError(
                f"{file}: {key}={path} is not part of modulab, and code that results name is not imported. "
                f"If the module is yours, name it: --import {module or 'MODULE'}."
            )


def named_code(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, object]]:
    """Yield the key and the dotted path of each class or function that a config names."""
    for key, value in config.items():
        if key == "_target_":
            yield f"{prefix}{key}", value
        elif key == "measures" and isinstance(value, dict):
            measures = cast("dict[str, object]", value)
            for name, named in measures.items():
                if isinstance(named, dict):
                    yield from named_code(cast("dict[str, Any]", named), f"{prefix}{key}.{name}.")
                elif named is not None:
                    yield f"{prefix}{key}.{name}", named
        elif isinstance(value, dict):
            yield from named_code(cast("dict[str, Any]", value), f"{prefix}{key}.")


@functools.cache
def shipped_code() -> frozenset[object]:
    """Return the dotted paths of all classes and functions that the shipped configs name."""
    found: set[object] = set()
    for file in config_folder().rglob("*.yaml"):
        found.update(path for _, path in named_code(plain_yaml(file)))
    return frozenset(found)
