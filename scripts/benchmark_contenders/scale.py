"""Time what a sweep takes besides training, by its size: planning, splitting, resuming, its table and its report."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmark_contenders.machine import describe_machine
from benchmark_contenders.sweeps import MODULAB, NOISES, run
from modulab.arguments import ArgumentParser

ARCHITECTURES = ("dense", "premodular")
SETTINGS = len(NOISES) * 5 * len(ARCHITECTURES)
SAMPLES = (16, 32, 64, 128, 256)
STAGES = {
    "plan": "-m with ranges: jobs read, checked and cut into populations (a dry run)",
    "split": "the same, cut into shards for SLURM (a dry run)",
    "half": "planned by population.grid, every row written, and half of them again as finished",
    "resume": "the first once more, in the folder of which half is finished",
    "table": "modulab table",
    "report": "modulab report",
}


def overrides(members: int) -> list[str]:
    return [
        f"noise.scale={','.join(map(str, NOISES))}",
        f"data.num_samples={','.join(map(str, SAMPLES))}",
        f"architecture={','.join(ARCHITECTURES)}",
        f"seed=range({members // SETTINGS})",
        *FIXED,
    ]


FIXED = [
    "noise=poisson",
    "training.steps=4",
    "training.curve_every=2",
    "trainer.engine=eager",
    "trainer.threads=1",
]


def as_grid(members: int) -> list[str]:
    """Return overrides that ask for the same members in one run."""
    axes = {"noise.scale": NOISES, "data.num_samples": SAMPLES, "architecture": ARCHITECTURES}
    grid = ", ".join(f"{key}: [{', '.join(map(str, values))}]" for key, values in axes.items())
    return [f"population.grid={{{grid}}}", f"population.seeds={members // SETTINGS}", *FIXED]


def time_stages(members: int, scratch: Path, stages: list[str]) -> dict[str, dict[str, float]]:
    """Return CPU seconds, wall time and peak of memory of each stage, each in a process of its own."""
    folder = scratch / f"of-{members}"
    sweep = [*MODULAB, "train", "-m", *overrides(members), "sweep.dry_run=true", f"hydra.sweep.dir={folder}"]
    commands = {
        "plan": sweep,
        "split": [*sweep, "hydra/launcher=population_slurm"],
        "half": [sys.executable, "-m", "benchmark_contenders.half_done", str(folder), *as_grid(members)],
        "resume": sweep,
        "table": [*MODULAB, "table", str(folder)],
        "report": [*MODULAB, "report", str(folder)],
    }
    found: dict[str, dict[str, float]] = {}
    for stage in stages:
        ended = run(commands[stage], scratch / "cache")
        found[stage] = {
            "cpu_seconds": ended.cpu_seconds,
            "seconds": ended.seconds,
            "gib": ended.peak_bytes / 2**30,
        }
    if (results := folder / "results.parquet").exists():
        found["disk"] = {
            "gib": sum(file.stat().st_size for file in (results, folder / "curves.parquet")) / 2**30
        }
    shutil.rmtree(folder, ignore_errors=True)
    return found


def as_table(report: dict[str, Any]) -> Table:
    table = Table(
        title="CPU seconds, and GiB at most, by the number of networks",
        caption="Each stage is a process of its own, start-up included. "
        + " ".join(f"{name}: {words}." for name, words in STAGES.items()),
    )
    table.add_column("networks", justify="right")
    for stage in STAGES:
        table.add_column(stage, justify="right")
    for members, found in report["sizes"].items():
        cells = [
            f"{found[stage]['cpu_seconds']:,.1f} s, {found[stage]['gib']:.2f} GiB" if stage in found else ""
            for stage in STAGES
        ]
        table.add_row(f"{int(members):,}", *cells)
    return table


def main(arguments: list[str]) -> int:
    parser = ArgumentParser(prog="scripts/benchmark scale", description=__doc__)
    parser.add_argument(
        "--sizes",
        default="1000,10000,100000,1000000",
        help="networks, with commas between; default %(default)s",
    )
    parser.add_argument("--only", default=",".join(STAGES), help="stages, of %(default)s")
    parser.add_argument(
        "--output", type=Path, default=Path("outputs/benchmark_scale.json"), help="default %(default)s"
    )
    options = parser.parse_args(arguments)
    stages: list[str] = options.only.split(",")
    for name in stages:
        if name not in STAGES:
            parser.error(f"--only: there is no stage '{name}'. Known: {', '.join(STAGES)}.")
    console = Console(width=None if sys.stdout.isatty() else 150)
    report: dict[str, Any] = {"sizes": {}}
    options.output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="modulab-benchmark-") as scratch:
        for members in map(int, options.sizes.split(",")):
            try:
                report["sizes"][members] = time_stages(members, Path(scratch), stages)
            except RuntimeError as error:
                console.print(f"Failed: {error}", markup=False)
                return 1
            options.output.write_text(json.dumps(report, indent=1))
            for stage, found in report["sizes"][members].items():
                console.print(
                    f"{members:,} {stage}: " + ", ".join(f"{key} {value:.2f}" for key, value in found.items())
                )
    # Last, as it imports torch: a process begins with the peak of memory of the one that started it.
    report["machine"] = describe_machine()
    options.output.write_text(json.dumps(report, indent=1))
    console.print(as_table(report))
    console.print(f"Written to {options.output}.")
    return 0
