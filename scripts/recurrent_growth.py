"""Does a recurrent network that grows block by block learn a longer memory? See scripts/growth."""

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

import modulab
from modulab.arguments import ArgumentParser
from modulab.report.figure import ReportFigure, save_figures
from modulab.report.style import COLOURS, MARKERS, drawing

BITS = [3, 4, 5, 6]
"""The stages of the curriculum, which begins with networks trained on two bits."""
LEVEL = 0.02
"""Errors below it pass, as in configs/analysis/curriculum.yaml."""
ARMS = {"dense": "dense", "blocks": "blocks", "growing": "blocks that grow"}
KINDS = {"dense": "dense", "separate": "separate blocks", "blocks": "blocks joined\nby a tenth"}
NOISES = {0.0: "-", 0.1: "--"}
"""Scales of noise in training, and how their lines are drawn."""
QUESTIONS = {"match": "Delayed match", "parity": "Parity"}


def grid(steps: int, stage_steps: int) -> str:
    """Return the grid of all arms; networks trained at once have as many steps as others have in all stages."""
    asked = "task.question: [match, parity], noise.scale: [0.0, 0.1]"
    blocks = "architecture: [recurrent_blocks], architecture.width: [32]"
    pulses = "task: [pulse_sum], task.length: [20], noise.scale: [0.0, 0.1]"
    parts = [
        f"{{{asked}, training.steps: [{steps}]}}",
        f"{{{asked}, {blocks}, architecture.grown: [1, 4], training.steps: [{steps}]}}",
        f"{{{asked}, task.recent: [{max(BITS)}], training.steps: [{steps + len(BITS) * stage_steps}]}}",
        f"{{{pulses}, training.steps: [{steps}]}}",
        f"{{{pulses}, {blocks}, architecture.block_connections: [0.0, 0.1], training.steps: [{steps}]}}",
    ]
    return f"population.grid=[{', '.join(parts)}]"


def stages(growing: bool) -> str:
    """Return the stages as an override: one more bit at each and, for growing networks, one more block."""
    grown = [min(bits - 1, 4) for bits in BITS]
    each = [
        f"{{task.recent: {bits}, architecture.grown: {blocks}}}" if growing else f"{{task.recent: {bits}}}"
        for bits, blocks in zip(BITS, grown, strict=True)
    ]
    return f"curriculum.stages=[{', '.join(each)}]"


def is_equal(rows: pd.DataFrame, key: str, value: object) -> np.ndarray:
    """Return in which rows a setting has a value; some rows lack the setting."""
    return (rows[f"config.{key}"] == value).fillna(False).to_numpy(dtype=bool)


def arms(rows: pd.DataFrame) -> pd.Series:
    """Return which arm each network on bits belongs to, and which kind each one on pulses."""
    dense = is_equal(rows, "architecture.name", "recurrent")
    found = np.select(
        [
            dense & is_equal(rows, "task.recent", max(BITS)),
            dense,
            is_equal(rows, "architecture.block_connections", 0),
            is_equal(rows, "architecture.grown", 1),
        ],
        ["at once", "dense", "separate", "growing"],
        "blocks",
    )
    return pd.Series(found, rows.index, name="arm")


def analyse(folder: Path, settings: list[str]) -> pd.DataFrame:
    """Take the networks on bits through the curriculum, each in its own way, and return all rows."""
    rows = modulab.load_results(folder)
    rows = rows.assign(arm=arms(rows))
    for growing in (False, True):
        chosen = (rows["arm"] == "growing").to_numpy() == growing
        chosen &= is_equal(rows, "task.recent", min(BITS) - 1) & (rows["status"] == "completed").to_numpy()
        members = [str(row) for row in np.flatnonzero(chosen)]
        results = modulab.analyse(folder, "curriculum", [stages(growing), *settings], members=members)
    results = results[results["status"] == "completed"]
    return results.assign(arm=arms(results))


def report(rows: pd.DataFrame) -> None:
    """Print means that predictions are about."""
    bits = rows[rows["config.task.name"] == "bit_memory"]
    for (question, noise, arm), own in bits.groupby(["config.task.question", "config.noise.scale", "arm"]):
        error = own["error/test"].mean()
        if arm == "at once":
            print(f"{question}, noise {noise:g}, {arm}: error on {max(BITS)} bits {error:.3f}")
            continue
        passed, steps = own["curriculum/passed"], own["curriculum/steps"]
        print(
            f"{question}, noise {noise:g}, {arm}: error on 2 bits {error:.3f}; stages passed {passed.mean():.2f}, all "
            f"by {(passed == len(BITS)).sum()} of {len(own)}; steps {steps.mean():.0f}"
        )
    pulses = rows[rows["config.task.name"] == "pulse_sum"]
    for (noise, arm), own in pulses.groupby(["config.noise.scale", "arm"]):
        print(
            f"pulse sum, noise {noise:g}, {arm}: error {own['error/test'].mean():.3f}, below .05 in "
            f"{(own['error/test'] < 0.05).sum()} of {len(own)}"
        )


