"""Members for tests: the reference setting of configs/, with dotted keys replaced."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf

from modulab.config.settings import Member, Trainer, read_run
from modulab.training.execution import Execution

CONFIGS = Path(__file__).parent.parent / "configs"
EAGER = Trainer(
    accelerator="cpu", engine="eager", threads=1, memory_gib=None, largest_population=None,
    checkpoint_seconds=0.0, progress="off",
)  # fmt: skip
EAGERLY = Execution("eager", torch.device("cpu"), asked_threads=1)
"""What is chosen for `EAGER`."""


def _group(name: str, option: str) -> dict[str, Any]:
    group = OmegaConf.to_container(OmegaConf.load(CONFIGS / name / f"{option}.yaml"))
    assert isinstance(group, dict)
    return {str(key): value for key, value in group.items()}


def member_config(choices: dict[str, str] | None = None, **overrides: Any) -> dict[str, Any]:
    """Return a plain member config; write dots in keys as two underscores."""
    picked = {
        "task": "regression",
        "architecture": "dense",
        "noise": "none",
        "regulariser": "activity_weight",
        "data": "default",
        "training": "default",
        "probes": "default",
    } | (choices or {})
    config: dict[str, Any] = {"seed": 0} | {group: _group(group, option) for group, option in picked.items()}
    if "regulariser" not in (choices or {}):
        config["regulariser"]["strength"] = 0.0
    for key, value in overrides.items():
        *path, leaf = key.split("__")
        node = config
        for part in path:
            node = node[part]
        assert leaf in node or leaf == "_target_", key
        node[leaf] = value
    return config


def make_member(choices: dict[str, str] | None = None, **overrides: Any) -> Member:
    """Return a checked member; write dots in keys as two underscores."""
    return read_run(member_config(choices, **overrides)).member
