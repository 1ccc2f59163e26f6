"""Private parts of W&B's packages, which may change with any release, each with a fallback."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Any

import wandb

from modulab.errors import ConfigError

_QUIET: dict[str, Any] = {
    "silent": True,
    "console": "off",
    "disable_git": True,
    "save_code": False,
    "x_disable_machine_info": True,
    "x_disable_meta": True,
    "x_disable_stats": True,
    # Listing the installed packages takes W&B five times as long as all the rest of a run.
    "x_save_requirements": False,
    # Seconds after which a live run can be read from its file.
    "x_transaction_log_flush_interval": 1.0,
}
"""Settings that prevent W&B from collecting and printing anything else. Names with x_ are private."""


def quiet_settings(**public: Any) -> wandb.Settings:
    """Return W&B's settings with `public` ones and as many of the quiet ones as the installed version takes."""
    taken: dict[str, Any] = dict(public)
    for name, value in _QUIET.items():
        one = {name: value}
        try:
            wandb.Settings(**one)
        except (TypeError, ValueError):  # unknown, or of another type
            continue
        taken[name] = value
    return wandb.Settings(**taken)


def dashboard_definition(dashboard: Any) -> dict[str, Any]:
    """Return the definition of a dashboard, for which the package has no public function.

    Raises: ConfigError if the installed version keeps it elsewhere.
    """
    definition = getattr(dashboard, "_spec", None)
    if not isinstance(definition, dict) or "section" not in definition.get("spec", {}):
        try:
            installed = version("wandb-workspaces")
        except PackageNotFoundError:
            installed = "of an unknown version"
        raise ConfigError(
            f"modulab dashboard --json: wandb-workspaces {installed} does not give a dashboard's definition. "
            "Leave --json out, or run: pip install 'wandb-workspaces==0.4.13'"
        )
    return definition
