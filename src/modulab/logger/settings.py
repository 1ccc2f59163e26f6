"""The settings of loggers. Nothing here is part of a result."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from modulab.errors import ConfigError
from modulab.schema import Settings, read_settings, suggest


class CsvLogger(Settings):
    """A folder a member below csv/: metrics.csv and hparams.yaml, by Lightning's CSVLogger."""

    live_up_to: int = Field(ge=0, description="members of a population up to which curves are written live")


class TensorboardLogger(Settings):
    """A folder of event files a member below tensorboard/, by Lightning's TensorBoardLogger."""

    live_up_to: int = Field(ge=0, description="members of a population up to which curves are written live")


class WandbLogger(Settings):
    """A W&B run a member and one of the whole sweep, with files below wandb/."""

    project: str = Field(min_length=1, description="W&B project")
    entity: str | None = Field(description="W&B user or team; null takes the default of the account")
    group: str | None = Field(description="group of the runs in W&B; null takes the name of the folder")
    tags: list[str] = Field(description="tags of every run besides those of its task, architecture and so on")
    mode: Literal["auto", "online", "offline", "disabled"] = Field(
        description="auto is online where there is an API key, else offline"
    )
    live_up_to: int = Field(ge=0, description="members of a population up to which curves are written live")
    patience_seconds: float = Field(
        gt=0, description="how long W&B may do nothing before logging is given up; training goes on"
    )


class Loggers(Settings):
    """The loggers of a run: none, one, or several."""

    csv: CsvLogger | None = None
    tensorboard: TensorboardLogger | None = None
    wandb: WandbLogger | None = None

    def in_group(self, group: str) -> Loggers:
        """Return the same loggers, with a group of runs in W&B where none was named."""
        if self.wandb is None or self.wandb.group is not None:
            return self
        return self.model_copy(update={"wandb": self.wandb.model_copy(update={"group": group})})


_LOGGERS: dict[str, type[Settings]] = {
    "csv": CsvLogger,
    "tensorboard": TensorboardLogger,
    "wandb": WandbLogger,
}


def read_loggers(node: object) -> Loggers:
    """Return checked settings of loggers from the group `logger` of a config.

    Raises: ConfigError for unknown loggers and keys, and for wrong values.
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
        chosen[str(name)] = read_settings(settings, f"logger.{name}", _LOGGERS[str(name)])
    return Loggers.model_validate(chosen)
