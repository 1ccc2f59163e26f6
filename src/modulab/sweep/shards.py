"""Shards: parts of a sweep that a carrier, SLURM or Ray, trains on the nodes of a cluster.

The sweep's folder is shared by all machines. Each node trains the members of its shard and leaves their rows among the
folder's parts, so nothing has to pass through the process that waits until all shards have ended.
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast, runtime_checkable

import torch

from modulab.config.loggers import Loggers
from modulab.config.settings import Run, Trainer
from modulab.errors import ConfigError
from modulab.logger.run_log import RunLog
from modulab.progress import ProgressReport, Style
from modulab.results.store import PARTS, missing
from modulab.schema import suggest
from modulab.sweep.run import Work, begin, packed_seconds, plan_work, results_kept
from modulab.text import to_stderr

_LONGEST_SILENCE = 3600.0
"""Seconds for which a carrier may be unavailable, for example while it is restarted, before watching ends."""


class NoAnswer(ConfigError):
    """Raised if a carrier does not answer; its shards continue meanwhile."""


@dataclass
class Shard:
    """A shard as it was submitted to its carrier, and its last reported state."""

    name: str
    run_ids: list[str]
    log: str = ""
    state: str = "PENDING"
    reason: str = ""
    """Why the shard waits, in the carrier's words."""
    failure: str = ""
    """Why the shard ended without all of its results, if the carrier knows."""

    @property
    def alive(self) -> bool:
        """Return whether the shard is still waiting or running."""
        return self.state != ""

    @property
    def running(self) -> bool:
        """Return whether the shard is running, or about to end."""
        return self.state in ("RUNNING", "COMPLETING")


@runtime_checkable
class ShardSettings(Protocol):
    """The settings of a carrier, fields of its launcher, that planning and dry runs read."""

    @property
    def cpus(self) -> int:
        """Return the CPUs of a shard."""
        ...

    @property
    def gpus(self) -> float:
        """Return the GPUs of a shard, of which it uses one at most."""
        ...

    @property
    def memory_gib(self) -> float:
        """Return the memory of a shard."""
        ...

    @property
    def most_shards(self) -> int:
        """Return the largest number of shards to submit."""
        ...

    @property
    def at_once(self) -> int:
        """Return the largest number of shards that run at once."""
        ...

    @property
    def kind(self) -> str:
        """Return the carrier's word for shards, in the plural."""
        ...

    @property
    def limit(self) -> str:
        """Return the time limit of a shard in words; empty if there is none."""
        ...


@runtime_checkable
class Carrier(Protocol):
    """A carrier, which trains shards elsewhere: SLURM or Ray."""

    poll_seconds: float
    """How often to ask for the state of shards."""

    def in_flight(self, run_ids: Collection[str], folder: Path) -> list[Shard]:
        """Return the shards of earlier commands that still exist and train some of these members."""
        ...

    def submit(self, shards: Sequence[Sequence[Run]], work: Work, folder: Path) -> list[Shard]:
        """Submit shards, and report it. Raises: ConfigError if they are refused."""
        ...

    def refresh(self, shards: Sequence[Shard]) -> None:
        """Update the state of shards; one that has ended gets the empty state.

        Raises: NoAnswer if the carrier does not answer; ConfigError where no shard can be trained.
        """
        ...

    def leave(self, shards: Sequence[Shard]) -> None:
        """Clean up when the command stops waiting, with shards that may still run."""
        ...


_Settings = TypeVar("_Settings")


def read_settings(kind: type[_Settings], given: Mapping[str, Any]) -> _Settings:
    """Return the settings of a carrier, from the fields of its launcher.

    Raises: ConfigError for an unknown key, which `++hydra.launcher.NAME=VALUE` adds, or a wrong value.
    """
    known = [each.name for each in fields(cast(Any, kind))]
    for name in given:
        if name not in known:
            raise ConfigError(f"hydra.launcher.{name}: there is no such key. {suggest(name, known)}")
    return kind(**given)


def check_settings(settings: object, least: Mapping[str, int], positive: Collection[str] = ()) -> None:
    """Raise ConfigError for a setting below the least that it may be, or for one that should be above 0 and is not."""
    for name, lowest in least.items():
        if getattr(settings, name) < lowest:
            raise ConfigError(
                f"hydra.launcher.{name}={getattr(settings, name)} should be a whole number, {lowest} or more."
            )
    for name in positive:
        if not getattr(settings, name) > 0:
            raise ConfigError(f"hydra.launcher.{name}={getattr(settings, name)} should be above 0.")


def run_in_shards(
    work: Work, folder: Path, carrier: Carrier, most: int, progress: Style, logger: Loggers | None = None
) -> None:
    """Train and measure, in at most `most` shards, what was planned for them by `plan_for_shards`.

    Shards of an earlier command that still run are waited for; what they do not train is submitted. A shard
    that ends without all of its results leaves rows with the status `missing` that say so. Nodes may have no
    network, so loggers export here, each shard's members after it has ended.

    Raises: ConfigError if the carrier refuses; KeyboardInterrupt on Ctrl-C, after `Carrier.leave`.
    """
    begin(work, folder)
    pending = {run.run_id for population in work.populations for run in population}
    shards = carrier.in_flight(pending, folder) if pending else []
    taken = {run_id for shard in shards for run_id in shard.run_ids}
    if new := cut_shards(work, taken, most):
        shards += carrier.submit(new, work, folder)
    with results_kept(folder, logger, progress) as log:
        try:
            _watch(shards, work, folder, carrier, progress, log)
        finally:
            carrier.leave(shards)
        _note_lost(shards, work, folder)


