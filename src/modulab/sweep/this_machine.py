"""Train planned work on this machine: in this process, or in several, one per GPU or one per core.

A process trains on one device. On a CPU it uses all cores where populations have a member for each, trained by compiled
steps. Other work, such as many populations of a single network, leaves cores idle, and is shared among processes where
that saves more than they take to start.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from modulab.config.loggers import Loggers
from modulab.config.settings import Run
from modulab.cores import cpu_count
from modulab.errors import ConfigError
from modulab.logger.run_log import RunLog, say
from modulab.progress import ProgressReport
from modulab.results.store import missing
from modulab.signals import ended_by_signal
from modulab.sweep.node_shard import NodeShard
from modulab.sweep.pack import PROCESS_BYTES, available_bytes
from modulab.sweep.run import (
    Work,
    begin,
    plan_populations,
    plannable_members,
    progress_of,
    results_kept,
    train_populations,
)
from modulab.sweep.shards import cut_shards
from modulab.training.cost import RATES, compile_seconds, measure_seconds, step_seconds
from modulab.workers import Message, Send, SentProgress, Workers, outcome_sent, show_sent

_PRELOAD = ("modulab.sweep.this_machine", "modulab.config.composing", "hydra")
_START_SECONDS = 8.0
"""The memory of a process before it trains, with a margin for the error of the estimate."""
_LEAST_GAIN = 1.25
"""The factor by which several processes have to be faster, by estimate."""


def run_work(work: Work, folder: Path, logger: Loggers | None = None) -> None:
    """Train and measure what was planned for `folder`, on all devices of this machine.

    Results are kept after each population. Members that are still to come are rows with the status `missing`. Loggers
    export whatever the folder holds that they have not exported before.

    Only one command may do so in a folder at a time (see `FolderLock`).

    Raises: ConfigError for a file that cannot be used; KeyboardInterrupt on Ctrl-C, after which planning and running
    the same again continues where this call stopped.
    """
    begin(work, folder)
    with results_kept(folder, logger, work.trainer.progress) as log:
        shares = shares_of(work)
        with progress_of(work) as progress:
            if len(shares) > 1:
                train_in_processes(work, shares, folder, progress, log)
                work = work.without_packed()
            train_populations(work, folder, progress, log)


def shares_of(work: Work) -> list[list[Run]]:
    """Return the members that each of several processes trains, or one share of all where one process is as good.

    With CUDA there are as many as devices. On the CPU `trainer.threads`, where it is set, limits training to one
    process of that many threads.
    """
    packed = replace(work, populations=work.packed)
    whole = [[run for population in packed.populations for run in population]]
    if work.execution.device.type == "cuda":
        devices = torch.cuda.device_count()
        return cut_shards(packed, set(), devices) if devices > 1 else whole
    if work.execution.asked_threads is not None:
        return whole
    room = available_bytes(work.trainer, work.execution.device)
    processes = min(cpu_count(), int(room / (2 * PROCESS_BYTES)))
    if processes < 2 or packed.pending < 2:
        return whole
    alone = sum(_seconds(population, work, work.execution.threads) for population in packed.populations)
    on_one_core = [_seconds(population, work, 1) for population in packed.populations]
    if alone <= _LEAST_GAIN * (_START_SECONDS + sum(on_one_core) / processes):
        return whole  # however the work is cut: cutting a million networks takes seconds
    costs = {
        run.run_id: seconds / len(population)
        for population, seconds in zip(packed.populations, on_one_core, strict=True)
        for run in population
    }
    shares = cut_shards(packed, set(), processes, costs)
    shared = _START_SECONDS + max(_seconds_of_share(share, work) for share in shares)
    return shares if alone > _LEAST_GAIN * shared else whole


def _seconds_of_share(share: Sequence[Run], work: Work) -> float:
    populations = plan_populations(share, work.trainer, work.execution)
    return sum(_seconds(population, work, 1) for population in populations)


def _seconds(population: Sequence[Run], work: Work, threads: int) -> float:
    """Return about how long a population takes; a thread trains one member at a time, and one thread compiles."""
    engine = work.execution.engine
    members = plannable_members(population)
    if not members:
        return 0.0  # it fails as it begins
    threads = min(threads, len(members))
    seconds = step_seconds(members, RATES[engine], threads) + measure_seconds(members) / threads
    return seconds + (0.0 if engine == "eager" else compile_seconds(members, engine))


def train_in_processes(
    work: Work,
    shares: Sequence[Sequence[Run]],
    folder: Path,
    progress: ProgressReport,
    log: RunLog,
    devices: Sequence[int] | None = None,
) -> None:
    """Train each share in its own process, on its own device unless `devices` gives their numbers.

    What a process that dies has not finished stays `missing`, with the reason; the others continue.

    Raises: ConfigError for a file that cannot be used; KeyboardInterrupt on Ctrl-C; either after all have saved.
    """
    on_cuda = work.execution.device.type == "cuda"
    numbers = range(len(shares)) if devices is None else devices
    names = [f"{'GPU' if on_cuda else 'process'} {number + 1}" for number in range(len(shares))]
    own = _of_each_process(work, len(shares))
    of_process = dict(zip(names, shares, strict=True))
    lost: dict[str, str] = {}
    workers = Workers(_PRELOAD)
    with ended_by_signal():
        try:
            for name, share, number in zip(names, shares, numbers, strict=True):
                task = NodeShard.of(share, own, folder)
                workers.start(name, _train_share, task, number if on_cuda else None)
            while len(workers) > 0:
                message = workers.next()
                if show_sent(message, progress, len(shares), message.worker):
                    if message.kind == "finish":
                        log.catch_up()
                elif message.kind == "interrupted":
                    raise KeyboardInterrupt
                elif message.kind == "refused":
                    raise ConfigError(message.content)
                else:
                    workers.end(message.worker)
                    if message.kind != "done":
                        lost |= _lost(of_process[message.worker], message, folder)
        finally:
            workers.stop()
    if lost:
        begin(work, folder, lost)


def _of_each_process(work: Work, processes: int) -> Work:
    """Return the work of each process, planned for its part of the machine."""
    if work.execution.device.type == "cuda":
        return work
    gibibytes = available_bytes(work.trainer, work.execution.device) / processes / 2**30
    return replace(
        work,
        trainer=work.trainer.model_copy(update={"memory_gib": gibibytes}),
        execution=replace(work.execution, asked_threads=max(1, cpu_count() // processes)),
    )


def _lost(share: Sequence[Run], message: Message, folder: Path) -> dict[str, str]:
    """Report the members that a dead process left untrained, and return the reason by run_id."""
    lost = missing(folder, [run.run_id for run in share])
    reason = f"{message.worker}: {message.content}"
    say(f"{reason} {len(lost)} of its runs are missing; the same command trains them.")
    return dict.fromkeys(lost, reason)


def _train_share(send: Send, share: NodeShard, device: int | None) -> None:
    with outcome_sent(send):
        if device is not None:
            torch.cuda.set_device(device)
        share.train(SentProgress(send), RunLog(Path(share.folder)))
        send("done", None)
