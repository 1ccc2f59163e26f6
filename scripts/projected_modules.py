"""How many points does a network need where each module of its task reads few of many inputs? See scripts/scaling."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
from given_overrides import answer, read_given, with_given
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from one_fit import packed_against_one_fit
from scipy.stats import spearmanr

import modulab
from modulab.arguments import ArgumentParser
from modulab.report.figure import ReportFigure, save_figures
from modulab.report.style import COLOURS, MARKERS, drawing

FEATURES = [4, 8, 16, 32]
POINTS = [64, 128, 256, 512, 1024, 2048, 4096]
LEVEL = 0.5
"""Points are counted until the error falls to this share of the variance of the target."""
ARMS = {
    "dense": "dense",
    "random": "modules, trained projections",
    "kernel": "modules, kernel-aligned first",
    "known": "modules, known projections",
}
SIZES = {8: "-", 16: "--", 32: ":"}
"""Numbers of inputs for which projections found are drawn, and how their lines are."""
SHOWN = 16
"""The number of inputs for which errors are drawn."""


def grid(points: list[int]) -> str:
    """Return the grid of all arms."""
    sizes = f"task.features: {FEATURES}, data.num_samples: {points}"
    parts = [
        f"{{{sizes}, architecture.projections: [random, kernel]}}",
        f"{{{sizes}, architecture.projections: [known], architecture.train_projections: [false]}}",
        f"{{{sizes}, architecture: [dense], architecture.width: [64], architecture.depth: [2]}}",
    ]
    return f"population.grid=[{', '.join(parts)}]"


def mean_errors(rows: pd.DataFrame) -> pd.DataFrame:
    """Return mean errors, and shares of projections found, by arm, number of inputs and number of points."""
    groups = rows.groupby(["arm", "config.task.features", "config.data.num_samples"])
    return groups[["error/test", "projections/found"]].mean()


def points_needed(errors: pd.Series) -> float:
    """Return where errors by number of points first fall to `LEVEL`, between points on logarithmic scales.

    NaN if they never do, and the least number if they are below it from there on.
    """
    below = np.flatnonzero((errors <= LEVEL).to_numpy())
    if not len(below):
        return np.nan
    place = int(below[0])
    points, values = np.log(errors.index.to_numpy(dtype=float)), np.log(errors.to_numpy(dtype=float))
    if place == 0:
        return float(np.exp(points[0]))
    share = (values[place - 1] - np.log(LEVEL)) / (values[place - 1] - values[place])
    return float(np.exp(points[place - 1] + share * (points[place] - points[place - 1])))


def needed_by_arm(means: pd.DataFrame) -> pd.DataFrame:
    """Return the points needed, a row per arm and a column per number of inputs."""
    found = {
        arm: {size: points_needed(means.loc[(arm, size), "error/test"]) for size in FEATURES} for arm in ARMS
    }
    return pd.DataFrame(found).T


def report(rows: pd.DataFrame, means: pd.DataFrame, needed: pd.DataFrame) -> None:
    """Print means that predictions are about."""
    for arm, words in ARMS.items():
        for size in FEATURES:
            own = means.loc[(arm, size)]
            errors = ", ".join(f"{value:.3f}" for value in own["error/test"])
            line = f"{words}, {size} inputs: errors {errors}; points needed {needed.loc[arm, size]:.0f}"
            if arm in ("random", "kernel"):
                shares = ", ".join(f"{value:.2f}" for value in own["projections/found"])
                line += f"; projections found {shares}"
            print(line)
    own = rows[rows["arm"].isin(["random", "kernel"])]
    found = spearmanr(own["projections/found"], own["error/test"])
    print(f"rank correlation of projections found and error: {found.statistic:.2f}")


def draw(rows: pd.DataFrame, means: pd.DataFrame, needed: pd.DataFrame, folder: Path) -> None:
    """Draw points needed against inputs, errors against points, and projections found."""
    with drawing():
        figure = Figure(figsize=(10.2, 3.7), layout="constrained")
        first, second, third = figure.subplots(1, 3)
        _draw_needed(first, needed, most=1.4 * rows["config.data.num_samples"].max())
        for place, arm in enumerate(ARMS):
            own = means.loc[(arm, SHOWN), "error/test"]
            second.plot(own.index, own, color=COLOURS[place], marker=MARKERS[place], markersize=4)
        second.axhline(LEVEL, color="0.6", linestyle=":")
        second.set(
            xscale="log", yscale="log", xlabel="Training points", ylabel="Test error / variance of the target"
        )
        second.set_title(f"{SHOWN} inputs", loc="left")
        for place, arm in ((1, "random"), (2, "kernel")):
            for size, line in SIZES.items():
                own = means.loc[(arm, size), "projections/found"]
                third.plot(own.index, own, line, color=COLOURS[place])
        third.set(
            xscale="log", xlabel="Training points", ylabel="Share of projections found", ylim=(-0.05, 1.05)
        )
        third.legend(
            handles=[
                Line2D([], [], color="0.3", ls=line, label=f"{size} inputs") for size, line in SIZES.items()
            ]
        )
        handles, names = first.get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower center", ncols=len(names))
        for axes in (second, third):
            axes.set_xticks([64, 256, 1024, 4096], ["64", "256", "1,024", "4,096"])
            axes.minorticks_off()
        second.set_yticks([0.03, 0.1, 0.3, 1, 3], ["0.03", "0.1", "0.3", "1", "3"])
    columns = {
        "arm": "arm", "config.task.features": "inputs", "config.data.num_samples": "points", "config.seed": "seed",
        "error/test": "error", "projections/alignment": "alignment", "projections/found": "found",
    }  # fmt: skip
    caption = (
        f"Left: training points until the error is {LEVEL:g} of the target's variance, by number of inputs, of which "
        "three modules read one direction each; 64 stands for fewer, and open marks for more than were tried."
    )
    data = rows[list(columns)].rename(columns=columns)
    save_figures([ReportFigure("scaling", "Points needed by inputs", caption, figure, data)], folder)


def _draw_needed(axes: Axes, needed: pd.DataFrame, most: float) -> None:
    for place, (arm, words) in enumerate(ARMS.items()):
        own = needed.loc[arm]
        axes.plot(
            FEATURES, own.fillna(most), color=COLOURS[place], marker=MARKERS[place], markersize=4, label=words,
        )  # fmt: skip
        missing = own[own.isna()]
        axes.plot(
            missing.index, [most] * len(missing), MARKERS[place], color=COLOURS[place], markersize=5,
            markerfacecolor="white", zorder=3,
        )  # fmt: skip
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="Number of inputs m",
        ylabel="Training points needed",
        ylim=(50, 12_000),
    )
    axes.set_xticks(FEATURES, [str(size) for size in FEATURES])
    axes.set_yticks([64, 256, 1024, 4096], ["64", "256", "1,024", "4,096"])
    axes.minorticks_off()


def main() -> int:
    """Train, count, draw."""
    parser = ArgumentParser(prog="scripts/scaling", description=__doc__)
    parser.add_argument("--points", type=int, nargs="+", default=POINTS, help="numbers of training points")
    options, overrides = read_given(parser, "outputs/scaling")
    results = modulab.train(
        with_given(["experiment=projected", grid(options.points)], overrides), folder=options.folder
    )
    rows = results.table[results.table["status"] == "completed"]
    dense = rows["config.architecture.name"] == "dense"
    rows = rows.assign(arm=rows["config.architecture.projections"].where(~dense, "dense"))
    means = mean_errors(rows)
    needed = needed_by_arm(means)
    report(rows, means, needed)
    draw(rows, means, needed, options.folder)
    print(packed_against_one_fit(rows, ["experiment=projected", *overrides]))
    print(f"Figure: {options.folder / 'scaling.png'}")
    return 0


if __name__ == "__main__":
    sys.exit(answer(main))
