"""Keep the figures of a release: scripts/benchmark record writes docs/benchmarks/RELEASE.json and draws all of them.

A record has ratios to what does not change between releases: the limit kernel, stock Lightning and JAX. Times hold for
the machine that it names.
"""

from __future__ import annotations

import json
import math
import sys
import tempfile
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmark_contenders import limit, sweeps
from benchmark_contenders.machine import describe_machine
from modulab.arguments import ArgumentParser
from modulab.report.figure import ReportFigure, save_figures
from modulab.report.style import COLOURS, MARKERS, drawing, set_log_axis

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "benchmarks"
_MODULAB = ("modulab_native", "modulab")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = ArgumentParser(prog="scripts/benchmark record", description=__doc__)
    parser.add_argument("--release", default=metadata.version("modulab"), help="default %(default)s")
    parser.add_argument("--jax-python", default=sys.executable, help="an interpreter that has JAX")
    parser.add_argument("--quick", action="store_true", help="a smoke test; its figures mean nothing")
    parser.add_argument(
        "--draw", action="store_true", help="draw the figure of what is recorded, time nothing"
    )
    parser.add_argument("--folder", type=Path, default=FOLDER, help="default docs/benchmarks")
    options = parser.parse_args(arguments)
    if not options.draw:
        try:
            record = measure(options.release, options.quick, options.jax_python)
        except RuntimeError as error:
            print(f"Failed: {error}", file=sys.stderr)
            return 1
        options.folder.mkdir(parents=True, exist_ok=True)
        path = options.folder / f"{options.release}.json"
        path.write_text(json.dumps(record, indent=1) + "\n")
        print(f"Written to {path}.")
    records = read_records(options.folder)
    figure = options.folder.with_suffix(".png")
    draw(records, figure)
    print("\n".join(table(records)))
    print(f"Drawn: {figure}.")
    return 0


def measure(release: str, quick: bool, jax_python: str) -> dict[str, Any]:
    """Return the record of a release, by the three benchmarks one after the other.

    Raises: RuntimeError where one of them fails.
    """
    from benchmark_contenders.__main__ import main as time_steps

    with tempfile.TemporaryDirectory() as scratch:
        outputs = {name: Path(scratch, f"{name}.json") for name in ("limit", "step", "sweep")}
        few = ["--quick"] if quick else []
        brief = ["--steps", "5", "--repeats", "1"] if quick else []
        sized = [] if quick else ["--populations", "64", "--repeats", "3", "--no-extras"]
        turns = ["--sample", "1"] if quick else ["--repeats", "2", "--sample", "5"]
        codes = [
            limit.main([*brief, "--engines", "native", "--output", str(outputs["limit"])]),
            time_steps([*few, *sized, "--jax-python", jax_python, "--output", str(outputs["step"])]),
            sweeps.main([*few, *turns, "--only", "grid", "--output", str(outputs["sweep"])]),
        ]
        if any(codes):
            raise RuntimeError("a benchmark ended with an error, printed above.")
        found = {name: json.loads(path.read_text()) for name, path in outputs.items()}
    return {
        "release": release,
        "machine": describe_machine(),
        "limit": {
            row["workload"]: {name: row[name] for name in ("limit", "native")}
            for row in found["limit"]["results"]
        },
        "step": by_condition(found["step"]["results"]),
        "sweep": found["sweep"]["grid"]["seconds"],
    }


