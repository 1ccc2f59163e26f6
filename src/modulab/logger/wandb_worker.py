"""The process that talks to W&B, controlled through its stdin.

python -P -m modulab.logger.wandb_worker SETTINGS FOLDER TEMPORARY
"""

from __future__ import annotations

import fcntl
import json
import netrc
import os
import queue
import shutil
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

import wandb

from modulab.config.loggers import WandbLogger, wandb_folder
from modulab.logger.journal import Journal
from modulab.logger.ledger import LOGGED, Ledger
from modulab.logger.wandb_backend import WandbBackend, take_trial

LEDGER = "wandb"
_SECONDS_BETWEEN_LOOKS = 0.5

Message = dict[str, Any]


class _Stopped(Exception):
    """The process that trains has been interrupted, or is gone."""


def main() -> None:
    """Log members as messages request; errors of W&B are reported, and logging continues if possible."""
    trial = take_trial()
    settings = WandbLogger.model_validate_json(sys.argv[1])
    folder = Path(sys.argv[2])
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # What W&B itself prints goes to the log.
    tell = _teller(answers)
    held = (folder / LOGGED / ".lock").open("w")
    with suppress(OSError):  # some network file systems have no locks
        fcntl.flock(held, fcntl.LOCK_EX)  # waits for the process of an interrupted run to end
    try:
        online = _is_online(settings, folder, tell)
        session = _Session(settings, folder, online, trial, tell)
        session.run(_inbox())
    except (Exception, SystemExit) as error:
        traceback.print_exc()
        tell({"trouble": _sentence(error)})
    finally:
        with suppress(Exception):
            wandb.teardown()
        # The process that trains removes it as well, unless it was killed.
        shutil.rmtree(sys.argv[3], ignore_errors=True)
        sys.stderr.flush()
        os._exit(0)  # W&B's own hooks may wait for a service that is gone.


class _Session:
    """The state of logging between the start and the end of the process."""

    def __init__(
        self,
        settings: WandbLogger,
        folder: Path,
        online: bool,
        trial: Mapping[str, str],
        tell: Callable[[Message], None],
    ) -> None:
        self._settings = settings
        self._folder = folder
        self._online = online
        self._tell = tell
        self._stopping = threading.Event()
        self._live = True
        ledger = Ledger(folder, LEDGER)
        self._journal = Journal(
            folder, WandbBackend(settings, folder, online, trial), ledger, settings.live_up_to
        )

    def run(self, inbox: queue.SimpleQueue[Message]) -> None:
        """Process messages of the inbox until one says to stop."""
        ordered: queue.SimpleQueue[Message] = queue.SimpleQueue()
        threading.Thread(target=self._watch, args=(inbox, ordered), daemon=True).start()
        try:
            while (message := ordered.get())["do"] not in ("end", "abandon"):
                self._do(message)
            if message["do"] == "end":
                self._catch_up()
                self._journal.end()
                self._upload()
        except _Stopped:
            pass
        finally:
            self._journal.abandon()

    def _watch(self, inbox: queue.SimpleQueue[Message], ordered: queue.SimpleQueue[Message]) -> None:
        """Pass messages on, and notice at once the one that says to stop."""
        while True:
            message = inbox.get()
            if message["do"] == "abandon":
                self._stopping.set()
            ordered.put(message)

    def _do(self, message: Message) -> None:
        if message["do"] == "catch_up":
            self._catch_up()
            self._upload()
        elif self._live:
            try:
                if message["do"] == "begin":
                    self._journal.begin(message["members"])
                else:
                    self._journal.point(message["step"], message["values"])
            except (Exception, SystemExit) as error:
                self._give_up_live(error)

    def _give_up_live(self, error: BaseException) -> None:
        """Export all members at the end of their population, which does not need a network."""
        traceback.print_exc()
        self._tell({"trouble": f"{_sentence(error)}; curves are not written live any more"})
        self._live = False
        self._journal.drop_live()
        with suppress(Exception):
            wandb.teardown()

    def _catch_up(self) -> None:
        def told(done: int, total: int) -> None:
            self._tell({"phase": "logging to W&B", "done": done, "total": total})
            if self._stopping.is_set():
                raise _Stopped

        self._journal.catch_up(told)

    def _upload(self) -> None:
        """Let W&B's own command upload the offline runs; those that are uploaded are marked, and never sent twice."""
        place = wandb_folder(self._folder)
        before = _unsynced(place)
        if not self._online or not before:
            return
        command = [sys.executable, "-P", "-m", "wandb", "sync", str(place)]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=sys.stderr, stderr=sys.stderr)
        left, changed = len(before), time.monotonic()
        while process.poll() is None:
            time.sleep(_SECONDS_BETWEEN_LOOKS)
            now = len(_unsynced(place))
            if now < left:
                left, changed = now, time.monotonic()
                self._tell({"phase": "uploading to W&B", "done": len(before) - left, "total": len(before)})
            if self._stopping.is_set() or time.monotonic() - changed > self._settings.patience_seconds:
                process.kill()
        if self._stopping.is_set():
            raise _Stopped
        if left := len(_unsynced(place)):
            self._online = False
            self._tell({"trouble": f"{left} runs could not be uploaded"})


def _unsynced(place: Path) -> list[Path]:
    return [
        run
        for run in place.glob("offline-run-*")
        if list(run.glob("*.wandb")) and not list(run.glob("*.synced"))
    ]


def _teller(answers: IO[str]) -> Callable[[Message], None]:
    def tell(message: Message) -> None:
        with suppress(OSError):  # The reader has gone; the end of stdin will show it.
            answers.write(json.dumps(message) + "\n")
            answers.flush()

    return tell


def _inbox() -> queue.SimpleQueue[Message]:
    inbox: queue.SimpleQueue[Message] = queue.SimpleQueue()

    def read() -> None:
        ended = False
        for line in sys.stdin:
            message = json.loads(line)
            ended = ended or message["do"] in ("end", "abandon")
            inbox.put(message)
        if not ended:  # The process that trains was killed.
            inbox.put({"do": "abandon"})

    threading.Thread(target=read, daemon=True).start()
    return inbox


def _is_online(settings: WandbLogger, folder: Path, tell: Callable[[Message], None]) -> bool:
    """Return whether to connect to a server; without a key for it, report what happens instead."""
    mode = settings.mode
    if mode == "auto":
        mode = "online" if _has_key() else "offline"
        if mode == "offline":
            tell(
                {
                    "say": f"W&B: no API key is set, so runs are written to {wandb_folder(folder)}. To upload them: "
                    f"wandb login, then wandb sync {wandb_folder(folder)}"
                }
            )
    return mode == "online"


def _has_key() -> bool:
    settings = wandb.setup().settings
    if settings.api_key or os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    host = urlsplit(settings.base_url).hostname or ""
    try:
        return host in netrc.netrc(os.environ.get("NETRC")).hosts
    except (OSError, netrc.NetrcParseError):
        return False


def _sentence(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}{f': {lines[0]}' if lines else ''}"


if __name__ == "__main__":
    main()
