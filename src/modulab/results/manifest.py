"""Manifests: which members a population has, written before it trains, so a later process finds it again.

A population is named by a hash of its members. Beside its checkpoint lies its manifest, with each member's
run_id and full config.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from modulab.errors import ConfigError
from modulab.results.files import write_whole

POPULATIONS = "populations"
_SUFFIX = ".members.json.gz"


def population_name(run_ids: Sequence[str]) -> str:
    """Return the name of a population: a hash of its members' names, in order."""
    return hashlib.sha256("\n".join(run_ids).encode()).hexdigest()[:16]


def checkpoint_path(folder: Path, run_ids: Sequence[str]) -> Path:
    """Return the path of the checkpoint of a population of these members."""
    return folder / POPULATIONS / f"{population_name(run_ids)}.ckpt"


def write_manifest(folder: Path, configs: Mapping[str, Mapping[str, Any]]) -> None:
    """Write down a population's members: their configs by run_id.

    A manifest that an earlier version left is replaced: the population continues with the measures of this one.
    """
    path = folder / POPULATIONS / f"{population_name(list(configs))}{_SUFFIX}"
    content = gzip.compress(json.dumps(configs).encode(), compresslevel=1, mtime=0)
    if not path.exists() or path.read_bytes() != content:
        write_whole(path, content)


def manifest_of(checkpoint: Path) -> Path:
    """Return the path of the manifest of a checkpoint's population."""
    return checkpoint.with_name(checkpoint.name.removesuffix(".ckpt") + _SUFFIX)


def read_manifest(path: Path) -> dict[str, dict[str, Any]]:
    """Return the configs of a population's members by run_id. Raises: ConfigError if it cannot be read."""
    try:
        configs = json.loads(gzip.decompress(path.read_bytes()))
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise ConfigError(
            f"{path} is damaged and cannot be read ({error}). Move it away, with the .ckpt file of the same "
            "name, and run the same command again to train its members again."
        ) from error
    if not isinstance(configs, dict) or not all(isinstance(each, dict) for each in configs.values()):
        raise ConfigError(
            f"{path} is not a population's manifest. Move it away, with the .ckpt file of the same name, and run "
            "the same command again to train its members again."
        )
    return cast("dict[str, dict[str, Any]]", configs)


def read_manifests(folder: Path) -> Iterator[tuple[Path, dict[str, dict[str, Any]]]]:
    """Yield each population's manifest in a folder: its file, and its members' configs by run_id.

    Raises: ConfigError if one cannot be read.
    """
    for path in sorted((folder / POPULATIONS).glob(f"*{_SUFFIX}")):
        yield path, read_manifest(path)


def unfinished_populations(folder: Path, pending: Collection[str]) -> list[list[str]]:
    """Return the run_ids of each population that left a checkpoint and whose members are all still to be trained.

    No member is in two of them: of populations that share members, the later in order of name is left out.
    """
    free = set(pending)
    found: list[list[str]] = []
    for path, configs in read_manifests(folder):
        if path.with_name(path.name.removesuffix(_SUFFIX) + ".ckpt").exists() and free.issuperset(configs):
            free.difference_update(configs)
            found.append(list(configs))
    return found
