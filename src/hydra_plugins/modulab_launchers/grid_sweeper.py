"""`hydra/sweeper=grid`: like Hydra's basic sweeper, with exact ranges, and without composing every job beforehand."""

# No postponed annotations here: Hydra loads its plugins in a way in which dataclasses cannot resolve them.
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


@dataclass
class GridSweeperConf:
    """The settings of Hydra's basic sweeper."""

    _target_: str = "hydra_plugins.modulab_launchers.grid_sweeper.GridSweeper"
    max_batch_size: int | None = None
    params: dict[str, str] = field(default_factory=dict[str, str])


class GridSweeper(Sweeper):
    """Sweeps the product of all values.

    Hydra composes each job twice, at 0.1 s each: to check it, and again to run it. It also records the sweep before it
    has checked it. Launchers that pack do both themselves, once every job has been checked.
    """

    def __init__(self, max_batch_size: int | None, params: dict[str, str] | None = None) -> None:
        """Sweep over `params` beside the command line, `max_batch_size` jobs at a time; null takes all at once."""
        self.max_batch_size = max_batch_size
        self.params = params or {}
        self.hydra_context: HydraContext | None = None
        self.config: DictConfig | None = None
        self.launcher: Launcher | None = None
        self._task: Any = None

    def sweep(self, arguments: list[str]) -> list[Sequence[JobReturn]]:
        """Launch all jobs, in batches, and return what each gave.

        Raises: ConfigError for a sweep that cannot be expanded, or whose jobs have invalid settings; the error of a
        job that failed, after the other jobs of its batch.
        """
        from modulab.sweep.jobs import write_down_sweep

        assert self.config is not None
        assert self.launcher is not None
        assert self.hydra_context is not None
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        params = [f"{key}={value}" for key, value in self.params.items()]
        overrides = parser.parse_overrides([*params, *arguments])
        batches = self.split_arguments(overrides, self.max_batch_size)
        # By attribute: Hydra loads plugins separately from imports, so that a launcher's class exists twice.
        packs = getattr(self.launcher, "packs", False)
        returns: list[Sequence[JobReturn]] = []
        first_number = 0
        for batch in batches:
            if not packs:
                self.validate_batch_is_legal(batch)
                write_down_sweep(self._task, self.config)
            returns.append(self.launcher.launch(batch, initial_job_idx=first_number))
            for job in returns[-1]:
                if job.status == JobStatus.FAILED:
                    _ = job.return_value  # raises its error
            first_number += len(batch)
        return returns

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Take the settings that Hydra passes to a sweeper."""
        self.hydra_context = hydra_context
        self.config = config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )
        self._task = getattr(task_function, "__self__", None)

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


ConfigStore.instance().store(group="hydra/sweeper", name="grid", node=GridSweeperConf, provider="modulab")
