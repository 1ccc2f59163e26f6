"""Do goals that share subgoals and take turns make networks modular? And must a good network be? See scripts/retina."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from given_overrides import answer, read_given, with_given
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from one_fit import packed_against_one_fit
from scipy import stats

import modulab
from modulab.arguments import ArgumentParser
from modulab.report.archive_figure import archive_sentence, draw_archive
from modulab.report.figure import ReportFigure, save_figures
from modulab.report.style import COLOURS, MARKERS, drawing, measure_label
from modulab.results.intervals import mean_interval
from modulab.sweep.archive import ReadArchive, read_archive

EXCESS, UNITS = "modularity/input_specialisation_excess", "activity/active_units"
ERROR, NOISY = "error/test", "error_under/poisson@1"
ARMS = {
    "fixed goal": ("fixed", None),
    "modularly varying, 20 steps": ("modular", 1280),
    "modularly varying, 180 steps": ("modular", 11520),
    "randomly varying, 20 steps": ("random", 1280),
    "randomly varying, 180 steps": ("random", 11520),
}
"""Goals, and the points of a period; steps have 64 points."""
COSTS = {
    "none": (0.0, 0.0), "noise .2": (0.2, 0.0), "noise .5": (0.5, 0.0), "l1 3e-4": (0.0, 3e-4),
    "l1 1e-3": (0.0, 1e-3),
}  # fmt: skip
"""What networks pay for: Poisson noise of a scale, and connections at a strength."""
SEARCH = [
    "hydra/sweeper=evolve", f"sweep.objective=[{NOISY},{EXCESS},{UNITS}]",
    "hydra.sweeper.sampler.ranges=[[-0.1,0.75],[0,32]]", "hydra.sweeper.sampler.cells=[10,16]",
    "hydra.sweeper.n_jobs=48", "hydra.sweeper.sampler.initial=48", "experiment=retina", "population.grid=[]",
    "population.seeds=2", "noise.scale=interval(0,1)", "regulariser=l1",
    "regulariser.strength=tag(log,interval(1e-6,3e-2))", "architecture.initial_scale=tag(log,interval(0.1,10))",
    "training.steps=2020", "training.curve_every=505",
]  # fmt: skip
"""Of an archive: whole generations train together."""


def arm_of(rows: pd.DataFrame, arm: str, cost: str) -> pd.DataFrame:
    """Return the rows of an arm, by seed."""
    goals, period = ARMS[arm]
    noise, strength = COSTS[cost]
    chosen = (rows["config.task.goals"] == goals) & np.isclose(rows["config.noise.scale"], noise)
    if period is not None:
        chosen &= rows["config.task.goal_period"] == period
    return rows[chosen & np.isclose(rows["config.regulariser.strength"], strength)].sort_values("config.seed")


def interval_text(values: np.ndarray) -> str:
    """Return a mean with its interval over seeds."""
    low, high = mean_interval(values[:, None])
    return f"{values.mean():.3f} [{low[0]:.3f}, {high[0]:.3f}]"


def report_arms(rows: pd.DataFrame) -> None:
    """Print each arm, and how it differs from the fixed goal at the same seeds."""
    for cost in COSTS:
        fixed = arm_of(rows, "fixed goal", cost)[EXCESS].to_numpy(dtype=float)
        for arm in ARMS:
            own = arm_of(rows, arm, cost)
            excess, error = (own[name].to_numpy(dtype=float) for name in (EXCESS, ERROR))
            text = f"{cost}, {arm}: excess {interval_text(excess)}, error {interval_text(error)}"
            if arm != "fixed goal" and len(excess) == len(fixed):
                text += f"; excess less that of the fixed goal {interval_text(excess - fixed)}"
            print(text)


def report_archive(archive: ReadArchive) -> None:
    """Print how the error under noise of elites goes with their excess, at equal numbers of active units."""
    table = archive.table.dropna(subset=[NOISY])
    correlations = [
        float(stats.spearmanr(own[EXCESS], own[NOISY]).statistic)
        for _, own in table.groupby(f"{UNITS}:low")
        if len(own) > 2 and own[NOISY].nunique() > 1
    ]
    if correlations:
        shown = ", ".join(f"{each:.2f}" for each in correlations)
        print(
            f"Rank correlation of excess and error under noise, by rows of active units: {shown}; "
            f"mean {np.mean(correlations):.2f}"
        )


def draw(rows: pd.DataFrame, archive: ReadArchive, folder: Path) -> None:
    """Draw excess and error of each arm, and the archive."""
    with drawing():
        figure = Figure(figsize=(11, 3.9), layout="constrained")
        first, second, third = figure.subplots(1, 3)
        _draw_arms(first, rows, EXCESS)
        _draw_arms(second, rows, ERROR)
        second.set_yscale("symlog", linthresh=1e-3)
        second.set_ylim(-3e-4, 0.4)
        second.set_yticks([0, 1e-3, 1e-2, 1e-1], ["0", "0.001", "0.01", "0.1"])
        second.minorticks_off()
        figure.legend(*first.get_legend_handles_labels(), loc="outside upper left", ncols=3)
        draw_archive(third, archive)
    columns = {
        "config.seed": "seed", "config.task.goals": "goals", "config.task.goal_period": "goal_period",
        "config.noise.scale": "noise",
        "config.regulariser.strength": "l1", EXCESS: "excess", ERROR: "error", UNITS: "active_units",
    }  # fmt: skip
    data = rows[list(columns)].rename(columns=columns)
    caption = (
        "Specialisation to the sides of the retina beyond that to random halves, and error on left AND right, every "
        f"network and means with 95% intervals. {archive_sentence(archive)}"
    )
    save_figures([ReportFigure("retina", "Goals that vary on the retina", caption, figure, data)], folder)


def _draw_arms(axes: Axes, rows: pd.DataFrame, measure: str) -> None:
    for number, arm in enumerate(ARMS):
        places = np.arange(len(COSTS)) + (number - 2) * 0.16
        for place, cost in zip(places, COSTS, strict=True):
            values = arm_of(rows, arm, cost)[measure].to_numpy(dtype=float)
            if not len(values):
                continue
            axes.plot(
                np.full(len(values), place), values, MARKERS[number], ms=3, mew=0, alpha=0.35,
                color=COLOURS[number],
            )  # fmt: skip
            low, high = mean_interval(values[:, None])
            axes.plot([place] * 2, [low[0], high[0]], color=COLOURS[number], lw=1.2)
            axes.plot(
                [place], [values.mean()], MARKERS[number], ms=6, mec="white", mew=0.8, color=COLOURS[number],
                label=arm if cost == "none" else None,
            )  # fmt: skip
    axes.set_xticks(range(len(COSTS)), list(COSTS), rotation=30)
    axes.set_xlabel("Poisson noise, or l1 penalty, in training")
    axes.set_ylabel(measure_label(measure))


def main() -> int:
    """Train, search, compare, draw."""
    parser = ArgumentParser(prog="scripts/retina", description=__doc__)
    parser.add_argument("--seeds", type=int, default=16, help="seeds of each arm")
    parser.add_argument("--trials", type=int, default=480, help="trials of the archive")
    options, overrides = read_given(parser, "outputs/retina")
    asked = with_given(["experiment=retina", f"population.seeds={options.seeds}"], overrides)
    results = modulab.train(asked, folder=options.folder / "goals")
    rows = results.table[results.table["status"] == "completed"]
    elites = options.folder / "elites"
    search = with_given(
        [*SEARCH, f"hydra.sweeper.n_trials={options.trials}", f"hydra.sweep.dir={elites}"], overrides
    )
    subprocess.run([sys.executable, "-m", "modulab.cli", "train", "-m", *search], check=True)
    archive = read_archive(elites)
    assert archive is not None
    report_arms(rows)
    report_archive(archive)
    draw(rows, archive, options.folder)
    print(packed_against_one_fit(rows, ["experiment=retina", *overrides]))
    print(f"Figure: {options.folder / 'retina.png'}")
    return 0


if __name__ == "__main__":
    sys.exit(answer(main))
