"""A private part of Ray, which may change with any release: where it is gone, Ray prints to standard output."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any


def write_reports_to(file: Path) -> None:
    """Have what Ray's nodes report from now on, such as the log of one that died, written to a file.

    Ray prints it whatever it is asked, at any time while it is connected, also after a sweep has ended.
    """
    from ray._private import worker

    if hasattr(worker, "print_to_stdstream"):
        worker.print_to_stdstream = functools.partial(_write, file)


def _write(file: Path, data: Mapping[str, Any], ignore_prefix: bool = False) -> None:
    del ignore_prefix
    with suppress(OSError), file.open("a", encoding="utf-8") as report:  # the folder may be gone
        report.writelines(f"({data['pid']}) {line}\n" for line in data["lines"])
