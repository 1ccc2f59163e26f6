"""The function that Hydra runs: a single run, or the jobs of a sweep packed together, with one value per job."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, overload, runtime_checkable

import pandas as pd
from hydra.core.config_loader import ConfigLoader
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus
from hydra.types import RunMode
from omegaconf import OmegaConf, open_dict, read_write

from modulab.config.composing import Plan, plan_run, plan_sweep
from modulab.config.hydra_private import job_name
from modulab.config.overrides import check_hydra_keys
from modulab.errors import ConfigError
from modulab.progress import working
from modulab.results.commands import command_words, record_command
from modulab.results.files import write_whole
from modulab.results.lock import FolderLock
from modulab.results.store import check_folder, copy_rows, load_results, statuses
from modulab.results.summary import metric_names
from modulab.schema import suggest_measure
from modulab.sweep.hydra_files import remove_empty
from modulab.text import say_once

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from modulab.sweep.run import Work
else:
    # Annotations are checked in tests, with a warning of the deprecated generics that DictConfig derives from.
    DictConfig = object
    Work = object


_OF_SWEEPS = re.compile(r"\+*hydra[/.](launcher|sweeper|sweep\.subdir)\b")
"""Overrides of Hydra that a command without -m ignores."""
_NOT_RETURNED = ("config.", "version.")
"""Columns of results that no job returns."""


class MembersFailed(Exception):
    """Raised if a job has no result to return; all other jobs have been run."""


@runtime_checkable
class PackedLauncher(Protocol):
    """The function that trains the jobs of a sweep together."""

    def prepare(self, plan: Plan, folder: Path) -> Work:
        """Return the members of the jobs that are to be trained.

        Raises: ConfigError for a config, device or file that cannot be used.
        """
        ...

    def train(self, plan: Plan, work: Work, folder: Path) -> None:
        """Train the prepared members, and store the results in the sweep's folder."""
        ...

    def describe(self, plan: Plan, folder: Path) -> str:
        """Return the members that would be trained, for a dry run."""
        ...


class TrainTask:
    """The function that Hydra runs, once a run or once a job of a sweep, and what is to be reported at the end."""

    def __init__(self) -> None:
        self.began = False
        self.accepted = False
        """Whether any job can be trained, in a command that is not a dry run."""
        self.folder: Path | None = None
        self.multirun = False
        self.dry_run = False
        self.error: ConfigError | OSError | None = None
        self.planned: set[str] = set()
        self.sweep_config: DictConfig | None = None
        """For jobs trained one by one: the sweep's config, which the first valid job records."""
        self.findings: tuple[list[str], list[list[str]]] | None = None
        """For a search: headings and rows of a table of its best trials."""
        self._locks: dict[Path, FolderLock] = {}

    def __call__(self, config: Any) -> Any:
        """Train one run and return its objective. In a sweep, Hydra reports an error after the other jobs."""
        hydra_config = HydraConfig.get()
        multirun = hydra_config.mode == RunMode.MULTIRUN
        self.begin(Path(hydra_config.sweep.dir if multirun else hydra_config.run.dir), multirun)
        output = Path(hydra_config.runtime.output_dir)  # created by Hydra
        try:
            return self._run(config, output)
        except ConfigError as error:
            self.withdraw()
            remove_empty(output)
            if self.multirun:
                raise
            self.error = error
            return None
        except OSError as error:  # before Hydra, which would print the overrides above it
            if self.multirun:
                raise
            self.error = error
            return None

    def begin(self, folder: Path, multirun: bool) -> None:
        """Record where results go."""
        self.began, self.folder, self.multirun = True, folder, multirun

    def hold(self, folder: Path) -> None:
        """Create a folder and lock it until `release`."""
        if folder not in self._locks:
            check_folder(folder)
            self._locks[folder] = FolderLock(folder)

    def holds(self, folder: Path) -> bool:
        """Return whether this process has locked a folder."""
        return folder in self._locks

    def release(self) -> None:
        """Release the folders that this process locked."""
        while self._locks:
            self._locks.popitem()[1].release()

    def withdraw(self) -> None:
        """Release the folders that this process locked, and remove empty ones."""
        while self._locks:
            folder, lock = self._locks.popitem()
            lock.withdraw()
            remove_empty(folder)

    def _run(self, config: DictConfig, folder: Path) -> Any:
        import hydra

        hydra_config = HydraConfig.get()
        check_hydra_keys(hydra_config)
        _check_keys_of_other_kind(hydra_config)
        name = str(hydra_config.job.config_name)
        # Unresolved: an override may hold an interpolation, which would resolve here, or fail.
        overrides: Any = OmegaConf.to_container(hydra_config.overrides.task, resolve=False)
        with working("planning"):
            plan = plan_run(config, overrides, lambda given: hydra.compose(name, overrides=list(given)))
        self.planned.update(plan.run_ids)
        _check_objectives(plan)
        if plan.sweep.dry_run:
            from modulab.sweep.estimate import describe_work

            self.dry_run = True
            print(describe_work(plan, folder))
            remove_empty(folder)
            return None
        self.hold(folder)
        with working("starting"):
            from modulab.sweep.run import plan_work
            from modulab.sweep.this_machine import run_work

            work = plan_work(plan.runs, plan.trainer, folder)
        whole = HydraConfig.instance().cfg
        if work.pending:
            _say_of_others(folder, plan, f"hydra.run.dir={hydra_config.run.dir}")
            if self.sweep_config is not None:
                record_command(Path(str(self.sweep_config.hydra.sweep.dir)), _words(self.sweep_config))
            elif not self.multirun:
                record_command(folder, _words(whole))
        _write_description(config, whole, folder)
        if self.sweep_config is not None and not self.accepted:
            write_multirun(self.sweep_config)
        self.accepted = True
        logger = plan.logger.in_group(Path(hydra_config.sweep.dir).name) if self.multirun else plan.logger
        run_work(work, folder, logger)
        return _required(return_values(plan, folder)[0]) if self.multirun else None


