"""What only some runs need is an extra; where it is missing, the message names it."""

from __future__ import annotations

import importlib.metadata
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from modulab.config.loggers import read_loggers
from modulab.errors import ConfigError
from modulab.extras import require_extra

PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
LOCKED = (Path(__file__).parents[1] / "requirements.lock").read_text().lower()


@pytest.mark.parametrize(
    ("logger", "packages"), [("wandb", ["wandb"]), ("tensorboard", ["tensorboardX", "tensorboard"])]
)
def test_a_logger_whose_package_is_missing_names_the_extra(
    logger: str, packages: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for package in packages:
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigError) as raised:
        read_loggers({logger: {}})
    assert f"pip install 'modulab[{logger}]'" in str(raised.value)
    assert logger in PROJECT["optional-dependencies"]


def test_one_of_several_packages_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    require_extra("tensorboard", ("tensorboardX", "json"), "logger=tensorboard")


def test_users_of_the_package_get_no_tools() -> None:
    needed = " ".join(PROJECT["dependencies"])
    for tool in ("pytest", "pyright", "ruff", "wandb", "tensorboard", "submitit", "ray", "optuna"):
        assert tool not in needed


def packages(requirement: Requirement) -> Iterator[str]:
    """Yield the names of a requirement, and of those of its own extras."""
    yield requirement.name
    for each in map(Requirement, importlib.metadata.requires(requirement.name) or ()):
        marker = each.marker
        if marker and any(marker.evaluate({"extra": extra}) for extra in requirement.extras):
            yield each.name


def test_the_lock_has_the_packages_of_all_extras_but_that_of_other_frameworks() -> None:
    locked = {canonicalize_name(line.partition("==")[0]) for line in LOCKED.splitlines()}
    extras = PROJECT["optional-dependencies"]
    for extra in extras.keys() - {"benchmark", "all"}:
        for requirement in map(Requirement, extras[extra]):
            assert {*map(canonicalize_name, packages(requirement))} <= locked, requirement
