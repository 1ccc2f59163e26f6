"""How many of its units does a dense network need for a single input? See scripts/experts."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
from given_overrides import answer, read_given
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter
from one_fit import packed_against_one_fit
from scipy.stats import spearmanr

import modulab
from modulab.arguments import ArgumentParser
from modulab.report.figure import ReportFigure, save_figures
from modulab.report.style import COLOURS, MARKERS, drawing

SHARES = [0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875]
ROUTERS = {
    "oracle": "oracle",
    "trained": "trained, linear",
    "mean_row": "mean row",
    "input_norm": "norm of what is read",
}
ARMS = {"dense": "no noise", "noise": "noise 0.4", "regulariser": "regulariser", "premodular": "premodular"}
_ARM_COLOURS = (*COLOURS[4:7], "0.6")
"""Others than those of routers."""
_MARKERS = {2: "o", 4: "s"}
"""By the number of modules of the task."""
LEAST = 1e-5
"""Rises are drawn from here on; some of less are sampling error, and negative."""


def arms(rows: pd.DataFrame) -> pd.Series:
    """Return which of `ARMS` each row belongs to."""
    found = np.select(
        [
            rows["config.architecture.name"] == "premodular",
            rows["config.regulariser.strength"] > 0,
            rows["config.noise.scale"] > 0,
        ],
        ["premodular", "regulariser", "noise"],
        "dense",
    )
    return pd.Series(found, rows.index, name="arm")


def report(rows: pd.DataFrame) -> None:
    """Print means that predictions are about."""
    for (modules, arm), own in rows.groupby(["config.task.modules", "arm"]):
        mean = own.mean(numeric_only=True)
        half, random = mean["route/rise_oracle@0.5"], mean["route/rise_random_oracle@0.5"]
        others = ", ".join(
            f"{name} {mean[f'route/rise_{name}@0.5'] / half:.3g}" for name in ROUTERS if name != "oracle"
        )
        print(
            f"{modules} modules, {ARMS[arm]}: error {mean['error/test']:.4f}, structural excess "
            f"{mean['modularity/structural_excess']:.2f}; half of the experts by the oracle {half:.5f}, of random ones "
            f"{random:.5f}, ratio {half / random:.3f}; a quarter {mean['route/rise_oracle@0.25'] / half:.3g} times a "
            f"half; other routers over the oracle: {others}; by co-activity over by weights "
            f"{mean['by_activity/rise_oracle@0.5'] / half:.2f}; richest expert {mean['enrichment/times']:.2f}, of "
            f"random ones {mean['enrichment/times_random']:.2f}, experts enriched {mean['enrichment/share']:.2f}"
        )
    for modules, own in rows[rows["arm"] != "premodular"].groupby("config.task.modules"):
        found = spearmanr(own["modularity/structural_excess"], own["ratio"])
        print(f"{modules} modules: rank correlation of structural excess and ratio {found.statistic:.2f}")


def draw(rows: pd.DataFrame, folder: Path) -> None:
    """Draw rises against shares without and with noise, and how modularity by task goes with them."""
    with drawing():
        figure = Figure(figsize=(10.4, 4.1), layout="constrained")
        first, second, third = figure.subplots(1, 3)
        for axes, arm in ((first, "dense"), (second, "noise")):
            _draw_rises(axes, rows[(rows["arm"] == arm) & (rows["config.task.modules"] == 2)])
            axes.set_title(f"Dense, {ARMS[arm]}", loc="left")
        second.sharey(first)
        first.set_ylabel("Rise of mean squared error")
        handles, names = first.get_legend_handles_labels()
        figure.legend(handles, names, title="Experts kept by", loc="outside lower left", ncols=3)
        _draw_modularity(third, rows)
        third.set_title("Half of the experts", loc="left")
        handles, names = third.get_legend_handles_labels()
        figure.legend(handles, names, title="Networks", loc="outside lower right", ncols=3)
    kept = [name for name in rows if str(name).startswith(("route/rise", "by_activity/rise", "enrichment/"))]
    columns = {
        "config.task.modules": "modules", "arm": "arm", "seed": "seed", "error/test": "error",
        "modularity/structural_excess": "structural_excess",
    }  # fmt: skip
    data = rows.rename(columns={"config.seed": "seed"})[[*columns, *kept]].rename(columns=columns)
    caption = (
        "Rise of test error where each input keeps a share of 8 experts, of two modules; dashed: random experts of the "
        "same sizes, chosen by the oracle. Right: the rise with half of the experts, by "
        "the oracle, over that with random ones."
    )
    save_figures([ReportFigure("experts", "Experts from dense networks", caption, figure, data)], folder)


def _draw_rises(axes: Axes, rows: pd.DataFrame) -> None:
    for place, (name, words) in enumerate(ROUTERS.items()):
        means = [max(LEAST, rows[f"route/rise_{name}@{share:g}"].mean()) for share in SHARES]
        axes.plot(SHARES, means, color=COLOURS[place], marker=MARKERS[place], markersize=4, label=words)
    random = [rows[f"route/rise_random_oracle@{share:g}"].mean() for share in SHARES]
    axes.plot(SHARES, random, color="0.4", linestyle="--", label="oracle, random experts")
    axes.set(xlabel="Share of experts kept", yscale="log", xticks=[0.25, 0.5, 0.75])
    axes.yaxis.set_major_formatter(FuncFormatter(_rise_in_words))


def _rise_in_words(value: float, _: int) -> str:
    """Return the label of a tick; rises that are drawn at the least one may be smaller."""
    text = np.format_float_positional(float(f"{value:.3g}"), trim="-")
    return f"\N{LESS-THAN OR EQUAL TO} {text}" if np.isclose(value, LEAST, atol=0) else text


def _draw_modularity(axes: Axes, rows: pd.DataFrame) -> None:
    for place, arm in enumerate(ARMS):
        for modules, marker in _MARKERS.items():
            own = rows[(rows["arm"] == arm) & (rows["config.task.modules"] == modules)]
            axes.scatter(
                own["modularity/structural_excess"], own["ratio"].clip(lower=1e-4), s=14, alpha=0.7, linewidth=0,
                color=_ARM_COLOURS[place], marker=marker,
            )  # fmt: skip
    axes.set(
        xlabel="Excess of structural modularity", ylabel="Rise / rise with random experts", yscale="log",
    )  # fmt: skip
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    for arm, colour in zip(ARMS.values(), _ARM_COLOURS, strict=True):
        axes.plot([], [], "o", color=colour, markersize=4, label=arm)
    for modules, marker in _MARKERS.items():
        axes.plot([], [], marker, color="0.3", markersize=4, ls="", label=f"{modules} modules")


def main() -> int:
    """Train, cut, route, draw."""
    parser = ArgumentParser(prog="scripts/experts", description=__doc__)
    options, overrides = read_given(parser, "outputs/experts")
    modulab.train(["experiment=dense_experts", *overrides], folder=options.folder)
    settings = [
        f"{name}.{field}"
        for name in ("route", "by_activity")
        for field in (f"shares={SHARES}", "partitions=10")
    ]
    results = modulab.analyse(
        options.folder,
        ["route", "by_activity=route", "enrichment"],
        [*settings, "by_activity.labels.rows=modulab.analysis.balanced.co_activity"],
    )
    rows = results[results["status"] == "completed"]
    rows = rows.assign(
        arm=arms(rows), ratio=rows["route/rise_oracle@0.5"] / rows["route/rise_random_oracle@0.5"]
    )
    report(rows)
    draw(rows, options.folder)
    print(packed_against_one_fit(rows, ["experiment=dense_experts", *overrides]))
    print(f"Figure: {options.folder / 'experts.png'}")
    return 0


if __name__ == "__main__":
    sys.exit(answer(main))
