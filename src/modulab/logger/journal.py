"""Export protocol: live while a population trains, whole at its end, each member once."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from modulab.logger.ledger import Ledger
from modulab.logger.records import MemberRecord, member_records, outcomes

Heads = Sequence[tuple[str, Mapping[str, Any]]]
"""The run_id and config of each member of a population."""


@runtime_checkable
class Backend(Protocol):
    """A destination of exports. An exception that it raises ends the export, never the training."""

    def open(self, run_id: str, config: Mapping[str, Any], live: bool) -> Any:
        """Return a new log for a member, in place of what an earlier attempt left unfinished."""
        ...

    def point(self, log: Any, step: int, values: Mapping[str, float]) -> None:
        """Add a point of a member's curves."""
        ...

    def close(self, log: Any, record: MemberRecord) -> None:
        """Add what is known at the end, and finish a member's log."""
        ...

    def abandon(self, log: Any) -> None:
        """Finish the log of a member whose training was interrupted."""
        ...

    def summarise(self) -> None:
        """Export the sweep as a whole."""
        ...


class Journal:
    """Exports the members of a folder to one backend."""

    def __init__(self, folder: Path, backend: Backend, ledger: Ledger, live_up_to: int) -> None:
        self._folder = folder
        self._backend = backend
        self._ledger = ledger
        self._live_up_to = live_up_to
        self._live: dict[str, Any] = {}
        self._last_step: dict[str, int] = {}
        self._population: list[str] = []

    def begin(self, members: Heads) -> None:
        """Open logs for the members of a population that is about to train, unless they are too many."""
        self._population = []
        if len(members) > self._live_up_to:
            return
        for run_id, config in members:
            if run_id not in self._live:
                self._live[run_id] = self._backend.open(run_id, config, live=True)
        self._population = [run_id for run_id, _ in members]

    def point(self, step: int, values: Mapping[str, Sequence[float]]) -> None:
        """Add a point to the live curves: one value per member for each measure."""
        for place, run_id in enumerate(self._population):
            own = {name: members[place] for name, members in values.items()}
            if all(map(math.isnan, own.values())):  # of a member that has stopped
                continue
            self._backend.point(self._live[run_id], step, own)
            self._last_step[run_id] = step

    def catch_up(self, told: Callable[[int, int], None] | None = None) -> None:
        """Export every member that has ended and was not exported; call `told` after each with count and total."""
        ended = outcomes(self._folder)
        new = self._ledger.lacks(ended)
        for count, record in enumerate(member_records(self._folder, new), start=1):
            log = self._live.pop(record.run_id, None)
            if log is None:
                log = self._backend.open(record.run_id, record.config, live=False)
            for step, values in record.curves.items():
                if step > self._last_step.get(record.run_id, -1):
                    self._backend.point(log, step, values)
            self._backend.close(log, record)
            self._last_step.pop(record.run_id, None)
            self._ledger.add(record.run_id, record.outcome)
            if told is not None:
                told(count, len(new))

    def end(self) -> None:
        """Export the sweep as a whole."""
        self._backend.summarise()

    def abandon(self) -> None:
        """Finish the logs of members that are still in training."""
        logs: Iterable[Any] = list(self._live.values())
        self.drop_live()
        for log in logs:
            self._backend.abandon(log)

    def drop_live(self) -> None:
        """Forget the logs that are open: their members are exported again, at their end."""
        self._live, self._last_step, self._population = {}, {}, []
