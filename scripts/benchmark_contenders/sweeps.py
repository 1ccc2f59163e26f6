"""Time whole sweeps: a grid of a thousand runs by modulab and by stock Lightning, and plans of very many runs."""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmark_contenders.machine import describe_machine
from modulab.arguments import ArgumentParser
from modulab.cores import cpu_count

SCRIPTS = Path(__file__).resolve().parents[1]
NOISES, SAMPLES, ARCHITECTURES = (0, 0.1, 0.2, 0.4), (64, 256, 1024, 4096, 16384), ("dense", "premodular")
MODULAB = [sys.executable, "-m", "modulab.cli"]


@dataclass(frozen=True)
class Ended:
    """A process that has ended: its whole time, that of its processor, and the largest memory it held."""

    seconds: float
    cpu_seconds: float
    peak_bytes: int


@dataclass(frozen=True)
class Grid:
    """The runs to do: every noise, sample size and architecture at these numbers of seeds and steps."""

    seeds: int
    steps: int

    @property
    def runs(self) -> int:
        return len(NOISES) * len(SAMPLES) * len(ARCHITECTURES) * self.seeds

    def overrides(self) -> list[str]:
        return [
            f"noise.scale={','.join(map(str, NOISES))}",
            f"data.num_samples={','.join(map(str, SAMPLES))}",
            f"architecture={','.join(ARCHITECTURES)}",
            f"seed=range({self.seeds})",
            f"training.steps={self.steps}",
        ]

    def sample(self, turn: int, size: int) -> list[dict[str, Any]]:
        """Return runs spread over the grid, others in each turn."""
        points = list(itertools.product(NOISES, ARCHITECTURES, SAMPLES))
        chosen = [points[(turn + place * len(points) // size) % len(points)] for place in range(size)]
        return [
            {
                "noise": noise,
                "samples": samples,
                "architecture": architecture,
                "seed": turn,
                "steps": self.steps,
            }
            for noise, architecture, samples in chosen
        ]


def environment(cache: Path, threads: int | None = None) -> dict[str, str]:
    paths = [str(SCRIPTS), os.environ.get("PYTHONPATH", "")]
    found = os.environ | {
        "PYTHONPATH": os.pathsep.join(path for path in paths if path),
        "TORCHINDUCTOR_CACHE_DIR": str(cache),
    }
    return found if threads is None else found | {"OMP_NUM_THREADS": str(threads)}


def run(command: list[str], cache: Path, limit: float = 3600) -> Ended:
    """Run a command to its end. Raises: RuntimeError with what it printed, where it fails."""
    with tempfile.TemporaryFile("w+") as output:
        start = time.perf_counter()
        process = subprocess.Popen(command, stdout=output, stderr=output, env=environment(cache))
        deadline = start + limit
        while True:
            ended, status, usage = os.wait4(process.pid, os.WNOHANG)
            if ended:
                break
            if time.perf_counter() > deadline:
                process.kill()
            time.sleep(0.02)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            output.seek(0)
            raise RuntimeError(f"{' '.join(command)}: {output.read()[-2000:]}")
    return Ended(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024)


def modulab_sweep(grid: Grid, folder: Path, cache: Path) -> Ended:
    """Run the grid as a user would, from the command line to the printed table."""
    return run([*MODULAB, "train", "-m", *grid.overrides(), f"hydra.sweep.dir={folder}"], cache)


class LightningProcess:
    """A process that trains the runs it is given one after the other, with stock Lightning."""

    def __init__(self, cache: Path, threads: int | None = None) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmark_contenders.lightning_run"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment(cache, threads),
            text=True,
        )

    def begin(self, what: dict[str, Any]) -> None:
        """Train and measure one run."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(what) + "\n")
        self._process.stdin.flush()

    def answer(self) -> dict[str, float]:
        """Wait for the run that was begun, and return its time and error."""
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())

    def end(self) -> None:
        """Let the process finish what was begun, and end."""
        self._process.communicate()


def time_one_process(runs: list[dict[str, Any]], cache: Path) -> list[dict[str, float]]:
    """Return what runs took in one process, without its start."""
    process = LightningProcess(cache)
    answers: list[dict[str, float]] = []
    for each in runs:
        process.begin(each)
        answers.append(process.answer())
    process.end()
    return answers


def time_process_each(runs: list[dict[str, Any]], cache: Path, at_once: int) -> float:
    """Return the seconds per run where each has a process of one thread, several at once."""
    start = time.perf_counter()
    for first in range(0, len(runs), at_once):
        batch = [LightningProcess(cache, threads=1) for _ in runs[first : first + at_once]]
        for process, each in zip(batch, runs[first:], strict=False):
            process.begin(each)
        for process in batch:
            process.end()
    return (time.perf_counter() - start) / len(runs)


def time_grid(
    grid: Grid, repeats: int, sample: int, at_once: int, folder: Path, console: Console
) -> dict[str, Any]:
    """Run the grid by modulab and samples of it by Lightning, in turns, and return times of the whole grid."""
    cache = folder / "cache"
    cold = modulab_sweep(grid, folder / "cold", cache)
    console.print(f"modulab, nothing compiled yet: {cold.seconds:.1f} s")
    warm: list[Ended] = []
    one_process: list[float] = []
    process_each: list[float] = []
    for turn in range(repeats):
        warm.append(modulab_sweep(grid, folder / f"warm{turn}", cache))
        answers = time_one_process(grid.sample(turn, sample), cache)
        one_process.append(grid.runs * sum(answer["seconds"] for answer in answers) / len(answers))
        process_each.append(
            grid.runs * time_process_each(grid.sample(turn, max(at_once, sample // 2)), cache, at_once)
        )
        console.print(
            f"turn {turn + 1} of {repeats}: modulab {warm[-1].seconds:.1f} s, Lightning in one process "
            f"{one_process[-1]:.0f} s, in a process each {process_each[-1]:.0f} s (scaled)"
        )
    seconds = {
        "modulab": median(ended.seconds for ended in warm),
        "modulab, first time": cold.seconds,
        "Lightning, all runs in one process": median(one_process),
        f"Lightning, one process per run, {at_once} at once": median(process_each),
    }
    return {
        "runs": grid.runs,
        "steps": grid.steps,
        "sample": sample,
        "seconds": seconds,
        "ratios": {name: value / seconds["modulab"] for name, value in seconds.items()},
        "runs_per_hour": {name: 3600 * grid.runs / value for name, value in seconds.items()},
        "peak_mib": max(ended.peak_bytes for ended in [cold, *warm]) / 2**20,
    }


def time_plan(jobs: int, cache: Path, folder: Path) -> dict[str, float]:
    """Return time and memory of a dry run of many jobs, from the command line to its answer."""
    seeds = jobs // (len(NOISES) * len(SAMPLES) * len(ARCHITECTURES))
    grid = Grid(seeds, 1000)
    ended = run(
        [*MODULAB, "train", "-m", *grid.overrides(), "sweep.dry_run=true", f"hydra.sweep.dir={folder}"], cache
    )
    return {"jobs": grid.runs, "seconds": ended.seconds, "peak_mib": ended.peak_bytes / 2**20}


def time_many(members: int, cache: Path, folder: Path) -> dict[str, float]:
    """Return time and memory of a sweep of very many tiny members of a few steps, and of its table."""
    tiny = [
        "training.steps=4", "training.curve_every=2", "training.batch_size=4", "architecture.width=4",
        "data.num_samples=8", "probes.num_samples=8", "probes.repeats=1", "probes.levels=[0.3]",
        "trainer.engine=eager",
    ]  # fmt: skip
    sweep = [f"noise.scale={','.join(map(str, NOISES))}", f"seed=range({members // len(NOISES)})"]
    swept = run([*MODULAB, "train", "-m", *tiny, *sweep, f"hydra.sweep.dir={folder}"], cache)
    table = run([*MODULAB, "table", str(folder)], cache)
    return {
        "members": members,
        "seconds": swept.seconds,
        "peak_mib": swept.peak_bytes / 2**20,
        "table_seconds": table.seconds,
        "table_peak_mib": table.peak_bytes / 2**20,
        "results_mib": (folder / "results.parquet").stat().st_size / 2**20,
    }


def read_options(arguments: list[str]) -> argparse.Namespace:
    parser = ArgumentParser(prog="scripts/benchmark sweep", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a smoke test; its figures mean nothing")
    parser.add_argument("--repeats", type=int, help="turns of every contender; default 3")
    parser.add_argument(
        "--sample", type=int, help="runs of the grid that Lightning does in a turn; default 8"
    )
    parser.add_argument("--only", choices=["grid", "plan", "many"], help="one part alone")
    parser.add_argument(
        "--output", type=Path, default=Path("outputs/benchmark_sweep.json"), help="default %(default)s"
    )
    options = parser.parse_args(arguments)
    options.repeats = options.repeats or (1 if options.quick else 3)
    options.sample = options.sample or (2 if options.quick else 8)
    return options


def main(arguments: list[str]) -> int:
    options = read_options(arguments)
    console = Console(width=None if sys.stdout.isatty() else 132)
    report: dict[str, Any] = {"machine": describe_machine()}
    grid = Grid(1, 10) if options.quick else Grid(25, 1000)
    with tempfile.TemporaryDirectory(prefix="modulab-benchmark-") as scratch:
        folder = Path(scratch)
        try:
            if options.only in (None, "grid"):
                report["grid"] = time_grid(
                    grid,
                    options.repeats,
                    options.sample,
                    1 if options.quick else cpu_count(),
                    folder,
                    console,
                )
                console.print(grid_table(report["grid"]))
            if options.only in (None, "plan"):
                report["plan"] = time_plan(
                    400 if options.quick else 10_000, folder / "cache", folder / "plan"
                )
                console.print(
                    "{jobs} jobs planned, start-up included: {seconds:.1f} s, {peak_mib:.0f} MiB".format(
                        **report["plan"]
                    )
                )
            if options.only in (None, "many"):
                report["many"] = time_many(
                    400 if options.quick else 100_000, folder / "cache", folder / "many"
                )
                console.print(
                    "{members} tiny members planned, trained for 4 steps, measured and kept: {seconds:.0f} s, "
                    "{peak_mib:.0f} MiB; their table: {table_seconds:.1f} s, {table_peak_mib:.0f} MiB; "
                    "results.parquet {results_mib:.1f} MiB".format(**report["many"])
                )
        except RuntimeError as error:
            console.print(f"Failed: {error}", markup=False)
            return 1
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(report, indent=1))
    console.print(f"Written to {options.output}.")
    return 0


def grid_table(found: dict[str, Any]) -> Table:
    table = Table(
        title=f"{found['runs']} runs of {found['steps']} steps, and their measures: wall time, start-up included",
        caption=f"Medians of turns; in each, Lightning does {found['sample']} runs of the grid, scaled to all of it.",
    )
    for heading in ("", "seconds", "runs an hour", "times modulab's"):
        table.add_column(heading, justify="left" if not heading else "right")
    for name, seconds in found["seconds"].items():
        ratio, pace = found["ratios"][name], found["runs_per_hour"][name]
        table.add_row(name, f"{seconds:,.0f}", f"{pace:,.0f}", f"{ratio:.1f}")
    return table
