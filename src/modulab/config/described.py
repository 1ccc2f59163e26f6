"""Every group of configs with its options, and every key with its type, limits, default and meaning.

All of it is read from the YAML of configs/ and from the source of the classes that read this YAML: importing them would
import torch. The help of `modulab train` and the reference of configs in the documentation are written from it.
"""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from modulab.config.composing import OTHER_GROUPS, config_folder, plain_yaml

NOTHING = object()
"""The default of a key that has none."""

_PACKAGE = Path(__file__).parents[1]
_DERIVED = re.compile(r"^class (\w+)\((\w+)\):", re.MULTILINE)
_TYPES = {"int": "integer", "float": "number", "str": "text", "bool": "boolean", "Any": "any value"}
_LIMITS = {
    "ge": "at least {}", "gt": "above {}", "le": "at most {}", "lt": "below {}",
    "min_length": "{} or more entries", "max_length": "{} or fewer entries", "pattern": "matches {}",
}  # fmt: skip


@dataclass(frozen=True)
class Key:
    """The description of one key. A key that the source does not describe has no type and no meaning."""

    name: str
    default: Any
    meaning: str
    type: str
    limits: tuple[str, ...]
    choices: tuple[str, ...]

    @property
    def written_default(self) -> str:
        """Return the default as it would be given on a command line; for a dictionary, its keys."""
        return written(self.default)


@dataclass(frozen=True)
class Family:
    """Options of a group that have the same keys. Defaults are those of the first of them."""

    options: tuple[str, ...]
    keys: tuple[Key, ...]


def group_names(places: Sequence[Path]) -> list[str]:
    """Return the groups of a run in folders of configs."""
    return sorted({path.name for place in places for path in place.iterdir() if _is_group(path)})


def option_files(group: str, places: Sequence[Path]) -> dict[str, Path]:
    """Return the config file of each option of a group, from the first folder that contains it."""
    files: dict[str, Path] = {}
    for place in places:
        for file in sorted((place / group).rglob("*.yaml")):
            files.setdefault(file.relative_to(place / group).with_suffix("").as_posix(), file)
    return files


def option_meaning(file: Path) -> str:
    """Return the first comment of a config file, after Hydra's own header."""
    lines = (line for line in file.read_text("utf-8").splitlines() if not line.startswith("# @"))
    return next((line[1:].strip() for line in lines if line.startswith("#")), "")


def families(group: str, places: Sequence[Path]) -> list[Family]:
    """Return the options of a group by their keys, beginning with the default option."""
    files = option_files(group, places)
    found: dict[tuple[str, ...], tuple[list[str], tuple[Key, ...]]] = {}
    for name in sorted(files, key=lambda each: each != default_option(group)):
        keys = tuple(_keys(group, read_option(files[name])))
        options, _ = found.setdefault(tuple(key.name for key in keys), ([], keys))
        options.append(name)
    return [Family(tuple(options), keys) for options, keys in found.values()]


def option_keys(group: str, file: Path) -> list[Key]:
    """Return the keys of one option of a group, from its config file, with the defaults of that option."""
    return list(_keys(group, read_option(file)))


def read_option(file: Path) -> dict[str, Any]:
    """Return a config file joined with its defaults; empty for an experiment, whose keys are those of groups."""
    own: dict[str, Any] = plain_yaml(file) or {}
    if "_global_" in file.read_text("utf-8").partition("\n")[0]:
        return {}
    found: dict[str, Any] = {}
    for entry in own.pop("defaults", []):
        other = file.with_name(f"{entry}.yaml")
        if entry == "_self_" or not other.exists():
            continue
        found = read_option(other)
    for key, value in own.items():
        both = isinstance(value, dict) and isinstance(found.get(key), dict)
        found[key] = {**found[key], **value} if both else value
    return found


def keys_of_target(prefix: str, values: Mapping[str, Any]) -> list[Key]:
    """Return the keys below a prefix of a part of a config whose `_target_` names a class."""
    return list(_described(prefix, values, _fields(_target(values, ""))))


def meaning_of(class_name: str, field: str) -> str:
    """Return the description of a field of a class in the source."""
    return _fields(class_name)[field].meaning


def written(value: object) -> str:
    """Return a value as it would be given on a command line; for a dictionary, its keys."""
    if value is NOTHING:
        return ""
    if isinstance(value, dict):
        return f"{{{', '.join(map(str, value))}}}"
    if isinstance(value, list):
        return f"[{','.join(map(written, value))}]"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _is_group(path: Path) -> bool:
    return path.is_dir() and path.name not in OTHER_GROUPS and any(path.rglob("*.yaml"))


@functools.cache
def default_option(group: str) -> str:
    """Return the option of a group that is used if a command names none."""
    defaults: list[Any] = plain_yaml(config_folder() / "train.yaml")["defaults"]
    chosen = {key: value for entry in defaults if isinstance(entry, dict) for key, value in entry.items()}
    return str(chosen.get(group))


def _target(values: Mapping[str, Any], otherwise: str) -> str:
    return str(values.get("_target_", "")).rpartition(".")[2] or otherwise


def _keys(group: str, values: Mapping[str, Any]) -> Iterator[Key]:
    """Yield the keys of an option, or of what it chooses below the group."""
    target = _target(values, group.capitalize())
    fields = _fields(target)
    if not fields:
        for name, inner in values.items():
            of_name = f"{name.capitalize()}{target}"
            if isinstance(inner, dict) and of_name in _classes():
                yield from _described(f"{group}.{name}", cast("dict[str, Any]", inner), _fields(of_name))
                return
    yield from _described(group, values, fields)


