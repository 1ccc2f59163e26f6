"""The help of `modulab train`: groups, their options, and every key with its default and meaning.

All of it is read from the YAML of configs/ and from the source of the classes that read this YAML: importing them would
import torch.
"""

from __future__ import annotations

import ast
import functools
import shutil
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import yaml

from modulab.config.composing import OTHER_GROUPS, config_folder
from modulab.errors import ConfigError
from modulab.schema import suggest

_PACKAGE = Path(__file__).parent
_INDENT = 2
_MEANING_COLUMN = 34
_LONGEST_DEFAULT = 30
_LEAST_WIDTH, _MOST_WIDTH = 40, 120

_EXAMPLES = (
    ("modulab train noise.scale=0.2", "one network"),
    ("modulab train population.seeds=16", "the same at seeds 0 to 15, trained at once"),
    (
        "modulab train 'population.grid={noise.scale: [0, 0.1, 0.2]}'",
        "every value of a grid, trained at once",
    ),
    ("modulab train experiment=regression", "a prepared experiment"),
    (
        "modulab train -m architecture=dense,premodular 'seed=range(8)'",
        "a sweep, packed and trained together",
    ),
)
_OPTIONS = (
    ("hydra.run.dir=FOLDER", "where to write; the same folder again goes on where it stopped"),
    ("hydra.sweep.dir=FOLDER", "the same for a sweep"),
    ("logger=wandb", "also log to W&B, each network as a run; or csv, tensorboard, '[csv,wandb]'"),
    ("sweep.dry_run=true", "print how much there is to train, and train nothing"),
    ("hydra/launcher=population_slurm", "train a sweep on a SLURM cluster; its keys are those of hydra.launcher"),
    ("--config-dir FOLDER", "a folder of further configs; modules in the current folder can be named as _target_"),
    ("MODULAB_CONFIG_DIR, modulab.toml", "name such folders once: config_dir = \"configs\", in the file"),
    ("--cfg job", "print the composed config and train nothing"),
    ("--help GROUP", "the options and keys of one group alone"),
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
    known = sorted({path.name for place in places for path in place.iterdir() if _is_group(path)})
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
        lines += ["", "modulab list GROUP says what the options of a group are."]
    return "\n".join(lines)


def listed(group: str | None, folders: Sequence[Path] = ()) -> list[tuple[str, str]]:
    """Return the options of a group with their meanings, or the groups with the names of their options.

    A group may be a folder of another, as experiment/claims is. `folders` hold configs beside modulab's own.

    Raises: ConfigError for a group that is not there.
    """
    places = [config_folder(), *folders]
    files = {
        name: _option_files(name, places)
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


def _option_files(group: str, places: Sequence[Path]) -> dict[str, Path]:
    """Return the config file of each option of a group, from the first of the places that has it."""
    files: dict[str, Path] = {}
    for place in places:
        for file in sorted((place / group).rglob("*.yaml")):
            files.setdefault(file.relative_to(place / group).with_suffix("").as_posix(), file)
    return files


def option_meaning(file: Path) -> str:
    """Return the comment that opens a config file, after Hydra's own header."""
    lines = (line for line in file.read_text("utf-8").splitlines() if not line.startswith("# @"))
    return next((line[1:].strip() for line in lines if line.startswith("#")), "")


def _is_group(path: Path) -> bool:
    return path.is_dir() and path.name not in OTHER_GROUPS and any(path.rglob("*.yaml"))


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
        *_definitions([("seed=0", _classes()["Member"].fields["seed"].meaning)], width),
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
    files = _option_files(group, places)
    lines = [f"{group}=OPTION", *_definitions([(name, option_meaning(files[name])) for name in files], width)]
    families: dict[tuple[str, ...], tuple[list[str], list[tuple[str, str]]]] = {}
    for name in sorted(files, key=lambda each: each != _default_option(group)):
        keys = list(_keys(group, _read(files[name])))
        of_family, _ = families.setdefault(tuple(_key(term) for term, _ in keys), ([], keys))
        of_family.append(name)
    for options, keys in families.values():
        if keys:
            of = f" of {', '.join(options)}" if len(families) > 1 else ""
            heading = f"Keys{of}, with {f'the defaults of {group}={options[0]}' if len(options) > 1 else 'defaults'}:"
            lines += ["", *textwrap.wrap(heading, width, initial_indent="  ", subsequent_indent="    ")]
            lines += _definitions(keys, width)
    return [*lines, ""]


def _key(term: str) -> str:
    return term.partition("=")[0]


@functools.cache
def _default_option(group: str) -> str:
    """Return the option of a group that holds unless another is given."""
    defaults: list[Any] = yaml.safe_load((config_folder() / "train.yaml").read_text("utf-8"))["defaults"]
    chosen = {key: value for entry in defaults if isinstance(entry, dict) for key, value in entry.items()}
    return str(chosen.get(group))


def _read(file: Path) -> dict[str, Any]:
    """Return a config file with those that it begins from."""
    own: dict[str, Any] = yaml.safe_load(file.read_text("utf-8")) or {}
    if "_global_" in file.read_text("utf-8").partition("\n")[0]:
        return {}  # an experiment, whose keys are those of other groups
    found: dict[str, Any] = {}
    for entry in own.pop("defaults", []):
        other = file.with_name(f"{entry}.yaml")
        if entry == "_self_" or not other.exists():
            continue
        found = _read(other)
    for key, value in own.items():
        both = isinstance(value, dict) and isinstance(found.get(key), dict)
        found[key] = {**found[key], **value} if both else value
    return found


def _keys(group: str, values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield KEY=DEFAULT and its meaning for each key of an option, or of what it chooses below the group."""
    target = str(values.get("_target_", "")).rpartition(".")[2] or group.capitalize()
    fields = _fields(target)
    if not fields:
        for name, inner in values.items():
            of_name = f"{name.capitalize()}{target}"
            if isinstance(inner, dict) and of_name in _classes():
                yield from _described(f"{group}.{name}", cast("dict[str, Any]", inner), _fields(of_name))
                return
    yield from _described(group, values, fields)


def _described(
    prefix: str, values: Mapping[str, Any], fields: Mapping[str, _Field]
) -> Iterator[tuple[str, str]]:
    for name in dict.fromkeys([*fields, *(key for key in values if key != "_target_")]):
        field = fields.get(name, _Field(""))
        value = values.get(name, field.default)
        inner = next((found for found in map(_fields, field.types) if found), {})
        by_key = "dict" in field.types
        if inner and not by_key:
            yield from _described(f"{prefix}.{name}", value if isinstance(value, dict) else {}, inner)
            continue
        words = field.meaning
        if field.choices:
            words += f"; one of {', '.join(field.choices)}"
        default = _written(value)
        if len(default) > _LONGEST_DEFAULT:
            yield f"{prefix}.{name}", f"{words}; by default {default}"
        else:
            yield f"{prefix}.{name}={default}", words
        if inner:
            yield from _described(f"{prefix}.{name}.KEY", {}, inner)


def _written(value: object) -> str:
    """Return a default as it would be given; of a dictionary, its keys."""
    if value is _NOTHING:
        return ""
    if isinstance(value, dict):
        return f"{{{', '.join(map(str, value))}}}"
    if isinstance(value, list):
        return f"[{','.join(map(_written, value))}]"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


_NOTHING = object()


@dataclass(frozen=True)
class _Field:
    """What the source says of one key."""

    meaning: str
    types: tuple[str, ...] = ()
    """Names of types in its annotation."""
    choices: tuple[str, ...] = ()
    default: Any = _NOTHING


@dataclass(frozen=True)
class _Class:
    fields: dict[str, _Field]
    bases: tuple[str, ...]


@functools.cache
def _classes() -> dict[str, _Class]:
    """Return the classes in modulab's source that have described fields or derive from others, by name."""
    trees = [
        ast.parse(path.read_text("utf-8"))
        for path in sorted(_PACKAGE.rglob("*.py"))
        if _may_hold_settings(path)
    ]
    literals = {
        node.targets[0].id: node.value
        for tree in trees
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and _is_literal(node.value)
    }
    found: dict[str, _Class] = {}
    for tree in trees:
        for node in tree.body:
            if isinstance(node, ast.ClassDef):
                fields = {
                    item.target.id: field
                    for item in node.body
                    if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)
                    if (field := _field(item, literals)) is not None
                }
                bases = tuple(_last_name(base) for base in node.bases)
                found[node.name] = _Class(fields, bases)
    return found


def _may_hold_settings(path: Path) -> bool:
    return "Field(" in path.read_text("utf-8") or "= Literal[" in path.read_text("utf-8")


def _fields(name: str) -> dict[str, _Field]:
    """Return the described fields of a class, those of the classes that it derives from first."""
    of_class = _classes().get(name)
    if of_class is None:
        return {}
    found: dict[str, _Field] = {}
    for base in of_class.bases:
        found |= _fields(base)
    return found | of_class.fields


def _field(item: ast.AnnAssign, literals: Mapping[str, ast.expr]) -> _Field | None:
    if not isinstance(item.value, ast.Call) or _last_name(item.value.func) != "Field":
        return None
    words = {word.arg: word.value for word in item.value.keywords}
    meaning = words.get("description")
    default: Any = ast.literal_eval(words["default"]) if "default" in words else _NOTHING
    names = [
        _last_name(node) for node in ast.walk(item.annotation) if isinstance(node, ast.Name | ast.Attribute)
    ]
    return _Field(
        meaning.value if isinstance(meaning, ast.Constant) and isinstance(meaning.value, str) else "",
        tuple(names),
        tuple(_choices(item.annotation, literals)),
        default,
    )


def _choices(annotation: ast.expr, literals: Mapping[str, ast.expr]) -> Iterator[str]:
    """Yield the texts that an annotation allows; names of other literals stand for theirs."""
    if isinstance(annotation, ast.Subscript):
        if _is_literal(annotation):
            values = annotation.slice.elts if isinstance(annotation.slice, ast.Tuple) else [annotation.slice]
            for value in values:
                if isinstance(value, ast.Constant):
                    yield str(value.value)
                else:
                    yield from _choices(value, literals)
        else:
            yield from _choices(annotation.slice, literals)
    elif isinstance(annotation, ast.BinOp):
        yield from _choices(annotation.left, literals)
        yield from _choices(annotation.right, literals)
    elif isinstance(annotation, ast.Name | ast.Attribute) and _last_name(annotation) in literals:
        yield from _choices(literals[_last_name(annotation)], literals)


def _is_literal(node: ast.expr) -> bool:
    return isinstance(node, ast.Subscript) and _last_name(node.value) == "Literal"


def _last_name(node: ast.expr) -> str:
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""
