import os
import subprocess
import sys
from pathlib import Path

import pytest

from modulab.config.loggers import WandbLogger, wandb_folder
from modulab.errors import ConfigError
from tests.command_line import SMALL
from tests.logger.offline_runs import offline_runs


def settings(**given: object) -> WandbLogger:
    plain = {
        "project": None, "entity": None, "group": None, "tags": [], "mode": "auto", "live_up_to": 16,
        "patience_seconds": 60,
    }  # fmt: skip
    return WandbLogger.model_validate({**plain, **given})


def test_variables_count_where_the_config_says_nothing() -> None:
    names = {
        "WANDB_PROJECT": "p", "WANDB_ENTITY": "e", "WANDB_RUN_GROUP": "g", "WANDB_TAGS": "a, b,",
        "WANDB_MODE": "dryrun",
    }  # fmt: skip
    found = settings().with_environment(names)
    assert (found.project, found.entity, found.group, found.tags, found.mode) == (
        "p",
        "e",
        "g",
        ["a", "b"],
        "offline",
    )
    own = settings(project="mine", entity="me", group="ours", tags=["t"], mode="online")
    assert own.with_environment(names) == own


def test_empty_variables_are_unset() -> None:
    empty = dict.fromkeys(
        ("WANDB_PROJECT", "WANDB_ENTITY", "WANDB_RUN_GROUP", "WANDB_TAGS", "WANDB_MODE"), ""
    )
    assert settings().with_environment(empty) == settings().with_environment({})
    assert settings().with_environment({}).project == "modulab"


def test_a_mode_that_there_is_not_is_named() -> None:
    with pytest.raises(
        ConfigError, match=r"WANDB_MODE=offlin: there is no such mode. Did you mean 'offline'"
    ):
        settings().with_environment({"WANDB_MODE": "offlin"})


def test_files_lie_where_the_variable_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_DIR", "")
    assert wandb_folder(Path("results")) == Path("results", "wandb")
    monkeypatch.setenv("WANDB_DIR", "/elsewhere")
    assert wandb_folder(Path("results")) == Path("/elsewhere/wandb")


@pytest.mark.slow
def test_a_run_heeds_the_environment_and_no_module_of_the_current_folder(tmp_path: Path) -> None:
    for name in ("netrc", "queue", "wandb"):
        (tmp_path / f"{name}.py").write_text(
            f"from pathlib import Path\nPath(r'{tmp_path}', 'imported.{name}').touch()\nraise SystemExit('{name}')\n"
        )
    elsewhere, temporary = tmp_path / "elsewhere", tmp_path / "temporary"
    elsewhere.mkdir()
    temporary.mkdir()
    environment = {
        "WANDB_MODE": "offline", "WANDB_DIR": str(elsewhere), "WANDB_PROJECT": "named", "WANDB_TAGS": "first,second",
        "WANDB_RUN_GROUP": "", "TMPDIR": str(temporary),
    }  # fmt: skip
    ran = subprocess.run(
        [sys.executable, "-P", "-m", "modulab.cli", "train", *SMALL, "logger=wandb", "hydra.run.dir=run"],
        cwd=tmp_path, env={**os.environ, **environment}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert not list(tmp_path.glob("imported.*"))
    assert not (tmp_path / "run" / "wandb").exists()
    [run] = offline_runs(elsewhere).values()
    assert {"first", "second"} <= set(run.facts["tags"])
    assert run.facts["project"] == "named"
    left = [each.name for each in temporary.iterdir()]
    assert not [name for name in left if not name.startswith("torchinductor")]  # which torch makes
