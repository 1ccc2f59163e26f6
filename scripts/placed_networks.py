"""Do networks whose connections cost their length show the structure of what they learn? See scripts/locality."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import yaml
from given_overrides import answer, read_given, with_given
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter
from one_fit import packed_against_one_fit
from torch import Tensor

import modulab
from modulab.analysis.labels import Labels, find_labels
from modulab.arguments import ArgumentParser
from modulab.config.composing import config_folder
from modulab.metrics.probe import make_probe
from modulab.networks.base import INPUT, OUTPUT, NetworkPopulation
from modulab.networks.placed import unit_places
from modulab.partition import SHARED
from modulab.report.figure import ReportFigure, save_figures
from modulab.report.style import COLOURS, MARKERS, drawing
from modulab.results.intervals import mean_interval
from modulab.streams import member_keys
from modulab.sweep.trained import TrainedMembers

PUBLISHED = {"independent": 7.4e-3, "shared": 8.5e-5, "composed": 1.3e-3}
"""Test errors of BIMT, one network each (Z. Liu et al., arXiv 2305.08746)."""
SETTINGS = {
    "drawn": "points drawn for each seed",
    "published": "published points",
    "weights": "published points, initial weights",
    "moments": "published points, initial weights, moments at places",
    "turns": "published points, initial weights, turns of places",
    "exchanges": "published points, initial weights, exchanges",
}
"""Parts of the published code, besides its cost, with which formulas are learned; exchanges are moments and turns."""
DRAWN = ("drawn", "published", "weights", "exchanges")
"""Those in the figure."""
ARMS = {
    "none": "no cost",
    "l1": "L1",
    "l1 large": "L1, as large",
    "length": "length",
    "whole": "length, exchanges",
}
_CLONED = {"actions": COLOURS[5], "values": COLOURS[6]}
"""What policies are cloned from; no colours of arms."""
FACTORS = [0.0, 0.5, 1.0, 1.5, 2.0]
AGREEMENT = "communities/block_model_agreement"
FOUND = "communities/block_model_modules"
ARE_AXES = 0.9
"""Modules that agree better than so are the axes."""


def arms(rows: pd.DataFrame) -> pd.Series:
    """Return which of `ARMS` each row belongs to."""
    found = np.select(
        [
            rows["config.regulariser.strength"] == 0,
            rows["config.regulariser.distance_cost"] == 0,
            rows["config.regulariser.swap_every"] == 0,
        ],
        ["none", "l1", "length"],
        "whole",
    )
    large = (found == "l1") & (rows["config.regulariser.base_cost"] > 0.2).to_numpy()
    return pd.Series(np.where(large, "l1 large", found), rows.index, name="arm")


def published_settings(rows: pd.DataFrame) -> pd.Series:
    """Return which of `SETTINGS` each row of a formula has."""
    moments = rows["config.regulariser.swap_moments"] == "places"
    turns = rows["config.regulariser.swap_turns"] == "places"
    found = np.select(
        [
            rows["config.task.points"] == "drawn",
            rows["config.architecture.initial_weights"] == "normal",
            moments & turns,
            moments,
            turns,
        ],
        ["drawn", "published", "exchanges", "moments", "turns"],
        "weights",
    )
    return pd.Series(found, rows.index, name="settings")


def formula_rows(rows: pd.DataFrame, formula: str, arm: str, settings: str = "drawn") -> pd.DataFrame:
    """Return the networks of a formula in an arm that have one of `SETTINGS`."""
    chosen = (rows["config.task.formula"] == formula) & (rows["arm"] == arm)
    return rows[chosen & (published_settings(rows) == settings)]


def interval_text(values: pd.Series) -> str:
    """Return a mean with its 95% interval over seeds."""
    low, high = mean_interval(values.to_numpy(dtype=float)[:, None])
    return f"{values.mean():.3f} [{low[0]:.3f}, {high[0]:.3f}]"


def report_formulas(rows: pd.DataFrame) -> None:
    """Print the numbers that the predictions about formulas name."""
    for (formula, published), settings in itertools.product(PUBLISHED.items(), SETTINGS):
        errors = formula_rows(rows, formula, "whole", settings)["error/test"]
        print(
            f"{formula}, {SETTINGS[settings]}: test error {errors.median():.2e} (median), {errors.min():.2e} to "
            f"{errors.max():.2e} in {len(errors)} networks, {(errors < published).sum()} of them below the published "
            f"{published:.2e}"
        )
    for arm, words in ARMS.items():
        own = formula_rows(rows, "independent", arm)
        structural = own["modularity/structural"]
        print(
            f"independent, {words}: test error {own['error/test'].median():.2e} (median), "
            f"{own['error/test'].min():.2e} to {own['error/test'].max():.2e}; structural modularity "
            f"{interval_text(structural)}, above .9 in {(structural > 0.9).sum()}; wire "
            f"{interval_text(own['wiring/length'])}, mean length {interval_text(own['wiring/mean'])}"
        )


def alignment(weights: Tensor) -> tuple[float, float]:
    """Return the mean of cos 4 phi of first weights (dx, dy), by their length, and the share of flags in all weights.

    1 where every unit reads one axis, -1 where each reads a diagonal.
    """
    x, y = weights[:, 0].double(), weights[:, 1].double()
    squared = x.square() + y.square()
    fourth = ((x.square() - y.square()).square() - (2 * x * y).square()) / squared.square().clamp(min=1e-30)
    flags = weights[:, 2:].abs().sum() / weights.abs().sum()
    return float((fourth * squared.sqrt()).sum() / squared.sqrt().sum()), float(flags)


def first_weights(folder: Path) -> pd.DataFrame:
    """Return, by run_id, how first weights lie and what they give flags."""
    found = {
        run_id: alignment(weights)
        for trained in modulab.load_members(folder)
        for run_id, weights in zip(trained.run_ids, trained.weights["weight.0"], strict=True)
    }
    return pd.DataFrame.from_dict(found, orient="index", columns=["alignment", "flags"])


def steps_along_x(trained: TrainedMembers, about_mean: bool) -> pd.DataFrame:
    """Return, by run_id and factor, the share of steps along x as the module found behind them is scaled.

    Its last units pass on f a, or m + f (a - m) with m the mean of each unit's activity.
    """
    members, population = trained.members(), trained.population()
    keys = member_keys([member.seed for member in members])
    settings = yaml.safe_load((config_folder() / "analysis" / "clamp_found.yaml").read_text("utf-8"))
    probe = make_probe(members[0].task, population, keys, members[0].probes)
    labels: Labels = find_labels(settings["labels"])(probe)
    site = population.network.sites[-1].name
    behind = labels[OUTPUT][:, 1:2]  # the module of the output for a step to the right
    chosen = (labels[site] == behind) & (behind != SHARED)
    kept = probe.clean.values[site].mean(dim=2, keepdim=True) if about_mean else torch.zeros(1, 1, 1)

    def shares(factor: float) -> Tensor:
        def scaled(place: str, values: Tensor) -> Tensor:
            if place != site:
                return values
            return torch.where(chosen[:, :, None], kept + factor * (values - kept), values)

        outputs = population.forward(probe.samples.inputs, scaled)
        return (outputs.argmax(dim=2) < 2).double().mean(dim=1)

    return pd.DataFrame({factor: shares(factor).numpy() for factor in FACTORS}, index=list(trained.run_ids))


def exact_share(factor: float, size: int) -> float:
    """Return the share of states in which s |dx| > |dy|, of those with |dx| != |dy|; equal values count half."""
    line = np.abs(np.arange(-size, size + 1))
    dx, dy = (each.ravel() for each in np.meshgrid(line, line))
    kept = dx != dy
    difference = factor * dx[kept] - dy[kept]
    return float((difference > 0).mean() + (difference == 0).mean() / 2)


def report_policies(rows: pd.DataFrame, behaviour: pd.DataFrame) -> None:
    """Print the numbers that the predictions about policies name."""
    for (imitate, arm), own in rows.groupby(["config.task.imitate", "arm"]):
        error, found = own["error/test"], own[FOUND]
        print(
            f"{imitate}, {ARMS[str(arm)]}: error {error.mean():.2e}, largest {error.max():.2e}; two modules in "
            f"{(found == 2).sum()} and one in {(found == 1).sum()} of {len(own)}, agreement "
            f"{interval_text(own[AGREEMENT])}; structural {own['modularity/structural'].mean():.3f}; cos 4 phi "
            f"{own['alignment'].mean():.2f}, flags {own['flags'].mean():.4f}; wire "
            f"{interval_text(own['wiring/length'])}; selectivity of found modules "
            f"{own['clamp_found/selectivity'].mean():.3f}"
        )
    for (imitate, about_mean, axes), own in behaviour.groupby(["config.task.imitate", "about_mean", "axes"]):
        shown = ", ".join(f"{factor:g}: {own[factor].mean():.3f}" for factor in FACTORS)
        print(
            f"{imitate}, {ARMS['whole']}, {len(own)} networks whose modules are {'' if axes else 'not '}the axes: "
            f"share of steps along x by factor{' about the mean' if about_mean else ''} {shown}"
        )


def draw(formulas: pd.DataFrame, policies: pd.DataFrame, behaviour: pd.DataFrame, folder: Path) -> None:
    """Draw errors of formulas, two networks in space, modularity against length, and what policies consist of."""
    with drawing():
        figure = Figure(figsize=(10.2, 6.2), layout="constrained")
        panels = figure.subplots(2, 3)
        _draw_errors(panels[0, 0], formulas)
        for axes, arm in ((panels[0, 1], "none"), (panels[0, 2], "whole")):
            _draw_network(axes, formulas, arm, folder / "formulas")
        _draw_lengths(panels[1, 0], formulas)
        _draw_agreement(panels[1, 1], policies)
        _draw_behaviour(panels[1, 2], behaviour, int(policies["config.task.size"].iloc[0]))
    columns = {
        "config.task.name": "task", "config.task.formula": "formula", "config.task.points": "points",
        "config.architecture.initial_weights": "initial_weights", "config.regulariser.swap_moments": "swap_moments",
        "config.regulariser.swap_turns": "swap_turns", "config.task.imitate": "imitate", "arm": "arm",
        "config.seed": "seed", "error/test": "error", "modularity/structural": "structural",
        "wiring/length": "wire", "wiring/mean": "mean_length", FOUND: "modules", AGREEMENT: "agreement",
        "alignment": "alignment", "flags": "flags", "clamp_found/selectivity": "selectivity",
    }  # fmt: skip
    both = pd.concat([formulas, policies], ignore_index=True)
    data = both[list(columns)].rename(columns=columns)
    caption = (
        "Networks whose connections cost their length. Above: test errors of three formulas, each network and the "
        "median, on points drawn for each seed, and with more and more as in the published code; a network of two "
        "independent formulas without the cost and with it, each unit at its place. Below: structural modularity of "
        "the independent formula and mean length of connections; agreement of the modules found in policies with the "
        "axes of the grid; steps along x as the module found behind them is scaled about its mean, and the exact share."
    )
    save_figures([ReportFigure("locality", "Locality", caption, figure, data)], folder)


def _draw_errors(axes: Axes, rows: pd.DataFrame) -> None:
    for place, (formula, published) in enumerate(PUBLISHED.items()):
        for number, settings in enumerate(DRAWN):
            errors = formula_rows(rows, formula, "whole", settings)["error/test"]
            middle = place + 0.21 * (number - 1.5)
            axes.scatter(
                middle + np.linspace(-0.07, 0.07, len(errors)), errors, s=12, alpha=0.6, linewidth=0,
                color=COLOURS[(0, 5, 3, 2)[number]], marker=MARKERS[number],
                label=None if place else SETTINGS[settings],
            )  # fmt: skip
            axes.plot(
                [middle - 0.09, middle + 0.09], [errors.median()] * 2, color=COLOURS[(0, 5, 3, 2)[number]]
            )
        axes.plot(
            [place - 0.42, place + 0.42], [published] * 2, color=COLOURS[1], linestyle="--",
            label=None if place else "published error",
        )  # fmt: skip
    axes.set(ylabel="Test error", yscale="log", xticks=range(3), xticklabels=list(PUBLISHED))
    bottom, top = axes.get_ylim()
    axes.set_ylim(top=top * (top / bottom) ** 0.65)  # room for the legend
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_title("Three formulas, with length and exchanges", loc="left")
    axes.legend(loc="upper center")


def _draw_network(axes: Axes, rows: pd.DataFrame, arm: str, folder: Path) -> None:
    """Draw the network of the independent formula whose error is the median of its arm, in space."""
    own = formula_rows(rows, "independent", arm).sort_values("error/test")
    [trained] = modulab.load_members(folder, [own["run_id"].iloc[len(own) // 2]])
    population: NetworkPopulation = trained.population()
    places = {
        name: each[0].numpy() for name, each in unit_places(population.network, trained.parameters).items()
    }
    heights = {name: float(layer) for layer, name in enumerate(places)}
    side_of = _sides(population)
    for edges in population.edges():
        weights = edges.weights[0].abs().numpy()
        largest = weights.max()
        targets, sources = np.nonzero(weights > 0.02 * largest)
        ends = [
            [
                (places[edges.source][j], heights[edges.source]),
                (places[edges.target][i], heights[edges.target]),
            ]
            for i, j in zip(targets, sources, strict=True)
        ]
        shares = weights[targets, sources] / largest
        colours = [to_rgba(_colour(side_of[edges.source][j], side_of[edges.target][i]), 0.9 * share + 0.1)
                   for i, j, share in zip(targets, sources, shares, strict=True)]  # fmt: skip
        axes.add_collection(LineCollection(ends, colors=colours, linewidths=1.8 * shares + 0.2))
    for name, place in places.items():
        colours = [_colour(side, side) for side in side_of[name]]
        axes.scatter(place, np.full(len(place), heights[name]), s=10, color=colours, zorder=3)
    for variable, at in enumerate(places[INPUT]):
        axes.annotate(f"x{variable + 1}", (at, 0), (0, -5), textcoords="offset points", ha="center", va="top")
    for value, at in enumerate(places[OUTPUT]):
        axes.annotate(
            f"y{value + 1}", (at, heights[OUTPUT]), (0, 5), textcoords="offset points", ha="center", va="bottom",
        )  # fmt: skip
    axes.set(xlim=(-0.03, 1.03), ylim=(-0.4, len(places) - 0.6))
    axes.axis("off")
    axes.set_title(f"Independent formula: {ARMS[arm]}", loc="left")


def _sides(population: NetworkPopulation) -> dict[str, list[float]]:
    """Return, for each unit, how much of its weight comes from x1 and x3 less that from x2 and x4, from -1 to 1."""
    sides = {INPUT: np.array([1.0, -1.0, 1.0, -1.0])}
    reach = {INPUT: np.ones(4)}
    for edges in population.edges():
        weights = edges.weights[0].abs().double().numpy()
        reach[edges.target] = weights @ reach[edges.source]
        total = weights @ (reach[edges.source] * sides[edges.source])
        sides[edges.target] = total / np.maximum(reach[edges.target], 1e-12)
    return {name: each.tolist() for name, each in sides.items()}


def _colour(one: float, other: float) -> str:
    mean = (one + other) / 2
    return COLOURS[0] if mean > 0.6 else COLOURS[1] if mean < -0.6 else "0.5"


def _draw_lengths(axes: Axes, rows: pd.DataFrame) -> None:
    for place, (arm, words) in enumerate(ARMS.items()):
        own = formula_rows(rows, "independent", arm)
        axes.scatter(
            own["wiring/mean"], own["modularity/structural"], s=14, alpha=0.8, linewidth=0, color=COLOURS[place],
            marker=MARKERS[place], label=words,
        )  # fmt: skip
    axes.set(xlabel="Mean length of a connection, by |w|", ylabel="Structural modularity", ylim=(-0.05, 1.05))
    axes.set_title("Independent formula", loc="left")
    axes.legend()


def _draw_agreement(axes: Axes, rows: pd.DataFrame) -> None:
    shown = [arm for arm in ARMS if (rows["arm"] == arm).any()]
    for place, imitate in enumerate(_CLONED):
        for column, arm in enumerate(shown):
            own = rows[(rows["config.task.imitate"] == imitate) & (rows["arm"] == arm)][AGREEMENT]
            across = column + 0.36 * (place - 0.5) + np.linspace(-0.12, 0.12, len(own))
            axes.scatter(
                across, own, s=12, alpha=0.8, linewidth=0, color=_CLONED[imitate], marker=MARKERS[place],
                label=None if column else f"{imitate} cloned",
            )  # fmt: skip
    axes.set(
        ylabel="Agreement of modules with axes, AMI", ylim=(-0.1, 1.3),
        yticks=[0, 0.25, 0.5, 0.75, 1], xticks=range(len(shown)),
        xticklabels=[ARMS[arm].replace(", ", ",\n") for arm in shown],
    )  # fmt: skip
    axes.set_title("Policies in the grid world", loc="left")
    axes.legend(loc="upper left", ncols=2)


def _draw_behaviour(axes: Axes, behaviour: pd.DataFrame, size: int) -> None:
    for place, imitate in enumerate(_CLONED):
        own = behaviour[(behaviour["config.task.imitate"] == imitate) & behaviour["about_mean"]]
        for _, row in own.iterrows():
            axes.plot(FACTORS, row[FACTORS].to_numpy(dtype=float), color=_CLONED[imitate], alpha=0.3, lw=0.8)
        axes.plot(
            FACTORS, own[FACTORS].median().to_numpy(dtype=float), color=_CLONED[imitate], marker=MARKERS[place],
            markersize=4, label=f"{imitate} cloned",
        )  # fmt: skip
    exact = [exact_share(factor, size) for factor in FACTORS]
    axes.plot(FACTORS, exact, ls=":", color="0.3", lw=1.6, label="exact, of values")
    axes.set(xlabel="Factor of the module behind x", ylabel="Share of steps along x", ylim=(-0.03, 1.03))
    axes.set_title(f"Policies: {ARMS['whole']}", loc="left")
    axes.legend()


def main() -> int:
    """Train, find modules, scale them, draw."""
    parser = ArgumentParser(prog="scripts/locality", description=__doc__)
    parser.add_argument("--seeds", type=int, default=16, help="seeds of each arm")
    options, overrides = read_given(parser, "outputs/locality")
    own = with_given([f"population.seeds={options.seeds}"], overrides)
    folders = {"locality": options.folder / "formulas", "grid_world": options.folder / "policies"}
    for experiment, folder in folders.items():
        modulab.train([f"experiment={experiment}", *own], folder=folder)
    formulas = modulab.load_results(folders["locality"])
    policies = modulab.analyse(folders["grid_world"], "clamp_found")
    policies = policies.join(first_weights(folders["grid_world"]), on="run_id")
    formulas, policies = (
        rows[rows["status"] == "completed"].assign(arm=arms(rows)) for rows in (formulas, policies)
    )
    whole = policies[policies["arm"] == "whole"].set_index("run_id")["config.task.imitate"]
    behaviour = pd.concat(
        [
            steps_along_x(kept, about_mean).assign(about_mean=about_mean)
            for about_mean in (False, True)
            for trained in modulab.load_members(folders["grid_world"])
            if (kept := trained.only(whole.index)).run_ids
        ]
    )
    policies = policies.assign(axes=policies[AGREEMENT] > ARE_AXES)
    behaviour = behaviour.join(policies.set_index("run_id")[["config.task.imitate", "axes"]])
    report_formulas(formulas)
    report_policies(policies, behaviour)
    draw(formulas, policies, behaviour, options.folder)
    alike = formula_rows(formulas, "independent", "whole")
    arm = ["population.grid=[]", "regulariser.strength=1e-3"]
    print(packed_against_one_fit(alike, ["experiment=locality", *own, *arm]))
    print(f"Figure: {options.folder / 'locality.png'}")
    return 0


if __name__ == "__main__":
    sys.exit(answer(main))