def run_jobs(
    task: TrainTask,
    config: DictConfig,
    loader: ConfigLoader,
    jobs: Sequence[Sequence[str]],
    first_number: int,
    launcher: PackedLauncher,
) -> Sequence[JobReturn]:
    """Run the jobs of a sweep, given by their overrides, all together, and return the value of each.

    A job without a result returns as failed, which is not raised before all are done.

    Raises: ConfigError if a job has invalid settings; no job has begun then.
    """
    folder = Path(str(config.hydra.sweep.dir))
    task.begin(folder, multirun=True)
    check_hydra_keys(config.hydra)
    _check_keys_of_other_kind(config.hydra)
    previous = HydraConfig.instance().cfg
    held_before = task.holds(folder)
    in_batches = OmegaConf.select(config, "hydra.sweeper.max_batch_size") is not None

    def compose_job(overrides: Sequence[str], place: int) -> DictConfig:
        return _task_config(_compose_job(config, loader, overrides, first_number + place))

    try:
        with working("planning"):
            plan = plan_sweep(jobs, compose_job)
        task.planned.update(plan.run_ids)
        _check_objectives(plan)
        job_configs: list[DictConfig] = []
        if plan.sweep.job_folders:
            for place, overrides in enumerate(jobs):
                job_configs.append(_compose_job(config, loader, overrides, first_number + place))
                _check_job_folder(job_configs[-1])
        if plan.sweep.dry_run:
            task.dry_run = True
            print(launcher.describe(plan, folder))
            values: Sequence[Any] = [None] * len(jobs)
        else:
            task.hold(folder)
            with working("starting"):
                work = launcher.prepare(plan, folder)
            if work.pending:
                if not held_before and not in_batches:
                    _say_of_others(folder, plan, f"hydra.sweep.dir={config.hydra.sweep.dir}")
                record_command(folder, _words(config))
            write_multirun(config)
            task.accepted = True
            launcher.train(plan, work, folder)
            values = return_values(plan, folder)
            for job_config, run_ids in zip(job_configs, plan.jobs, strict=False):
                HydraConfig.instance().set_config(job_config)
                _write_job_folder(job_config, folder, run_ids)
    except ConfigError:
        if not held_before:
            task.withdraw()
        raise
    finally:
        HydraConfig.instance().cfg = previous
    return EachJob(len(jobs), lambda place: _job_return(jobs[place], values[place]))


