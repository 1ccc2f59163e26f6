"""Sweeps on SLURM: a sweep is cut into shards, each a task of an array job, and watched until all have ended.

The sweep's folder is shared by all machines. Each task trains the members of its shard and leaves their rows
among the folder's parts, so that nothing has to pass through the process that waits. That process may end at
any time: the array goes on, and the next start finds it by the record beside its logs.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import torch

from modulab.config.loggers import Loggers
from modulab.config.settings import Run, Trainer
from modulab.errors import ConfigError
from modulab.logger.run_log import RunLog, logged_so_far, open_log, say
from modulab.progress import ProgressReport, Style
from modulab.results.store import PARTS, gather, statuses
from modulab.sweep.run import Work, begin, packed_seconds, plan_work
from modulab.sweep.slurm_array import FOLDER, ArrayTask, SlurmSettings, recorded_tasks, refresh, submit

_LONGEST_SILENCE = 3600.0
"""Seconds for which SLURM may be away, as while its controller is restarted, before the watch gives up."""


def run_on_slurm(
    work: Work, folder: Path, settings: SlurmSettings, progress: Style, logger: Loggers | None = None
) -> None:
    """Train and measure, on the nodes of a cluster, what was planned for them by `plan_slurm_work`.

    Tasks of an earlier array that is still there are waited for; what they do not train is submitted. A task
    that ends without all of its results leaves rows with the status `missing` that say so. Nodes may have no
    network, so that loggers export here, each shard's members after it has ended.

    Raises: ConfigError where SLURM refuses; KeyboardInterrupt on Ctrl-C, which leaves the array at work.
    """
    begin(work, folder)
    tasks = tasks_in_flight(work, folder) if work.pending else []
    if tasks:
        _tell(f"SLURM job {_arrays(tasks)} is still there; waiting for the {_shards(tasks)} that it has left")
    taken = {run_id for task in tasks for run_id in task.run_ids}
    shards = cut_shards(work, taken, settings.most_shards)
    if shards:
        new = submit(shards, work, folder, settings)
        _tell(f"SLURM job {_arrays(new)} trains {_shards(new)}; logs: {folder / FOLDER}")
        tasks += new
    with open_log(logger or Loggers(), folder, progress) as log:
        try:
            _watch(tasks, work, folder, settings.poll_seconds, progress, log)
        except KeyboardInterrupt:
            if left := _arrays([task for task in tasks if task.alive]):
                _tell(
                    f"SLURM goes on with job {left}; the same command again waits for it. "
                    f"To stop it: scancel {left}"
                )
            raise
        finally:
            gather(folder)
    _note_lost(tasks, work, folder)
    for sentence in logged_so_far(folder, log.names):
        say(sentence)


def plan_slurm_work(runs: Sequence[Run], trainer: Trainer, folder: Path, settings: SlurmSettings) -> Work:
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
    trainer = trainer.model_copy(update=changes)
    return plan_work(runs, trainer, folder, device=device)


def tasks_in_flight(work: Work, folder: Path) -> list[ArrayTask]:
    """Return the tasks of earlier arrays that SLURM still has and that train members of this work."""
    pending = {run.run_id for population in work.populations for run in population}
    return [task for task in recorded_tasks(folder) if task.alive and not pending.isdisjoint(task.run_ids)]


def cut_shards(work: Work, taken: set[str], most: int) -> list[list[Run]]:
    """Return members to train in at most so many shards of about equal work.

    A population that left a checkpoint stays whole; others are cut wherever a shard is full. Members that are
    `taken` by tasks of an earlier array are left to them.
    """
    populations = [[run for run in population if run.run_id not in taken] for population in work.populations]
    whole, others = populations[: work.unfinished], populations[work.unfinished :]
    free = [run for population in others for run in population]
    seconds = _seconds(work)

    def total(runs: Sequence[Run]) -> float:
        return sum(seconds[run.run_id] for run in runs)

    shards: list[list[Run]] = [[] for _ in range(min(most, sum(map(len, populations))))]
    loads = [0.0] * len(shards)
    for population in sorted(filter(None, whole), key=total, reverse=True):
        lightest = loads.index(min(loads))
        shards[lightest] += population
        loads[lightest] += total(population)
    if free:
        level = _level(loads, total(free))
        places = [place for place, load in enumerate(loads) if load < level]
        room = level - loads[places[0]]
        for run in free:
            # Laid end to end, each member goes to the shard that its middle falls into.
            while len(places) > 1 and room < seconds[run.run_id] / 2:
                places.pop(0)
                room += level - loads[places[0]]
            shards[places[0]].append(run)
            room -= seconds[run.run_id]
    return [shard for shard in shards if shard]


def _seconds(work: Work) -> dict[str, float]:
    """Return about how long each network takes, by its run_id: what is shared out, and what the time left is of."""
    engine = work.execution.engine
    runs = [run for population in work.populations for run in population]
    of_each = {
        condition: packed_seconds(condition.example, engine)
        for condition in dict.fromkeys(run.condition for run in runs)
    }
    return {run.run_id: of_each[run.condition] for run in runs}


def _level(loads: Sequence[float], amount: float) -> float:
    """Return the load of the lightest shards once so much more has been spread to make them equal."""
    ordered = sorted(loads)
    sums = [sum(ordered[: number + 1], amount) / (number + 1) for number in range(len(ordered))]
    return min(sums)


def _watch(
    tasks: Sequence[ArrayTask], work: Work, folder: Path, poll_seconds: float, style: Style, log: RunLog
) -> None:
    """Wait until SLURM has none of the tasks any more, and say how far they are."""
    costs = _seconds(work)
    lacking = set(costs)
    ended: set[str] = set()
    silent_since: float | None = None
    with ProgressReport(style, len(costs), sum(costs.values())) as progress:
        while any(task.alive for task in tasks):
            label = ""
            try:
                refresh(tasks)
                silent_since = None
            except ConfigError as error:
                label = f"{error}; the array goes on meanwhile"
                if silent_since is None:
                    silent_since = time.monotonic()
                    progress.say(label, at_once=True)
                elif time.monotonic() - silent_since > _LONGEST_SILENCE:
                    raise
            just_ended = [task for task in tasks if not task.alive and task.name not in ended]
            if just_ended:
                _look_afresh(folder)
            found = statuses(folder)
            new = {run_id for run_id in lacking if found.get(run_id, "missing") != "missing"}
            lacking -= new
            for task in just_ended:
                ended.add(task.name)
                if lost := lacking.intersection(task.run_ids):
                    _tell(f"shard {task.name} ended without {len(lost)} of its runs; its log: {task.log}")
            progress.say(label or describe_tasks(tasks))
            progress.finish(len(new))
            progress.advance(sum(costs[run_id] for run_id in new))
            if new:
                log.catch_up()
            if any(task.alive for task in tasks):
                time.sleep(poll_seconds)


def describe_tasks(tasks: Sequence[ArrayTask]) -> str:
    """Return how many tasks are at work, how many wait, and why, and how many have ended."""
    running = sum(task.running for task in tasks)
    waiting = [task for task in tasks if task.alive and not task.running]
    reasons = ", ".join(sorted({task.reason for task in waiting} - {"", "None"}))
    return (
        f"shards: {running} at work, {len(waiting)} waiting{f' ({reasons})' if reasons else ''}, "
        f"{len(tasks) - running - len(waiting)} ended"
    )


def _look_afresh(folder: Path) -> None:
    """Have a network file system show what nodes have just written: after a change of our own it looks again."""
    for place in (folder, folder / PARTS):
        with suppress(OSError):
            probe = place / f".look.{os.getpid()}"
            probe.touch()
            probe.unlink()


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


def _arrays(tasks: Sequence[ArrayTask]) -> str:
    return " ".join(sorted({task.array for task in tasks}))


def _shards(tasks: Sequence[ArrayTask]) -> str:
    return f"{len(tasks)} shard{'s' * (len(tasks) != 1)}"


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
