"""Ray as a carrier of shards: each is a task, which is restarted elsewhere if its process or node is lost.

Ray ends the tasks of a program that ends, so this command watches them until they end. What they have trained lies
in the sweep's folder, which all nodes share, as do their logs.
"""

from __future__ import annotations

import os
import signal
import socket
import traceback
from collections import Counter
from collections.abc import Collection, Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

from modulab.config.settings import Run
from modulab.errors import ConfigError
from modulab.results.versions import versions
from modulab.sweep.node_shard import NodeShard
from modulab.sweep.output import output_to
from modulab.sweep.ray_connection import STARTED, connect, first_sentence, lines_of
from modulab.sweep.ray_private import write_reports_to
from modulab.sweep.run import Work
from modulab.sweep.shards import Shard, check_settings, count_words, refresh_folders, tell

FOLDER = "ray"


@dataclass(frozen=True)
class RaySettings:
    """The settings of Ray tasks; the fields of hydra/launcher=population_ray."""

    address: str | None
    shards: int
    cpus: int
    gpus: float
    memory_gib: float
    max_retries: int
    resources: Any
    runtime_env: Any
    poll_seconds: float

    def __post_init__(self) -> None:
        """Check values. Raises: ConfigError."""
        check_settings(self, {"shards": 1, "cpus": 1, "max_retries": 0}, ("memory_gib", "poll_seconds"))
        if not self.gpus >= 0:
            raise ConfigError(f"hydra.launcher.gpus={self.gpus} should be 0 or more.")
        examples = {"resources": "{big_node: 1}", "runtime_env": "{pip: [my-package]}"}
        for name, example in examples.items():
            if not isinstance(getattr(self, name), Mapping | None):
                raise ConfigError(
                    f"hydra.launcher.{name}={getattr(self, name)} should be a mapping, as in {example}."
                )

    @property
    def most_shards(self) -> int:
        """Return the largest number of tasks."""
        return self.shards

    @property
    def at_once(self) -> int:
        """Return the largest number of tasks that run at once, if the cluster has room for them."""
        return self.shards

    @property
    def kind(self) -> str:
        """Return the word for shards in Ray."""
        return "tasks of Ray"

    @property
    def limit(self) -> str:
        """Return the time limit of a task: none."""
        return ""

    @property
    def demand(self) -> dict[str, float]:
        """Return the resources of a node that each task takes, by Ray's names."""
        own = {"CPU": float(self.cpus), "GPU": self.gpus, "memory": self.memory_gib * 2**30}
        return {name: amount for name, amount in {**own, **(self.resources or {})}.items() if amount > 0}


@dataclass(frozen=True)
class Ended:
    """How a task ended."""

    how: Literal["whole", "interrupted", "failed", "refused"]
    """Refused are shards of which none can be trained: the folder or the programs on the node are not ours."""
    reason: str = ""


@dataclass(frozen=True)
class RayTask:
    """A shard, and what it needs to be trained as it would be where the command was given."""

    shard: NodeShard
    log: str
    folder: str
    """The current folder."""
    environment: Mapping[str, str]
    versions: Mapping[str, str | None]


