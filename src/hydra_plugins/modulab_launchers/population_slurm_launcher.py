"""`hydra/launcher=population_slurm`: trains the jobs of a sweep packed into shards, each a task of a SLURM array."""

# No postponed annotations here: Hydra loads its plugins in a way in which dataclasses cannot resolve them.
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.config_store import ConfigStore

from hydra_plugins.modulab_launchers.population_launcher import PopulationLauncher

if TYPE_CHECKING:
    from modulab.config.composing import Plan
    from modulab.sweep.run import Work
    from modulab.sweep.slurm_array import SlurmSettings


@dataclass
class PopulationSlurmLauncherConf:
    """Resources of each task of the array, and the number of tasks."""

    _target_: str = "hydra_plugins.modulab_launchers.population_slurm_launcher.PopulationSlurmLauncher"
    shards: int | None = None
    """Maximum number of tasks; null means as many as run at once."""
    array_parallelism: int = 8
    """Number of tasks that run at once."""
    partition: str | None = None
    time_minutes: int = 240
    """Time limit of a task, after which the task saves its state and is requeued."""
    memory_gib: float = 8.0
    cpus: int = 2
    gpus: int = 0
    """GPUs of a task; a task uses one."""
    signal_seconds: int = 90
    """Seconds before a time-out or preemption at which SLURM signals a task."""
    max_requeues: int = 100
    """Maximum number of times that a task is requeued after a time-out."""
    setup: list[str] = field(default_factory=list[str])
    """Shell lines to run on the node first, such as `module load python/3.11`."""
    sbatch: Any = None  # A dict: declared as one, Hydra would not let a whole dict be given for it.
    """Additional options of sbatch by their long names, such as {account: brains, qos: night}."""
    poll_seconds: float = 5.0
    """Seconds between checks of the tasks."""


class PopulationSlurmLauncher(PopulationLauncher):
    """Submits the jobs of a batch as one array job, waits for it, and returns the result of each job."""

    def __init__(self, **settings: Any) -> None:
        super().__init__()
        self._given = settings

    def prepare(self, plan: "Plan", folder: Path) -> "Work":
        """Return what of a batch's jobs is to be trained, planned for the nodes."""
        from modulab.extras import require_extra
        from modulab.sweep.shards import plan_for_shards

        require_extra("slurm", ("submitit",), "hydra/launcher=population_slurm")
        return plan_for_shards(plan.runs, plan.trainer, folder, self._settings())

    def train(self, plan: "Plan", work: "Work", folder: Path) -> None:
        """Train what was prepared on the nodes, and keep it in the sweep's folder."""
        from modulab.sweep.shards import run_in_shards
        from modulab.sweep.slurm_array import SlurmArrays

        settings = self._settings()
        arrays = SlurmArrays(settings)
        run_in_shards(work, folder, arrays, settings.most_shards, plan.trainer.progress, plan.logger)

    def describe(self, plan: "Plan", folder: Path) -> str:
        """Return what `train` would submit, for a dry run."""
        from modulab.sweep.estimate import describe_shards

        return describe_shards(plan, folder, self._settings())

    def _settings(self) -> "SlurmSettings":
        from modulab.sweep.shards import read_settings
        from modulab.sweep.slurm_array import SlurmSettings

        return read_settings(SlurmSettings, self._given)


ConfigStore.instance().store(
    group="hydra/launcher",
    name="population_slurm",
    node=PopulationSlurmLauncherConf,
    provider="modulab",
)
