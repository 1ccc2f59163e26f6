"""docs/architecture.md names functions that exist, and calls happen in the order in which it lists them."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path
from types import FrameType

import pytest

import modulab

PAGE = (Path(__file__).parents[1] / "docs" / "architecture.md").read_text()
PACKAGE = Path(modulab.__file__).parent


def steps(heading: str) -> list[str]:
    """Return the functions that the numbered steps of a section begin with."""
    section = PAGE.split(f"## {heading}", 1)[1].split("\n## ", 1)[0]
    return re.findall(r"^\d+\. `([\w.]+)`", section, flags=re.MULTILINE)


WALKS = [steps("From `noise.scale"), steps("From weights to")]


@pytest.fixture(scope="module")
def calls(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Return the calls of these functions in a real run, in order."""
    wanted = {name for walk in WALKS for name in walk}
    found: list[str] = []

    def watch(frame: FrameType, event: str, argument: object) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(str(PACKAGE)):
            module = ".".join(Path(frame.f_code.co_filename).relative_to(PACKAGE).with_suffix("").parts)
            name = f"{module}.{frame.f_code.co_qualname}"
            if name in wanted:
                found.append(name)

    from modulab.cli import main

    folder = tmp_path_factory.mktemp("walk")
    small = "training.steps=4 training.curve_every=2 training.batch_size=4 data.num_samples=8 probes.num_samples=16"
    sys.setprofile(watch)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            patch.setattr(sys, "argv", list(sys.argv))
            patch.setattr(sys, "path", list(sys.path))
            overrides = (
                "noise=poisson noise.scale=0.2 population.seeds=2 trainer.engine=eager trainer.progress=off"
            )
            assert main(["train", *small.split(), *overrides.split(), f"hydra.run.dir={folder}/run"]) == 0
    finally:
        sys.setprofile(None)
    return found


@pytest.mark.parametrize("walk", WALKS, ids=["noise.scale", "modularity"])
def test_calls_follow_the_walk_in_order(walk: list[str], calls: list[str]) -> None:
    assert len(walk) > 10
    assert set(walk) <= set(calls), set(walk) - set(calls)
    place = 0
    for name in walk:
        assert name in calls[place:], f"{name} is not called after the steps before it"
        place = calls.index(name, place) + 1


def test_every_function_that_the_page_points_to_exists() -> None:
    section = PAGE.split("## Where else to look", 1)[1].split("\n## ", 1)[0]
    names = re.findall(r"`([a-z_]+\.[\w.]+)`", section)
    assert len(names) >= 10
    for name in names:
        parts = name.split(".")
        place = next(length for length in range(len(parts), 0, -1) if _module_file(parts[:length]).is_file())
        found: object = importlib.import_module(".".join(["modulab", *parts[:place]]))
        for part in parts[place:]:
            found = getattr(found, part)
        assert callable(found), name


def _module_file(parts: list[str]) -> Path:
    return PACKAGE.joinpath(*parts).with_suffix(".py")


def test_every_file_that_the_page_names_exists() -> None:
    root = Path(__file__).parents[1]
    for name in re.findall(r"`((?:tests/)?[\w/]+\.py)`", PAGE):
        assert (root / name).exists() or (PACKAGE / name).exists(), name


def test_packages_that_the_page_lists_are_those_that_there_are() -> None:
    block = PAGE.split("## Packages", 1)[1].split("Each package imports", 1)[0]
    named = set(re.findall(r"(?<!\w)([a-z]+)/", block)) | set(re.findall(r"(?<!\w)([a-z]+)\.py", block))
    there = {
        path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    imported_anywhere = PAGE.split("Each package imports", 1)[1].split("`tests/", 1)[0]
    everyones = set(re.findall(r"`([a-z_]+)(?:\.py)?`", imported_anywhere))
    assert named | everyones | {"__init__"} == there
