"""What this process prints, written to a file instead."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path


@contextmanager
def output_to(path: Path) -> Generator[None]:
    """Write what this process prints, its libraries and children too, to the end of a file."""
    kept = [os.dup(number) for number in (1, 2)]
    with path.open("a", buffering=1) as log:
        try:
            for number in (1, 2):
                os.dup2(log.fileno(), number)
            with redirect_stdout(log), redirect_stderr(log):
                yield
        finally:
            for number, copy in zip((1, 2), kept, strict=True):
                os.dup2(copy, number)
                os.close(copy)
