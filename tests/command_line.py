"""What tests of the command line share."""

from __future__ import annotations

import sys
from collections.abc import Callable

SMALL = [
    "training.steps=4",
    "training.batch_size=8",
    "training.curve_every=2",
    "data.num_samples=16",
    "architecture.width=6",
    "probes.num_samples=32",
    "probes.repeats=1",
    "probes.levels=[0.3]",
    "trainer.accelerator=cpu",
    "trainer.engine=eager",
    "trainer.threads=1",
]
"""A run that is over in a moment."""

MODULAB = [sys.executable, "-m", "modulab.cli"]

Command = Callable[..., tuple[int, str, str]]
"""Runs a command in an empty folder and returns its exit code, output and errors."""
