"""`hydra/launcher=population_ray`: trains the jobs of a sweep packed into shards, each a task of Ray."""

# No postponed annotations here: Hydra loads its plugins in a way in which dataclasses cannot resolve them.
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.config_store import ConfigStore

from hydra_plugins.modulab_launchers.population_launcher import PopulationLauncher

if TYPE_CHECKING:
    from modulab.config.composing import Plan
    from modulab.sweep.ray_tasks import RaySettings, RayTasks
    from modulab.sweep.run import Work


@dataclass
class PopulationRayLauncherConf:
    """The Ray cluster, the resources of each task, and the number of tasks."""

    _target_: str = "hydra_plugins.modulab_launchers.population_ray_launcher.PopulationRayLauncher"
    _convert_: str = "all"
    address: str | None = None
    """The cluster, as in 10.0.0.5:6379; null uses that of RAY_ADDRESS or of this machine, or starts one if there is
    none; local always starts one."""
    shards: int = 8
    """Maximum number of tasks; as many run at once as the cluster has room for."""
    cpus: int = 2
    gpus: float = 0.0
    """GPUs of a task; a task uses at most one, and tasks share a GPU if this is below 1."""
    memory_gib: float = 4.0
    max_retries: int = 3
    """How often a task is restarted after its process or node was lost; it resumes from its last checkpoint."""
    resources: Any = None  # A dict: declared as one, Hydra would not let a whole dict be given for it.
    """Additional resources of a task, named as on the cluster's nodes, such as {big_node: 1}."""
    runtime_env: Any = None
    """What Ray prepares on nodes, such as {env_vars: {NAME: value}} or {pip: [my-package]}."""
    poll_seconds: float = 1.0
    """Seconds between checks of the tasks."""


class PopulationRayLauncher(PopulationLauncher):
    """Runs the jobs of a batch as tasks of Ray, waits for them, and returns the result of each job."""

    def __init__(self, **settings: Any) -> None:
        super().__init__()
        self._given = settings
        self._tasks: RayTasks | None = None

    def prepare(self, plan: "Plan", folder: Path) -> "Work":
        """Return what of a batch's jobs is to be trained, planned for the nodes, and connect to them.

        It connects here, so that an unreachable cluster is reported before anything is written.
        """
        from modulab.extras import require_extra
        from modulab.sweep.ray_tasks import RayTasks
        from modulab.sweep.shards import plan_for_shards

        require_extra("ray", ("ray",), "hydra/launcher=population_ray")
        settings = self._settings()
        work = plan_for_shards(plan.runs, plan.trainer, folder, settings)
        self._tasks = RayTasks(settings)
        if work.pending:
            self._tasks.connect()
        return work

    def train(self, plan: "Plan", work: "Work", folder: Path) -> None:
        """Train what was prepared on the nodes, and keep it in the sweep's folder."""
        from modulab.sweep.shards import run_in_shards

        assert self._tasks is not None
        most = self._settings().most_shards
        run_in_shards(work, folder, self._tasks, most, plan.trainer.progress, plan.logger)

    def describe(self, plan: "Plan", folder: Path) -> str:
        """Return what `train` would start, for a dry run."""
        from modulab.sweep.estimate import describe_shards

        return describe_shards(plan, folder, self._settings())

    def _settings(self) -> "RaySettings":
        from modulab.sweep.ray_tasks import RaySettings
        from modulab.sweep.shards import read_settings

        return read_settings(RaySettings, self._given)


ConfigStore.instance().store(
    group="hydra/launcher",
    name="population_ray",
    node=PopulationRayLauncherConf,
    provider="modulab",
)