def by_condition(records: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Return microseconds per network-step by noise and threads, and by contender."""
    found: dict[str, dict[str, float]] = {}
    for record in records:
        if record["status"] == "ok":
            plural = "" if record["threads"] == 1 else "s"
            name = f"{'poisson' if record['noise'] else 'no'} noise, {record['threads']} thread{plural}"
            found.setdefault(name, {})[record["contender"]] = record["us_per_network_step"]
    return found


def read_records(folder: Path = FOLDER) -> list[dict[str, Any]]:
    """Return the records of all releases, the oldest first."""
    records = [json.loads(path.read_text()) for path in folder.glob("*.json")]
    return sorted(records, key=lambda record: record["machine"]["date"])


def speed_of_limit(record: Mapping[str, Any]) -> dict[str, float]:
    """Return the share of the limit's speed that training reaches, by workload."""
    return {
        workload: times["limit"] / min(times[engine] for engine in times if engine != "limit")
        for workload, times in record["limit"].items()
    }


def ratios(record: Mapping[str, Any]) -> dict[str, float]:
    """Return how many times longer others take than modulab: training steps with two threads, and a whole sweep."""
    found: dict[str, float] = {}
    for condition, times in record["step"].items():
        own = min(times[name] for name in _MODULAB if name in times)
        jax = [times[name] for name in ("jax", "jax_blocked") if name in times]
        if jax:
            found[f"best of JAX, {condition}"] = min(jax) / own
        if "lightning" in times:
            found[f"stock Lightning, {condition}"] = times["lightning"] / own
    sweep = record["sweep"]
    found["sweep: Lightning in one process"] = sweep["Lightning, all runs in one process"] / sweep["modulab"]
    found["sweep: modulab's first"] = sweep["modulab, first time"] / sweep["modulab"]
    return found


def table(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return lines of Markdown with one column per release: how many times longer others take."""
    columns = [ratios(record) for record in records]
    names = list(dict.fromkeys(name for column in columns for name in column))
    limits = [speed_of_limit(record) for record in records]
    lines = [
        "| | " + " | ".join(record["release"] for record in records) + " |",
        "|---" * (len(records) + 1) + "|",
    ]
    lines += [_row(name, [_times(column.get(name)) for column in columns]) for name in names]
    for workload in dict.fromkeys(name for each in limits for name in each):
        shares = [each.get(workload) for each in limits]
        cells = ["" if share is None else f"{1 / share:.2f}" for share in shares]
        lines.append(_row(f"modulab over the limit kernel, {workload}", cells))
    return lines


def _row(name: str, cells: Sequence[str]) -> str:
    return f"| {name} | {' | '.join(cells)} |"


def _times(ratio: float | None) -> str:
    if ratio is None:
        return ""
    return f"{ratio:.1f}" if ratio < 100 else f"{ratio:.0f}"


def draw(records: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw by release how many times longer others take, and how near training comes to the limit kernel."""
    named = [(record["release"], ratios(record), speed_of_limit(record)) for record in records]
    with drawing():
        figure = Figure(figsize=(9.4, 4.0), layout="constrained")
        steps, sweeps_axes, limits = figure.subplots(1, 3)
        _lines(steps, [(release, _of_steps(found)) for release, found, _ in named])
        set_log_axis(steps, "y", 2.0)
        steps.set(ylabel="Time per step, times modulab's", title="Training steps, Poisson noise")
        _lines(sweeps_axes, [(release, _of_sweeps(found)) for release, found, _ in named])
        set_log_axis(sweeps_axes, "y", 2.0)
        sweeps_axes.set(ylabel="Time, times modulab's", title="A sweep of 1,000 networks")
        _lines(limits, [(release, shares) for release, _, shares in named])
        limits.set(ylim=(0, 1.04), ylabel="Share of the limit kernel's speed", title="Limit of one core")
        for axes in (steps, sweeps_axes, limits):
            axes.set_xlabel("Release")
            axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), fontsize=7)
        data = pd.DataFrame(
            [
                {"release": release, "quantity": name, "value": value}
                for release, found, shares in named
                for name, value in (*found.items(), *shares.items())
            ]
        )
    caption = "How many times longer others take than modulab, side by side on one machine, by release."
    save_figures([ReportFigure(path.stem, "Speed by release", caption, figure, data)], path.parent)
    for unused in ("svg", "csv"):  # the JSON files have the numbers
        path.with_suffix(f".{unused}").unlink()


def _lines(axes: Axes, points: Sequence[tuple[str, Mapping[str, float]]]) -> None:
    releases = [release for release, _ in points]
    names = dict.fromkeys(name for _, values in points for name in values)
    for name, colour, marker in zip(names, COLOURS, MARKERS, strict=False):
        heights = [values.get(name, math.nan) for _, values in points]
        axes.plot(range(len(releases)), heights, color=colour, marker=marker, label=name)
    axes.set_xticks(range(len(releases)), releases)
    axes.margins(x=0.2)


def _of_steps(found: Mapping[str, float]) -> dict[str, float]:
    noisy = {name: value for name, value in found.items() if "Poisson noise" in name}
    return {name.replace("Poisson noise, ", ""): value for name, value in noisy.items()}


def _of_sweeps(found: Mapping[str, float]) -> dict[str, float]:
    return {
        "Lightning in one process": found["sweep: Lightning in one process"],
        "modulab, nothing compiled yet": found["sweep: modulab's first"],
    }
