"""W&B in a separate process: training neither stops nor waits if something fails there.

This is the side of the process that trains. It sends lines of JSON and never blocks on them; the other side
(`wandb_worker`) answers with lines of JSON, reads members from the folder, so little has to pass, and ends
when this one does.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from modulab.config.loggers import WandbLogger, wandb_folder
from modulab.logger.journal import Heads
from modulab.logger.ledger import LOGGED
from modulab.progress import ProgressReport, Style

LOG = "wandb.log"
_GRACE_SECONDS = 10.0
"""Additional time for the other process beyond its own limit, or to end after the request."""

Message = dict[str, Any]


class WandbProcess:
    """A channel to the process that talks to W&B."""

    def __init__(self, settings: WandbLogger, folder: Path, style: Style, say: Callable[[str], None]) -> None:
        """Start the process. `say` is called with its messages for the user, and with its first problem."""
        self._settings = settings
        self._style: Style = style
        self._say = say
        self._live = False
        self._troubled = False
        self._outbox: SimpleQueue[Message | None] = SimpleQueue()
        self._inbox: SimpleQueue[Message] = SimpleQueue()
        self._log = folder / LOGGED / LOG
        self._log.parent.mkdir(parents=True, exist_ok=True)
        self._temporary = Path(tempfile.mkdtemp(prefix="modulab-wandb-"))
        command = [
            sys.executable,
            "-P",  # without the current folder, whose netrc.py or queue.py would shadow Python's own
            "-m",
            "modulab.logger.wandb_worker",
            settings.model_dump_json(),
            str(folder),
            str(self._temporary),
        ]
        with self._log.open("a") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=_environment(self._temporary),
                start_new_session=True,  # Ctrl-C is for this process, which stops the other one
            )
        self._heard = time.monotonic()
        for work in (self._write, self._read):
            threading.Thread(target=work, daemon=True).start()

    def begin(self, members: Heads) -> None:
        """Announce a population that is about to train."""
        self._live = len(members) <= self._settings.live_up_to
        if self._live:
            self._outbox.put(
                {"do": "begin", "members": [[run_id, dict(config)] for run_id, config in members]}
            )
        self._look()

    def point(self, step: int, values: Mapping[str, Sequence[float]]) -> None:
        """Pass on a point of the live curves."""
        if self._live:
            self._outbox.put({"do": "point", "step": step, "values": dict(values)})

    def catch_up(self) -> None:
        """Announce that the folder has new results."""
        self._outbox.put({"do": "catch_up"})
        self._look()

    def end(self) -> None:
        """Request logging of the rest, and wait for it for as long as something happens."""
        self._outbox.put({"do": "end"})
        self._outbox.put(None)
        self._heard = time.monotonic()
        longest = self._settings.patience_seconds + _GRACE_SECONDS
        phase, counted = "", 0
        with ExitStack() as stack:
            report = ProgressReport("off", 0, 1)
            try:
                while self._process.poll() is None:
                    for message in self._look(wait_seconds=0.1):
                        if message["phase"] != phase:
                            stack.close()
                            phase, counted = message["phase"], 0
                            report = ProgressReport(self._style, message["total"], message["total"])
                            stack.enter_context(report)
                            report.say(phase)
                        report.advance(message["done"] - counted)
                        report.finish(message["done"] - counted)
                        counted = message["done"]
                    if time.monotonic() - self._heard > longest:
                        self._kill()
                        self._complain(f"it did nothing for {longest:.0f} s")
            finally:
                self._kill()
        self._look()
        if self._process.returncode != 0:
            self._complain(f"its process ended with code {self._process.returncode}")

    def abandon(self) -> None:
        """Request the end of work in progress, and wait for a moment."""
        self._outbox.put({"do": "abandon"})
        self._outbox.put(None)
        try:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(_GRACE_SECONDS)
        finally:
            self._kill()
        self._look()

    def _write(self) -> None:
        assert self._process.stdin is not None
        with suppress(OSError, ValueError):  # It has ended: `end` will notice.
            while (message := self._outbox.get()) is not None:
                self._process.stdin.write(json.dumps(message) + "\n")
                self._process.stdin.flush()
            self._process.stdin.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                self._heard = time.monotonic()
                self._inbox.put(json.loads(line))

    def _look(self, wait_seconds: float = 0.0) -> list[Message]:
        """Pass on messages of the other process, and return its counts of finished work."""
        counts: list[Message] = []
        with suppress(Empty):
            while True:
                message = self._inbox.get(timeout=wait_seconds) if wait_seconds else self._inbox.get_nowait()
                wait_seconds = 0.0
                if "say" in message:
                    self._say(message["say"])
                elif "trouble" in message:
                    self._complain(message["trouble"])
                else:
                    counts.append(message)
        return counts

    def _complain(self, reason: str) -> None:
        if not self._troubled:
            self._troubled = True
            folder = self._log.parent.parent
            self._say(
                f"W&B: {reason.rstrip('.')}. Results are not affected. To make up for it later: "
                f"modulab log {folder} logger=wandb, and wandb sync {wandb_folder(folder)} for what was written "
                f"offline. Details: {self._log}"
            )

    def _kill(self) -> None:
        """End the other process with all processes that it started."""
        if self._process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        shutil.rmtree(self._temporary, ignore_errors=True)


def _environment(temporary: Path) -> dict[str, str]:
    """Return the environment of the other side: empty variables of W&B are unset, temporary files are removed with it.

    W&B leaves temporary folders behind where its process does not end by itself.
    """
    kept = {name: value for name, value in os.environ.items() if value or not name.startswith("WANDB_")}
    return {**kept, "TMPDIR": str(temporary), "PYTHONSAFEPATH": "1"}
