"""A modulab.toml, or the environment, names folders of configs and modules once."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from modulab.cli import main
from modulab.config.composing import config_folder, hydra_composer
from modulab.config.project_file import (
    CONFIG_VARIABLE,
    PROJECT_FILE,
    command_folders,
    find_project,
    folders_in_order,
    modules_for,
    own_folders_added,
    own_modules,
)
from modulab.errors import ConfigError


def configs(folder: Path, scale: float) -> Path:
    """Return a folder with a config of the noise `mine`, told apart by its scale."""
    (folder / "noise").mkdir(parents=True)
    (folder / "noise" / "mine.yaml").write_text(
        f"# Noise of my own.\ndefaults:\n  - default\n  - _self_\nscale: {scale}\n"
    )
    return folder


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a project whose file names `configs`; the working folder lies two below it."""
    monkeypatch.delenv(CONFIG_VARIABLE, raising=False)
    monkeypatch.setattr(sys, "path", list(sys.path))
    configs(tmp_path / "configs", 0.125)
    (tmp_path / PROJECT_FILE).write_text('config_dir = "configs"\nimport = ["larger"]\n')
    (tmp_path / "runs" / "deep").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "runs" / "deep")
    return tmp_path


def scale() -> float:
    with hydra_composer() as compose:
        return compose(["noise=mine"]).noise.scale


def test_the_nearest_file_above_the_working_folder_names_configs_relative_to_itself(project: Path) -> None:
    assert find_project().config_dirs == (project / "configs",)
    assert scale() == 0.125
    configs(project / "runs" / "nearer", 0.5)
    (project / "runs" / PROJECT_FILE).write_text('config_dir = ["nearer"]')
    assert scale() == 0.5


def test_the_command_line_comes_before_the_environment_and_that_before_the_file(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CONFIG_VARIABLE, str(configs(project / "environment", 0.25)))
    assert scale() == 0.25
    with command_folders([configs(project / "command", 0.75)]):
        assert scale() == 0.75


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("# mine\nconfig_dir = ", "at line 2"),
        ('\n\nconfig_folder = "x"', "line 3: there is no key config_folder. Did you mean 'config_dir'"),
        ("\nconfig_dir = 3", "line 2: config_dir is a text or a list of texts"),
        ('\nconfig_dir = "absent"', "line 2: config_dir: there is no folder"),
    ],
)
def test_a_broken_file_is_an_error_that_names_the_file_and_the_line(
    project: Path, text: str, says: str
) -> None:
    (project / PROJECT_FILE).write_text(text)
    with pytest.raises(ConfigError) as raised:
        find_project()
    assert str(project / PROJECT_FILE) in str(raised.value)
    assert says in str(raised.value)


def test_a_variable_that_names_no_folder_is_an_error(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CONFIG_VARIABLE, "absent")
    with pytest.raises(ConfigError, match=f"{CONFIG_VARIABLE}: there is no folder"):
        find_project()


def test_a_file_within_results_names_no_modules(project: Path) -> None:
    assert modules_for(project / "runs") == ("larger",)
    assert str(project) in sys.path
    assert modules_for(project) == ()


def test_options_of_a_group_are_listed_with_own_ones_and_their_meanings(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["list", "noise"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.split() == ["mine", *["Noise", "of", "my", "own."]] for line in lines)
    assert any(line.split()[:1] == ["poisson"] for line in lines)
    assert main(["list"]) == 0
    assert "mine" in capsys.readouterr().out
    assert main(["list", "nois"]) == 2
    assert "Did you mean 'noise'" in capsys.readouterr().err


def test_a_project_file_that_is_a_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "modulab.toml").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"modulab\.toml is not a file\."):
        find_project()


def test_modules_that_are_not_there_are_refused_and_folders_are_added_for_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "norms.py").touch()
    before = list(sys.path)
    with own_folders_added():
        assert own_modules("norms, modulab.losses", tmp_path) == ["norms", "modulab.losses"]
        with pytest.raises(ConfigError, match="--import norm: there is no module of that name here"):
            own_modules("norm", tmp_path)
    assert sys.path == before
    (tmp_path / "modulab.toml").write_text('import = ["nrms"]')
    (tmp_path / "runs").mkdir()
    with pytest.raises(ConfigError, match=r"modulab\.toml, import: nrms: there is no module"):
        own_modules(None, tmp_path / "runs")


def test_a_config_that_modulab_has_itself_is_said_not_to_be_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "task").mkdir()
    (tmp_path / "task" / "regression.yaml").write_text("# Mine.\nname: mine\n")
    (tmp_path / "task" / "mine.yaml").write_text("# Mine.\nname: mine\n")
    shutil.copy(config_folder() / "task" / "parity.yaml", tmp_path / "task")  # the same either way
    with command_folders([tmp_path]):
        folders_in_order()
        folders_in_order()
    assert capsys.readouterr().err == (
        f"notice: {tmp_path / 'task' / 'regression.yaml'}: not used, because modulab has a config of this name, which "
        "comes first. Give it another name.\n"
    )


def test_a_file_that_begins_with_a_mark_of_its_encoding_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "modulab.toml").write_bytes(b'\xef\xbb\xbfconfig_dir = "mine"\r\n')
    monkeypatch.chdir(tmp_path)
    assert find_project().config_dirs == (tmp_path / "mine",)
