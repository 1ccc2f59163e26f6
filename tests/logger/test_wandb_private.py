"""Logging works where W&B's packages have changed their private parts."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import wandb

from modulab.errors import ConfigError
from modulab.logger import wandb_private
from modulab.logger.wandb_private import dashboard_definition, quiet_settings
from modulab.results.store import load_curves, load_results
from tests.command_line import SMALL, Command
from tests.logger.offline_runs import differences, members_of, offline_runs


def test_settings_that_the_installed_version_does_not_take_are_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(ValueError, match="x_moved"):
        wandb.Settings(x_moved=True)  # pyright: ignore[reportCallIssue]
    monkeypatch.setattr(
        wandb_private, "_QUIET", {"silent": True, "x_moved": True, "x_disable_meta": ["of another type"]}
    )
    settings = quiet_settings(init_timeout=7)
    assert (settings.silent, settings.init_timeout) == (True, 7)
    assert settings.x_disable_meta == wandb.Settings().x_disable_meta


def test_a_run_is_logged_where_private_settings_are_unknown(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved = {name.replace("x_", "x_moved_"): value for name, value in wandb_private._QUIET.items()}
    monkeypatch.setattr(wandb_private, "_QUIET", moved)
    wanted = ["logger=wandb", "logger.wandb.mode=offline", "population.seeds=2", "hydra.run.dir=run"]
    code, _, errors = command("train", *SMALL, *wanted)
    assert code == 0, errors
    assert "Traceback" not in errors
    results, curves = load_results("run"), load_curves("run")
    assert len(results) == 2
    assert differences(members_of(offline_runs(Path("run"))), results, curves) == []


def test_dashboard_that_keeps_its_definition_elsewhere_ends_in_one_error() -> None:
    for moved in (
        SimpleNamespace(definition={}),
        SimpleNamespace(_spec={"spec": {}}),
        SimpleNamespace(_spec=3),
    ):
        with pytest.raises(ConfigError, match=r"--json.*pip install 'wandb-workspaces==0\.4\.13'"):
            dashboard_definition(moved)
