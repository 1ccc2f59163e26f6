"""Commands work, at most with plainer errors, where Hydra has moved its internals."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import hydra
import pytest
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.hydra import Hydra
from hydra.conf import HydraConf
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.types import QuotedString
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

import modulab
from modulab.config import hydra_private
from modulab.config.composing import config_folder, hydra_composer
from modulab.config.overrides import check_hydra_keys
from modulab.errors import ConfigError
from modulab.results.store import load_results
from tests.command_line import SMALL, Command
from tests.hidden import hide

PARSER = "hydra._internal.utils:get_args_parser"
FUNCTIONS = "hydra.core.override_parser.overrides_parser:create_functions"
SCHEMA = "hydra.conf:HydraConf"
VERSION = "hydra.version:VersionBase"
JOB = "hydra.core.utils:JobRuntime"
MODE = "hydra._internal.hydra:Hydra"
ALL = [PARSER, FUNCTIONS, SCHEMA, VERSION, JOB]


@pytest.mark.parametrize(
    "names",
    [ALL, *(pytest.param([each], marks=pytest.mark.slow) for each in ALL)],
    ids=lambda names: names[0],
)
def test_sweeps_run_without_internals_of_hydra(
    names: list[str], command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    hide(names, monkeypatch)
    code, _, err = command(
        "train",
        "noise.scale=range(0,0.3,0.1)",
        "seed=shuffle(range(2))",
        "-m",
        *SMALL,
        "--config-dir",
        ".",
        "hydra.sweep.dir=sweep",
    )
    assert code == 0, err
    results = load_results("sweep")
    assert results["config.noise.scale"].tolist() == [0, 0, 0.1, 0.1, 0.2, 0.2]
    assert results["status"].tolist() == ["completed"] * 6
    assert len(modulab.train([*SMALL], folder="run").table) == 1


@pytest.mark.parametrize(
    ("mistake", "said"),
    [
        ("training.stepz=3", "training.stepz: there is no such key. Did you mean 'training.steps'?"),
        ("hydra.swep.dir=x", "hydra.swep.dir: there is no such key."),
        ("noise=nosuch", "noise=nosuch: there is no such option."),
        ("--confi-dir=x", "--confi-dir=x"),
    ],
)
def test_mistakes_are_named_without_internals_of_hydra(
    mistake: str, said: str, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    hide(ALL, monkeypatch)
    code, _, err = command("train", *SMALL, mistake, "hydra.run.dir=run")
    assert code == 2
    assert err.startswith("error: ")
    assert said in err
    assert "Traceback" not in err


def test_known_arguments_are_those_of_the_installed_hydra(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = {name for action in hydra_private.arguments_parser()._actions for name in action.option_strings}
    hide([PARSER], monkeypatch)
    ours = {name for action in hydra_private.arguments_parser()._actions for name in action.option_strings}
    assert ours == theirs


@pytest.mark.parametrize(
    "key",
    [
        "job.env_set.HOME", "job.id", "callbacks.mine.level", "job_logging.mine", "launcher.typo",
        "runtime.choices.mine", "typo", "run.dri", "job.config.override_dirname.typo", "job.typo.deep", "help.typo",
    ],
)  # fmt: skip
def test_keys_that_are_refused_are_those_that_do_not_fit_into_the_types_of_hydra(key: str) -> None:
    given = OmegaConf.create({"hydra": {}})
    OmegaConf.update(given, f"hydra.{key}", "3")
    try:
        OmegaConf.merge(OmegaConf.structured(HydraConf), given.hydra)
    except OmegaConfBaseException as refused:
        with pytest.raises(
            ConfigError, match=rf"^hydra\.{re.escape(refused.full_key)}: there is no such key\. "
        ):
            check_hydra_keys(given.hydra)
    else:
        check_hydra_keys(given.hydra)


def test_hydra_of_the_caller_is_set_aside_without_version_and_job(monkeypatch: pytest.MonkeyPatch) -> None:
    with hydra.initialize_config_dir(str(config_folder()), **hydra_private.compatibility()):
        theirs = GlobalHydra.instance().hydra
        hide([VERSION, JOB], monkeypatch)
        with hydra_composer() as compose:
            assert compose(["seed=3"]).seed == 3
        assert GlobalHydra.instance().hydra is theirs
        assert hydra.compose("train", overrides=["seed=4"]).seed == 4


@pytest.mark.parametrize("folder", [["--config-dir", "conf"], ["hydra.searchpath=[file://conf]"]])
@pytest.mark.parametrize("mode", ["experiment=mine", "hydra.mode=MULTIRUN"])
def test_a_mode_set_by_a_config_or_an_override_counts_as_the_flag_does(
    mode: str, folder: list[str], command: Command
) -> None:
    Path("conf/experiment").mkdir(parents=True)
    Path("conf/experiment/mine.yaml").write_text("# @package _global_\nhydra: {mode: MULTIRUN}\n")
    folder = [word.replace("file://", f"file://{Path.cwd()}/") for word in folder]
    code, out, err = command(
        "train", *SMALL, *folder, mode, "seed=0,1", "sweep.dry_run=true", "hydra.sweep.dir=x"
    )
    assert (code, err) == (0, "")
    assert "networks     2" in out


def test_a_command_without_configs_of_its_own_is_composed_once(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    composed: list[str] = []
    load = ConfigLoaderImpl.load_configuration

    def counted(self: ConfigLoaderImpl, *given: Any, **named: Any) -> Any:
        composed.append("once")
        return load(self, *given, **named)

    monkeypatch.setattr(ConfigLoaderImpl, "load_configuration", counted)
    code, _, err = command("train", *SMALL, "sweep.dry_run=true", "hydra.run.dir=x")
    assert (code, err) == (0, "")
    assert composed == ["once"]


def test_hydra_is_left_as_it_is_where_it_asks_for_the_mode_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = Hydra.get_mode
    with hydra_private.mode_of_flags([], own_configs=False):
        assert Hydra.get_mode is not theirs
    assert Hydra.get_mode is theirs
    hide([MODE], monkeypatch)
    with hydra_private.mode_of_flags([], own_configs=False):
        assert Hydra.get_mode is theirs


def test_value_of_an_override_is_known_where_hydra_keeps_it_elsewhere() -> None:
    override = hydra_private.parser_with({}).parse_override("a='b c'")
    assert isinstance(hydra_private.quoted_value(override), QuotedString)
    assert hydra_private.quoted_value(SimpleNamespace(value=override.value)) == "b c"
