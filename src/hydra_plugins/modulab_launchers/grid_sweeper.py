"""`hydra/sweeper=grid`: Hydra's basic sweeper, without composing every job before it is launched."""

# No postponed annotations here: Hydra loads its plugins in a way in which dataclasses cannot resolve them.
from collections.abc import Sequence
from dataclasses import dataclass

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_store import ConfigStore


@dataclass
class GridSweeperConf:
    """The settings of Hydra's basic sweeper."""

    _target_: str = "hydra_plugins.modulab_launchers.grid_sweeper.GridSweeper"
    max_batch_size: int | None = None
    params: dict[str, str] | None = None


class GridSweeper(BasicSweeper):
    """Sweeps the product of all values.

    Hydra composes each job twice, at 0.1 s each: to see that it can, and again to run it. Launchers that pack
    check every job before the first one trains, so here they are not checked a second time.
    """

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        """Compose every job, unless the launcher does."""
        # Asked by attribute: Hydra loads plugins apart from imports, so that a launcher's class is not one but two.
        if not getattr(self.launcher, "checks_jobs", False):
            super().validate_batch_is_legal(batch)


ConfigStore.instance().store(group="hydra/sweeper", name="grid", node=GridSweeperConf, provider="modulab")