class EachJob(Sequence[Any]):
    """One value per job, computed on demand: a sweep may have a million jobs, and few look at the values."""

    def __init__(self, count: int, make: Callable[[int], Any]) -> None:
        self._places = range(count)
        self._make = make

    def __len__(self) -> int:
        """Return the number of jobs."""
        return len(self._places)

    @overload
    def __getitem__(self, place: int) -> Any: ...

    @overload
    def __getitem__(self, place: slice) -> Sequence[Any]: ...

    def __getitem__(self, place: int | slice) -> Any:
        """Return the value of a job, or a list of those of several."""
        chosen = self._places[place]
        return self._make(chosen) if isinstance(chosen, int) else [self._make(each) for each in chosen]


def _check_objectives(plan: Plan) -> None:
    """Raise ConfigError if `sweep.objective` names what no measure gives: before anything is trained."""
    objective = plan.sweep.objective
    if objective is None:
        return
    with working("starting"):
        from modulab.metrics.measure import check_objectives

    settings = dict.fromkeys(run.condition.example.probes for run in plan.runs)
    check_objectives([objective] if isinstance(objective, str) else objective, settings)


def return_values(plan: Plan, folder: Path) -> Sequence[Any]:
    """Return the value of each job for its caller: its objective, or every measure by name.

    Values are means over a job's members; of a job without any, it is the MembersFailed that says why.

    Raises: ConfigError if `sweep.objective` names no measure.
    """
    results = load_results(
        folder, keep=lambda name: name == "config.seed" or not name.startswith(_NOT_RETURNED)
    )
    objective = plan.sweep.objective
    known = metric_names(results)
    wanted = known if objective is None else objective
    names = [wanted] if isinstance(wanted, str) else wanted
    done = (results["status"] == "completed").to_numpy()
    for name in names if done.any() else []:
        if name not in known:
            raise ConfigError(
                f"sweep.objective={name}: there is no such measure. {suggest_measure(name, known)}"
            )
    present = results.reindex(columns=names).to_numpy(dtype=float, na_value=math.nan)
    troubles = results.reindex(columns=["status", "error"])
    rows = {run_id: row for row, run_id in enumerate(results["run_id"].tolist())}

    def value(place: int) -> Any:
        own = [rows[run_id] for run_id in plan.jobs[place] if run_id in rows]
        lacking = [row for row in own if not done[row]]
        if lacking or not own:
            return _trouble(troubles, lacking)
        means = dict(zip(names, present[own].mean(axis=0).tolist(), strict=True))
        if objective is None:
            return means
        if not all(math.isfinite(each) for each in means.values()):
            return MembersFailed(f"sweep.objective={objective} is not a finite number here")
        return means[objective] if isinstance(objective, str) else [means[name] for name in names]

    return EachJob(len(plan.jobs), value)


def _trouble(results: pd.DataFrame, rows: Sequence[int]) -> MembersFailed:
    if not rows:
        return MembersFailed("missing")
    first = results.iloc[rows[0]]
    reason = f": {first['error']}" if isinstance(first["error"], str) else ""
    return MembersFailed(f"{len(rows)} {first['status']}{reason}")


def _required(value: Any) -> Any:
    if isinstance(value, MembersFailed):
        raise value
    return value


def _job_return(overrides: Sequence[str], value: Any) -> JobReturn:
    """Return the record that Hydra expects of a job, without its config: Hydra takes 0.1 s per job to compose one."""
    job = JobReturn(
        overrides=list(overrides),
        working_dir=os.getcwd(),
        task_name=job_name(),
        status=JobStatus.FAILED if isinstance(value, MembersFailed) else JobStatus.COMPLETED,
    )
    job.return_value = value
    return job


def _compose_job(
    config: DictConfig, loader: ConfigLoader, overrides: Sequence[str], number: int
) -> DictConfig:
    """Return a job's whole config as Hydra's own launcher makes it, and have `${hydra:...}` refer to it."""
    composed = loader.load_sweep_config(config, list(overrides))
    with open_dict(composed), read_write(composed.hydra.runtime):
        composed.hydra.job.id = str(number)
        composed.hydra.job.num = number
        HydraConfig.instance().set_config(composed)
        folder = Path(str(composed.hydra.sweep.dir), str(composed.hydra.sweep.subdir))
        composed.hydra.runtime.output_dir = os.path.abspath(folder)
    HydraConfig.instance().set_config(composed)
    return composed


