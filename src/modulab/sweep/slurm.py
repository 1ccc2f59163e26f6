"""Sweeps on SLURM: shards of a sweep as the tasks of an array job, and the watch over them.

The sweep's folder is shared by all machines. Each task trains the members of its shard and leaves their rows
among the folder's parts, so that nothing has to pass through the process that waits. That process may end at
any time: the array goes on, and the next start finds it by the record beside its logs.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from modulab.errors import ConfigError
from modulab.experiment import Run, Work, begin, plan_work, train_populations
from modulab.progress import ProgressReport
from modulab.settings import Trainer
from modulab.sweep.results import gather, statuses

FOLDER = "slurm"
_RECORD = "array.json"


@dataclass(frozen=True)
class SlurmSettings:
    """What SLURM is asked for; the fields of hydra/launcher=population_slurm."""

    shards: int | None
    array_parallelism: int
    partition: str | None
    time_minutes: int
    memory_gib: float
    cpus: int
    gpus: int
    signal_seconds: int
    max_requeues: int
    setup: Sequence[str]
    sbatch: Mapping[str, Any]
    poll_seconds: float

    def __post_init__(self) -> None:
        """Check values. Raises: ConfigError."""
        lowest = {
            "array_parallelism": 1, "time_minutes": 1, "cpus": 1, "gpus": 0, "signal_seconds": 1, "max_requeues": 0,
        }  # fmt: skip
        for name, least in lowest.items():
            if getattr(self, name) < least:
                raise ConfigError(
                    f"hydra.launcher.{name}={getattr(self, name)} should be a whole number, {least} or more."
                )
        if self.shards is not None and self.shards < 1:
            raise ConfigError(f"hydra.launcher.shards={self.shards} should be 1 or more, or null.")
        if self.memory_gib <= 0 or self.poll_seconds <= 0:
            raise ConfigError("hydra.launcher.memory_gib and hydra.launcher.poll_seconds should be above 0.")

    @property
    def most_shards(self) -> int:
        """Return the largest number of tasks to submit."""
        return self.shards or self.array_parallelism


@dataclass
class ArrayTask:
    """A task of an array job, as it was submitted and as SLURM last spoke of it."""

    name: str
    run_ids: list[str]
    state: str = "PENDING"
    log: str = ""

    @property
    def alive(self) -> bool:
        """Return whether SLURM still has it, waiting or at work."""
        return self.state != ""


@dataclass
class ShardTask:
    """What one task of the array runs: the members of a shard, from wherever an earlier attempt left them."""

    configs: list[dict[str, Any]]
    trainer: Trainer
    folder: str
    search_path: list[str] = field(default_factory=list)
    stop_seconds: int = 30

    def __call__(self) -> int:
        """Train what has no result yet, and return how many that was.

        On USR2, SLURM's warning of a time-out or preemption, training stops at the end of its chunk, with a
        checkpoint, and the task is put back into the queue.
        """
        sys.path.extend(path for path in self.search_path if path not in sys.path)
        requeue: Any = signal.getsignal(signal.SIGUSR2)
        warned = False

        def interrupt(number: int, frame: FrameType | None) -> None:
            del number, frame
            signal.raise_signal(signal.SIGINT)

        def stop(number: int, frame: FrameType | None) -> None:
            nonlocal warned
            warned = True
            # Ctrl-C once stops at the end of the chunk; should that take too long, twice stops at once.
            signal.signal(signal.SIGALRM, interrupt)
            signal.alarm(self.stop_seconds)
            interrupt(number, frame)

        signal.signal(signal.SIGUSR2, stop)
        folder = Path(self.folder)
        try:
            work = plan_work(self.configs, self.trainer, folder)
            train_populations(work, folder)
        except KeyboardInterrupt:
            signal.alarm(0)
            if warned and callable(requeue):
                requeue(signal.SIGUSR2, None)
            raise
        return work.pending

    def checkpoint(self) -> Any:
        """Return what runs once the task comes out of the queue again: the same, which skips what is done."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def run_on_slurm(
    configs: Sequence[Mapping[str, Any]], trainer: Trainer, folder: Path, settings: SlurmSettings
) -> None:
    """Train and measure every config that `folder` does not hold the result of yet, on the nodes of a cluster.

    Tasks of an earlier array that is still there are waited for; what they do not train is submitted. A task
    that ends without all of its results leaves rows with the status `missing` that say so.

    Raises: ConfigError where SLURM refuses; KeyboardInterrupt on Ctrl-C, which leaves the array at work.
    """
    work = plan_slurm_work(configs, trainer, folder, settings)
    begin(work, folder)
    tasks = [task for task in recorded_tasks(folder) if task.alive]
    taken = {run_id for task in tasks for run_id in task.run_ids}
    shards = cut_shards(work, taken, settings.most_shards)
    if shards:
        tasks += submit(shards, work.trainer, folder, settings)
    try:
        _watch(tasks, work, folder, settings.poll_seconds)
    except KeyboardInterrupt:
        arrays = sorted({task.name.partition("_")[0] for task in tasks})
        print(
            f"SLURM goes on with job {', '.join(arrays)}; the same command again waits for it. "
            f"To stop it: scancel {' '.join(arrays)}",
            file=sys.stderr,
        )
        raise
    finally:
        gather(folder)
    _note_lost(tasks, work, folder)


