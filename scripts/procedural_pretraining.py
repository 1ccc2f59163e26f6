"""What does a network trained on a simple rule transfer to another one? See scripts/pretraining."""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd
from given_overrides import answer, read_given
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from one_fit import packed_against_one_fit

import modulab
from modulab.arguments import ArgumentParser
from modulab.report.figure import ReportFigure, save_figures
from modulab.report.style import COLOURS, MARKERS, drawing

RULES = {
    "identity": "identity",
    "rule_110": "cellular automaton 110",
    "dyck": "Dyck: nested brackets",
    "shuffle": "shuffle: crossing brackets",
    "set": "set: first of each symbol",
    "stack": "stack",
}
"""The rules that donors are trained on, in words."""
TARGETS = ["set", "stack"]
ATTENTION = ["position", "query.weight", "key.weight", "value.weight", "projection.weight"]
HIDDEN = ["hidden.weight", "hidden.bias", "write.weight"]
ARMS = {
    "attention": (ATTENTION, False, "attention"),
    "hidden": (HIDDEN, False, "hidden units"),
    "body": (ATTENTION + HIDDEN, False, "both"),
    "frozen": (ATTENTION + HIDDEN, True, "both, frozen"),
}
"""Parameters, whether they stay as they are, and the words for both."""
POINTS = 512


def settings(steps: int) -> list[str]:
    """Return the settings of all transplants, named by arm and target."""
    found: list[str] = []
    for target in TARGETS:
        for arm, (parts, frozen, _) in ARMS.items():
            found += [
                f"{arm}_{target}.parts=[{', '.join(parts)}]",
                f"{arm}_{target}.frozen={str(frozen).lower()}",
                f"{arm}_{target}.steps={steps}",
                f"{arm}_{target}.changes={{task.rule: {target}, data.num_samples: {POINTS}}}",
            ]
    return found


def mean_ratios(rows: pd.DataFrame) -> pd.DataFrame:
    """Return mean errors, and ratios to the random control, by target, arm and donor, transplanted and shuffled."""
    means = rows.groupby("config.task.rule").mean(numeric_only=True)
    found = [
        {
            "target": target, "arm": arm, "donor": donor, "error": own[f"{arm}_{target}/error"],
            "random": own[f"{arm}_{target}/error_random"], "shuffled": own[f"{arm}_{target}/error_shuffled"],
        }
        for target in TARGETS
        for arm in ARMS
        for donor, own in means.iterrows()
    ]  # fmt: skip
    table = pd.DataFrame(found)
    return table.assign(
        ratio=table["error"] / table["random"], ratio_shuffled=table["shuffled"] / table["random"]
    )


def report(rows: pd.DataFrame, ratios: pd.DataFrame) -> None:
    """Print means that predictions are about."""
    for rule, own in rows.groupby("config.task.rule"):
        print(f"{rule}: error of donors {own['error/test'].mean():.4f}")
    for (target, arm), own in ratios.groupby(["target", "arm"], sort=False):
        by_donor = ", ".join(
            f"{donor} {ratio:.2f} ({shuffled:.2f})"
            for donor, ratio, shuffled in zip(own["donor"], own["ratio"], own["ratio_shuffled"], strict=True)
        )
        others = own[own["donor"] != target]
        means = f"{others['ratio'].mean():.2f} ({others['ratio_shuffled'].mean():.2f})"
        print(
            f"{target}, {ARMS[arm][2]}: error with random {own['random'].mean():.3f}; ratios of transplants (shuffled) "
            f"by donor: {by_donor}; mean over other rules {means}"
        )


def draw(ratios: pd.DataFrame, folder: Path) -> None:
    """Draw the ratios of each target by donor, and transplants against shuffled ones."""
    with drawing():
        figure = Figure(figsize=(10.6, 3.5), layout="constrained")
        first, second, third = figure.subplots(1, 3)
        for axes, target in ((first, TARGETS[0]), (second, TARGETS[1])):
            _draw_target(axes, ratios[ratios["target"] == target])
            axes.set_title(f"Learns {target}", loc="left")
        second.sharex(first)
        second.tick_params(labelleft=False)
        first.set_ylabel("Donor trained on")
        _draw_shuffled(third, ratios)
        handles, words = first.get_legend_handles_labels()
        figure.legend(handles, words, loc="outside lower center", ncols=len(words), title="Transplanted")
    caption = (
        "Error after training on a rule, with parts of networks that were trained on others, over that with parts of "
        "untrained networks. Right: the same parts with their values shuffled within each matrix, of donors trained on "
        "other rules than the one that is learned."
    )
    save_figures([ReportFigure("pretraining", "Procedural pretraining", caption, figure, ratios)], folder)


def _draw_target(axes: Axes, ratios: pd.DataFrame) -> None:
    for place, (arm, (_, _, words)) in enumerate(ARMS.items()):
        own = ratios[ratios["arm"] == arm].set_index("donor")["ratio"].reindex(list(RULES))
        axes.plot(own, range(len(RULES)), MARKERS[place], color=COLOURS[place], markersize=5, label=words)
    axes.axvline(1, color="0.6", linestyle=":")
    axes.set_yticks(range(len(RULES)), list(RULES.values()))
    axes.set_ylim(len(RULES) - 0.5, -0.5)
    axes.set(xlabel="Error / error with untrained parts")


def _draw_shuffled(axes: Axes, ratios: pd.DataFrame) -> None:
    for place, arm in enumerate(ARMS):
        own = ratios[(ratios["arm"] == arm) & (ratios["donor"] != ratios["target"])]
        axes.plot(
            own["ratio_shuffled"], own["ratio"], MARKERS[place], color=COLOURS[place], markersize=4, mew=0,
        )  # fmt: skip
    axes.axhline(1, color="0.6", linestyle=":")
    axes.axvline(1, color="0.6", linestyle=":")
    axes.set(xlabel="Ratio of errors with shuffled parts", ylabel="Ratio of errors")
    axes.set_title("Shuffled parts", loc="left")


def main() -> int:
    """Train donors, transplant, draw."""
    parser = ArgumentParser(prog="scripts/pretraining", description=__doc__)
    parser.add_argument("--steps", type=int, default=100, help="training steps after a transplant")
    options, overrides = read_given(parser, "outputs/pretraining")
    modulab.train(["experiment=procedural", *overrides], folder=options.folder)
    names = [f"{arm}_{target}=transplant" for target in TARGETS for arm in ARMS]
    results = modulab.analyse(options.folder, names, settings(options.steps))
    rows = results[results["status"] == "completed"]
    ratios = mean_ratios(rows)
    report(rows, ratios)
    draw(ratios, options.folder)
    print(packed_against_one_fit(rows, ["experiment=procedural", *overrides]))
    print(f"Figure: {options.folder / 'pretraining.png'}")
    return 0


if __name__ == "__main__":
    sys.exit(answer(main))
