"""`modulab export`: the weights of trained networks, one file per network, for other programs."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modulab.errors import ConfigError
from modulab.extras import require_extra
from modulab.results.files import write_whole
from modulab.sweep.trained import TrainedMembers

FORMATS = ("npz", "safetensors")
INDEX = "networks.json"

Arrays = Mapping[str, NDArray[Any]]


def write_weights(groups: Sequence[TrainedMembers], folder: Path, kind: str = "npz") -> list[Path]:
    """Write the weights of each network to its own file, named by its run_id, and an index; return the files.

    A file has one array per part of the parameters, by the names of `TrainedMembers.weights`: those of a module's own
    `state_dict` for `architecture=torch`. The index, networks.json, has each network's file, config, and the number
    of steps that it was trained for.

    Raises: ConfigError for a format that is not known or whose package is missing, and for networks without a run_id.
    """
    encode = _encoder(kind)
    index: dict[str, dict[str, Any]] = {}
    folder.mkdir(parents=True, exist_ok=True)
    for group in groups:
        if len(group.run_ids) != len(group.configs):
            raise ConfigError(
                f"{group.file}: the list of its networks (*.members.json.gz) is missing, so their run_ids are "
                "not known. Restore it from a copy."
            )
        weights = {name: values.numpy() for name, values in group.weights.items()}
        for place, (name, config) in enumerate(zip(group.run_ids, group.configs, strict=True)):
            file = folder / f"{name}.{kind}"
            write_whole(
                file, encode({part: np.ascontiguousarray(values[place]) for part, values in weights.items()})
            )
            index[name] = {"file": file.name, "steps": group.steps, "config": config}
    write_whole(folder / INDEX, (json.dumps(index, indent=1) + "\n").encode())
    return [folder / entry["file"] for entry in index.values()]


def _encoder(kind: str) -> Callable[[Arrays], bytes]:
    if kind == "npz":
        return _as_npz
    if kind == "safetensors":
        require_extra("export", ("safetensors",), "--format safetensors")
        from safetensors.numpy import save

        return lambda arrays: save(dict(arrays))
    raise ConfigError(f"--format {kind}: there is no such format. Known: {', '.join(FORMATS)}.")


def _as_npz(arrays: Arrays) -> bytes:
    content = io.BytesIO()
    with_names: dict[str, Any] = dict(arrays)
    np.savez(content, **with_names)
    return content.getvalue()
