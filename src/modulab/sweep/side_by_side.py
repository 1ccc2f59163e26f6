"""Members that train themselves: each in its own process, as many at once as cores and memory allow."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from modulab.config.settings import Member, Run, Trainer, read_run
from modulab.cores import cpu_count
from modulab.errors import ConfigError
from modulab.networks.self_trained import SelfTrained
from modulab.progress import ProgressReport
from modulab.results.manifest import checkpoint_path, write_manifest
from modulab.signals import ended_by_signal
from modulab.sweep.pack import available_bytes
from modulab.training.cache import say_once
from modulab.training.execution import Execution
from modulab.training.fit import PopulationResult
from modulab.workers import Send, SentProgress, Workers, outcome_sent, show_sent

PRELOAD = ("modulab.training.self_trained", "modulab.sweep.this_machine", "modulab.config.composing", "hydra")
PROCESS_BYTES = 600 << 20
"""Approximate memory of a process in addition to the user's module and data: torch and Lightning."""
_TRAINING_KEYS_IN_USE = ("steps", "curve_every")
_OF_TASK_DATA = {"training": ("batch_size",), "data": ("num_samples",)}


def trains_itself(member: Member) -> bool:
    """Return whether a member's architecture trains it."""
    return isinstance(member.architecture, SelfTrained)


def processes_at_once(trainer: Trainer, execution: Execution) -> int:
    """Return the number of members that train at once: one per `trainer.threads` cores, or device, within memory."""
    import torch

    room = available_bytes(trainer, torch.device("cpu"))
    on_cuda = execution.device.type == "cuda"
    units = torch.cuda.device_count() if on_cuda else cpu_count() // (trainer.threads or 1)
    return max(1, int(min(units, room // PROCESS_BYTES)))


def check_differences(runs: Sequence[Run]) -> None:
    """Raise ConfigError for two members that train themselves and whose training would be identical."""
    seen: dict[str, Run] = {}
    for run in runs:
        if not trains_itself(run.condition.example):
            continue
        read = _what_is_read(run)
        other = seen.setdefault(read, run)
        differing = [
            f"{group}.{key}"
            for group in ("training", "data", "noise", "regulariser")
            for key, value in run.config[group].items()
            if other.config[group].get(key) != value
        ]
        if differing:
            key = next((each for each in differing if each.startswith("training.")), differing[0])
            raise ConfigError(
                f"{key} differs between members whose training does not read it: a module under architecture="
                f"{run.member.architecture.name} has its own optimisers, schedules and data. Pass the value to its "
                f"constructor, as in 'architecture.module.ARGUMENT=${{{key}}}', or give one value."
            )


def _what_is_read(run: Run) -> str:
    architecture = run.member.architecture
    assert isinstance(architecture, SelfTrained)
    training = {key: run.config["training"][key] for key in _TRAINING_KEYS_IN_USE}
    read: dict[str, Any] = {key: run.config[key] for key in ("seed", "task", "architecture", "probes")}
    if not architecture.brings_data:
        read |= {
            group: {key: run.config[group][key] for key in keys} for group, keys in _OF_TASK_DATA.items()
        }
    return repr((read, training))


def train_side_by_side(
    runs: Sequence[Run],
    execution: Execution,
    processes: int,
    folder: Path,
    progress: ProgressReport,
    finish: Callable[[Run, PopulationResult | str], None],
) -> None:
    """Train and measure members, each in its own process; `finish` gets each result, or the reason why it failed.

    Raises: KeyboardInterrupt on Ctrl-C, when all have stopped.
    """
    waiting = {run.run_id: run for run in runs}
    at_work: dict[str, tuple[Run, int]] = {}
    workers = Workers(PRELOAD)
    free = list(range(processes))
    progress.say(f"training, up to {processes} at once" if processes > 1 else "training")
    with ended_by_signal():
        try:
            while waiting or at_work:
                while waiting and free:
                    name, run = next(iter(waiting.items()))
                    del waiting[name]
                    write_manifest(folder, {name: run.config})
                    at_work[name] = run, free.pop(0)
                    path = str(checkpoint_path(folder, [name]).absolute())
                    workers.start(name, _fit_one, run.config, execution, path, at_work[name][1])
                message = workers.next()
                run, place = at_work[message.worker]
                if message.kind == "say":
                    label, at_once = message.content
                    if at_once:
                        say_once(f"{run.member.architecture.name}: {label}")
                elif show_sent(message, progress, processes, run.member.architecture.name):
                    continue
                elif message.kind == "interrupted":
                    raise KeyboardInterrupt
                else:
                    if message.kind == "failed":
                        # Fixed code does not resume from what the broken code wrote.
                        checkpoint_path(folder, [message.worker]).unlink(missing_ok=True)
                    finish(run, message.content)
                    workers.end(message.worker)
                    del at_work[message.worker]
                    free.append(place)
        finally:
            workers.stop()


def _fit_one(
    send: Send, config: Mapping[str, Any], execution: Execution, checkpoint: str, place: int
) -> None:
    from modulab.training.self_trained import fit_alone, warnings_told

    progress = SentProgress(send)
    with outcome_sent(send):
        with warnings_told(lambda text: progress.say(text, at_once=True)):
            member = read_run(config).member
            result = fit_alone(member, execution, Path(checkpoint), progress, device_number=place)
        send("done", result)
