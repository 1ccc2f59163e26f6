"""One direction: no package imports one above it."""

import ast
import tomllib
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
import yaml

import modulab

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "modulab"
LEVELS = [
    {
        "arguments",
        "control_groups",
        "cores",
        "errors",
        "extras",
        "foreign",
        "lightning",
        "measure_names",
        "memory",
        "notebook",
        "postponed",
        "progress",
        "project",
        "python_words",
        "random_state",
        "schema",
        "signals",
        "streams",
        "text",
        "workers",
    },
    {"tasks", "networks", "noise", "regularisers", "energy", "wiring", "losses", "optimisers", "partition"},
    {"config"},
    {"metrics"},
    {"training", "results"},
    {"logger"},
    {"sweep"},
    {"analysis"},
    {"process", "report"},
    {"claims"},
    {"api", "cleaning", "cli", "export", "help", "returned", "starter"},
]
"""Packages and modules, the lowest first. Those of one level may import one another, and whatever is lower."""


def level(room: str) -> int:
    return next(place for place, rooms in enumerate(LEVELS) if room in rooms)


def imports(file: Path) -> Iterator[str]:
    """Yield the part of modulab's modules that a file imports from, wherever in the file."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from (name.removeprefix("modulab.") for name in names if name.startswith("modulab."))


def room(name: str) -> str:
    return name.split(".", maxsplit=1)[0]


@pytest.mark.parametrize(
    "file", sorted(PACKAGE.rglob("*.py")), ids=lambda file: str(file.relative_to(PACKAGE))
)
def test_no_package_imports_one_above_it(file: Path) -> None:
    own = ".".join(file.relative_to(PACKAGE).with_suffix("").parts)
    if own == "__init__":
        return
    for name in imports(file):
        assert level(room(own)) >= level(room(name)), f"{own} imports modulab.{name}"


def test_packages_of_one_level_do_not_import_each_other_in_a_circle() -> None:
    read: dict[str, set[str]] = {}
    for file in PACKAGE.rglob("*.py"):
        own = room(".".join(file.relative_to(PACKAGE).with_suffix("").parts))
        if own != "__init__":
            read.setdefault(own, set()).update({room(name) for name in imports(file)} - {own})
    TopologicalSorter(read).prepare()


def test_every_module_of_the_package_has_a_level() -> None:
    found = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or path.is_dir()}
    assert found - {"__init__", "__pycache__"} <= set().union(*LEVELS)


def test_the_interface_of_the_package_is_shown_and_typed() -> None:
    shown = set(dir(modulab))
    assert set(modulab.__all__) <= shown
    assert all(getattr(modulab, name).__doc__ for name in modulab.__all__)
    assert (Path(modulab.__file__).parent / "py.typed").is_file()


def test_citation_names_the_version_and_the_licence_of_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == project["version"]
    assert citation["license"] == project["license"]
    assert f"## {project['version']}" in (ROOT / "CHANGELOG.md").read_text()
