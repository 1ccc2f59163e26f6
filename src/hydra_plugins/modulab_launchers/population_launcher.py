"""`hydra/launcher=population`: trains the jobs of a sweep packed into populations, in this process."""

# No postponed annotations here: Hydra loads its plugins in a way in which dataclasses cannot resolve them.
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn, configure_log, setup_globals

if TYPE_CHECKING:
    from modulab.config.composing import Plan
    from modulab.sweep.run import Work


@dataclass
class PopulationLauncherConf:
    """Takes no settings of its own: those of `trainer` and `sweep` hold here."""

    _target_: str = "hydra_plugins.modulab_launchers.population_launcher.PopulationLauncher"


class PopulationLauncher(BasicLauncher):
    """Runs all jobs of a batch at once where the task is `modulab train`, and one by one where it is not."""

    @property
    def packs(self) -> bool:
        """Whether jobs are trained together: each is then checked, and the sweep written down, before any trains."""
        from modulab.sweep.jobs import TrainTask

        return isinstance(getattr(self.task_function, "__self__", None), TrainTask)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Train and measure every job, and return what each gave, in their order.

        Raises: ConfigError where a job asks for what cannot be; no job has begun then.
        """
        from modulab.sweep.jobs import TrainTask, run_jobs

        assert self.config is not None
        assert self.hydra_context is not None
        task = getattr(self.task_function, "__self__", None)
        if not isinstance(task, TrainTask):
            return super().launch(job_overrides, initial_job_idx)
        setup_globals()
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        return run_jobs(
            task, self.config, self.hydra_context.config_loader, job_overrides, initial_job_idx, self
        )

    def prepare(self, plan: "Plan", folder: Path) -> "Work":
        """Return what of a batch's jobs is to be trained."""
        from modulab.sweep.run import plan_work

        return plan_work(plan.members, plan.trainer, folder)

    def train(self, plan: "Plan", work: "Work", folder: Path) -> None:
        """Train what was prepared, and keep it in the sweep's folder."""
        from modulab.sweep.run import run_work

        run_work(work, folder, plan.logger)

    def describe(self, plan: "Plan", folder: Path) -> str:
        """Return what `train` would do, for a dry run."""
        from modulab.sweep.estimate import describe_work

        return describe_work(plan, folder)


ConfigStore.instance().store(
    group="hydra/launcher", name="population", node=PopulationLauncherConf, provider="modulab"
)