def plan_for_shards(runs: Sequence[Run], trainer: Trainer, folder: Path, settings: ShardSettings) -> Work:
    """Return the plan of the members to train, for the nodes and not for this machine."""
    cuda = settings.gpus > 0 and trainer.accelerator != "cpu"
    if trainer.accelerator == "cuda" and settings.gpus == 0:
        raise ConfigError(
            "trainer.accelerator=cuda needs one GPU per task, and hydra.launcher.gpus=0. Set hydra.launcher.gpus=1."
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


def cut_shards(
    work: Work, taken: set[str], most: int, seconds: Mapping[str, float] | None = None
) -> list[list[Run]]:
    """Return members to train in at most `most` shards of about equal work.

    A population that left a checkpoint stays whole; others are cut wherever a shard is full. Members that are
    `taken` by shards of an earlier command are left to them. `seconds`, by run_id, is how long each network takes; by
    default its training steps, packed.
    """
    populations = [[run for run in population if run.run_id not in taken] for population in work.populations]
    whole, others = populations[: work.unfinished], populations[work.unfinished :]
    free = [run for population in others for run in population]
    seconds = seconds or _seconds(work)

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
    """Return the common load of the lightest shards after this much more load has been distributed to equalise them."""
    ordered = sorted(loads)
    sums = [sum(ordered[: number + 1], amount) / (number + 1) for number in range(len(ordered))]
    return min(sums)


def _watch(
    shards: Sequence[Shard], work: Work, folder: Path, carrier: Carrier, style: Style, log: RunLog
) -> None:
    """Wait until the carrier has finished all shards, and report their progress."""
    costs = _seconds(work)
    lacking = set(costs)
    ended: set[str] = set()
    silent_since: float | None = None
    with ProgressReport(style, len(costs), sum(costs.values())) as progress:
        while any(shard.alive for shard in shards):
            label = ""
            try:
                carrier.refresh(shards)
                silent_since = None
            except NoAnswer as error:
                label = f"{error}; its shards continue meanwhile"
                if silent_since is None:
                    silent_since = time.monotonic()
                    progress.say(label, at_once=True)
                elif time.monotonic() - silent_since > _LONGEST_SILENCE:
                    raise
            just_ended = [shard for shard in shards if not shard.alive and shard.name not in ended]
            if just_ended:
                refresh_folders(folder, folder / PARTS)
            new = lacking.difference(missing(folder, lacking))
            lacking -= new
            for shard in just_ended:
                ended.add(shard.name)
                if lost := lacking.intersection(shard.run_ids):
                    tell(_lost_words(shard, f"{len(lost)} of its runs"))
            progress.say(label or describe_states(shards))
            progress.finish(len(new))
            progress.advance(sum(costs[run_id] for run_id in new))
            if new:
                log.catch_up()
            if any(shard.alive for shard in shards):
                time.sleep(carrier.poll_seconds)


def describe_states(shards: Sequence[Shard]) -> str:
    """Return how many shards are running, how many wait, and why, and how many have ended."""
    running = sum(shard.running for shard in shards)
    waiting = [shard for shard in shards if shard.alive and not shard.running]
    reasons = ", ".join(sorted({shard.reason for shard in waiting} - {"", "None"}))
    return (
        f"shards: {running} running, {len(waiting)} waiting{f' ({reasons})' if reasons else ''}, "
        f"{len(shards) - running - len(waiting)} ended"
    )


def refresh_folders(*folders: Path) -> None:
    """Refresh a network file system by writing to it, so that new files of nodes become visible."""
    for place in folders:
        with suppress(OSError):
            probe = place / f".look.{os.getpid()}"
            probe.touch()
            probe.unlink()


def _note_lost(shards: Sequence[Shard], work: Work, folder: Path) -> None:
    """Record in the rows of missing members which shard lost them, and where its log is."""
    lost = set(missing(folder, [run_id for shard in shards for run_id in shard.run_ids]))
    reasons = {
        run_id: _lost_words(shard, "it") for shard in shards for run_id in shard.run_ids if run_id in lost
    }
    if reasons:
        begin(work, folder, reasons)


def _lost_words(shard: Shard, what: str) -> str:
    reason = f" ({shard.failure})" if shard.failure else ""
    return f"shard {shard.name} ended without {what}{reason}; its log: {shard.log}"


def count_words(shards: Sequence[Shard]) -> str:
    """Return how many shards these are."""
    return f"{len(shards)} shard{'s' * (len(shards) != 1)}"


def tell(text: str) -> None:
    """Print a line on standard error."""
    to_stderr(text)
