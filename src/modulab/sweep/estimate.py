"""The output of a dry run: the amount of training, its populations, and the estimated time."""

from __future__ import annotations

from pathlib import Path

from modulab.config.composing import Plan
from modulab.config.settings import Run, structural_key
from modulab.sweep.pack import COMPILER_BYTES, PROCESS_BYTES, population_bytes
from modulab.sweep.run import Work, fails_at_once, plan_work
from modulab.sweep.shards import ShardSettings, cut_shards, plan_for_shards
from modulab.sweep.side_by_side import PROCESS_BYTES as SELF_TRAINED_BYTES
from modulab.sweep.side_by_side import processes_at_once
from modulab.sweep.this_machine import shares_of
from modulab.training.cost import RATES, compile_seconds, measure_seconds, step_seconds
from modulab.training.engine import steps_natively
from modulab.training.execution import Execution

_START_SECONDS = 8


def describe_work(plan: Plan, folder: Path) -> str:
    """Return the estimate of training a plan in `folder` on this machine."""
    work = plan_work(plan.runs, plan.trainer, folder)
    shares = len(shares_of(work))
    each = "one per GPU" if work.execution.device.type == "cuda" else "one per core"
    where = f"processes    {shares}, {each}" if shares > 1 else "shards       none: this process trains them"
    return "\n".join([*describe_counts(plan, work), f"{where}, {describe_time(work, shares)}"])


def describe_shards(plan: Plan, folder: Path, settings: ShardSettings) -> str:
    """Return the estimate of training a plan in `folder` in shards."""
    work = plan_for_shards(plan.runs, plan.trainer, folder, settings)
    shards = cut_shards(work, set(), settings.most_shards)
    largest = max((len(shard) for shard in shards), default=0)
    at_once = max(1, min(len(shards), settings.at_once))
    resources = (
        f"{settings.cpus} CPUs, {settings.gpus:g} GPUs and {settings.memory_gib:g} GiB {settings.limit}"
    )
    return "\n".join(
        [
            *describe_counts(plan, work),
            f"shards       {len(shards)} {settings.kind}, {at_once} at once, the largest of {largest} networks",
            f"each         {resources.strip()}",
            f"in all       {describe_time(work, at_once)}",
        ]
    )


def describe_counts(plan: Plan, work: Work) -> list[str]:
    """Return lines that count the work, and say how much memory its largest population takes."""
    done = len(work.runs) - work.pending
    broken = {run.run_id for population in work.packed if fails_at_once(population[0]) for run in population}
    healthy = dict.fromkeys(run.condition for run in work.runs if run.run_id not in broken)
    groups = {structural_key(condition.example) for condition in healthy}
    reason = "whose code fails before any training: their rows will say why"
    largest = max((len(population) for population in work.populations), default=0)
    return [
        "dry run: nothing is trained",
        f"jobs         {len(plan.jobs)}",
        f"networks     {len(work.runs)}, of which {done} have results and {work.pending} will be trained",
        f"groups       {len(groups)} of equal structural settings",
        f"populations  {len(work.populations)}, the largest of {largest}",
        *_describe_self_trained(work),
        *([f"failing      {len(broken)}, {reason}"] if broken else []),
        f"memory       about {process_bytes(work) / 2**30:.1f} GiB per process",
        f"engine       {_engine_words(work.execution)}",
    ]


def _engine_words(execution: Execution) -> str:
    # Whether a program has a native step is known once it has been traced, which takes longer than a dry run may.
    if not steps_natively(execution.engine):
        return execution.engine
    return f"{execution.engine}; {execution.instead_of_native} for programs that have no native step"


def _describe_self_trained(work: Work) -> list[str]:
    if not work.self_trained:
        return []
    at_once = min(len(work.self_trained), processes_at_once(work.trainer, work.execution))
    return [
        f"processes    {len(work.self_trained)} networks that train themselves, {at_once} at once, with about "
        f"{SELF_TRAINED_BYTES / 2**30:.1f} GiB each beside their own data; their time is not estimated"
    ]


def process_bytes(work: Work) -> float:
    """Return about how much memory a process that trains this work takes at its peak."""
    populations = ([run.member for run in population] for population in _planned(work))
    largest = max((population_bytes(each, work.execution) for each in populations), default=0)
    return PROCESS_BYTES + largest + (COMPILER_BYTES if work.execution.engine == "compiled" else 0)


def _planned(work: Work) -> list[list[Run]]:
    """Return each population whose size is known."""
    return [population for population in work.packed if not fails_at_once(population[0])]


def describe_time(work: Work, processes: int = 1) -> str:
    """Return about how long some work takes when as many processes share it."""
    if work.execution.device.type != "cpu":
        return "for a time that has not been measured on this device"
    members = [run.condition.example for population in _planned(work) for run in population]
    engine = work.execution.engine
    compiled = engine != "eager"
    seconds = measure_seconds(members)
    seconds += step_seconds(members, RATES[engine], work.execution.threads if compiled else 1)
    text = f"about {duration(_START_SECONDS + seconds / processes)}"
    if compiled and members:
        text += f", and up to {duration(compile_seconds(members, engine))} more to compile where that is not cached"
    return text


def duration(seconds: float) -> str:
    """Return a time span in the unit that suits it."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
