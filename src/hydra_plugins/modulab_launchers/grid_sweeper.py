"""`hydra/sweeper=grid`: Hydra's basic sweeper, with exact ranges, and without composing every job beforehand."""

# No postponed annotations here: Hydra loads its plugins in a way in which dataclasses cannot resolve them.
from collections.abc import Sequence
from dataclasses import dataclass

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.types import Override


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

    @staticmethod
    def split_arguments(overrides: list[Override], max_batch_size: int | None) -> list[list[list[str]]]:
        """Return the overrides of every job, in batches. Raises: ConfigError for a sweep that cannot be expanded."""
        from modulab.errors import ConfigError
        from modulab.sweep.values import expand_jobs

        if max_batch_size is not None and max_batch_size < 1:
            raise ConfigError(
                f"hydra.sweeper.max_batch_size={max_batch_size}: give a number of 1 or more, or null."
            )
        jobs = expand_jobs(overrides)
        size = max_batch_size or len(jobs)
        return [jobs[start : start + size] for start in range(0, len(jobs), size)]

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        """Compose every job, unless the launcher does."""
        # Asked by attribute: Hydra loads plugins apart from imports, so that a launcher's class is not one but two.
        if not getattr(self.launcher, "checks_jobs", False):
            super().validate_batch_is_legal(batch)


ConfigStore.instance().store(group="hydra/sweeper", name="grid", node=GridSweeperConf, provider="modulab")