def plan_slurm_work(
    configs: Sequence[Mapping[str, Any]], trainer: Trainer, folder: Path, settings: SlurmSettings
) -> Work:
    """Return what is to be trained, planned for the nodes and not for this machine."""
    cuda = settings.gpus > 0 and trainer.accelerator != "cpu"
    if trainer.accelerator == "cuda" and settings.gpus == 0:
        raise ConfigError(
            "trainer.accelerator=cuda needs a GPU a task, and hydra.launcher.gpus=0. Set hydra.launcher.gpus=1."
        )
    changes = {
        "accelerator": "cuda" if cuda else "cpu",
        "threads": trainer.threads or settings.cpus,
        "memory_gib": trainer.memory_gib or (None if cuda else settings.memory_gib / 2),
        "progress": "lines" if trainer.progress in ("auto", "bar") else trainer.progress,
    }
    device = torch.device("cuda" if cuda else "cpu")
    return plan_work(configs, trainer.model_copy(update=changes), folder, device)


def cut_shards(work: Work, taken: set[str], most: int) -> list[list[Run]]:
    """Return members to train in at most so many shards of about equal work.

    A population that left a checkpoint stays whole; others are cut wherever a shard is full. Members that are
    `taken` by tasks of an earlier array are left to them.
    """
    populations = [[run for run in population if run.run_id not in taken] for population in work.populations]
    pieces = [
        (population, number < work.unfinished) for number, population in enumerate(populations) if population
    ]
    total = sum(_cost(run) for population, _ in pieces for run in population)
    count = min(most, sum(len(population) for population, _ in pieces))
    shards: list[list[Run]] = [[] for _ in range(count)]
    loads = [0.0] * count
    for population in (population for population, whole in pieces if whole):
        lightest = loads.index(min(loads))
        shards[lightest] += population
        loads[lightest] += sum(_cost(run) for run in population)
    place = 0
    for run in (run for population, whole in pieces if not whole for run in population):
        # Half a member may spill over, so that the last shard does not collect what all others left.
        while place < count - 1 and loads[place] + _cost(run) / 2 > total / count:
            place += 1
        shards[place].append(run)
        loads[place] += _cost(run)
    return [shard for shard in shards if shard]


def _cost(run: Run) -> float:
    member = run.member
    return float(member.training.steps * member.training.batch_size * member.architecture.width)