def _described(prefix: str, values: Mapping[str, Any], fields: Mapping[str, _Field]) -> Iterator[Key]:
    for name in dict.fromkeys([*fields, *(key for key in values if key != "_target_")]):
        field = fields.get(name, _Field(""))
        value = values.get(name, field.default)
        inner = next((found for found in map(_fields, field.names) if found), {})
        by_key = "dict" in field.names
        if inner and not by_key:
            yield from _described(f"{prefix}.{name}", value if isinstance(value, dict) else {}, inner)
            continue
        yield Key(f"{prefix}.{name}", value, field.meaning, field.type, field.limits, field.choices)
        if inner:
            yield from _described(f"{prefix}.{name}.KEY", {}, inner)


@dataclass(frozen=True)
class _Field:
    """The description of one key in the source."""

    meaning: str
    names: tuple[str, ...] = ()
    """Names of types in its annotation."""
    type: str = ""
    limits: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    default: Any = NOTHING


@dataclass(frozen=True)
class _Class:
    fields: dict[str, _Field]
    bases: tuple[str, ...]


@functools.cache
def _classes() -> dict[str, _Class]:
    """Return the classes in modulab's source that have described fields or derive from others, by name."""
    sources = [path.read_text("utf-8") for path in sorted(_PACKAGE.rglob("*.py"))]
    trees = [ast.parse(source) for source in sources if "Field(" in source or "= Literal[" in source]
    aliases = {
        node.targets[0].id: node.value
        for tree in trees
        for node in tree.body
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Name)
        and _is_subscript(node.value, "Literal", "Annotated")
    }
    found: dict[str, _Class] = {}
    for tree in trees:
        for node in tree.body:
            if isinstance(node, ast.ClassDef):
                fields = {
                    item.target.id: field
                    for item in node.body
                    if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)
                    if (field := _field(item, aliases)) is not None
                }
                bases = tuple(_last_name(base) for base in node.bases)
                found[node.name] = _Class(fields, bases)
    for source in sources:  # parsing those without fields would take most of the time
        for name, base in _DERIVED.findall(source):
            found.setdefault(name, _Class({}, (base,)))
    return found


def _fields(name: str) -> dict[str, _Field]:
    """Return the described fields of a class, those of the classes that it derives from first."""
    of_class = _classes().get(name)
    if of_class is None:
        return {}
    found: dict[str, _Field] = {}
    for base in of_class.bases:
        found |= _fields(base)
    return found | of_class.fields


def _field(item: ast.AnnAssign, aliases: Mapping[str, ast.expr]) -> _Field | None:
    if not isinstance(item.value, ast.Call) or _last_name(item.value.func) != "Field":
        return None
    words = {word.arg: word.value for word in item.value.keywords if word.arg is not None}
    meaning = words.get("description")
    default: Any = ast.literal_eval(words["default"]) if "default" in words else NOTHING
    names = [
        _last_name(node) for node in ast.walk(item.annotation) if isinstance(node, ast.Name | ast.Attribute)
    ]
    return _Field(
        meaning.value if isinstance(meaning, ast.Constant) and isinstance(meaning.value, str) else "",
        tuple(names),
        _type(item.annotation, aliases),
        tuple(_LIMITS[word].format(_limit(value)) for word, value in words.items() if word in _LIMITS),
        tuple(_choices(item.annotation, aliases)),
        default,
    )


def _limit(value: ast.expr) -> str:
    return str(value.value) if isinstance(value, ast.Constant) else ast.unparse(value).replace(" ", "")


def _type(annotation: ast.expr, aliases: Mapping[str, ast.expr]) -> str:
    """Return the type of a key in words for users."""
    match annotation:
        case ast.Constant(value=None):
            return "null"
        case ast.BinOp(left=left, right=right):
            return f"{_type(left, aliases)} or {_type(right, aliases)}"
        case ast.Subscript(value=ast.Name(id="Literal")):
            return "choice"
        case ast.Subscript(value=ast.Name(id="Annotated"), slice=ast.Tuple(elts=[of, *_])):
            return _type(of, aliases)
        case ast.Subscript(value=ast.Name(id="list"), slice=of):
            first, *rest = _type(of, aliases).split(" of ", 1)
            return " of ".join(["list", f"{first}s", *rest])
        case _:
            name = _last_name(annotation)
            return _type(aliases[name], aliases) if name in aliases else _TYPES.get(name, "mapping")


def _choices(annotation: ast.expr, aliases: Mapping[str, ast.expr]) -> Iterator[str]:
    """Yield the texts that an annotation allows, also through aliases."""
    if isinstance(annotation, ast.Subscript):
        if _is_subscript(annotation, "Literal"):
            values = annotation.slice.elts if isinstance(annotation.slice, ast.Tuple) else [annotation.slice]
            for value in values:
                if isinstance(value, ast.Constant):
                    yield str(value.value)
                else:
                    yield from _choices(value, aliases)
        else:
            yield from _choices(annotation.slice, aliases)
    elif isinstance(annotation, ast.BinOp):
        yield from _choices(annotation.left, aliases)
        yield from _choices(annotation.right, aliases)
    elif isinstance(annotation, ast.Name | ast.Attribute) and _last_name(annotation) in aliases:
        yield from _choices(aliases[_last_name(annotation)], aliases)


def _is_subscript(node: ast.expr, *names: str) -> bool:
    return isinstance(node, ast.Subscript) and _last_name(node.value) in names


def _last_name(node: ast.expr) -> str:
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""
