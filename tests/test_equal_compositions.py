"""What is saved of composing in tests changes no config, whatever files say in between."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig, ListConfig

from modulab.config.composing import hydra_composer
from tests.equal_compositions import compose_as_hydra_does


def described(node: Any) -> Any:
    """Return all that a node of a config says: its types, flags and contents, interpolations as they are written."""
    about = node._metadata
    own = (type(node), str(about.ref_type), about.object_type, about.optional, about.key, about.flags)
    content = node._content if isinstance(node, DictConfig | ListConfig) else None
    if isinstance(content, dict):
        return own, {key: described(inner) for key, inner in content.items()}
    if isinstance(content, list):
        return own, [described(inner) for inner in content]
    return own, node._value()


@pytest.mark.parametrize(
    "overrides",
    [["noise.scale=0.2", "seed=3"], ["experiment=digits", "logger=[csv,wandb]"], ["hydra/launcher=basic"]],
    ids=lambda overrides: overrides[0],
)
def test_configs_merged_once_are_those_that_hydra_merges(
    overrides: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with hydra_composer() as compose:
        first, again = (described(compose(overrides)) for _ in range(2))
        compose_as_hydra_does(monkeypatch)
        assert described(compose(overrides)) == first == again


def test_what_one_caller_changes_and_what_a_file_says_later_counts(tmp_path: Path) -> None:
    (tmp_path / "noise").mkdir()
    file = tmp_path / "noise/own.yaml"
    with hydra_composer([tmp_path]) as compose:
        for scale in (0.25, 0.5, 0.25):
            file.write_text(f"name: own\nscale: {scale}\n")
            config = compose(["noise=own"])
            assert config.noise.scale == scale
            config.noise.scale = 7
