"""The command that a folder's results came from, as Hydra wrote it down."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from modulab.config.overrides import restore_grid
from modulab.errors import ConfigError

_RUN = Path(".hydra", "hydra.yaml")
_SWEEP = Path("multirun.yaml")


def recorded_commands(folder: Path) -> list[str]:
    """Return the last command given for a folder or, if it only holds other folders, for each of those.

    Runs from Python leave none.
    """
    own = [folder / name for name in (_SWEEP, _RUN) if (folder / name).exists()]
    if own:
        return [_command(own[0])]
    inner = sorted({*folder.rglob(str(_SWEEP)), *folder.rglob(str(_RUN))})
    sweeps = [path.parent for path in inner if path.name == _SWEEP.name]
    return [
        _command(path)
        for path in inner
        if path.name == _SWEEP.name or not any(sweep in path.parents for sweep in sweeps)
    ]


def _command(path: Path) -> str:
    try:
        written: Any = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
        hydra = written["hydra"]
        given = {kind: [str(word) for word in hydra["overrides"][kind]] for kind in ("task", "hydra")}
        folders = [
            str(source["path"])
            for source in hydra["runtime"]["config_sources"]
            if source["provider"] == "command-line"
        ]
    except Exception as error:  # YAML, its tags and its structure each have errors of their own
        raise ConfigError(
            f"{path} is damaged, so that the command is not known ({type(error).__name__}). "
            "Restore it from a copy, or move it away."
        ) from error
    words = ["modulab", "train"]
    words += ["-m"] if "hydra.mode=MULTIRUN" in given["hydra"] else []
    words += [word for folder in folders for word in ("--config-dir", folder)]
    words += restore_grid(given["task"])
    words += [word for word in given["hydra"] if not word.startswith("hydra.mode=")]
    return shlex.join(words)
