"""Analyse the finished networks of a folder, write findings as they come, and resume after an interruption."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Collection, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch

from modulab.analysis.choosing import Chosen
from modulab.analysis.taking import analyse_members
from modulab.errors import ConfigError, ForeignError, foreign_code
from modulab.metrics.probe import Tell, tell_nobody
from modulab.progress import ProgressReport, Style
from modulab.results.analyses import Analysed, analysed, save_analysed
from modulab.results.files import check_links
from modulab.results.lock import FolderLock
from modulab.results.manifest import POPULATIONS, manifest_of, read_manifest
from modulab.results.named_rows import row_numbers
from modulab.results.store import load_columns, load_results, statuses
from modulab.results.summary import metric_names
from modulab.sweep.estimate import duration
from modulab.sweep.trained import TrainedMembers, read_members
from modulab.training.program import network_of

_SECONDS_BETWEEN_WRITES = 5.0
_START_SECONDS = 3
_TRIED = 8
"""Networks that a dry run analyses to know how long it takes."""
_MOST_TRIED_SECONDS = 5.0
_LEAST_SECONDS = 1e-4
"""The minimum time per network, in which it is read."""
_MOST_NAMED = 10
"""Number of rows named in a line."""


@dataclass(frozen=True)
class Finished:
    """The finished networks of one folder: by run_id, the checkpoint and the place in it that hold a member."""

    folder: Path
    files: dict[Path, list[str]]
    """The run_ids that each checkpoint holds, in its order."""
    owners: dict[str, Path]
    """The checkpoint of each completed member."""
    left_out: dict[str, str]
    """Why each other member cannot be analysed."""


@dataclass(frozen=True)
class Part:
    """Members of one checkpoint that one analysis has still to be taken of."""

    folder: Path
    chosen: Chosen
    file: Path
    run_ids: tuple[str, ...]


@dataclass(frozen=True)
class Plan:
    """What is to be analysed, and what is done already."""

    path: Path
    wanted: frozenset[str]
    """The run_ids of all members that are asked for."""
    chosen: list[Chosen]
    parts: list[Part]
    left_out: dict[Path, dict[str, str]]
    """By folder and run_id, why members without a finished network are not analysed; none where members were named."""

    def pending(self, name: str) -> int:
        """Return the number of members that an analysis has still to be taken of."""
        return len({run_id for part in self.parts if part.chosen.name == name for run_id in part.run_ids})


def plan_analyses(
    path: Path, chosen: Sequence[Chosen], members: Sequence[str] | None = None, again: bool = False
) -> Plan:
    """Return what analyses lack in the folders of results below a path.

    `members` are rows by number or run_id, or ranges of numbers such as 0-9; by default all that are completed. With
    `again`, those that have been analysed are analysed once more.

    Raises: ConfigError if there are no finished networks, or no such members.
    """
    if not path.is_dir():
        reason = "it is a file" if path.exists() else "there is no such folder"
        raise ConfigError(f"{path}: {reason}. Give the folder that modulab train printed.")
    results = load_results(path)
    folders = [_finished(folder) for folder in _folders(path)]
    owned = {run_id for folder in folders for run_id in folder.owners}
    if not owned:
        raise ConfigError(
            f"{path}: holds no finished networks in {POPULATIONS}/*.ckpt. Give the folder that modulab train printed, "
            "with everything in it."
        )
    wanted = owned if members is None else _wanted(results, members, owned)
    _check_names(results, chosen)
    parts: list[Part] = []
    for folder in folders:
        for each in chosen:
            done = analysed(folder.folder, each.name)
            pending = {
                run_id
                for run_id in wanted & folder.owners.keys()
                if again or done.get(run_id) != each.settings
            }
            for file, run_ids in folder.files.items():
                own = tuple(name for name in run_ids if name in pending and folder.owners[name] == file)
                if own:
                    parts.append(Part(folder.folder, each, file, own))
    left_out: dict[Path, dict[str, str]] = {}
    for folder in folders if members is None else ():
        reasons = {run_id: reason for run_id, reason in folder.left_out.items() if run_id not in owned}
        if reasons:
            left_out[folder.folder] = reasons
    return Plan(path, frozenset(wanted), list(chosen), parts, left_out)


def _folders(path: Path) -> list[Path]:
    return sorted({file.parent.parent for file in path.rglob(f"{POPULATIONS}/*.ckpt")})


def _finished(folder: Path) -> Finished:
    """Return the completed members of a folder, each in the checkpoint that was trained for longest."""
    known = statuses(folder)
    completed = {run_id for run_id, status in known.items() if status == "completed"}
    files: dict[Path, list[str]] = {}
    holders: defaultdict[str, list[Path]] = defaultdict(list)
    for file in sorted((folder / POPULATIONS).glob("*.ckpt")):
        if not manifest_of(file).exists():
            continue  # the settings of its members are not kept in full
        files[file] = list(read_manifest(manifest_of(file)))
        for run_id in completed.intersection(files[file]):
            holders[run_id].append(file)
    steps = {
        file: read_members(file).steps
        for file in {file for found in holders.values() if len(found) > 1 for file in found}
    }
    owners = {
        run_id: found[0] if len(found) == 1 else max(found, key=lambda file: (steps[file], file))
        for run_id, found in holders.items()
    }
    left_out = {run_id: _not_there(status) for run_id, status in known.items() if run_id not in owners}
    return Finished(folder, files, owners, left_out)


def _not_there(status: str) -> str:
    """Return why a member of this status has no network to analyse."""
    return "the network is not kept in the folder" if status == "completed" else f"it is {status}"


def _wanted(results: pd.DataFrame, members: Sequence[str], owned: Collection[str]) -> set[str]:
    names: list[str] = results["run_id"].tolist()
    rows = row_numbers(results, members, "--members")
    for row, given in rows.items():
        if names[row] not in owned:
            reason = _not_there(results["status"].tolist()[row])
            raise ConfigError(f"--members {given}: row {row} cannot be analysed, as {reason}.")
    return {names[row] for row in rows}


def _check_names(results: pd.DataFrame, chosen: Sequence[Chosen]) -> None:
    """Raise ConfigError for an analysis whose columns have the names of measures that results have from training."""
    for each in chosen:
        prefix = each.analysis.column_name(each.name, "")
        taken = [name for name in metric_names(results) if prefix and name.startswith(prefix)]
        if taken:
            raise ConfigError(
                f"--with {each.name}: these results have measures of that name, such as {taken[0]}. Give it another: "
                f"OTHER_NAME={each.name}."
            )


def describe_left_out(plan: Plan) -> list[str]:
    """Return one line for each reason why members are not analysed, with their rows; none if all are."""
    reasons = {run_id: reason for own in plan.left_out.values() for run_id, reason in own.items()}
    if not reasons:
        return []
    rows: defaultdict[str, list[int]] = defaultdict(list)
    for row, run_id in enumerate(load_columns(plan.path, ["run_id"])["run_id"].tolist()):
        if run_id in reasons:
            rows[reasons[run_id]].append(row)
    return [
        f"{len(own)} of {len(reasons) + len(plan.wanted)} networks left out, as {reason}: row"
        f"{'s' if len(own) > 1 else ''} {', '.join(map(str, own[:_MOST_NAMED]))}"
        + (f" and {len(own) - _MOST_NAMED} more" if len(own) > _MOST_NAMED else "")
        for reason, own in rows.items()
    ]


def describe_analyses(plan: Plan, modules: Collection[str] = ()) -> str:
    """Return what analysing would come to, on this machine.

    Raises: ConfigError as `TrainedMembers.members` does.
    """
    lines = ["dry run: nothing is stored", f"networks     {len(plan.wanted)}", *describe_left_out(plan)]
    for each in plan.chosen:
        seconds = 0.0
        reasons: dict[str, int] = {}
        measured: float | None = None
        for part in (part for part in plan.parts if part.chosen == each):
            group = read_members(part.file)
            group = _only(group, _rows(group, part))
            costs: list[float] = []
            for member in group.members(modules):
                try:
                    with foreign_code():
                        network = network_of(member)
                        reason = each.analysis.lacking(network, member)
                        if reason is None:
                            costs.append(each.analysis.seconds(network, member))
                except ForeignError as error:
                    reason = str(error)
                if reason is not None:
                    reasons[reason] = reasons.get(reason, 0) + 1
            if costs and measured is None:
                measured = _measured_factor(part, group, sum(costs) / len(costs), modules)
            # The time of an analysis that states none is taken to be almost nothing, and measured.
            seconds += sum(max(cost, _LEAST_SECONDS) for cost in costs)
        count = plan.pending(each.name)
        done = len(plan.wanted) - count
        time_taken = ""
        if count:
            how = "a guess" if measured is None else "measured on a few networks"
            time_taken = f", about {duration(_START_SECONDS + seconds * (measured or 1.0))} ({how})"
        lines.append(f"{each.name:<12} {done} are analysed and {count} will be{time_taken}")
        lines += [f"             {number} will be skipped: {reason}" for reason, number in reasons.items()]
    return "\n".join(lines)


def _measured_factor(
    part: Part, group: TrainedMembers, stated: float, modules: Collection[str]
) -> float | None:
    """Return the ratio of the measured to the stated time for a few members; None if measuring would take long."""
    count = min(_TRIED, len(part.run_ids))
    stated = max(stated, _LEAST_SECONDS)
    if stated * count > _MOST_TRIED_SECONDS:
        return None
    some = TrainedMembers(
        group.configs[:count], group.parameters[:count], group.layout, group.file, group.steps
    )
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    taken = 0.0
    try:
        for _ in range(2):  # the first time, libraries are imported
            start = time.perf_counter()
            failed = any(each.error is not None for each in _found(part, some, part.run_ids[:count], modules))
            taken = time.perf_counter() - start
            if failed:
                return None
            if taken > _MOST_TRIED_SECONDS:
                break
    finally:
        torch.set_num_threads(threads)
    return taken / (stated * count)


def run_analyses(plan: Plan, modules: Collection[str] = (), style: Style = "auto") -> None:
    """Take the analyses that are planned. What is found is written every few seconds, at the end, and on Ctrl-C.

    Raises: ConfigError if another process is using a folder, a file cannot be used, or code that its results
    name is not the user's; KeyboardInterrupt on Ctrl-C, after which the same call continues where this one stopped.
    """
    for folder in {*(part.folder for part in plan.parts), *plan.left_out}:
        check_links(folder)
    total = sum(len(part.run_ids) for part in plan.parts)
    threads = torch.get_num_threads()
    # Sums over several threads are rounded otherwise.
    torch.set_num_threads(1)
    try:
        with ProgressReport(style, total, total) as progress:
            for folder in sorted({*(part.folder for part in plan.parts), *plan.left_out}):
                with FolderLock(folder):
                    _keep_left_out(folder, plan)
                    for part in (part for part in plan.parts if part.folder == folder):
                        progress.say(part.chosen.name)
                        _run_part(part, modules, progress)
    finally:
        torch.set_num_threads(threads)


def _keep_left_out(folder: Path, plan: Plan) -> None:
    """Write why members are not analysed, under no settings: once they are completed, they are."""
    for each in plan.chosen:
        done = analysed(folder, each.name)
        reasons: defaultdict[str, list[str]] = defaultdict(list)
        for run_id, reason in plan.left_out.get(folder, {}).items():
            if run_id not in done:
                reasons[reason].append(run_id)
        if reasons:
            found = [Analysed(own, skipped=reason) for reason, own in reasons.items()]
            save_analysed(folder, each.name, "", found)


def _run_part(part: Part, modules: Collection[str], progress: ProgressReport) -> None:
    group = read_members(part.file)
    group = _only(group, _rows(group, part))
    with _kept(part) as keep:
        for each in _found(part, group, part.run_ids, modules, progress.tell):
            keep(each)
            progress.finish(len(each.run_ids))
            progress.advance(len(each.run_ids))


def _found(
    part: Part,
    group: TrainedMembers,
    run_ids: Sequence[str],
    modules: Collection[str],
    tell: Tell = tell_nobody,
) -> Iterator[Analysed]:
    """Yield what the analysis of a part finds in members of a group, of these run_ids in this order."""
    try:
        with foreign_code():
            members = dict(zip(run_ids, group.members(modules), strict=True))
            population = group.population(modules)
    except ForeignError as error:
        yield Analysed(list(run_ids), error=str(error))
        return
    yield from analyse_members(
        part.chosen.analysis, part.chosen.name, population.network, members, population.parameters, tell=tell
    )


class _Keeper:
    """Collects what is found, and writes it every few seconds."""

    def __init__(self, part: Part) -> None:
        self._part = part
        self._waiting: list[Analysed] = []
        self._written = time.monotonic()

    def __call__(self, found: Analysed) -> None:
        self._waiting.append(found)
        if time.monotonic() - self._written > _SECONDS_BETWEEN_WRITES:
            self.write()

    def write(self) -> None:
        waiting, self._waiting = self._waiting, []
        chosen = self._part.chosen
        save_analysed(self._part.folder, chosen.name, chosen.settings, waiting)
        self._written = time.monotonic()


@contextmanager
def _kept(part: Part) -> Generator[_Keeper]:
    keeper = _Keeper(part)
    try:
        yield keeper
    finally:
        keeper.write()


def _rows(group: TrainedMembers, part: Part) -> list[int]:
    """Return the places of a part's members among those of its checkpoint."""
    places = {run_id: place for place, run_id in enumerate(read_manifest(manifest_of(part.file)))}
    assert len(places) == len(group.configs)
    return [places[run_id] for run_id in part.run_ids]


def _only(group: TrainedMembers, rows: Sequence[int]) -> TrainedMembers:
    return TrainedMembers(
        [group.configs[row] for row in rows],
        group.parameters[list(rows)],
        group.layout,
        group.file,
        group.steps,
    )