class RayTasks:
    """Ray as a carrier of shards."""

    def __init__(self, settings: RaySettings) -> None:
        self._settings = settings
        self.poll_seconds = settings.poll_seconds
        self._where = self._lack = ""
        self._logs = Path()
        self._places: dict[str, int] = {}
        self._nodes: dict[str, NodeShard] = {}
        self._references: dict[str, Any] = {}
        self._retries: Counter[str] = Counter()

    def connect(self) -> None:
        """Connect to the cluster, or start one. Raises: ConfigError if that is impossible, or it never has room."""
        self._where = connect(self._settings.address, self._settings.runtime_env)
        self._lack = self._lack_of_room()

    def in_flight(self, run_ids: Collection[str], folder: Path) -> list[Shard]:
        """Return no shards: Ray has ended those of an earlier command together with it."""
        del run_ids, folder
        return []

    def submit(self, shards: Sequence[Sequence[Run]], work: Work, folder: Path) -> list[Shard]:
        """Start shards on the cluster that is connected."""
        token = uuid4().hex[:8]
        self._logs = folder.absolute() / FOLDER / token
        self._logs.mkdir(parents=True)
        tasks: list[Shard] = []
        for place, runs in enumerate(shards):
            task = Shard(f"{token}_{place}", [run.run_id for run in runs], reason=self._lack)
            self._places[task.name] = place
            self._nodes[task.name] = NodeShard.of(runs, work, folder)
            self._start(task)
            tasks.append(task)
        report = self._logs / "ray.log"
        report.touch()
        write_reports_to(report)
        tell(f"Ray ({self._where}) trains {count_words(tasks)}; logs: {folder / FOLDER / token}")
        if self._lack:
            tell(f"{self._lack} so far: shards wait for one")
        return tasks

    def refresh(self, shards: Sequence[Shard]) -> None:
        """Record what has begun and what has ended, and restart what was lost.

        Raises: ConfigError if a node does not share the folder, or has other programs.
        """
        import ray

        refresh_folders(self._logs)
        for task in shards:
            if not task.alive:
                continue
            if ray.wait([self._references[task.name]], timeout=0)[0]:
                self._end(task)
            elif Path(task.log).exists():
                task.state = "RUNNING"

    def leave(self, shards: Sequence[Shard]) -> None:
        """Tell the remaining shards to save and stop, and wait for them; Ctrl-C again stops them at once."""
        if left := [task for task in shards if task.alive]:
            self._stop(left)

    def _stop(self, left: Sequence[Shard]) -> None:
        import ray

        tell(f"stopping {count_words(left)} after saving; press Ctrl-C again to stop without saving")
        references = [self._references[task.name] for task in left]
        try:
            for reference in references:
                ray.cancel(reference, force=False)
            while ray.wait(references, num_returns=len(references), timeout=0.2)[1]:
                pass
        except KeyboardInterrupt:
            for reference in references:
                ray.cancel(reference, force=True)
            raise

    def _start(self, task: Shard) -> None:
        import ray

        settings, retries = self._settings, self._retries[task.name]
        attempt = f".retry-{retries}" if retries else ""
        task.log, task.state = str(self._logs / f"{self._places[task.name]}{attempt}.log"), "PENDING"
        shard = self._nodes[task.name]
        sent = RayTask(
            shard,
            task.log,
            os.getcwd(),
            {name: value for name, value in os.environ.items() if name.startswith("MODULAB_")},
            _programs(),
        )
        # Restarted here and not by Ray, so that restarts are reported and a lack of memory counts as a retry. A
        # process trains one shard, as under SLURM.
        function: Any = ray.remote(
            num_cpus=settings.cpus,
            num_gpus=settings.gpus,
            memory=int(settings.memory_gib * 2**30),
            resources=dict(settings.resources or {}),
            max_retries=0,
            max_calls=1,
        )(train_shard)
        self._references[task.name] = function.remote(sent)

    def _end(self, task: Shard) -> None:
        """Record how a task ended, as it or Ray reports."""
        import ray
        from ray.exceptions import RayError, RayTaskError, RuntimeEnvSetupError

        try:
            ended: Ended = ray.get(self._references[task.name])
        except (RayTaskError, RuntimeEnvSetupError) as error:  # before or after our own code
            ended = Ended("refused", f"a node cannot run it: {lines_of(error)[-1]}")
        except RayError as error:
            ended = Ended("interrupted", first_sentence(lines_of(error)[0]))
        if ended.how == "refused":
            task.state = ""
            raise ConfigError(f"hydra/launcher=population_ray: {ended.reason}")
        if ended.how == "interrupted" and self._retries[task.name] < self._settings.max_retries:
            self._retries[task.name] += 1
            count = f"{self._retries[task.name]} of {self._settings.max_retries}"
            tell(
                f"shard {task.name} was lost ({ended.reason}); it resumes from its last checkpoint, retry {count}"
            )
            self._start(task)
            return
        task.state, task.failure = "", ended.reason

    def _lack_of_room(self) -> str:
        """Return why shards have to wait for another node; empty if a node can take one.

        Raises: ConfigError if there will never be another.
        """
        import ray

        demand = self._settings.demand
        nodes: list[dict[str, float]] = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        if any(all(node.get(name, 0) >= amount for name, amount in demand.items()) for node in nodes):
            return ""
        largest = max(nodes, key=lambda node: [node.get(name, 0) for name in demand], default={})
        found = _amounts({name: largest.get(name, 0) for name in demand})
        lack = f"no node has {_amounts(demand)}; the largest has {found}"
        if self._where == STARTED:
            raise ConfigError(
                f"hydra/launcher=population_ray: {lack}. Lower hydra.launcher.cpus, memory_gib or gpus, or name a "
                "cluster with hydra.launcher.address."
            )
        return lack


def train_shard(task: RayTask) -> Ended:
    """Train, on a node, what of a shard has no result yet, with a log in the sweep's folder."""
    os.environ.update(task.environment)
    if not Path(task.log).parent.is_dir():
        return Ended(
            "refused",
            f"node {socket.gethostname()} does not see {task.shard.folder}. The output folder has to be on a file "
            "system that all nodes share: choose one with hydra.sweep.dir=FOLDER.",
        )
    if (found := _programs()) != task.versions:
        return Ended(
            "refused",
            f"node {socket.gethostname()} has {_words(found)}, and this command {_words(task.versions)}. "
            "Install the same on all nodes.",
        )
    with suppress(OSError):  # where it is not shared
        os.chdir(task.folder)
    try:
        with output_to(Path(task.log)), _signals_handled():
            return _train(task.shard)
    except OSError as error:
        return Ended(
            "refused",
            f"node {socket.gethostname()} cannot write to {task.log} ({error.strerror}). Permit that.",
        )


def _train(shard: NodeShard) -> Ended:
    try:
        count = shard.train()
    except KeyboardInterrupt:
        print("This shard was asked to stop. Its state is saved.")
        return Ended("interrupted", "its node asked it to end")
    except Exception as error:
        traceback.print_exc()
        return Ended("failed", f"{type(error).__name__}: {error}")
    print(f"trained {count} networks")
    return Ended("whole")


def _programs() -> dict[str, str | None]:
    """Return the versions on which bits depend."""
    found = versions()
    return {name: found[name] for name in ("modulab", "torch")}


def _words(programs: Mapping[str, str | None]) -> str:
    return " and ".join(f"{name} {number}" for name, number in programs.items())


def _amounts(resources: Mapping[str, float]) -> str:
    return ", ".join(
        f"{amount / 2**30:.1f} GiB" if name == "memory" else f"{amount:g} {name}"
        for name, amount in resources.items()
    )


@contextmanager
def _signals_handled() -> Generator[None]:
    """Save and stop at the signal with which nodes are shut down, as at Ctrl-C and when Ray cancels.

    Ray blocks SIGINT, also for children, and leaves its processes in the group of a terminal that sends it.
    """
    with suppress(OSError):  # where it leads a group already
        os.setpgid(0, 0)
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGINT,))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
