"""SLURM as a carrier of shards: how they are submitted as one array job, and how its tasks are monitored."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
import subprocess
from collections.abc import Collection, Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modulab.config.settings import Run
from modulab.errors import ConfigError
from modulab.results.files import write_whole
from modulab.sweep.run import Work
from modulab.sweep.shards import NoAnswer, Shard, check_settings, count_words, tell
from modulab.sweep.slurm_node import ShardTask, node_python

FOLDER = "slurm"
_RECORD = "array.json"


@dataclass(frozen=True)
class SlurmSettings:
    """The settings of SLURM tasks; the fields of hydra/launcher=population_slurm."""

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
    sbatch: Any
    poll_seconds: float

    def __post_init__(self) -> None:
        """Check values. Raises: ConfigError."""
        least = {
            "array_parallelism": 1, "time_minutes": 1, "cpus": 1, "gpus": 0, "signal_seconds": 1, "max_requeues": 0,
        }  # fmt: skip
        check_settings(self, least, ("memory_gib", "poll_seconds"))
        if self.shards is not None and self.shards < 1:
            raise ConfigError(f"hydra.launcher.shards={self.shards} should be 1 or more, or null.")
        if not isinstance(self.sbatch, Mapping | None):
            raise ConfigError(
                f"hydra.launcher.sbatch={self.sbatch} should be sbatch's long options, as in {{account: brains}}."
            )
        if self.signal_seconds >= 60 * self.time_minutes:
            raise ConfigError(
                f"hydra.launcher.signal_seconds={self.signal_seconds} should be less than the time limit, "
                f"hydra.launcher.time_minutes={self.time_minutes}."
            )

    @property
    def most_shards(self) -> int:
        """Return the largest number of tasks to submit."""
        return self.shards or self.array_parallelism

    @property
    def at_once(self) -> int:
        """Return the largest number of tasks that run at once."""
        return self.array_parallelism

    @property
    def kind(self) -> str:
        """Return SLURM's word for shards."""
        return "tasks of one array job"

    @property
    def limit(self) -> str:
        """Return the time limit of a task, after which it returns to the queue."""
        return f"for {self.time_minutes} min at a time"


class SlurmArrays:
    """SLURM as a carrier of shards: each array continues even if the command that waits for it ends.

    The next start finds it by the record next to its logs.
    """

    def __init__(self, settings: SlurmSettings) -> None:
        self._settings = settings
        self.poll_seconds = settings.poll_seconds

    def in_flight(self, run_ids: Collection[str], folder: Path) -> list[Shard]:
        """Return the tasks of earlier arrays that SLURM still has and that train some of these members."""
        there = [
            task
            for task in recorded_tasks(folder)
            if task.alive and not set(task.run_ids).isdisjoint(run_ids)
        ]
        if there:
            tell(
                f"SLURM job {_arrays(there)} is still running; waiting for its remaining {count_words(there)}"
            )
        return there

    def submit(self, shards: Sequence[Sequence[Run]], work: Work, folder: Path) -> list[Shard]:
        """Submit shards as one array job. Raises: ConfigError if SLURM refuses."""
        tasks = submit(shards, work, folder, self._settings)
        tell(f"SLURM job {_arrays(tasks)} trains {count_words(tasks)}; logs: {folder / FOLDER}")
        return tasks

    def refresh(self, shards: Sequence[Shard]) -> None:
        """Ask SLURM for the state of tasks. Raises: NoAnswer if it does not answer."""
        refresh(shards)

    def leave(self, shards: Sequence[Shard]) -> None:
        """Report that the array continues, if it does, and how to stop it."""
        if left := _arrays([task for task in shards if task.alive]):
            tell(f"SLURM job {left} continues; repeat the command to wait for it. To stop it: scancel {left}")


