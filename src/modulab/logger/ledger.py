"""Ledgers: which members of a folder a logger has exported, so none is exported twice."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from modulab.errors import ConfigError
from modulab.results.files import write_whole

LOGGED = "logged"
_SWEEP = "sweep.json"


def sweep_token(folder: Path) -> str:
    """Return the permanent name of a folder, also if it is moved: it distinguishes the runs of two sweeps.

    The same member may stand in many sweeps, and a run in W&B belongs to one.
    """
    facts = remembered(folder)
    if "sweep" not in facts:
        facts = remember(folder, {"sweep": secrets.token_hex(4)})
    return str(facts["sweep"])


def remembered(folder: Path) -> dict[str, Any]:
    """Return the record of a folder as a sweep in W&B; empty if it was never logged there."""
    try:
        facts = json.loads((folder / LOGGED / _SWEEP).read_text())
    except (OSError, ValueError):
        return {}
    return cast("dict[str, Any]", facts) if isinstance(facts, dict) else {}


def remember(folder: Path, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Add to the record of a folder, and return the complete record."""
    together = {**remembered(folder), **facts}
    write_whole(folder / LOGGED / _SWEEP, json.dumps(together).encode())
    return together


class Ledger:
    """The members that one logger has exported, each with its outcome then: one line each, appended at once."""

    def __init__(self, folder: Path, name: str) -> None:
        self._path = folder / LOGGED / f"{name}.jsonl"
        self._outcomes: dict[str, Any] = {}
        try:
            lines = self._path.read_bytes().splitlines(keepends=True)
        except FileNotFoundError:
            return
        whole = [line for line in lines if line.endswith(b"\n")]
        for line in whole:
            member, outcome = self._entry(line)
            self._outcomes[member] = outcome
        if len(whole) < len(lines):  # the process was killed in the middle of a line
            write_whole(self._path, b"".join(whole))

    def _entry(self, line: bytes) -> tuple[str, Any]:
        try:
            member, outcome = json.loads(line)
            if not isinstance(member, str):
                raise TypeError
        except (ValueError, TypeError) as error:
            raise ConfigError(
                f"{self._path} is damaged: a line of it is not a member and its outcome. Restore it from a copy, or "
                "move it away to have every member logged once more."
            ) from error
        return member, outcome

    def lacks(self, outcomes: Mapping[str, Any]) -> list[str]:
        """Return those of the members that were not exported, or with another outcome, in order."""
        return [name for name, outcome in outcomes.items() if self._outcomes.get(name) != outcome]

    def add(self, name: str, outcome: Any) -> None:
        """Record that a member was exported with an outcome, which is plain JSON."""
        self._outcomes[name] = outcome
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a") as file:
            file.write(json.dumps([name, outcome]) + "\n")

    def forget(self) -> None:
        """Forget all members, so they are exported again."""
        self._outcomes = {}
        self._path.unlink(missing_ok=True)
