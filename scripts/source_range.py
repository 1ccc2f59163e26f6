"""Does the range of two sources predict whether an efficient code mixes them? See scripts/range."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from given_overrides import answer, read_given, with_given
from matplotlib.figure import Figure
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

import modulab
from modulab.arguments import ArgumentParser
from modulab.report.figure import ReportFigure, save_figures
from modulab.report.style import COLOURS, drawing
from modulab.tasks.sources import mixing_margins

POINTS = 32
STRATA = 6
"""Of sets that are predicted to be mixed, with equal numbers of sets."""
APART = 1e-9
"""Margins closer to 0 are 0 but for rounding: the sources are predicted to be kept apart."""
MIXED = 10.0
"""Degrees from which on a code counts as mixed."""
REPLICATES = 1000


def choose_sets(sets: int, per_stratum: int) -> tuple[list[int], list[int]]:
    """Return source sets spread evenly over strata of the margin, and as many with all corners that are kept apart."""
    margins = pd.Series(mixing_margins(list(range(sets)), POINTS).numpy())
    strata = pd.qcut(-margins, STRATA, labels=False)
    mixed = margins.index.to_series().groupby(strata).head(per_stratum).tolist()
    corners = mixing_margins(list(range(4 * STRATA * per_stratum)), POINTS, corners=4)
    apart = torch.nonzero(corners > -APART).flatten().tolist()
    print(f"{(margins > -APART).sum()} of {sets} random source sets are predicted to be kept apart,")
    print(f"and {len(apart)} of {len(corners)} that have the corners of their square.")
    return mixed, apart[: STRATA * per_stratum]


def auc_with_interval(margins: np.ndarray, mixed: np.ndarray) -> tuple[float, float, float]:
    """Return the AUC with which the margin separates mixed codes from others, with a bootstrap interval."""
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
        sentence = f"Margin separates mixed codes from others with AUC {area:.3f} [{low:.3f}, {high:.3f}]. {sentence}"
    with drawing():
        figure = Figure(figsize=(5.2, 4.0), layout="constrained")
        axes = figure.add_subplot()
        axes.axhline(MIXED, color="0.6", linewidth=0.8, linestyle="--")
        for place, (corners, name) in enumerate(
            ((0, "random points"), (4, "random points and the four corners"))
        ):
            shown = (rows["config.task.corners"] == corners).to_numpy()
            axes.scatter(
                -margins[shown], angles[shown], s=14, color=COLOURS[place], marker="os"[place], alpha=0.7, linewidth=0,
                label=name,
            )  # fmt: skip
        figure.legend(title="Source set", loc="outside lower center", ncols=2)
        axes.set(
            xlabel="Predicted mixing: minus the margin of the source set (0: apart)",
            ylabel="Largest mixing angle (degrees)",
            ylim=(-1, 46),
        )
    columns = {
        "config.task.source_seed": "source_seed",
        "config.task.corners": "corners",
        "sources/margin": "margin",
        "sources/mixing_angle": "angle",
    }
    data = rows[list(columns)].rename(columns=columns)
    save_figures([ReportFigure("range", "Range of sources and mixing", sentence, figure, data)], folder)
    return sentence


def main() -> int:
    """Choose, train, draw."""
    parser = ArgumentParser(prog="scripts/range", description=__doc__)
    parser.add_argument("--sets", type=int, default=100_000, help="source sets to choose from")
    parser.add_argument(
        "--per-stratum", type=int, default=24, help="source sets to train in each stratum of the margin"
    )
    options, overrides = read_given(parser, "outputs/range")
    mixed, apart = choose_sets(options.sets, options.per_stratum)
    grid = (
        f"population.grid=[{{task.source_seed: {mixed}}}, {{task.source_seed: {apart}, task.corners: [4]}}]"
    )
    results = modulab.train(with_given(["experiment=range", grid], overrides), folder=options.folder)
    print(draw(results.table[results.table["status"] == "completed"], options.folder))
    print(f"Figure: {options.folder / 'range.png'}")
    return 0


if __name__ == "__main__":
    sys.exit(answer(main))
