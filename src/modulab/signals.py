"""Signals that ask a process to end, as Ctrl-C does: from a system that shuts down, or a terminal that was closed."""

from __future__ import annotations

import signal
import threading
from collections.abc import Generator
from contextlib import contextmanager

_REQUESTS = (signal.SIGTERM, signal.SIGHUP)


def ending_signals() -> list[signal.Signals]:
    """Return the signals that end training after it has saved. SIGHUP is not one under nohup, which ignores it."""
    requests = [each for each in _REQUESTS if signal.getsignal(each) is not signal.SIG_IGN]
    return [signal.SIGINT, *requests]


@contextmanager
def ended_by_signal() -> Generator[None]:
    """Treat SIGTERM and SIGHUP as Ctrl-C, unless they are handled already, so that processes save and stop."""
    unhandled: list[signal.Signals] = []
    if threading.current_thread() is threading.main_thread():  # which alone may handle signals
        unhandled = [each for each in _REQUESTS if signal.getsignal(each) is signal.SIG_DFL]
    for each in unhandled:
        signal.signal(each, signal.default_int_handler)
    try:
        yield
    finally:
        for each in unhandled:
            signal.signal(each, signal.SIG_DFL)
