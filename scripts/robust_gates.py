"""Do trained gates reach the exact value of their game, and does seeing the symbol help? See scripts/gates."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pandas as pd
import torch
from given_overrides import answer, read_given, with_given
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from one_fit import packed_against_one_fit

import modulab
from modulab.arguments import ArgumentParser
from modulab.metrics.capacity import channel_capacity
from modulab.report.figure import ReportFigure, save_figures
from modulab.report.style import COLOURS, drawing

ERRORS = [0.0, 0.5, 1.0, 2.0]
KNOWN = {
    "equal domains: 0": [[0.5, 0.5], [0.5, 0.5]],
    "binary symmetric, .1: ln 2 - H(.1)": [[0.9, 0.1], [0.1, 0.9]],
    "Z-channel: ln 5/4": [[1.0, 0.0], [0.5, 0.5]],
    "disjoint domains: ln 2": [[1.0, 0.0], [0.0, 1.0]],
}
"""Channels of two domains and two symbols, by their capacity."""
ARMS = {
    "constant gate, given experts": ("given", "constant"),
    "gate that sees symbols, given experts": ("given", "symbol"),
    "gate that sees symbols, trained experts": ("trained", "symbol"),
}
CONSTANT = next(iter(ARMS))


def grid_of(channels: int) -> str:
    """Return the grid: given experts with all errors, trained ones, and the channels of known capacity."""
    seeds = list(range(channels))
    gates = "architecture.gate: [constant, symbol]"
    known = f"{{task.channel: {list(KNOWN.values())}, task.modules: [2], task.symbols: [2], {gates}}}"
    given = f"{{task.channel_seed: {seeds}, task.expert_error: {ERRORS}, {gates}}}"
    return f"population.grid=[{given}, {{task.channel_seed: {seeds}, architecture.densities: [trained]}}, {known}]"


def arm_of(rows: pd.DataFrame, arm: str) -> pd.DataFrame:
    """Return the rows of an arm on random channels."""
    densities, gate = ARMS[arm]
    chosen = (rows["config.architecture.densities"] == densities) & (rows["config.architecture.gate"] == gate)
    return rows[chosen & (rows["config.task.symbols"] > 2)]


def report_known(rows: pd.DataFrame) -> None:
    """Print what gates reach on the channels of known capacity."""
    small = rows[rows["config.task.symbols"] == 2]
    for name, channel in KNOWN.items():
        found = small[small["config.task.channel"].map(lambda text, own=channel: read_channel(text) == own)]
        exact = float(channel_capacity(torch.tensor([channel]))[0])
        worst = found["error/worst_domain"].tolist()
        print(f"{name}, {exact:.6f}: trained gates {', '.join(f'{value:.6f}' for value in worst)}")


def read_channel(text: object) -> object:
    """Return a channel as a config has it from a column of results."""
    return json.loads(text) if isinstance(text, str) else text


def draw(rows: pd.DataFrame, folder: Path) -> str:
    """Draw trained against exact divergences, what errors of experts cost, and alignment; return what they say."""
    with drawing():
        figure = Figure(figsize=(9.6, 3.5), layout="constrained")
        first, second, third = figure.subplots(1, 3)
        _draw_reached(first, rows)
        _draw_costs(second, rows)
        _draw_alignment(third, rows)
        figure.legend(
            *first.get_legend_handles_labels(), loc="outside lower center", ncols=3, markerscale=1.6
        )
    excess = {arm: arm_of(rows, arm)["error/worst_domain_excess"] for arm in ARMS}
    sentence = "Largest excess over the exact value: " + ", ".join(
        f"{arm} {values.max():.1e} (median {values.median():.1e})" for arm, values in excess.items()
    )
    columns = {
        "config.task.channel_seed": "channel_seed", "config.task.expert_error": "expert_error",
        "config.architecture.gate": "gate", "config.architecture.densities": "densities",
        "error/worst_domain": "worst_divergence", "domains/value": "value", "domains/capacity": "capacity",
        "domains/specialisation": "specialisation", "domains/alignment": "alignment",
        "gate/effective_experts": "effective_experts",
    }  # fmt: skip
    data = rows[list(columns)].rename(columns=columns)
    caption = f"{sentence}. In the middle medians over channels, and where 8 of 10 channels lie."
    save_figures([ReportFigure("gates", "Gates for the worst domain", caption, figure, data)], folder)
    return f"{sentence}."


def _draw_reached(axes: Axes, rows: pd.DataFrame) -> None:
    for place, arm in enumerate(ARMS):
        own = arm_of(rows, arm)
        axes.scatter(
            own["domains/value"], own["error/worst_domain"], s=9, alpha=0.6, linewidth=0, color=COLOURS[place],
            label=arm, marker="os^"[place],
        )  # fmt: skip
    highest = float(rows["domains/value"].max())
    axes.plot([0, highest], [0, highest], color="0.6", linewidth=0.8, linestyle="--", zorder=0)
    axes.set(xlabel="Exact value of the game (nats)", ylabel="Trained: worst domain (nats)")


def _draw_costs(axes: Axes, rows: pd.DataFrame) -> None:
    for place, arm in enumerate(list(ARMS)[:2]):
        own = arm_of(rows, arm)
        beyond = own["error/worst_domain"] - own["domains/capacity"]
        by_error = beyond.groupby(own["config.task.expert_error"])
        middle, low, high = by_error.median(), by_error.quantile(0.1), by_error.quantile(0.9)
        axes.fill_between(middle.index, low, high, color=COLOURS[place], alpha=0.2, linewidth=0)
        axes.plot(middle.index, middle, color=COLOURS[place], marker="os"[place], markersize=4)
    axes.set(xlabel="Error of experts' log densities", ylabel="Worst domain beyond capacity (nats)")


def _draw_alignment(axes: Axes, rows: pd.DataFrame) -> None:
    for place, arm in enumerate(ARMS):
        own = arm_of(rows, arm)
        own = own[own["config.task.expert_error"] == 0]
        axes.scatter(
            own["domains/specialisation"], own["domains/alignment"], s=9, alpha=0.6, linewidth=0,
            color=COLOURS[place], marker="os^"[place],
        )  # fmt: skip
    axes.set(xlabel="Specialisation of experts without error", ylabel="Alignment with domains")


def main() -> int:
    """Train, compare, draw."""
    parser = ArgumentParser(prog="scripts/gates", description=__doc__)
    parser.add_argument("--channels", type=int, default=100, help="random channels")
    options, overrides = read_given(parser, "outputs/gates")
    asked = with_given(["experiment=gates", grid_of(options.channels)], overrides)
    results = modulab.train(asked, folder=options.folder)
    rows = results.table[results.table["status"] == "completed"]
    report_known(rows)
    for arm in ARMS:
        for error, own in arm_of(rows, arm).groupby("config.task.expert_error"):
            excess = own["error/worst_domain_excess"]
            mean = own.mean(numeric_only=True)
            print(
                f"{arm}, error {error:g}: capacity {mean['domains/capacity']:.3f}, value {mean['domains/value']:.3f}, "
                f"trained {mean['error/worst_domain']:.3f}; excess: median {excess.median():.1e}, 9 of 10 below "
                f"{excess.quantile(0.9):.1e}, largest {excess.max():.1e}; specialisation "
                f"{mean['domains/specialisation']:.2f}, alignment {mean['domains/alignment']:.2f}, effective experts "
                f"{mean['gate/effective_experts']:.2f}"
            )
    exact = arm_of(rows, CONSTANT).query("`config.task.expert_error` == 0")
    off = (exact["gate/effective_experts"] - exact["domains/capacity_experts"]).abs().max()
    print(
        f"Effective experts of constant gates over exact experts: off those at capacity by {off:.3f} at most."
    )
    print(draw(rows, options.folder))
    print(packed_against_one_fit(rows, ["experiment=gates", *overrides]))
    print(f"Figure: {options.folder / 'gates.png'}")
    return 0


if __name__ == "__main__":
    sys.exit(answer(main))
