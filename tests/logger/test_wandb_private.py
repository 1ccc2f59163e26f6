"""Logging works where W&B's packages have changed their private parts."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
import wandb

from modulab.errors import ConfigError
from modulab.logger import wandb_private
from modulab.logger.wandb_private import dashboard_definition, quiet_settings
from modulab.results.store import load_curves, load_results
from tests.command_line import MODULAB, SMALL
from tests.logger.offline_runs import differences, members_of, offline_runs

RENAMED = """
from modulab.logger import wandb_private

wandb_private._QUIET = {
    name.replace("x_", "x_moved_"): value for name, value in wandb_private._QUIET.items()
}
"""


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


def test_a_run_is_logged_where_private_settings_are_unknown(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(RENAMED)
    path = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    wanted = ["logger=wandb", "logger.wandb.mode=offline", "population.seeds=2", "hydra.run.dir=run"]
    ran = subprocess.run(
        [*MODULAB, "train", *SMALL, *wanted], cwd=tmp_path, env=os.environ | {"PYTHONPATH": path},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert "Traceback" not in ran.stderr
    results, curves = load_results(tmp_path / "run"), load_curves(tmp_path / "run")
    assert len(results) == 2
    assert differences(members_of(offline_runs(tmp_path / "run")), results, curves) == []


def test_dashboard_that_keeps_its_definition_elsewhere_ends_in_one_error() -> None:
    for moved in (
        SimpleNamespace(definition={}),
        SimpleNamespace(_spec={"spec": {}}),
        SimpleNamespace(_spec=3),
    ):
        with pytest.raises(ConfigError, match=r"--json.*pip install 'wandb-workspaces==0\.4\.13'"):
            dashboard_definition(moved)
