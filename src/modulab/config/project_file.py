"""Where a user's own configs and modules are, stated once in the environment or in a project's modulab.toml.

The file is that of the working folder or of the nearest folder above it. Its relative paths start at its own folder:

    config_dir = "configs"        # or a list of folders
    import = ["larger", "norms"]  # modules that results may name

Configs are looked for in modulab's own folder, then in the folder that the command line names (`--config-dir`), then in
those of the environment (`MODULAB_CONFIG_DIR`, folders with colons between), then in those of the file.
"""

from __future__ import annotations

import filecmp
import functools
import importlib.util
import os
import re
import sys
import tomllib
from collections.abc import Collection, Generator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from modulab.errors import ConfigError
from modulab.schema import suggest
from modulab.text import say_once

PROJECT_FILE = "modulab.toml"
CONFIG_VARIABLE = "MODULAB_CONFIG_DIR"
_KEYS = ("config_dir", "import")


_named_by_command: ContextVar[tuple[Path, ...]] = ContextVar("_named_by_command", default=())


@dataclass(frozen=True)
class Project:
    """Settings that apply to all commands."""

    config_dirs: tuple[Path, ...] = ()
    """Absolute paths, those of the environment first."""
    modules: tuple[str, ...] = ()
    folder: Path | None = None
    """The path of the file, if there is one."""


def find_project() -> Project:
    """Return the settings of the environment and of the nearest modulab.toml.

    Raises: ConfigError for a file that is broken, and for folders that are not there.
    """
    named = [each for each in os.environ.get(CONFIG_VARIABLE, "").split(os.pathsep) if each]
    dirs = [_folder(Path(), each, CONFIG_VARIABLE) for each in named]
    here = Path.cwd()
    file = next((path for each in (here, *here.parents) if (path := each / PROJECT_FILE).exists()), None)
    if file is None:
        return Project(tuple(dirs))
    if not file.is_file():
        raise ConfigError(f"{file} is not a file. Give a folder of configs another name, or remove it.")
    content, lines = _read(file)
    place = f"{file}, line {_line(lines, 'config_dir')}: config_dir"
    dirs += [_folder(file.parent, each, place) for each in _texts(content, "config_dir", file, lines)]
    modules = _texts(content, "import", file, lines)
    return Project(tuple(dict.fromkeys(dirs)), tuple(modules), file.parent)


@contextmanager
def command_folders(folders: Sequence[Path]) -> Generator[None]:
    """Put the folders that a command line names before those of the project: Hydra adds them last."""
    token = _named_by_command.set(tuple(folders))
    try:
        yield
    finally:
        _named_by_command.reset(token)


def folders_in_order() -> list[Path]:
    """Return the folders of own configs, in the order in which configs are looked for."""
    named = [Path(os.path.abspath(folder)) for folder in _named_by_command.get()]
    folders = list(dict.fromkeys([*named, *find_project().config_dirs]))
    for folder in folders:
        _say_what_is_hidden(folder)
    return folders


@functools.cache
def _say_what_is_hidden(folder: Path) -> None:
    """Say which configs of a folder are not used, because modulab has others of the same name, which come first."""
    from modulab.config.composing import config_folder

    shipped = config_folder()
    if not folder.is_dir() or folder.samefile(shipped):
        return
    hidden = [
        file
        for file in sorted(folder.glob("*/**/*.yaml"))
        if (known := shipped / file.relative_to(folder)).is_file()
        and not filecmp.cmp(file, known, shallow=False)
    ]
    if hidden:
        more = f" and {len(hidden) - 1} more" if len(hidden) > 1 else ""
        say_once(
            f"{hidden[0]}{more}: not used, because modulab has a config of this name, which comes first. Give it "
            "another name."
        )


def modules_for(results: Path) -> tuple[str, ...]:
    """Return the modules that the project names, unless its file lies within `results`: these are data.

    They may be next to the file.
    """
    project = find_project()
    data = results if results.is_dir() else results.parent
    if project.folder is None or project.folder.resolve().is_relative_to(data.resolve()):
        return ()
    if project.modules:
        add_own_folders(project)
    return project.modules


def add_own_folders(project: Project) -> None:
    """Let Python find modules in the working folder, and next to the project's file."""
    for folder in (os.getcwd(), *([str(project.folder)] if project.folder else [])):
        if folder not in sys.path:
            sys.path.append(folder)


@contextmanager
def own_folders_added() -> Generator[None]:
    """Let Python find modules where `add_own_folders` says, within a call."""
    earlier = list(sys.path)
    add_own_folders(find_project())
    added = sys.path[len(earlier) :]
    try:
        yield
    finally:
        for folder in added:
            sys.path.remove(folder)


def _check_modules(modules: Collection[str], option: str) -> None:
    """Raise ConfigError for a user's own module that Python does not find."""
    for name in modules:
        if name.endswith(".py"):
            raise ConfigError(f"{option} {name}: name the module without .py: {name.removesuffix('.py')}.")
        first = name.partition(".")[0]
        if not first.isidentifier() or (first not in sys.modules and importlib.util.find_spec(first) is None):
            raise ConfigError(
                f"{option} {name}: there is no module of that name here. Name one that lies in the current folder or "
                "is installed."
            )


def own_modules(given: str | Collection[str] | None, *results: Path) -> list[str]:
    """Return the modules that results may name: those given, as text with commas between, or those of the project.

    Raises: ConfigError for a module that is not there.
    """
    if given is None:
        found = [modules_for(each) for each in results]
        modules, place = list(found[0]) if all(found) else [], f"{PROJECT_FILE}, import:"
    else:
        words = given.split(",") if isinstance(given, str) else given
        modules, place = [name.strip() for name in words if name.strip()], "--import"
        if modules and os.getcwd() not in sys.path:
            sys.path.append(os.getcwd())
    _check_modules(modules, place)
    return modules


def _read(file: Path) -> tuple[Mapping[str, Any], list[str]]:
    text = ""
    try:
        text = file.read_text("utf-8-sig")  # some editors write a byte order mark
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        last = text.count("\n") + 1
        reason = str(error).replace("at end of document", f"at line {last}, the end of the file")
        raise ConfigError(f'{file}: {reason}. It is TOML, as in config_dir = "configs".') from error
    except OSError as error:
        raise ConfigError(f"{file}: it cannot be read ({error.strerror}).") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file}: line 1 or later is not UTF-8 text ({error.reason}).") from error
    lines = text.splitlines()
    for key in content:
        if key not in _KEYS:
            raise ConfigError(
                f"{file}, line {_line(lines, key)}: there is no key {key}. {suggest(key, _KEYS)}"
            )
    return content, lines


def _line(lines: list[str], key: str) -> int:
    """Return the number of the line that sets a key."""
    pattern = re.compile(rf"\s*\[*\s*[\"']?{re.escape(key)}\b")
    return next((number for number, line in enumerate(lines, start=1) if pattern.match(line)), 1)


def _texts(content: Mapping[str, Any], key: str, file: Path, lines: list[str]) -> list[str]:
    value = content.get(key, [])
    values = cast("list[Any]", value) if isinstance(value, list) else [value]
    if not all(isinstance(each, str) and each for each in values):
        raise ConfigError(
            f'{file}, line {_line(lines, key)}: {key} is a text or a list of texts, as in {key} = ["mine"].'
        )
    return [str(each) for each in values]


def _folder(base: Path, name: str, place: str) -> Path:
    folder = Path(os.path.abspath(base / Path(name).expanduser()))
    if not folder.is_dir():
        raise ConfigError(f"{place}: there is no folder {folder}. Name one that holds configs, or create it.")
    return folder
