"""Export a finished folder of results: log it, and make its dashboard."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

from omegaconf import OmegaConf

from modulab.config.composing import compose_checked, hydra_composer
from modulab.config.loggers import DEFAULT_PROJECT, Loggers, WandbLogger, read_loggers
from modulab.config.overrides import check_given_once, override_key
from modulab.errors import ConfigError
from modulab.logger.ledger import Ledger, remembered
from modulab.logger.records import outcomes
from modulab.logger.run_log import logged_so_far, open_log
from modulab.results.files import check_links
from modulab.results.lock import FolderLock
from modulab.results.parquet import RESULTS
from modulab.results.store import PARTS, gather, load_results


def log_folder(folder: Path, overrides: Sequence[str], again: bool = False) -> list[str]:
    """Export the members of a folder that loggers do not have yet; return one sentence per logger.

    `overrides` choose them as on the command line of a run; `again` exports members that they have as well.

    Raises: ConfigError for wrong overrides, for a folder without results, and where a run is at work in it.
    """
    settings = _loggers(overrides)
    chosen = [name for name in Loggers.model_fields if getattr(settings, name) is not None]
    if not chosen:
        raise ConfigError(
            "no logger is chosen. Choose one or several, as in logger=wandb or 'logger=[csv,wandb]'."
        )
    load_results(folder)  # or a sentence that says why not
    inner = next((file.parent for file in sorted(folder.glob(f"*/{RESULTS}"))), None)
    if inner is not None and not any((folder / name).exists() for name in (RESULTS, PARTS)):
        raise ConfigError(
            f"{folder} only holds folders of results. Log each of them separately, such as {inner}."
        )
    check_links(folder)
    with FolderLock(folder):
        gather(folder)
        ended = outcomes(folder)
        if not ended:
            raise ConfigError(
                f"{folder}: none of its members has a result yet. Run the sweep's command again."
            )
        for name in chosen if again else []:
            Ledger(folder, name).forget()
        with open_log(settings, folder, "auto"):
            pass
    return logged_so_far(folder, chosen)


def show_dashboard(folder: Path, project: str | None, entity: str | None, as_json: bool) -> str:
    """Save the dashboard of a sweep in W&B and return its address, or return its definition as JSON.

    Raises: ConfigError if W&B cannot be reached, or there are no results.
    """
    from modulab.logger.dashboard import definition, make_dashboard

    results = load_results(folder)
    defaults = _loggers(["logger=wandb"]).wandb
    assert isinstance(defaults, WandbLogger)
    defaults = defaults.with_environment(os.environ)
    known = remembered(folder)
    dashboard = make_dashboard(
        folder,
        results,
        project or known.get("project") or defaults.project or DEFAULT_PROJECT,
        entity or known.get("entity") or defaults.entity or ("" if as_json else _default_entity()),
        known.get("group") or folder.resolve().name,
    )
    if as_json:
        return json.dumps(definition(dashboard), indent=2)
    try:
        dashboard.save()
    except Exception as error:  # whatever the package lets through
        raise ConfigError(_unreachable(error)) from error
    return str(dashboard.url)


def _default_entity() -> str:
    import wandb

    try:
        return str(wandb.Api().default_entity)
    except Exception as error:  # whatever the package lets through
        raise ConfigError(_unreachable(error)) from error


def _unreachable(error: Exception) -> str:
    reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
    return f"W&B rejected the dashboard: {reason} Set a key with wandb login, or print the definition with --json."


def _loggers(overrides: Sequence[str]) -> Loggers:
    for override in overrides:
        if override_key(override).split(".")[0] != "logger":
            raise ConfigError(f"{override}: only loggers and their keys can be set here, as in logger=wandb.")
    check_given_once(overrides)
    with hydra_composer() as compose:
        config = compose_checked(compose, overrides)
    return read_loggers(OmegaConf.to_container(config.logger, resolve=True))
