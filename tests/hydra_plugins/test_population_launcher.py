"""The launcher within Hydra: its conformance suite, whose tasks cannot be packed, and ours, which are."""

from __future__ import annotations

import pytest
from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.test_utils.launcher_common_tests import IntegrationTestSuite, LauncherTestSuite
from hydra.test_utils.test_utils import chdir_hydra_root  # noqa: F401

# Hydra's suite gives no version_base, of which Hydra warns.
pytestmark = pytest.mark.filterwarnings("ignore:(?s).*Future Hydra versions|.*version_base:UserWarning")


def test_plugins_are_found_by_hydra() -> None:
    launchers = [plugin.__name__ for plugin in Plugins.instance().discover(Launcher)]
    assert {"PopulationLauncher", "PopulationRayLauncher", "PopulationSlurmLauncher"} <= set(launchers)
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