def draw(rows: pd.DataFrame, folder: Path) -> None:
    """Draw how many networks are left after each stage, and errors on pulses."""
    with drawing():
        figure = Figure(figsize=(10.2, 3.7), layout="constrained")
        panels = figure.subplots(1, 3)
        for axes, (question, words) in zip(panels, QUESTIONS.items(), strict=False):
            own = rows[
                (rows["config.task.name"] == "bit_memory") & (rows["config.task.question"] == question)
            ]
            _draw_survival(axes, own)
            axes.set_title(words, loc="left")
        panels[0].set_ylabel("Share of networks that pass")
        handles, names = panels[0].get_legend_handles_labels()
        handles += [Line2D([], [], color="0.3", ls=line) for line in NOISES.values()]
        names += [f"noise {noise:g}" for noise in NOISES]
        figure.legend(handles, names, loc="outside lower left", ncols=3)
        _draw_pulses(panels[2], rows[rows["config.task.name"] == "pulse_sum"])
    columns = {
        "config.task.name": "task", "config.task.question": "question", "config.noise.scale": "noise", "arm": "arm",
        "config.seed": "seed", "error/test": "error", "curriculum/passed": "passed", "curriculum/steps": "steps",
    }  # fmt: skip
    data = rows.rename(columns={"seed": "config.seed"})
    data = data[[name for name in columns if name in data]].rename(columns=columns)
    caption = (
        "Share of networks that answer for this many last bits with an error below 2%, in a curriculum of one more bit "
        "at a time. Right: error of the sum of pulses modulo 3."
    )
    save_figures([ReportFigure("growth", "Memory of recurrent networks", caption, figure, data)], folder)


def _draw_survival(axes: Axes, rows: pd.DataFrame) -> None:
    for place, (arm, words) in enumerate(ARMS.items()):
        for noise, line in NOISES.items():
            own = rows[(rows["arm"] == arm) & (rows["config.noise.scale"] == noise)]
            shares = [(own["curriculum/passed"] > stage).mean() for stage in range(len(BITS))]
            axes.plot(
                BITS, shares, line, color=COLOURS[place], marker=MARKERS[place], markersize=4,
                label=words if noise == 0 else None,
            )  # fmt: skip
    at_once = rows[(rows["arm"] == "at once") & (rows["config.noise.scale"] == 0)]["error/test"]
    axes.plot(
        [max(BITS)], [(at_once < LEVEL).mean()], MARKERS[3], color="0.3", markersize=8, fillstyle="none",
        linestyle="none", label=f"dense, {max(BITS)} bits at once",
    )  # fmt: skip
    axes.set(xlabel="Last bits that count", xticks=BITS, ylim=(-0.05, 1.1))


def _draw_pulses(axes: Axes, rows: pd.DataFrame) -> None:
    for place, noise in enumerate(NOISES):
        for column, arm in enumerate(KINDS):
            own = rows[(rows["arm"] == arm) & (rows["config.noise.scale"] == noise)]["error/test"]
            across = column + 0.3 * (place - 0.5) + np.linspace(-0.1, 0.1, len(own))
            axes.scatter(
                across, own, s=12, alpha=0.8, linewidth=0, color=COLOURS[3 + place], marker="os"[place],
                label=f"noise {noise:g}" if column == 0 else None,
            )  # fmt: skip
    axes.set(
        ylabel="Share of wrong answers",
        xticks=range(len(KINDS)),
        xticklabels=list(KINDS.values()),
    )
    axes.set_title("Sum of pulses modulo 3", loc="left")
    axes.legend()


def main() -> int:
    """Train, go through the curriculum, draw."""
    parser = ArgumentParser(prog="scripts/growth", description=__doc__)
    parser.add_argument("--steps", type=int, default=1000, help="training steps before the curriculum")
    parser.add_argument("--stage-steps", type=int, default=500, help="training steps of a stage, at most")
    options, overrides = read_given(parser, "outputs/growth")
    asked = with_given(["experiment=recurrent_growth", grid(options.steps, options.stage_steps)], overrides)
    modulab.train(asked, folder=options.folder)
    rows = analyse(options.folder, [f"curriculum.steps={options.stage_steps}"])
    report(rows)
    draw(rows, options.folder)
    # Pulses have more steps than the member that is timed alone.
    alike = rows[is_equal(rows, "task.name", "bit_memory") & (rows["arm"] == "dense").to_numpy()]
    print(packed_against_one_fit(alike, ["experiment=recurrent_growth", *overrides]))
    print(f"Figure: {options.folder / 'growth.png'}")
    return 0


if __name__ == "__main__":
    sys.exit(answer(main))
