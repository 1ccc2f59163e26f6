"""The commands that produced the rows of a folder; each is stored, in order, in its own file.

Hydra's own record, `.hydra/` or `multirun.yaml`, holds the last command alone. It is read where a folder has no other:
folders of earlier versions, and those of the single jobs of a sweep.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from modulab.config.overrides import restore_grid
from modulab.errors import ConfigError
from modulab.results.files import write_whole

COMMANDS = "commands.jsonl"
_RUN = Path(".hydra", "hydra.yaml")
_SWEEP = Path("multirun.yaml")


def record_command(folder: Path, words: Sequence[str]) -> None:
    """Store a command that will add rows to a folder, unless it is stored already and only resumes.

    To be called before Hydra's record of an earlier command is replaced.
    """
    kept: list[str] = []
    with suppress(ConfigError):  # a damaged record of earlier commands does not prevent training
        kept = _own_commands(folder)
    command = shlex.join(words)
    if command not in kept:
        lines = [json.dumps({"command": each}, ensure_ascii=False) for each in (*kept, command)]
        write_whole(folder / COMMANDS, "".join(f"{line}\n" for line in lines).encode())


def recorded_commands(folder: Path) -> list[str]:
    """Return the commands that produced the rows of a folder or, if it only contains other folders, those of each.

    Raises: ConfigError for a record that is damaged.
    """
    if own := _own_commands(folder):
        return own
    sweeps = {path.parent for path in folder.rglob(str(_SWEEP))}
    kept = {path.parent for path in folder.rglob(COMMANDS)}
    runs = {path.parents[1] for path in folder.rglob(str(_RUN))}
    jobs = {run for run in runs - kept if not sweeps.isdisjoint(run.parents)}
    found = [command for each in sorted((sweeps | kept | runs) - jobs) for command in _own_commands(each)]
    return list(dict.fromkeys(found))


def command_words(hydra: Mapping[str, Any]) -> list[str]:
    """Return the words of the command that Hydra composed a config from, whose own part is given."""
    given = {kind: [str(word) for word in hydra["overrides"][kind]] for kind in ("task", "hydra")}
    folders = [
        str(source["path"])
        for source in hydra["runtime"]["config_sources"]
        if source["provider"] == "command-line"
    ]
    words = ["modulab", "train"]
    words += ["-m"] if "hydra.mode=MULTIRUN" in given["hydra"] else []
    words += [word for folder in folders for word in ("--config-dir", folder)]
    words += restore_grid(given["task"])
    return words + [word for word in given["hydra"] if not word.startswith("hydra.mode=")]


def _own_commands(folder: Path) -> list[str]:
    """Return the commands that are stored in a folder itself, not those of folders in it."""
    path = folder / COMMANDS
    if path.exists():
        try:
            return [str(json.loads(line)["command"]) for line in path.read_text("utf-8").splitlines()]
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise _damaged(path, error) from error
    written = next((folder / name for name in (_SWEEP, _RUN) if (folder / name).exists()), None)
    return [] if written is None else [_written_by_hydra(written)]


def _written_by_hydra(path: Path) -> str:
    try:
        written: Any = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
        return shlex.join(command_words(written["hydra"]))
    except Exception as error:  # YAML, its tags and its structure each have their own errors
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> ConfigError:
    return ConfigError(
        f"{path} is damaged, so that the command is not known ({type(error).__name__}). "
        "Restore it from a copy, or move it away."
    )
