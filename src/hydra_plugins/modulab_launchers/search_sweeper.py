"""`hydra/sweeper=optuna`: batches of trials are packed and trained together; `evolve` fills an archive."""

# No postponed annotations here: Hydra loads its plugins in a way in which dataclasses cannot resolve them.
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import MISSING, DictConfig, OmegaConf


@dataclass
class OptunaSweeperConf:
    """Settings of a search for the values that optimise `sweep.objective`."""

    _target_: str = "hydra_plugins.modulab_launchers.search_sweeper.OptunaSweeper"
    _recursive_: bool = False  # A new sampler is made for every batch.
    defaults: list[Any] = field(default_factory=lambda: [{"sampler": "tpe"}])
    sampler: Any = MISSING
    """The sampler of trials: hydra/sweeper/sampler=tpe, random, cmaes, gp, nsgaii, qmc or map_elites."""
    direction: Any = "minimize"
    """minimize or maximize; a list for several objectives."""
    n_trials: int = 20
    """Total number of trials, including those of an earlier run."""
    n_jobs: int = 10
    """Number of trials that are drawn and trained together, as a batch."""
    storage: str | None = None
    """Where Optuna stores the study: an address such as sqlite:///study.db, or a file for its journal. With null it is
    not stored: the same command draws the same trials again, and finds their results in its folder."""
    study_name: str = "modulab"
    """Name of the study in its storage."""
    rungs: list[int] = field(default_factory=list[int])
    """Rising numbers of steps below training.steps; trials stop there if the pruner rejects them."""
    pruner: Any = field(
        default_factory=lambda: {"_target_": "optuna.pruners.MedianPruner", "n_startup_trials": 4}
    )
    """The Optuna pruner that decides at each rung which trials stop."""
    params: dict[str, str] = field(default_factory=dict[str, str])
    """Values to search, by key, unless the command line gives them."""


@dataclass
class EvolveSweeperConf(OptunaSweeperConf):
    """Settings of an archive of elites; sweep.objective names the measure to optimise, and two for the cells."""

    defaults: list[Any] = field(default_factory=lambda: [{"sampler": "map_elites"}])
    n_trials: int = 640
    n_jobs: int = 64
    """Number of trials of a generation, which are drawn from the present archive and trained together."""


SAMPLERS: dict[str, dict[str, Any]] = {
    "tpe": {"_target_": "optuna.samplers.TPESampler", "n_startup_trials": 10, "multivariate": True},
    "random": {"_target_": "optuna.samplers.RandomSampler"},
    "cmaes": {"_target_": "optuna.samplers.CmaEsSampler"},
    "gp": {"_target_": "optuna.samplers.GPSampler"},
    "nsgaii": {"_target_": "optuna.samplers.NSGAIISampler", "population_size": 50},
    "qmc": {"_target_": "optuna.samplers.QMCSampler"},
    "map_elites": {
        "_target_": "modulab.sweep.elites.MapElites",
        "ranges": None,  # of the two measures, as [[0,1],[0,48]]
        "cells": [10, 10],
        "initial": 64,  # trials that are drawn at random
        "mutation": 0.1,  # standard deviation, as a share of each key's range
    },
}
"""Samplers by name. Each takes a seed; null draws another search every time."""


class OptunaSweeper(Sweeper):
    """Searches with Optuna, a batch of trials at a time."""

    def __init__(self, **settings: Any) -> None:
        self._given = settings
        self.hydra_context: HydraContext | None = None
        self.config: DictConfig | None = None
        self.launcher: Launcher | None = None
        self._task: Any = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Take the settings that Hydra passes to a sweeper."""
        self.hydra_context = hydra_context
        self.config = config
        from modulab.sweep.jobs import TrainTask

        task = getattr(task_function, "__self__", None)
        self._task = task if isinstance(task, TrainTask) else None
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        """Search, and leave the best trials to be shown at the end.

        Raises: ConfigError for invalid settings of a search.
        """
        from modulab.errors import ConfigError
        from modulab.measure_names import given_measure

        try:
            from modulab.sweep.search import Search
            from modulab.sweep.search_space import split_search
        except ImportError as error:
            if (error.name or "").partition(".")[0] != "optuna":
                raise
            raise ConfigError(
                "A search (hydra/sweeper=optuna or evolve) needs Optuna 4.2 or newer. "
                "Install it with: pip install 'modulab[search]'"
            ) from None
        assert self.config is not None
        assert self.launcher is not None
        assert self.hydra_context is not None
        params = [f"{key}={value}" for key, value in self._given["params"].items()]
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        dimensions, fixed = split_search(parser.parse_overrides([*params, *arguments]))
        objective = OmegaConf.select(self.config, "sweep.objective")
        objectives = (
            [] if objective is None else [objective] if isinstance(objective, str) else list(objective)
        )
        objectives = [given_measure(name) if isinstance(name, str) else name for name in objectives]
        dry_run = OmegaConf.select(self.config, "sweep.dry_run") is True
        settings = self._settings(max(1, len(objectives)), dry_run)
        folder = Path(str(self.config.hydra.sweep.dir))
        packs = getattr(self.launcher, "packs", False)
        if packs and not dry_run:
            # Before the study is opened, so that no other process is at work on its trials of this folder.
            self._task.begin(folder, multirun=True)
            self._task.hold(folder)
        try:
            search = Search(settings, dimensions, fixed, objectives, folder)
            self._search(search, dry_run)
        except Exception:
            if packs:
                self._task.withdraw()
            raise

    def _search(self, search: Any, dry_run: bool) -> None:
        from modulab.sweep.jobs import write_down_sweep

        assert self.config is not None
        launched = search.jobs_before

        def launch(jobs: Sequence[Sequence[str]]) -> Sequence[JobReturn]:
            nonlocal launched
            assert self.launcher is not None
            returns = self.launcher.launch(jobs, initial_job_idx=launched)
            launched += len(jobs)
            return returns

        if dry_run:
            search.show_first_batch(launch)
            return
        write_down_sweep(self._task, self.config)
        search.run(launch)
        if self._task is not None:
            self._task.findings = search.best()

    def _settings(self, objectives: int, dry_run: bool) -> Any:
        from modulab.sweep.search import SearchSettings

        assert self.config is not None
        given = self._given
        direction = given["direction"]
        directions = [direction] * objectives if isinstance(direction, str) else list(direction)
        return SearchSettings(
            sampler=given["sampler"],
            pruner=given["pruner"],
            directions=directions,
            storage=None if dry_run else given["storage"],
            study_name=given["study_name"],
            n_trials=given["n_trials"],
            n_jobs=given["n_jobs"],
            rungs=given["rungs"],
            steps=OmegaConf.select(self.config, "training.steps"),
        )


_store = ConfigStore.instance()
_store.store(group="hydra/sweeper", name="optuna", node=OptunaSweeperConf, provider="modulab")
_store.store(group="hydra/sweeper", name="evolve", node=EvolveSweeperConf, provider="modulab")
for _name, _sampler in SAMPLERS.items():
    _store.store(group="hydra/sweeper/sampler", name=_name, node={**_sampler, "seed": 0}, provider="modulab")
