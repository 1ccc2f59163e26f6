"""The output of a notebook's cell: whether there is one, and a text in it that later ones replace."""

from __future__ import annotations

import importlib
import sys
import time
from typing import Any

_SECONDS_BETWEEN_TEXTS = 0.5


def in_notebook() -> bool:
    """Return whether standard error is the output of a notebook's cell: neither a terminal nor a log."""
    return type(sys.stderr).__module__.partition(".")[0] == "ipykernel"


class CellText:
    """A text in the output of the cell that runs, replaced in place: a long run does not fill the notebook."""

    def __init__(self) -> None:
        self._handle: Any = None
        self._shown = ""
        self._next = 0.0

    def show(self, text: str, at_once: bool = False) -> None:
        """Show a text in place of the last one, unless that came just now; `at_once` in any case."""
        if text == self._shown or (not at_once and time.monotonic() < self._next):
            return
        content = {"text/plain": text}
        if self._handle is None:
            # IPython is there wherever ipykernel is, which modulab itself does not need.
            display: Any = importlib.import_module("IPython.display").display
            self._handle = display(content, raw=True, display_id=True)
        else:
            self._handle.update(content, raw=True)
        self._shown, self._next = text, time.monotonic() + _SECONDS_BETWEEN_TEXTS
