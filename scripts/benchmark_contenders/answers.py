"""Time what a user waits for before anything trains: help, an answer to a mistake, an import, and a smallest run."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from statistics import median

from rich.console import Console
from rich.table import Table

from modulab.arguments import ArgumentParser

MODULAB = [sys.executable, "-m", "modulab.cli"]
BARE = "Python alone"
COMMANDS = {
    BARE: [sys.executable, "-c", "pass"],
    "import modulab": [sys.executable, "-c", "import modulab"],
    "modulab --help": [*MODULAB, "--help"],
    "modulab train --help": [*MODULAB, "train", "--help"],
    "modulab train nois.scale=0.2": [*MODULAB, "train", "nois.scale=0.2"],
    "modulab train sweep.dry_run=true": [*MODULAB, "train", "sweep.dry_run=true"],
    "modulab train training.steps=4": [*MODULAB, "train", "training.steps=4"],
}


def main(arguments: list[str]) -> int:
    parser = ArgumentParser(prog="scripts/benchmark answers", description=__doc__)
    parser.add_argument("--repeats", type=int, default=5, help="turns besides the first; default 5")
    options = parser.parse_args(arguments)
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(options.repeats + 1):
            for name, command in COMMANDS.items():
                began = time.perf_counter()
                subprocess.run(command, cwd=folder, capture_output=True, check=False)
                if turn > 0:  # In the first, files come from the disk.
                    seconds[name].append(time.perf_counter() - began)
    table = Table(caption=f"Medians of {options.repeats} turns.")
    for heading in ("", "seconds", "times Python alone"):
        table.add_column(heading, justify="left" if not heading else "right")
    for name, found in seconds.items():
        table.add_row(name, f"{median(found):.2f}", f"{median(found) / median(seconds[BARE]):.0f}")
    Console(width=None if sys.stdout.isatty() else 100).print(table)
    return 0