def _task_config(composed: DictConfig) -> DictConfig:
    """Return a job's config without Hydra's own part of it."""
    with read_write(composed), open_dict(composed):
        del composed["hydra"]
    return composed


def _check_keys_of_other_kind(hydra_config: Any) -> None:
    """Raise ConfigError for keys of Hydra that are for the other kind of command, sweep or not, and have no effect."""
    unused, used = "hydra.sweep.dir", "hydra.run.dir"
    words = "is for sweeps. Without -m"
    if hydra_config.mode == RunMode.MULTIRUN:
        unused, used = used, unused
        words = "is for single commands. With -m"
    # Unresolved: an override may hold an interpolation that has a value only within a job.
    overrides: Any = OmegaConf.to_container(hydra_config.overrides.hydra, resolve=False)
    given = dict(str(each).split("=", 1) for each in overrides if "=" in str(each))
    if unused in given and used not in given:
        raise ConfigError(f"{unused}={given[unused]} {words}, give {used}={given[unused]}.")
    ignored = next((each for each in map(str, overrides) if _OF_SWEEPS.match(each)), None)
    if ignored is not None and hydra_config.mode != RunMode.MULTIRUN:
        raise ConfigError(f"{ignored} has no effect, because only sweeps use it. Add -m, or leave it out.")


def _words(whole: Any) -> list[str]:
    """Return the words of the command that a whole config was composed from."""
    plain: Any = OmegaConf.to_container(whole, resolve=False)
    return command_words(plain["hydra"])


def _say_of_others(folder: Path, plan: Plan, given: str) -> None:
    """Print how many networks a folder, given by an override, holds that a plan, which adds some, does not ask for."""
    held = {run_id for run_id, status in statuses(folder).items() if status != "missing"}
    if others := len(held.difference(plan.run_ids)):
        count = "1 network" if others == 1 else f"{others} networks"
        key, _, name = given.partition("=")
        say_once(
            f"{name} contains {count} with other settings, and this command adds to them. "
            f"To use another folder: {key}=FOLDER."
        )


def _check_job_folder(composed: DictConfig) -> None:
    """Raise ConfigError for a job's folder with a name that no file system takes."""
    for part in Path(str(composed.hydra.sweep.subdir)).parts:
        if len(part.encode()) > 255:
            raise ConfigError(
                f"hydra.sweep.subdir: the name {part[:40]}... has {len(part.encode())} bytes, and a folder's name has "
                "at most 255. Choose a shorter one, such as hydra.sweep.subdir='${hydra:job.num}'."
            )


def _write_job_folder(composed: DictConfig, folder: Path, run_ids: Sequence[str]) -> None:
    """Write the folder that a job would have had if launched alone: its config, and its rows."""
    output = Path(str(composed.hydra.runtime.output_dir))
    whole = OmegaConf.masked_copy(composed, "hydra")
    _write_description(_task_config(composed), whole, output)
    copy_rows(folder, output, run_ids)


def write_down_sweep(task: Any, config: DictConfig) -> None:
    """Record a sweep whose jobs run one by one, or let the first valid job do so."""
    if isinstance(task, TrainTask):
        task.sweep_config = config
    else:
        write_multirun(config)


def write_multirun(config: DictConfig) -> None:
    """Record the command of a sweep, as Hydra's own sweeper does, in the sweep's folder."""
    folder = Path(str(config.hydra.sweep.dir))
    write_whole(folder / "multirun.yaml", OmegaConf.to_yaml(config).encode())


def _write_description(config: DictConfig, whole: Any, folder: Path) -> None:
    """Record the command of a run, and what it composes to, as Hydra itself does by default."""
    described = folder / str(whole.hydra.output_subdir or ".hydra")
    for name, content in (
        ("overrides.yaml", whole.hydra.overrides.task),
        ("hydra.yaml", whole),
        ("config.yaml", config),
    ):
        write_whole(described / name, OmegaConf.to_yaml(content).encode())