def submit(
    shards: Sequence[Sequence[Run]], trainer: Trainer, folder: Path, settings: SlurmSettings
) -> list[ArrayTask]:
    """Submit shards as one array job and return its tasks. Raises: ConfigError where SLURM refuses."""
    import submitit
    from submitit.core.utils import FailedJobError

    try:
        executor = submitit.SlurmExecutor(
            folder=folder.absolute() / FOLDER / "%j", max_num_timeout=settings.max_requeues
        )
        executor.update_parameters(**_sbatch_parameters(settings))
        with executor.batch():
            jobs = [executor.submit(_shard_task(shard, trainer, folder, settings)) for shard in shards]
    except (RuntimeError, ValueError, OSError, FailedJobError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ConfigError(
            f"hydra/launcher=population_slurm: SLURM did not take the job: {reason}. "
            "Check hydra.launcher.partition and the other keys of hydra.launcher against `sinfo`."
        ) from error
    tasks = [
        ArrayTask(job.job_id, [run.run_id for run in shard], log=str(job.paths.stdout))
        for job, shard in zip(jobs, shards, strict=True)
    ]
    array = tasks[0].name.partition("_")[0]
    record = folder / FOLDER / f"{array}.{_RECORD}"
    beside = record.with_suffix(f".{os.getpid()}")
    beside.write_text(json.dumps([[task.name, task.log, task.run_ids] for task in tasks]))
    beside.replace(record)
    return tasks


def _shard_task(shard: Sequence[Run], trainer: Trainer, folder: Path, settings: SlurmSettings) -> ShardTask:
    configs = [dict(run.config) for run in shard]
    stop_seconds = max(1, settings.signal_seconds // 3)
    return ShardTask(configs, trainer, str(folder.absolute()), [os.getcwd()], stop_seconds)


def _sbatch_parameters(settings: SlurmSettings) -> dict[str, Any]:
    parameters: dict[str, Any] = {
        "job_name": "modulab",
        "nodes": 1,
        "ntasks_per_node": 1,
        "time": settings.time_minutes,
        "mem": f"{settings.memory_gib * 1024:.0f}MB",
        "cpus_per_task": settings.cpus,
        "array_parallelism": settings.array_parallelism,
        "signal_delay_s": settings.signal_seconds,
        "setup": list(settings.setup),
        "stderr_to_stdout": True,
        "additional_parameters": dict(settings.sbatch),
    }
    if settings.partition is not None:
        parameters["partition"] = settings.partition
    if settings.gpus > 0:
        parameters["gpus_per_node"] = settings.gpus
    return parameters


def recorded_tasks(folder: Path) -> list[ArrayTask]:
    """Return the tasks of every array that was submitted for a folder, with their present state."""
    tasks: list[ArrayTask] = []
    for record in sorted((folder / FOLDER).glob(f"*.{_RECORD}")):
        for name, log, run_ids in json.loads(record.read_text()):
            tasks.append(ArrayTask(name, run_ids, log=log))
    if tasks:
        refresh(tasks)
    return tasks


def refresh(tasks: Sequence[ArrayTask]) -> None:
    """Ask SLURM for the state of tasks; one that it has no more gets the empty state.

    Raises: ConfigError where SLURM does not answer.
    """
    command = ["squeue", "--noheader", "--array", f"--user={os.getuid()}", "--format=%F %K %T"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    except (OSError, subprocess.SubprocessError) as error:
        detail = (getattr(error, "stderr", None) or str(error)).strip()
        raise ConfigError(f"SLURM does not answer: {' '.join(command)} says: {detail}") from error
    states: dict[str, str] = {}
    for line in answer.stdout.splitlines():
        array, index, state = line.split(maxsplit=2)
        states[array if index == "N/A" else f"{array}_{index}"] = state
    for task in tasks:
        task.state = states.get(task.name, "")


def _watch(tasks: Sequence[ArrayTask], work: Work, folder: Path, poll_seconds: float) -> None:
    """Wait until SLURM has none of the tasks any more, and say how far they are."""
    wanted = {run.run_id: run.member.training.steps for population in work.populations for run in population}
    finished: set[str] = set()
    silent_since: float | None = None
    with ProgressReport(work.trainer.progress, len(wanted), sum(wanted.values())) as progress:
        while True:
            try:
                refresh(tasks)
                silent_since = None
            except ConfigError as error:
                # A controller that restarts is away for minutes; its jobs are not.
                silent_since = silent_since or time.monotonic()
                progress.say(str(error), at_once=True)
                if time.monotonic() - silent_since > 3600:
                    raise
            now_finished = {run_id for run_id, status in statuses(folder).items() if status != "missing"}
            new = (now_finished & wanted.keys()) - finished
            finished |= new
            running = sum(task.state == "RUNNING" for task in tasks)
            waiting = sum(task.alive and task.state != "RUNNING" for task in tasks)
            progress.say(
                f"{running} shards at work, {waiting} waiting, {len(tasks) - running - waiting} ended"
            )
            progress.finish(len(new))
            progress.advance(sum(wanted[run_id] for run_id in new))
            if not running and not waiting:
                return
            time.sleep(poll_seconds)


def _note_lost(tasks: Sequence[ArrayTask], work: Work, folder: Path) -> None:
    """Say in the rows of members that are still missing which task lost them, and where its log lies."""
    found = statuses(folder)
    lost = {
        run_id: f"shard {task.name} ended without it; its log: {task.log}"
        for task in tasks
        for run_id in task.run_ids
        if found.get(run_id, "missing") == "missing"
    }
    if lost:
        begin(work, folder, lost)
