"""Time modulab against other ways to train the same networks, side by side on this machine."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from given_overrides import answer
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from benchmark_contenders.machine import commit, describe_machine
from modulab.arguments import ArgumentParser
from modulab.cores import cpu_count
from modulab.errors import ConfigError
from modulab.schema import suggest

SCRIPTS = Path(__file__).resolve().parents[1]
PARTS = {
    "sweep": "sweeps", "kinds": "kinds", "limit": "limit", "answers": "answers", "scale": "scale", "check": "check",
    "record": "history", "measuring": "measuring",
}  # fmt: skip
"""Benchmarks besides this one, each with its module, which is imported for it alone: most import torch."""
WORKER_SECONDS = 900.0
SETTLE_SECONDS = 0.2
"""A pause before each turn, in which the threads of the last contender stop spinning."""


@dataclass(frozen=True)
class Contender:
    """A way to train the reference workload; `one_by_one` ones train a sample of networks whatever the population."""

    name: str
    title: str
    entry: str
    one_by_one: bool = False
    compiles: bool = False
    uses_jax: bool = False


CONTENDERS = (
    Contender("modulab_native", "modulab, native", "modulab_population:prepare_native", compiles=True),
    Contender("modulab", "modulab, compiled", "modulab_population:prepare", compiles=True),
    Contender("modulab_eager", "modulab, eager", "modulab_population:prepare_eager"),
    Contender("lightning", "(a) stock Lightning", "stock_lightning:prepare", one_by_one=True),
    Contender(
        "lightning_tuned", "(a) Lightning, tuned by hand", "stock_lightning:prepare_tuned", one_by_one=True
    ),
    Contender("torch_loop", "(b) plain torch loop", "plain_torch:prepare", one_by_one=True),
    Contender("vmap", "(c) torch.func vmap", "torch_vmap:prepare"),
    Contender("vmap_compiled", "(c) vmap + torch.compile", "torch_vmap:prepare_compiled", compiles=True),
    Contender("jax", "(d) JAX jit + vmap + scan", "jax_vmap:prepare", uses_jax=True),
    Contender("jax_blocked", "(d) JAX, in blocks of 8", "jax_vmap:prepare_blocked", uses_jax=True),
)


@dataclass(frozen=True)
class Condition:
    """One table of the benchmark, for one population."""

    threads: int
    noise: bool
    population: int

    def __str__(self) -> str:
        noise = "Poisson noise" if self.noise else "no noise"
        plural = "" if self.threads == 1 else "s"
        return f"{noise}, {self.threads} thread{plural}, populations of {self.population}"


@dataclass
class Outcome:
    """What one contender did under one condition: `status` is ok, skipped or failed, the last two with a reason."""

    contender: Contender
    condition: Condition
    status: str = "ok"
    reason: str = ""
    turns: list[dict[str, Any]] = field(default_factory=list)

    def _each(self, name: str) -> list[float]:
        return [turn[name] for turn in self._counted() if turn[name] is not None]

    def _counted(self) -> list[dict[str, Any]]:
        return self.turns[1:] or self.turns

    def microseconds(self) -> float:
        """Return the median over repeats of the time a network-step takes; the first repeat is a warm-up."""
        return median(1e6 * turn["seconds"] / turn["network_steps"] for turn in self._counted())

    def record(self) -> dict[str, Any]:
        """Return what the JSON file keeps."""
        kept: dict[str, Any] = {
            "contender": self.contender.name,
            "title": self.contender.title,
            "threads": self.condition.threads,
            "noise": self.condition.noise,
            "population": self.condition.population,
            "status": self.status,
            "reason": self.reason,
        }
        if self.status != "ok":
            return kept
        per_step = [1e6 * turn["seconds"] / turn["network_steps"] for turn in self._counted()]
        return kept | {
            "us_per_network_step": self.microseconds(),
            "us_per_network_step_of_repeats": per_step,
            "compile_seconds": max(0.0, self.turns[0]["wall"] - median(self._each("wall"))),
            "startup_ms_per_network": 1e3 * median(self._each("startup_seconds")),
            "cores_used": median(self._each("cores")),
            "peak_mib": max(self._each("peak_bytes"), default=float("nan")) / 2**20,
            "first_loss": median(self._each("first_loss")),
            "last_loss": sum(self._each("last_loss")) / len(self._each("last_loss")),
        }


class Worker:
    """A contender's process, waiting for its turns."""

    def __init__(self, order: dict[str, Any], python: str, cache: Path) -> None:
        threads = str(order["workload"]["threads"])
        flags = ["--xla_cpu_multi_thread_eigen=false"] if threads == "1" else []
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join([str(SCRIPTS), os.environ.get("PYTHONPATH", "")]).rstrip(
                os.pathsep
            ),
            "OMP_NUM_THREADS": threads,
            "MKL_NUM_THREADS": threads,
            "OPENBLAS_NUM_THREADS": threads,
            "XLA_FLAGS": " ".join([*flags, os.environ.get("XLA_FLAGS", "")]).strip(),
            "JAX_PLATFORMS": order["workload"].get("device", "cpu"),
            # Else JAX takes most of a card's memory from the others at once.
            "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
            # A cache that starts empty makes compile times those of a first use.
            "TORCHINDUCTOR_CACHE_DIR": str(cache),
        }
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed with the worker)
        self._process = subprocess.Popen(
            [python, "-m", "benchmark_contenders.worker", json.dumps(order)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env=environment,
        )

    def read(self) -> dict[str, Any]:
        """Return the next answer. Raises: RuntimeError with the last of what it complained of, if it has ended."""
        assert self._process.stdout is not None
        watchdog = threading.Timer(WORKER_SECONDS, self._process.kill)
        watchdog.daemon = True
        watchdog.start()
        try:
            line = self._process.stdout.readline()
        finally:
            watchdog.cancel()
        if line:
            return json.loads(line)
        self._process.wait()
        self._errors.seek(0)
        complaint = self._errors.read().strip().splitlines()
        raise RuntimeError(complaint[-1] if complaint else f"ended with code {self._process.returncode}")

    def turn(self) -> dict[str, Any]:
        """Let it train once, and return what it measured."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write("\n")
            self._process.stdin.flush()
        return self.read()

    def close(self) -> None:
        """End the process."""
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            with contextlib.suppress(BrokenPipeError):
                stream.close()
        try:
            self._process.wait(timeout=2)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._errors.close()


def run_condition(
    condition: Condition, contenders: Sequence[Contender], options: argparse.Namespace, cache: Path
) -> list[Outcome]:
    """Let all contenders train in turns, as often as asked, after a warm-up turn each."""
    outcomes = [Outcome(contender, condition) for contender in contenders]
    workers: dict[str, Worker] = {}
    workload = {
        "population": condition.population,
        "steps": options.steps,
        "noise": condition.noise,
        "threads": condition.threads,
        "quick": options.quick,
        "device": options.device,
    }
    try:
        for outcome in outcomes:
            contender = outcome.contender
            if options.quick and contender.compiles:
                outcome.status, outcome.reason = "skipped", "--quick does not wait for a compiler."
                continue
            python = options.jax_python if contender.uses_jax else sys.executable
            order = {"entry": contender.entry, "workload": workload}
            own_cache = cache / f"{contender.name}-{condition.threads}-{condition.noise}"
            workers[contender.name] = Worker(order, python, own_cache)
        for outcome in outcomes:
            if outcome.status == "ok":
                _expect_ready(outcome, workers[outcome.contender.name])
        for outcome in outcomes:
            if outcome.status == "ok":
                _take_turn(outcome, workers[outcome.contender.name])
        for number in range(options.repeats):
            # Each round begins with another contender, so that none always follows the same neighbour.
            for place in range(len(outcomes)):
                outcome = outcomes[(place + number) % len(outcomes)]
                if outcome.status == "ok":
                    time.sleep(SETTLE_SECONDS)
                    _take_turn(outcome, workers[outcome.contender.name])
    finally:
        for worker in workers.values():
            worker.close()
    return outcomes


def _expect_ready(outcome: Outcome, worker: Worker) -> None:
    try:
        begun = worker.read()
    except RuntimeError as error:
        outcome.status, outcome.reason = "failed", str(error)
        return
    if "skipped" in begun:
        outcome.status, outcome.reason = "skipped", begun["skipped"]


def _take_turn(outcome: Outcome, worker: Worker) -> None:
    try:
        outcome.turns.append(worker.turn())
    except RuntimeError as error:
        outcome.status, outcome.reason = "failed", str(error)


def base_of(records: Sequence[dict[str, Any]], record: dict[str, Any]) -> float | None:
    """Return modulab's time under the same condition: that of its faster engine."""
    same = [
        other["us_per_network_step"]
        for other in records
        if other["contender"].startswith("modulab")
        and other["status"] == "ok"
        and all(other[key] == record[key] for key in ("threads", "noise", "population"))
    ]
    return min(same, default=None)


def tabulate(records: Sequence[dict[str, Any]], threads: int, noise: bool) -> Table:
    """Return the table of one noise and number of threads, with a pair of columns per population."""
    chosen = [record for record in records if record["threads"] == threads and record["noise"] == noise]
    populations = sorted({record["population"] for record in chosen})
    plural = "" if threads == 1 else "s"
    table = Table(
        title=f"{'Poisson noise' if noise else 'No noise'}, {threads} thread{plural}", box=box.SIMPLE_HEAD
    )
    table.add_column("")
    for population in populations:
        table.add_column(f"{population} networks\nus/network-step", justify="right")
        table.add_column("\nratio", justify="right")
    for heading in ("compile\ns", "cores\nused", "peak\nMiB", "loss\nfirst", "loss\nlast"):
        table.add_column(heading, justify="right")
    for name in dict.fromkeys(record["contender"] for record in chosen):
        rows = {record["population"]: record for record in chosen if record["contender"] == name}
        cells = [next(iter(rows.values()))["title"]]
        good = [record for record in rows.values() if record["status"] == "ok"]
        for population in populations:
            record = rows[population]
            if record["status"] != "ok":
                cells += [record["status"], ""]
                continue
            ratio = record["ratio"]
            cells += [
                f"{record['us_per_network_step']:,.1f}",
                "" if ratio is None else f"{ratio:.2f}" if ratio < 10 else f"{ratio:.0f}",
            ]
        if good:
            last = good[-1]
            cells += [
                f"{max(record['compile_seconds'] for record in good):.1f}",
                f"{last['cores_used']:.2f}",
                f"{last['peak_mib']:,.0f}",
                f"{last['first_loss']:.3f}",
                f"{last['last_loss']:.3f}",
            ]
        table.add_row(*cells)
    return table


def judge_losses(records: Sequence[dict[str, Any]], tolerance: float) -> list[str]:
    """Return a sentence for each contender whose training went otherwise than the rest: it may have done less."""
    found: list[str] = []
    conditions = {(record["threads"], record["noise"], record["population"]) for record in records}
    for condition in sorted(conditions):
        chosen = [
            record
            for record in records
            if record["status"] == "ok"
            and (record["threads"], record["noise"], record["population"]) == condition
        ]
        if not chosen:
            continue
        middle = median(record["last_loss"] for record in chosen)
        for record in chosen:
            record["loss_agrees"] = middle / tolerance < record["last_loss"] < middle * tolerance
            if not record["loss_agrees"]:
                found.append(
                    f"{record['title']} (threads, noise, population {condition}) ends at a loss of "
                    f"{record['last_loss']:.3f}, the middle of all at {middle:.3f}: is it the same training?"
                )
    return found


def ask_once(entry: str, arguments: dict[str, Any], threads: int, cache: Path) -> dict[str, Any]:
    """Return what a function gives in a process of its own."""
    order = {"entry": entry, "workload": {"threads": threads}, "once": arguments}
    worker = Worker(order, sys.executable, cache)
    try:
        return worker.read()["result"]
    finally:
        worker.close()


def measure_memory(options: argparse.Namespace, cache: Path) -> dict[str, float]:
    """Return peak resident sizes of whole fits, measures included, and their slope: bytes an extra member."""
    # The peak of one process varies by about 100 MiB from run to run: the populations lie far enough apart that
    # the members outweigh it.
    populations = (64, 1024) if options.quick else (256, 2048)
    peaks: list[float] = []
    for population in populations:
        workload = {"population": population, "steps": 4, "noise": True, "threads": 1, "quick": options.quick}
        worker = Worker(
            {"entry": "modulab_population:prepare_whole", "workload": workload}, sys.executable, cache
        )
        try:
            worker.read()
            peak = worker.turn()["peak_bytes"]
        finally:
            worker.close()
        if peak is None:
            raise RuntimeError("this system does not report a process's peak memory")
        peaks.append(peak)
    return {
        "populations": list(populations),
        "peak_mib": [peak / 2**20 for peak in peaks],
        "kib_per_extra_member": (peaks[1] - peaks[0]) / (populations[1] - populations[0]) / 1024,
    }


def _numbers(text: str) -> list[int]:
    return [int(word) for word in text.split(",")]


def read_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    names = [contender.name for contender in CONTENDERS]
    parser = ArgumentParser(
        prog="scripts/benchmark",
        description=f"{__doc__} Whole sweeps: scripts/benchmark sweep --help. "
        "Kinds of networks: scripts/benchmark kinds. What a core can do: scripts/benchmark limit. "
        "Start-up: scripts/benchmark answers. Sweeps by size: scripts/benchmark scale. A record for "
        "docs/benchmarks: scripts/benchmark record. A quick comparison with it: scripts/benchmark check.",
    )
    parser.add_argument(
        "--quick", action="store_true", help="a smoke test of seconds; its figures mean nothing"
    )
    parser.add_argument("--populations", type=_numbers, help="comma-separated; default 64,256")
    parser.add_argument(
        "--threads", type=_numbers, help="comma-separated; default 1,2, as far as there are cores"
    )
    parser.add_argument(
        "--device",
        choices=["cpu", "cuda"],
        default="cpu",
        help="where all of them train; default %(default)s",
    )
    parser.add_argument("--noise", choices=["with", "without", "both"], help="default both")
    parser.add_argument("--steps", type=int, help="optimiser steps of each network in a repeat; default 100")
    parser.add_argument("--repeats", type=int, help="repeats besides the warm-up; default 5")
    parser.add_argument("--only", help=f"comma-separated contenders, of {', '.join(names)}")
    parser.add_argument("--no-extras", action="store_true", help="leave out memory and parts of a step")
    parser.add_argument(
        "--output", type=Path, default=Path("outputs/benchmark.json"), help="default %(default)s"
    )
    parser.add_argument(
        "--jax-python", default=sys.executable, help="an interpreter that has JAX, if not this one"
    )
    options = parser.parse_args(arguments)
    defaults: dict[str, Any] = {"populations": [64, 256], "threads": [1, 2], "noise": "both"}
    defaults |= {"steps": 100, "repeats": 5}
    if options.device == "cuda":
        defaults |= {"populations": [64, 1024, 16384], "threads": [2]}
    if options.quick:
        defaults |= {"populations": [4], "threads": [1], "noise": "with", "repeats": 1}
    for name, value in defaults.items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    options.threads = [threads for threads in options.threads if threads <= cpu_count()] or [1]
    options.only = options.only.split(",") if options.only else names
    for name in options.only:
        if name not in names:
            parser.error(f"--only: there is no contender '{name}'. Known: {', '.join(names)}.")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given and given[0] in PARTS:
        return importlib.import_module(f"benchmark_contenders.{PARTS[given[0]]}").main(given[1:])
    if given and not given[0].startswith("-"):
        raise ConfigError(f"scripts/benchmark: there is no part {given[0]}. {suggest(given[0], PARTS)}")
    options = read_options(given)
    # A polite kill should take the workers and the temporary folder along, as Ctrl-C does.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    console = Console(width=None if sys.stdout.isatty() else 132)
    try:
        machine = describe_machine(options.device)
    except LookupError as error:
        console.print(f"--device {options.device}: {error}")
        return 2
    console.print(
        f"{machine['processor']}, {machine['cores']} cores, load {machine['load_average']:.1f}; "
        + ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
        + f"; modulab at {machine['commit'] or 'no commit'}"
    )
    contenders = [contender for contender in CONTENDERS if contender.name in options.only]
    noises = {"with": [True], "without": [False], "both": [True, False]}[options.noise]
    records: list[dict[str, Any]] = []
    extras: dict[str, Any] = {}
    options.output.parent.mkdir(parents=True, exist_ok=True)

    def save() -> None:
        settings = {key: value for key, value in vars(options).items() if key not in ("output", "jax_python")}
        content = {"machine": machine, "settings": settings, "results": records, **extras}
        beside = options.output.with_name(options.output.name + ".part")
        beside.write_text(json.dumps(content, indent=1, allow_nan=True))
        beside.replace(options.output)

    with tempfile.TemporaryDirectory(prefix="modulab-benchmark-") as folder:
        cache = Path(folder)
        for threads in options.threads:
            for noise in noises:
                for population in options.populations:
                    condition = Condition(threads, noise, population)
                    load, sources = os.getloadavg()[0], commit()
                    with console.status(str(condition)):
                        outcomes = run_condition(condition, contenders, options, cache)
                    fresh = [
                        outcome.record() | {"load_average": load, "commit": sources} for outcome in outcomes
                    ]
                    for record in fresh:
                        base = base_of(fresh, record)
                        if record["status"] == "ok":
                            record["ratio"] = record["us_per_network_step"] / base if base else None
                    records += fresh
                    save()
                console.print(tabulate(records, threads, noise))
        if not options.no_extras and options.device == "cpu":
            _extras(options, extras, cache, console)
    complaints = judge_losses(records, 2.0 if options.quick else 1.5)
    save()
    _print_notes(records, options, console)
    for complaint in complaints:
        console.print(f"[bold]Warning:[/bold] {complaint}")
    console.print(f"Written to {options.output}.")
    failed = any(record["status"] == "failed" for record in records) or "errors" in extras
    return 1 if failed or (complaints and not options.quick) else 0


def _extras(options: argparse.Namespace, extras: dict[str, Any], cache: Path, console: Console) -> None:
    try:
        extras["memory"] = measure_memory(options, cache)
        low, high = extras["memory"]["populations"]
        console.print(
            f"Peak memory of modulab: {extras['memory']['kib_per_extra_member']:.0f} KiB an extra member, the "
            f"slope between populations of {low} and {high}, trained and measured."
        )
        if options.quick:
            return
        extras["parts"] = ask_once("modulab_population:time_parts", {"threads": 1}, 1, cache)
    except RuntimeError as error:
        extras["errors"] = [str(error)]
        console.print(f"[bold]Failed:[/bold] {escape(str(error))}")
        return
    table = Table(title="Where a compiled step's time goes, on one thread", box=box.SIMPLE_HEAD)
    table.add_column("")
    table.add_column("us/network-step", justify="right")
    for part, microseconds in extras["parts"].items():
        table.add_row(part, f"{microseconds:.1f}")
    console.print(table)


def _print_notes(records: Sequence[dict[str, Any]], options: argparse.Namespace, console: Console) -> None:
    plural = "" if options.repeats == 1 else "s"
    console.print(
        f"Medians of {options.repeats} repeat{plural} of {options.steps} steps, contenders in turns. "
        "Ratio: time over that of modulab's faster engine. "
        "(a) and (b) train networks one by one: a sample of them is timed and the time holds for any population; "
        "with two cores, two processes of one thread each halve their one-thread figure, which beats their two "
        "threads. Lightning's time to set up a fit is not counted "
        "(startup_ms_per_network in the file), nor is anyone's compile time. "
        "Compile is the first time, with nothing cached; cores, peak and losses are those of the larger population."
    )
    commits = {record["commit"] for record in records}
    if len(commits) > 1:
        console.print(
            f"[bold]Warning:[/bold] the sources changed during the run ({', '.join(map(str, commits))}): "
            "its tables are not of one program."
        )
    short = [record for record in records if record["status"] == "ok" and record["cores_used"] < 0.9]
    if short:
        console.print(
            f"[bold]Note:[/bold] in {len(short)} of {len(records)} timings a contender got less than 0.9 of a core: "
            "other work was using the machine, and the figures are rough."
        )
    for name in dict.fromkeys(record["contender"] for record in records if record["status"] != "ok"):
        first = next(record for record in records if record["contender"] == name and record["status"] != "ok")
        console.print(f"{first['title']} {first['status']}: {escape(first['reason'])}")


if __name__ == "__main__":
    sys.exit(answer(main))
