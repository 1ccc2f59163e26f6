"""How few observations does a causal model need after one mechanism has changed? See scripts/adaptation."""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd
from given_overrides import answer, read_given, with_given
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter
from one_fit import packed_against_one_fit

import modulab
from modulab.arguments import ArgumentParser
from modulab.report.figure import ReportFigure, save_figures
from modulab.report.style import COLOURS, MARKERS, drawing

OBSERVATIONS = [16, 32, 64, 128]
ARMS = {
    "causal order, the changed one": ("causal", 2),
    "causal order, all": ("causal", None),
    "reversed order, all": ("reversed", None),
    "reversed order, the changed one": ("reversed", 3),
}
"""Which conditionals are updated; variable 2 of 4 is the third in reversed order."""


def grid() -> str:
    """Return the grid of all arms."""
    shared = f"task.mechanism_seed: [0, 1, 2, 3], task.observations: {OBSERVATIONS}"
    arms = [
        f"{{{shared}, task.order: [{order}], architecture.updated: [{'null' if updated is None else updated}]}}"
        for order, updated in ARMS.values()
    ]
    return f"population.grid=[{', '.join(arms)}]"


def arm_of(rows: pd.DataFrame, arm: str) -> pd.DataFrame:
    """Return the rows of an arm."""
    order, updated = ARMS[arm]
    column = rows["config.architecture.updated"]
    chosen = column.isna() if updated is None else column == updated
    return rows[(rows["config.task.order"] == order) & chosen]


def draw(rows: pd.DataFrame, folder: Path) -> None:
    """Draw mean divergences against observations, with the closed form as lines."""
    with drawing():
        figure = Figure(figsize=(7.4, 3.4), layout="constrained")
        axes = figure.add_subplot()
        for place, arm in enumerate(ARMS):
            means = arm_of(rows, arm).groupby("config.task.observations").mean(numeric_only=True)
            style = {"color": COLOURS[place]}
            axes.plot(means.index, means["adaptation/expected"], linewidth=1, **style)
            axes.plot(
                means.index, means["adaptation/divergence"], MARKERS[place], markersize=9 - 2 * place, label=arm,
                **style,
            )  # fmt: skip
        axes.set(
            xscale="log", yscale="log", xlabel="Observations after the change", ylabel="Divergence (nats)",
            xticks=OBSERVATIONS, xticklabels=OBSERVATIONS,
        )  # fmt: skip
        axes.minorticks_off()
        # Not as powers of ten in mathematical text, which figures show as it is written.
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        figure.legend(loc="outside right upper", title="Updated (lines: closed form)")
    columns = {
        "config.task.order": "order", "config.architecture.updated": "updated",
        "config.task.observations": "observations", "config.task.mechanism_seed": "mechanism_seed",
        "adaptation/divergence": "divergence", "adaptation/expected": "expected", "adaptation/before": "before",
    }  # fmt: skip
    data = rows[list(columns)].rename(columns=columns)
    caption = "Divergence after adaptation; lines are its expectation in closed form."
    save_figures([ReportFigure("adaptation", "Adaptation of causal models", caption, figure, data)], folder)


def main() -> int:
    """Train, compare, draw."""
    parser = ArgumentParser(prog="scripts/adaptation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=32, help="data sets of each arm; default %(default)s")
    options, overrides = read_given(parser, "outputs/adaptation")
    asked = with_given(["experiment=adaptation", f"population.seeds={options.seeds}", grid()], overrides)
    results = modulab.train(asked, folder=options.folder)
    rows = results.table[results.table["status"] == "completed"]
    for arm in ARMS:
        for observations, own in arm_of(rows, arm).groupby("config.task.observations"):
            found, expected = own["adaptation/divergence"].mean(), own["adaptation/expected"].mean()
            print(
                f"{arm}, {observations} observations: {found:.4f} nats, expected {expected:.4f}, ratio "
                f"{found / expected:.2f}; least {own['adaptation/divergence'].min():.4f}"
            )
    draw(rows, options.folder)
    print(packed_against_one_fit(rows, ["experiment=adaptation", *overrides]))
    print(f"Figure: {options.folder / 'adaptation.png'}")
    return 0


if __name__ == "__main__":
    sys.exit(answer(main))
