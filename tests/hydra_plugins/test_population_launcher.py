"""The launcher within Hydra: its conformance suite, whose tasks cannot be packed, and ours, which are."""

from __future__ import annotations

import pytest
from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.test_utils.launcher_common_tests import IntegrationTestSuite, LauncherTestSuite
from hydra.test_utils.test_utils import chdir_hydra_root  # noqa: F401

from modulab.sweep.results import load_results
from tests.command_line import SMALL, Command

# Hydra's suite gives no version_base, of which Hydra warns.
pytestmark = pytest.mark.filterwarnings("ignore:(?s).*Future Hydra versions|.*version_base:UserWarning")


def test_plugins_are_found_by_hydra() -> None:
    launchers = [plugin.__name__ for plugin in Plugins.instance().discover(Launcher)]
    assert {"PopulationLauncher", "PopulationSlurmLauncher"} <= set(launchers)
    assert "GridSweeper" in [plugin.__name__ for plugin in Plugins.instance().discover(Sweeper)]


@pytest.mark.slow
@pytest.mark.parametrize(("launcher_name", "overrides"), [("population", ["hydra.job.chdir=true"])])
class TestConformance(LauncherTestSuite):
    """Hydra's own tests of a launcher."""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task_launcher_cfg", "extra_flags"),
    [({}, ["-m", "hydra/launcher=population"])],
)
class TestIntegration(IntegrationTestSuite):
    """Hydra's own tests of a launcher in an application."""


@pytest.mark.parametrize("sweeper", ["grid", "basic"])
def test_values_are_those_that_are_written_whatever_the_sweepers_name(command: Command, sweeper: str) -> None:
    code, _, err = command(
        "train",
        "-m",
        f"hydra/sweeper={sweeper}",
        "noise.scale=range(0.1,0.4,0.1)",
        *SMALL,
        "hydra.sweep.dir=sweep",
    )
    assert code == 0, err
    assert load_results("sweep")["config.noise.scale"].tolist() == [0.1, 0.2, 0.3]
