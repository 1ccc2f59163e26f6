"""`hydra/launcher=population`: trains the jobs of a sweep packed into populations, in this process."""

# No postponed annotations here: Hydra loads its plugins in a way in which dataclasses cannot resolve them.
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, configure_log, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict, read_write

if TYPE_CHECKING:
    from modulab.config.composing import Plan
    from modulab.sweep.run import Work


@dataclass
class PopulationLauncherConf:
    """Takes no settings of its own: those of `trainer` and `sweep` apply."""

    _target_: str = "hydra_plugins.modulab_launchers.population_launcher.PopulationLauncher"


class PopulationLauncher(Launcher):
    """Runs all jobs of a batch at once where the task is `modulab train`, and one by one where it is not."""

    def __init__(self) -> None:
        self.hydra_context: HydraContext | None = None
        self.task_function: TaskFunction | None = None
        self.config: DictConfig | None = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Take the settings that Hydra passes to a launcher."""
        self.hydra_context = hydra_context
        self.task_function = task_function
        self.config = config

    @property
    def packs(self) -> bool:
        """Whether jobs are trained together: each is then checked, and the sweep recorded, before any trains."""
        from modulab.sweep.jobs import TrainTask

        return isinstance(getattr(self.task_function, "__self__", None), TrainTask)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Train and measure every job, and return what each gave, in their order.

        Raises: ConfigError where a job has invalid settings; no job has begun then.
        """
        from modulab.sweep.jobs import TrainTask, run_jobs

        assert self.config is not None
        assert self.hydra_context is not None
        task = getattr(self.task_function, "__self__", None)
        if not isinstance(task, TrainTask):
            return self._basic_launcher().launch(job_overrides, initial_job_idx)
        setup_globals()
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        return run_jobs(
            task, self.config, self.hydra_context.config_loader, job_overrides, initial_job_idx, self
        )

    def _basic_launcher(self) -> Launcher:
        """Return the launcher that `hydra/launcher=basic` chooses."""
        assert self.config is not None
        assert self.hydra_context is not None
        assert self.task_function is not None
        config = self.config.copy()
        with read_write(config), open_dict(config):
            config.hydra.launcher = ConfigStore.instance().load("hydra/launcher/basic.yaml").node
        context, task = self.hydra_context, self.task_function
        launcher = Plugins.instance().instantiate_launcher(
            hydra_context=context, task_function=task, config=config
        )
        launcher.setup(hydra_context=context, task_function=task, config=self.config)
        return launcher

    def prepare(self, plan: "Plan", folder: Path) -> "Work":
        """Return what of a batch's jobs is to be trained."""
        from modulab.sweep.run import plan_work

        return plan_work(plan.runs, plan.trainer, folder)

    def train(self, plan: "Plan", work: "Work", folder: Path) -> None:
        """Train what was prepared, and keep it in the sweep's folder."""
        from modulab.sweep.this_machine import run_work

        run_work(work, folder, plan.logger)

    def describe(self, plan: "Plan", folder: Path) -> str:
        """Return what `train` would do, for a dry run."""
        from modulab.sweep.estimate import describe_work

        return describe_work(plan, folder)


ConfigStore.instance().store(
    group="hydra/launcher", name="population", node=PopulationLauncherConf, provider="modulab"
)
