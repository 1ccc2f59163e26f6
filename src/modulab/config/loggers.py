"""The settings of loggers. Nothing here is part of a result."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import Field

from modulab.errors import ConfigError
from modulab.extras import require_extra
from modulab.schema import Settings, read_settings, suggest

DEFAULT_PROJECT = "modulab"
_MODES: dict[str, Literal["auto", "online", "offline", "disabled"]] = {
    "auto": "auto",
    "online": "online",
    "offline": "offline",
    "disabled": "disabled",
    # W&B's older names for them
    "run": "online",
    "dryrun": "offline",
}


class CsvLogger(Settings):
    """One folder per member below csv/: metrics.csv and hparams.yaml, by Lightning's CSVLogger."""

    live_up_to: int = Field(ge=0, description="largest population whose curves are written during training")


class TensorboardLogger(Settings):
    """One folder of event files per member below tensorboard/, by Lightning's TensorBoardLogger."""

    live_up_to: int = Field(ge=0, description="largest population whose curves are written during training")


class WandbLogger(Settings):
    """One W&B run per member and one of the whole sweep, with files below wandb/."""

    project: str | None = Field(
        min_length=1, description="W&B project; null uses WANDB_PROJECT, or else modulab"
    )
    entity: str | None = Field(
        description="W&B user or team; null uses WANDB_ENTITY, or else the default of the account"
    )
    group: str | None = Field(
        description="group of the runs in W&B; null uses WANDB_RUN_GROUP, or else the name of the folder"
    )
    tags: list[str] = Field(
        description="additional tags of every run; if empty, those in WANDB_TAGS are used"
    )
    mode: Literal["auto", "online", "offline", "disabled"] = Field(
        description="auto uses WANDB_MODE; without it, online if there is an API key, otherwise offline"
    )
    live_up_to: int = Field(ge=0, description="largest population whose curves are written during training")
    patience_seconds: float = Field(
        gt=0,
        description="seconds after which logging is given up if W&B does not respond; training continues",
    )

    def with_environment(self, environment: Mapping[str, str]) -> WandbLogger:
        """Return the settings with W&B's environment variables where the config sets nothing.

        Raises: ConfigError for an unknown WANDB_MODE.
        """
        mode = self.mode
        if mode == "auto":
            mode = _MODES.get(given := environment.get("WANDB_MODE") or "auto")
            if mode is None:
                raise ConfigError(f"WANDB_MODE={given}: there is no such mode. {suggest(given, _MODES)}")
        named = [tag.strip() for tag in environment.get("WANDB_TAGS", "").split(",")]
        return self.model_copy(
            update={
                "project": self.project or environment.get("WANDB_PROJECT") or DEFAULT_PROJECT,
                "entity": self.entity or environment.get("WANDB_ENTITY") or None,
                "group": self.group or environment.get("WANDB_RUN_GROUP") or None,
                "tags": self.tags or [tag for tag in named if tag],
                "mode": mode,
            }
        )


def wandb_folder(folder: Path) -> Path:
    """Return the folder of W&B's runs: wandb/ in WANDB_DIR or, if it is not set, in the results' folder."""
    return Path(os.environ.get("WANDB_DIR") or folder) / "wandb"


class Loggers(Settings):
    """The loggers of a run: none, one, or several."""

    csv: CsvLogger | None = None
    tensorboard: TensorboardLogger | None = None
    wandb: WandbLogger | None = None

    def in_group(self, group: str) -> Loggers:
        """Return the same loggers, with a group of runs in W&B if none was named."""
        if self.wandb is None or self.wandb.group is not None or os.environ.get("WANDB_RUN_GROUP"):
            return self
        return self.model_copy(update={"wandb": self.wandb.model_copy(update={"group": group})})


_LOGGERS: dict[str, type[Settings]] = {
    "csv": CsvLogger,
    "tensorboard": TensorboardLogger,
    "wandb": WandbLogger,
}


_EXTRAS = {"tensorboard": ("tensorboardX", "tensorboard"), "wandb": ("wandb",)}
"""The packages of which a logger needs one; the extra that installs it has the logger's name."""


def read_loggers(node: object) -> Loggers:
    """Return checked settings of loggers from the group `logger` of a config.

    Raises: ConfigError for unknown loggers and keys, wrong values, and a package that is missing.
    """
    if not isinstance(node, Mapping):
        raise ConfigError(f"logger={node!r}: name files of configs/logger/, as in logger=[csv,wandb].")
    chosen: dict[str, Settings] = {}
    for name, settings in node.items():
        if name not in _LOGGERS:
            raise ConfigError(f"logger.{name}: there is no such logger. {suggest(str(name), _LOGGERS)}")
        if not isinstance(settings, Mapping):
            raise ConfigError(
                f"logger.{name}={settings!r} should be a group of settings. Choose logger={name}."
            )
        if name in _EXTRAS:
            require_extra(str(name), _EXTRAS[name], f"logger={name}")
        chosen[str(name)] = read_settings(settings, f"logger.{name}", _LOGGERS[str(name)])
    return Loggers.model_validate(chosen)
