"""Does the range of two sources predict whether an efficient code mixes them? See scripts/range."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

import modulab
from modulab.report.figure import ReportFigure, save_figures
from modulab.report.style import COLOURS, drawing
from modulab.tasks.sources import mixing_margins

POINTS = 32
STRATA = 6
"""Of sets that are predicted to be mixed, of equal numbers of sets, besides those predicted to be kept apart."""
ROUNDING = 1e-9
MIXED = 10.0
"""Degrees from which on a code counts as mixed."""
REPLICATES = 1000


def choose_sets(sets: int, per_stratum: int) -> pd.DataFrame:
    """Return source sets spread evenly over strata of the margin, the first of each stratum."""
    drawn = pd.DataFrame(
        {"source_seed": range(sets), "margin": mixing_margins(list(range(sets)), POINTS, 1024)}
    )
    apart = drawn["margin"] > -ROUNDING
    mixed = drawn[~apart]
    drawn["stratum"] = 0
    drawn.loc[mixed.index, "stratum"] = 1 + pd.qcut(-mixed["margin"], STRATA, labels=False)
    print(f"{apart.sum()} of {sets} source sets are predicted to be kept apart.")
    return drawn.groupby("stratum").head(per_stratum).reset_index(drop=True)


def auc_with_interval(margins: np.ndarray, mixed: np.ndarray) -> tuple[float, float, float]:
    """Return the area under the curve by which the margin tells mixed codes from others, with a bootstrap interval."""
    random = np.random.default_rng(0)
    values: list[float] = []
    while len(values) < REPLICATES:
        drawn = random.integers(len(mixed), size=len(mixed))
        if 0 < mixed[drawn].sum() < len(mixed):
            values.append(float(roc_auc_score(mixed[drawn], -margins[drawn])))
    low, high = np.quantile(values, [0.025, 0.975])
    return float(roc_auc_score(mixed, -margins)), float(low), float(high)


def draw(rows: pd.DataFrame, folder: Path) -> str:
    """Draw margin against mixing angle; return what the figure says in a sentence."""
    margins, angles = rows["sources/margin"].to_numpy(), rows["sources/mixing_angle"].to_numpy()
    mixed = angles > MIXED
    correlation = float(spearmanr(margins, angles).statistic)
    sentence = f"Rank correlation of margin and angle {correlation:.2f}."
    if 0 < mixed.sum() < len(mixed):
        area, low, high = auc_with_interval(margins, mixed)
        sentence = (
            f"Margin tells mixed codes from others with AUC {area:.3f} [{low:.3f}, {high:.3f}]. {sentence}"
        )
    with drawing():
        figure = Figure(figsize=(5.2, 3.6), layout="constrained")
        axes = figure.add_subplot()
        axes.axhline(MIXED, color="0.6", linewidth=0.8, linestyle="--")
        axes.scatter(-margins, angles, s=14, color=COLOURS[0], alpha=0.7, linewidth=0)
        axes.set(
            xlabel="Predicted mixing: -margin of the source set (0: kept apart)",
            ylabel="Largest mixing angle (degrees)",
            ylim=(-1, 46),
        )
    columns = {
        "config.task.source_seed": "source_seed",
        "sources/margin": "margin",
        "sources/mixing_angle": "angle",
    }
    data = rows[list(columns)].rename(columns=columns)
    save_figures([ReportFigure("range", "Range of sources and mixing", sentence, figure, data)], folder)
    return sentence


def main() -> int:
    """Choose, train, draw."""
    parser = argparse.ArgumentParser(prog="scripts/range", description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=Path("outputs/range"))
    parser.add_argument("--sets", type=int, default=100_000, help="source sets to choose from")
    parser.add_argument(
        "--per-stratum", type=int, default=24, help="source sets to train in each stratum of the margin"
    )
    options, overrides = parser.parse_known_args()
    chosen = choose_sets(options.sets, options.per_stratum)
    grid = f"population.grid={{task.source_seed: {chosen['source_seed'].tolist()}}}"
    results = modulab.train(["experiment=range", grid, *overrides], folder=options.folder)
    print(draw(results.table[results.table["status"] == "completed"], options.folder))
    print(f"Figure: {options.folder / 'range.png'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
