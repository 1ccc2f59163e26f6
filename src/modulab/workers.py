"""Processes side by side, each forked from one that has imported torch, with its own pipe for its messages."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import types
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerProcess
from typing import Any

from modulab.errors import ConfigError, ForeignError, describe
from modulab.progress import ProgressReport

KILLED = "its process was killed, most likely for lack of memory"

Send = Callable[[str, Any], None]
"""Sends a message to the process that started this one: its kind, and its content."""


@dataclass(frozen=True)
class Message:
    """A message of a process, with the name that it was started under.

    A process that ends without `Workers.end` gives a last one of the kind `killed` or `died`, which says why.
    """

    worker: str
    kind: str
    content: Any


class Workers:
    """Processes at work. Each has its own pipe: one that is killed while it writes blocks no other."""

    def __init__(self, preload: Sequence[str]) -> None:
        """Let the process that the others are forked from import `preload`, unless it exists already."""
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(list(preload))
        self._working: dict[str, tuple[ForkServerProcess, Connection]] = {}

    def __len__(self) -> int:
        return len(self._working)

    def start(self, name: str, function: Callable[..., None], *arguments: Any) -> None:
        """Call `function(send, *arguments)` in a new process, in this one's folder, search path and environment."""
        receiver, sender = self._context.Pipe(duplex=False)
        surroundings = (os.getcwd(), list(sys.path), dict(os.environ))
        process = self._context.Process(target=_work, args=(sender, surroundings, function, arguments))
        with _main_module_hidden():
            process.start()
        sender.close()
        self._working[name] = (process, receiver)

    def next(self) -> Message:
        """Wait for the next message of any process."""
        by_pipe = {receiver: name for name, (_, receiver) in self._working.items()}
        while True:
            for pipe in wait(list(by_pipe)):
                assert isinstance(pipe, Connection)
                name = by_pipe[pipe]
                with suppress(EOFError, OSError):
                    kind, content = pipe.recv()
                    return Message(name, kind, content)
                return _last_message(name, self._working[name][0])

    def end(self, name: str) -> None:
        """Wait for the end of a process that sends nothing more."""
        process, receiver = self._working.pop(name)
        _drain(receiver)
        process.join()

    def stop(self) -> None:
        """Tell all processes to save and stop, as Ctrl-C does, and wait for them."""
        for process, _ in self._working.values():
            if process.pid is not None and process.exitcode is None:
                with suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGINT)
        for name in list(self._working):
            self.end(name)


class SentProgress(ProgressReport):
    """Sends to the process that started this one what a report would show here; `show_sent` shows it there."""

    def __init__(self, send: Send) -> None:
        super().__init__("off", 1, 1)
        self._send = send

    def advance(self, steps: float, resumed: bool = False) -> None:
        """Send work that has been done."""
        self._send("advance", (steps * self.step_work, resumed))

    def say(self, label: str, at_once: bool = False) -> None:
        """Send the name of what is being done now."""
        self._send("say", (label, at_once))

    def tell(self, label: str) -> None:
        """Send how far what is being done now has come."""
        self._send("tell", label)

    def finish(self, runs: int) -> None:
        """Send a number of runs that have finished."""
        self._send("finish", runs)

    def leave_out(self, seconds: float) -> None:
        """Send seconds in which nothing trained here."""
        self._send("aside", seconds)


@contextmanager
def outcome_sent(send: Send) -> Generator[None]:
    """Send why the work within failed, and leave Ctrl-C to the process that started this one, which passes it on."""
    os.setpgrp()
    try:
        yield
    except ConfigError as error:
        send("refused", str(error))
    except ForeignError as error:
        send("failed", str(error))
    except KeyboardInterrupt:
        send("interrupted", None)
    except BaseException as error:
        send("failed", describe(error))


def show_sent(message: Message, progress: ProgressReport, processes: int, place: str) -> bool:
    """Show what one of some processes sent of its progress, and return whether the message was of that kind.

    Labels are shown behind `place`, a name of the process.
    """
    content = message.content
    if message.kind == "advance":
        progress.advance(*content)
    elif message.kind == "say":
        progress.say(f"{place}: {content[0]}", content[1])
    elif message.kind == "tell":
        progress.tell(f"{place}: {content}")
    elif message.kind == "finish":
        progress.finish(content)
    elif message.kind == "aside":
        progress.leave_out(content / processes)
    else:
        return False
    return True


def _drain(receiver: Connection) -> None:
    """Read what is left in a pipe: a process that cannot write does not end."""
    with suppress(EOFError, OSError):
        while True:
            receiver.recv()
    receiver.close()


def _last_message(name: str, process: ForkServerProcess) -> Message:
    process.join()
    code = process.exitcode
    if code == -signal.SIGKILL:
        return Message(name, "killed", f"{KILLED}.")
    if code is not None and code < 0:
        return Message(name, "died", f"its process was ended by {signal.Signals(-code).name}.")
    return Message(name, "died", f"its process ended with exit code {code}.")


def _work(
    sender: Connection,
    surroundings: tuple[str, list[str], dict[str, str]],
    function: Callable[..., None],
    arguments: Sequence[Any],
) -> None:
    folder, search_path, environment = surroundings
    os.chdir(folder)
    sys.path[:] = search_path
    os.environ.update(environment)

    def send(kind: str, content: Any) -> None:
        with suppress(BrokenPipeError):  # where the process that listened has been killed
            sender.send((kind, content))

    function(send, *arguments)


@contextmanager
def _main_module_hidden() -> Generator[None]:
    """Keep a new process from running the main script again, which it has no need of."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
