"""Plan and train populations: group members, train and measure each group, and store every result at once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa
import torch

from modulab.config.loggers import Loggers
from modulab.config.settings import Condition, Member, Run, Trainer, structural_key
from modulab.errors import ForeignError, foreign_code
from modulab.logger.run_log import RunLog, logged_so_far, open_log, say
from modulab.metrics.measure import check_monitor, curve_measures
from modulab.progress import ProgressReport, Style
from modulab.results.manifest import (
    checkpoint_path,
    population_name,
    unfinished_populations,
    write_manifest,
)
from modulab.results.store import Planned, completed, gather, save_part
from modulab.results.tables import Status, curve_table, result_table, skipped_text
from modulab.sweep.begun import engine_begun
from modulab.sweep.pack import check_fits, member_bytes, population_sizes
from modulab.sweep.side_by_side import (
    check_differences,
    processes_at_once,
    train_side_by_side,
    trains_itself,
)
from modulab.training.cost import RATES, SELF_TRAINED_STEP_SECONDS, step_seconds
from modulab.training.execution import Engine, Execution, choose_execution
from modulab.training.fit import PopulationResult, fit_population
from modulab.training.program import program_of


@dataclass(frozen=True)
class Work:
    """The populations that lack a result, and how to train them."""

    runs: list[Run]
    populations: list[list[Run]]
    unfinished: int
    """The number of populations, the first ones, that left a checkpoint; they must not change, to continue from it."""
    trainer: Trainer
    execution: Execution

    @property
    def pending(self) -> int:
        """Return the number of members without a result."""
        return sum(len(population) for population in self.populations)

    @property
    def packed(self) -> list[list[Run]]:
        """Return the populations that are trained here, packed."""
        return [
            population
            for population in self.populations
            if not trains_itself(population[0].condition.example)
        ]

    @property
    def self_trained(self) -> list[Run]:
        """Return the members that train themselves, each in its own process."""
        return [
            population[0] for population in self.populations if trains_itself(population[0].condition.example)
        ]

    def without_packed(self) -> Work:
        """Return the same work with only the members that train themselves left to be trained."""
        return replace(self, populations=[[run] for run in self.self_trained], unfinished=0)


def plan_populations(
    runs: Sequence[Run],
    trainer: Trainer,
    execution: Execution,
    unfinished: Sequence[Sequence[str]] = (),
) -> list[list[Run]]:
    """Return runs in populations: first the unfinished ones, given by run_id, as they were, then new ones.

    New ones are grouped by structural settings and cut to what fits in memory, in order.
    """
    by_id = {run.run_id: run for run in runs}
    populations = [[by_id.pop(run_id) for run_id in population] for population in unfinished]
    groups: defaultdict[tuple[tuple[str, object], ...], list[Run]] = defaultdict(list)
    keys = {condition: _planned_key(condition) for condition in _conditions(by_id.values())}
    for run in by_id.values():
        key = keys[run.condition]
        if key is not None:
            groups[key].append(run)
        else:  # it trains itself, or fails with a reason
            populations.append([run])
    for group in groups.values():
        examples = [condition.example for condition in _conditions(group)]
        check_fits(max(examples, key=member_bytes), trainer, execution.device)
        first = 0
        for size in population_sizes(group, trainer, execution):
            populations.append(group[first : first + size])
            first += size
    return populations


def _planned_key(condition: Condition) -> tuple[tuple[str, object], ...] | None:
    """Return the structural settings of members that are packed, else None."""
    packed = not trains_itself(condition.example) and _can_be_planned(condition.example)
    return structural_key(condition.example) if packed else None


def _conditions(runs: Iterable[Run]) -> list[Condition]:
    """Return each condition of some runs once."""
    return list(dict.fromkeys(run.condition for run in runs))


def plannable_members(runs: Iterable[Run]) -> list[Member]:
    """Return members whose sizes and programs are known; the others train themselves, or fail and say why.

    There is one for each run, all of a condition the same: their seeds say nothing about what is planned.
    """
    runs = list(runs)
    planned = {
        condition
        for condition in _conditions(runs)
        if not trains_itself(condition.example) and _can_be_planned(condition.example)
    }
    return [run.condition.example for run in runs if run.condition in planned]


def fails_at_once(run: Run) -> bool:
    """Return whether a member's network or task, which may be the user's, fails before any training."""
    example = run.condition.example
    return not trains_itself(example) and not _can_be_planned(example)


def _can_be_planned(member: Member) -> bool:
    """Return whether a member's task and regulariser, which may be other people's, state its sizes and program."""
    try:
        with foreign_code():
            structural_key(member)
            member_bytes(member)
            program_of(member)
    except ForeignError:
        return False
    return True


def plan_work(
    runs: Sequence[Run],
    trainer: Trainer,
    folder: Path,
    execution: Execution | None = None,
    device: torch.device | None = None,
) -> Work:
    """Return what is to be trained of `runs`, of which `folder` may hold results and checkpoints.

    Unless it is given, the execution is chosen here, by all members, done or not, and by what was begun in the folder,
    so a sweep that is resumed ends in the same bits. With a device given, it is chosen for another machine.

    Raises: ConfigError for a measure, device or file that cannot be used.
    """
    examples = [condition.example for condition in _conditions(runs)]
    for probes in dict.fromkeys(example.probes for example in examples):
        curve_measures(probes)  # which refuses what is no measure, and names that no measure gives
    for monitor in dict.fromkeys(
        (each.training.monitor, each.training.is_monitored, each.probes) for each in examples
    ):
        check_monitor(*monitor)
    check_differences(runs)
    done = completed(folder)
    pending = [run for run in runs if run.run_id not in done]
    unfinished = unfinished_populations(folder, {run.run_id for run in pending})
    if execution is None:
        begun = engine_begun(folder, {run.run_id for run in runs}, unfinished)
        execution = choose_execution(trainer, plannable_members(runs), device, begun)
    populations = plan_populations(pending, trainer, execution, unfinished)
    return Work(list(runs), populations, len(unfinished), trainer, execution)


def begin(work: Work, folder: Path, reasons: Mapping[str, str] | None = None) -> None:
    """Write rows of all planned members that have none: they are missing, for a reason or not yet trained."""
    if not work.pending:
        return

    def rows(runs: Sequence[Run]) -> pa.Table:
        missing: list[Status] = ["missing"] * len(runs)
        errors = [(reasons or {}).get(run.run_id) for run in runs]
        return _rows(runs, missing, errors, 0.0, [_planned_engine(run, work) for run in runs])

    def rows_at(places: Sequence[int]) -> pa.Table:
        return rows([work.runs[place] for place in places])

    examples = {run.condition: run for run in work.runs}
    columns = rows(list(examples.values())).schema
    run_ids = [run.run_id for run in work.runs]
    gather(folder, Planned(run_ids, columns, rows_at))


@contextmanager
def results_kept(folder: Path, logger: Loggers | None, style: Style) -> Generator[RunLog]:
    """Yield the log of what is trained in a folder; at its end, whatever that is, all rows are joined to its files.

    Unless it ends by an error, what loggers have is said last.
    """
    with open_log(logger or Loggers(), folder, style) as log:
        try:
            yield log
        finally:
            gather(folder)
    for sentence in logged_so_far(folder, log.names):
        say(sentence)


def progress_of(work: Work) -> ProgressReport:
    """Return a report of the progress of some work, whose steps count by about how long they take."""
    total = sum(_step_work(population, work.execution) * _steps(population) for population in work.packed)
    total += SELF_TRAINED_STEP_SECONDS * _steps(work.self_trained)
    return ProgressReport(work.trainer.progress, work.pending, total)


def train_populations(work: Work, folder: Path, progress: ProgressReport, log: RunLog | None = None) -> None:
    """Train and measure populations, leave each one's rows among the parts of `folder`, and report to the log.

    Of a population that fails, each half trains by itself, down to the members that are the cause: their rows say why,
    and all others are kept.

    Raises: KeyboardInterrupt on Ctrl-C; ConfigError for a checkpoint that cannot be read.
    """
    log = log or RunLog(folder)
    for number, population in enumerate(work.packed, start=1):
        progress.step_work = _step_work(population, work.execution)
        if len(work.packed) > 1:
            progress.say(f"population {number} of {len(work.packed)}")
        _run_population(population, work.execution, folder, progress, log)
        log.catch_up()
        progress.finish(len(population))

    def finish(run: Run, result: PopulationResult | str) -> None:
        if isinstance(result, str):
            _save_failed([run], folder, result)
        else:
            _save_finished([run], folder, result)
        log.catch_up()
        progress.finish(1)

    if work.self_trained:
        progress.step_work = SELF_TRAINED_STEP_SECONDS
        at_once = processes_at_once(work.trainer, work.execution)
        train_side_by_side(
            work.self_trained, work.execution.with_engine("eager"), at_once, folder, progress, finish
        )


def _steps(runs: Sequence[Run]) -> int:
    return sum(run.condition.example.training.steps for run in runs)


def _step_work(population: Sequence[Run], execution: Execution) -> float:
    """Return about how many seconds a step of one network takes, by the rates that plans are made with.

    Populations of narrow networks without noise are trained many times faster than others: counted alike, they would
    have the time that is left estimated from them.
    """
    members = [run.condition.example for run in population]
    if not _can_be_planned(members[0]):
        return 0.0  # alone in its population, and fails as it begins
    return step_seconds(members, RATES[execution.engine], execution.threads) / _steps(population)


def packed_seconds(member: Member, engine: Engine) -> float:
    """Return about how many seconds a network takes on one core if it is trained with many others."""
    if not trains_itself(member):
        with suppress(ForeignError), foreign_code():
            return step_seconds([member], RATES[engine].packed)
    return SELF_TRAINED_STEP_SECONDS * member.training.steps


def _run_population(
    population: Sequence[Run], execution: Execution, folder: Path, progress: ProgressReport, log: RunLog
) -> None:
    members = [run.member for run in population]
    write_manifest(folder, {run.run_id: run.config for run in population})
    checkpoint = checkpoint_path(folder, [run.run_id for run in population])
    log.begin([(run.run_id, run.config) for run in population])
    try:
        result = fit_population(members, execution, checkpoint, progress, log.point)
    except ForeignError as error:
        if len(population) == 1:
            _save_failed(population, folder, str(error))
            return
        # What the whole population left would be taken for its members' results.
        checkpoint.unlink(missing_ok=True)
        middle = len(population) // 2
        for half in (population[:middle], population[middle:]):
            _run_population(half, execution, folder, progress, log)
    else:
        _save_finished(population, folder, result)


def _save_failed(population: Sequence[Run], folder: Path, message: str) -> None:
    failed: list[Status] = ["failed"] * len(population)
    rows = _rows(population, failed, [message] * len(population), 0.0, [None] * len(population))
    save_part(folder, _part_name(population), rows)


def _save_finished(population: Sequence[Run], folder: Path, result: PopulationResult) -> None:
    statuses: list[Status] = ["completed" if step < 0 else "diverged" for step in result.diverged_at]
    errors = [
        None if step < 0 else f"the loss or a weight ceased to be finite at step {step}"
        for step in result.diverged_at
    ]
    for place, reason in result.failures.items():
        statuses[place], errors[place] = "failed", reason
    by_member = {name: list(zip(*points, strict=True)) for name, points in result.curves.items()}
    curves = curve_table([run.run_id for run in population], result.curve_steps, by_member, result.stopped_at)
    rows = _rows(population, statuses, errors, result.seconds / len(population), result.engines, result)
    save_part(folder, _part_name(population), rows, curves)


def _part_name(population: Sequence[Run]) -> str:
    return population_name([run.run_id for run in population])


def _planned_engine(run: Run, work: Work) -> str | None:
    return None if trains_itself(run.condition.example) else work.execution.engine


def _rows(
    runs: Sequence[Run],
    statuses: Sequence[Status],
    errors: Sequence[str | None],
    seconds: float,
    engines: Sequence[str | None],
    result: PopulationResult | None = None,
) -> pa.Table:
    return result_table(
        configs=[run.config for run in runs],
        run_ids=[run.run_id for run in runs],
        statuses=statuses,
        errors=errors,
        seconds=[seconds] * len(runs),
        measures={} if result is None else result.measures,
        skipped=None if result is None else [skipped_text(reasons) for reasons in result.skipped],
        engines=engines,
        device=None if result is None else result.device,
    )