def submit(shards: Sequence[Sequence[Run]], work: Work, folder: Path, settings: SlurmSettings) -> list[Shard]:
    """Submit shards as one array job and return its tasks. Raises: ConfigError if SLURM refuses."""
    import submitit

    for name in ("sbatch", "srun", "squeue"):
        if shutil.which(name) is None:
            raise ConfigError(
                f"hydra/launcher=population_slurm: {name} is not on the PATH. Run this where SLURM's commands are, "
                "as on a cluster's login node, or leave hydra/launcher out to train on this machine."
            )
    place = folder.absolute() / FOLDER
    stop_seconds = max(1, settings.signal_seconds // 3)
    try:
        executor = submitit.SlurmExecutor(
            folder=place / "%j", max_num_timeout=settings.max_requeues, python=node_python()
        )
        executor.update_parameters(**_sbatch_parameters(settings))
        # submitit prints the messages of sbatch, and also raises them.
        with contextlib.redirect_stderr(io.StringIO()), _outside_of_jobs(), executor.batch():
            jobs = [
                executor.submit(ShardTask.of(shard, work, folder, stop_seconds=stop_seconds))
                for shard in shards
            ]
    except (RuntimeError, ValueError, OSError) as error:
        _remove_unsubmitted(place)
        raise ConfigError(
            f"hydra/launcher=population_slurm: SLURM rejected the job: {_one_sentence(error)}. "
            "Check hydra.launcher.partition and the other keys of hydra.launcher against `sinfo`."
        ) from error
    tasks = [
        Shard(job.job_id, [run.run_id for run in shard], log=str(job.paths.stdout))
        for job, shard in zip(jobs, shards, strict=True)
    ]
    record = place / f"{_array(tasks[0])}.{_RECORD}"
    write_whole(record, json.dumps([[task.name, task.log, task.run_ids] for task in tasks]).encode())
    return tasks


def _array(task: Shard) -> str:
    """Return the number of a task's array job."""
    return task.name.partition("_")[0]


def _arrays(tasks: Sequence[Shard]) -> str:
    return " ".join(sorted({_array(task) for task in tasks}))


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
        # Since SLURM 22.05 srun no longer takes this over from sbatch, and binds the task to one core.
        "setup": ["export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK", *settings.setup],
        "stderr_to_stdout": True,
        "wckey": None,  # where submitit would name itself
        # Clusters may be set up to requeue only what asks for it.
        "additional_parameters": {"requeue": True, **(settings.sbatch or {})},
    }
    if settings.partition is not None:
        parameters["partition"] = settings.partition
    if settings.gpus > 0:
        parameters["gpus_per_node"] = settings.gpus
    return parameters


@contextlib.contextmanager
def _outside_of_jobs() -> Generator[None]:
    """Hide SLURM's variables of the job of this process, if any: jobs submitted from it would inherit them."""
    if "SLURM_JOB_ID" not in os.environ:
        yield
        return
    hidden = {name for name in os.environ if name.startswith(("SLURM_", "SLURMD_", "SRUN_"))} - {"SLURM_CONF"}
    before = {name: os.environ.pop(name) for name in hidden}
    try:
        yield
    finally:
        os.environ.update(before)


def _remove_unsubmitted(place: Path) -> None:
    for path in (*place.glob("*.pkl"), *place.glob(".submission_file_*")):
        if not path.is_symlink():
            path.unlink()
    with contextlib.suppress(OSError):  # not there, or holds an earlier array
        place.rmdir()


def _one_sentence(error: Exception) -> str:
    lines = [re.sub(r"^\w+: (error|fatal): ", "", line.strip()) for line in str(error).splitlines()]
    return "; ".join(line.rstrip(".") for line in lines if line) or type(error).__name__


def recorded_tasks(folder: Path) -> list[Shard]:
    """Return the tasks of every array that was submitted for a folder, with their present state."""
    tasks = [
        Shard(name, run_ids, log)
        for record in sorted((folder / FOLDER).glob(f"*.{_RECORD}"))
        for name, log, run_ids in json.loads(record.read_text())
    ]
    refresh(tasks)
    return tasks


def refresh(tasks: Sequence[Shard]) -> None:
    """Ask SLURM for the state of tasks; one that it no longer has gets the empty state.

    Raises: NoAnswer if SLURM does not answer.
    """
    if not tasks:
        return
    command = ["squeue", "--noheader", "--array", f"--user={os.getuid()}", "--format=%F|%K|%T|%r"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SQUEUE_")}
    try:
        answer = subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=120, env=environment
        )
    except (OSError, subprocess.SubprocessError) as error:
        detail = _one_sentence(RuntimeError(getattr(error, "stderr", None) or str(error)))
        raise NoAnswer(f"SLURM does not answer: {detail}. Try: squeue --me") from error
    states: dict[str, tuple[str, str]] = {}
    for line in answer.stdout.splitlines():
        array, index, state, reason = line.split("|", maxsplit=3)
        states[array if index == "N/A" else f"{array}_{index}"] = (state, reason)
    for task in tasks:
        task.state, task.reason = states.get(task.name, ("", ""))
