"""The help of `modulab train`: groups, their options, and every key with its default and meaning."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Sequence
from pathlib import Path

from modulab.config.composing import config_folder
from modulab.config.described import (
    Key,
    families,
    group_names,
    meaning_of,
    option_files,
    option_meaning,
)
from modulab.errors import ConfigError
from modulab.schema import suggest

_INDENT = 2
_MEANING_COLUMN = 34
_LONGEST_DEFAULT = 30
_LEAST_WIDTH, _MOST_WIDTH = 40, 120

_EXAMPLES = (
    ("modulab train noise.scale=0.2", "one network"),
    ("modulab train population.seeds=16", "the same with seeds 0 to 15, trained together"),
    (
        "modulab train 'population.grid={noise.scale: [0, 0.1, 0.2]}'",
        "every value of a grid, trained together",
    ),
    ("modulab train experiment=regression", "a prepared experiment"),
    (
        "modulab train -m architecture=dense,premodular 'seed=range(8)'",
        "a sweep, packed and trained together",
    ),
)
_OPTIONS = (
    ("hydra.run.dir=FOLDER", "where to write; the same command with the same folder resumes"),
    ("hydra.sweep.dir=FOLDER", "the same for a sweep"),
    ("logger=wandb", "also log to W&B, with one run per network; or csv, tensorboard, '[csv,wandb]'"),
    ("sweep.dry_run=true", "print what would be trained, but train nothing"),
    ("hydra/launcher=population_slurm", "train a sweep on a SLURM cluster, with the keys of hydra.launcher"),
    ("hydra/launcher=population_ray", "the same on a Ray cluster"),
    ("--config-dir FOLDER", "a folder with additional configs; modules in the current folder can be used as "
                            "_target_"),
    ("MODULAB_CONFIG_DIR, modulab.toml", 'set such folders permanently; in the file: config_dir = "configs"'),
    ("--cfg job", "print the composed config and train nothing"),
    ("--help GROUP", "the options and keys of one group"),
    ("--hydra-help", "Hydra's own options"),
)  # fmt: skip


def train_help(groups: Sequence[str] = (), folders: Sequence[Path] = (), width: int | None = None) -> str:
    """Return the help of `modulab train`, or of some groups alone, wrapped to the terminal's width.

    `folders` hold configs beside modulab's own.

    Raises: ConfigError for a group that is not there.
    """
    width = width or shutil.get_terminal_size().columns - 1
    width = min(max(width, _LEAST_WIDTH), _MOST_WIDTH)
    places = [config_folder(), *folders]
    known = group_names(places)
    for name in groups:
        if name.partition(".")[0] not in known:
            raise ConfigError(f"--help {name}: there is no such group. {suggest(name, known)}")
    lines = [] if groups else _usage(width)
    for name in dict.fromkeys(name.partition(".")[0] for name in groups) if groups else known:
        lines += _group_lines(name, places, width)
    return "\n".join(lines).rstrip()


def list_options(group: str | None, folders: Sequence[Path] = (), width: int | None = None) -> str:
    """Return what `listed` does as text, wrapped to the terminal's width.

    Raises: ConfigError for a group that is not there.
    """
    width = min(max(width or shutil.get_terminal_size().columns - 1, _LEAST_WIDTH), _MOST_WIDTH)
    lines = _definitions(listed(group, folders), width)
    if group is None:
        lines += ["", "modulab list GROUP prints the options of a group."]
    return "\n".join(lines)


def listed(group: str | None, folders: Sequence[Path] = ()) -> list[tuple[str, str]]:
    """Return the options of a group with their meanings, or the groups with the names of their options.

    A group may be a folder of another, as experiment/claims is. `folders` hold configs beside modulab's own.

    Raises: ConfigError for a group that is not there.
    """
    places = [config_folder(), *folders]
    files = {
        name: option_files(name, places)
        for name in sorted({path.name for place in places for path in place.iterdir() if path.is_dir()})
    }
    files = {name: options for name, options in files.items() if options}
    if group is None:
        return [(name, ", ".join(options)) for name, options in files.items()]
    wanted = group.strip("/")
    top, _, below = wanted.partition("/")
    found = {
        name: option_meaning(file)
        for name, file in files.get(top, {}).items()
        if not below or name.startswith(f"{below}/")
    }
    if found:
        return list(found.items())
    owners = [
        name
        for name, options in files.items()
        if group in options or wanted in map(f"{name}/{{}}".format, options)
    ]
    if owners:
        raise ConfigError(
            f"{group} is an option of {owners[0]}, not a group. modulab list {owners[0]} says what it is."
        )
    folded = {
        f"{name}/{option.rpartition('/')[0]}"
        for name, options in files.items()
        for option in options
        if "/" in option
    }
    raise ConfigError(f"{group}: there is no such group. {suggest(group, [*files, *sorted(folded)])}")


def _usage(width: int) -> list[str]:
    what = (
        "Train networks, measure them, print a table, and write results.parquet to a folder below outputs/."
    )
    return [
        *textwrap.wrap("usage: modulab train [-m] [KEY=VALUE ...] [GROUP=OPTION ...]", width),
        "",
        *textwrap.wrap(what, width),
        "",
        *_definitions(_EXAMPLES, width),
        "",
        *_definitions(_OPTIONS, width),
        "",
        *_definitions([("seed=0", meaning_of("Member", "seed"))], width),
        "",
        *textwrap.wrap("Below are the groups, each with its options and its keys with their defaults.", width),
        "",
    ]  # fmt: skip


def _definitions(pairs: Sequence[tuple[str, str]], width: int) -> list[str]:
    """Return terms with their meanings beside them, or below those that are long."""
    lines: list[str] = []
    column = min(_MEANING_COLUMN, width // 2)
    for term, meaning in pairs:
        first = " " * _INDENT + term
        beside = len(first) < column
        wrapped = textwrap.wrap(
            meaning,
            width,
            initial_indent=first.ljust(column) if beside else " " * column,
            subsequent_indent=" " * column,
        )
        lines += wrapped if beside and wrapped else [first, *wrapped]
    return lines


def _group_lines(group: str, places: Sequence[Path], width: int) -> list[str]:
    files = option_files(group, places)
    lines = [f"{group}=OPTION", *_definitions([(name, option_meaning(files[name])) for name in files], width)]
    found = families(group, places)
    for family in found:
        if family.keys:
            options = family.options
            of = f" of {', '.join(options)}" if len(found) > 1 else ""
            heading = f"Keys{of}, with {f'the defaults of {group}={options[0]}' if len(options) > 1 else 'defaults'}:"
            lines += ["", *textwrap.wrap(heading, width, initial_indent="  ", subsequent_indent="    ")]
            lines += _definitions(list(map(_term, family.keys)), width)
    return [*lines, ""]


def _term(key: Key) -> tuple[str, str]:
    """Return KEY=DEFAULT and the key's meaning, or KEY and a meaning that names a long default."""
    words, default = key.meaning, key.written_default
    if key.choices:
        words += f"; one of {', '.join(key.choices)}"
    if len(default) > _LONGEST_DEFAULT:
        return key.name, f"{words}; by default {default}"
    return f"{key.name}={default}", words
