"""The figure of modularity and robustness against noise scale."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter, LogLocator

from modulab.measure_names import given_measure
from modulab.report.fitting import fit_texts
from modulab.report.style import ArmStyle, arm_styles, measure_label
from modulab.results.intervals import mean_interval

MEASURES = ("modularity/structural", "error_under/poisson@0.3")
"""The measures drawn by default; structural modularity needs networks of layers."""


_NAMED_AFTER = {"poisson": "Poisson", "gaussian": "Gaussian"}


def noise_arms(results: pd.DataFrame) -> pd.DataFrame:
    """Return completed members in full support with their `arm`, and `sigma`: noise scale, or the scale matched.

    A regularised member without noise stands at sigma = sqrt(strength K) for K network outputs, the scale of
    the Poisson-like noise that its penalty is the expectation of.
    """
    wanted = (results["status"] == "completed") & (results["config.task.support"] == "full")
    chosen = results.loc[wanted, :].copy()
    outputs = chosen["config.task.modules"]
    matched = np.sqrt(chosen["config.regulariser.strength"] * outputs)
    regularised = chosen["config.regulariser.strength"] > 0
    chosen["sigma"] = np.where(regularised, matched, chosen["config.noise.scale"])
    chosen["arm"] = np.where(
        regularised,
        chosen["config.architecture.name"] + ", matched regulariser",
        chosen["config.architecture.name"]
        + ", "
        + chosen["config.noise.name"].replace(_NAMED_AFTER)
        + " noise",
    )
    return chosen


def noise_figure(results: pd.DataFrame, path: Path, measures: tuple[str, str] = MEASURES) -> None:
    """Save a figure of modularity and of error under noise against noise scale, every seed shown.

    Lines join means over seeds; shading is their 95% interval; small marks are single members.
    """
    arms = noise_arms(results)
    measures = (given_measure(measures[0]), given_measure(measures[1]))
    regularised = bool((arms["config.regulariser.strength"] > 0).any())
    matched = " (matched, for the regulariser)" if regularised else ""
    settings: dict[Any, Any] = {
        "font.size": 10,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "text.parse_math": False,
    }
    styles = arm_styles(sorted(set(arms["arm"])))
    with mpl.rc_context(settings):
        figure = Figure(figsize=(10.5, 3.6), layout="constrained")
        for axes, measure in zip(figure.subplots(1, 2), measures, strict=True):
            for arm, members in arms.groupby("arm", sort=True):
                _draw_arm(axes, members, measure, str(arm), styles[str(arm)])
            axes.set_xscale("symlog", linthresh=0.05, linscale=0.5)
            scales = sorted(set(arms["config.noise.scale"]))
            axes.set_xticks(scales, [f"{scale:g}" for scale in scales])
            axes.minorticks_off()
            axes.set_xlabel(f"Noise scale σ in training{matched}")
            axes.set_ylabel(measure_label(measure))
        left, right = figure.axes
        left.set_ylim(-0.04, 1.04)
        right.set_yscale("log")
        right.yaxis.set_major_formatter(FormatStrFormatter("%g"))
        right.yaxis.set_minor_locator(LogLocator(subs=(2, 3, 5)))
        right.yaxis.set_minor_formatter(FormatStrFormatter("%g"))
        figure.legend(
            *right.get_legend_handles_labels(), loc="outside right upper", frameon=False, fontsize=8
        )
        figure.draw_without_rendering()
        fit_texts(figure)
        figure.savefig(path, dpi=160)


def _draw_arm(axes: Axes, members: pd.DataFrame, measure: str, arm: str, style: ArmStyle) -> None:
    groups = [(float(str(sigma)), group[measure].to_numpy()) for sigma, group in members.groupby("sigma")]
    sigmas = [sigma for sigma, _ in groups]
    intervals = [mean_interval(values[:, None]) for _, values in groups]
    lows, highs = ([float(interval[end][0]) for interval in intervals] for end in (0, 1))
    colour, marker = style.colour, style.marker
    axes.fill_between(sigmas, lows, highs, color=colour, alpha=0.2, lw=0)
    axes.plot(
        sigmas,
        [values.mean() for _, values in groups],
        color=colour,
        marker=marker,
        ls=style.dashes,
        ms=5,
        label=arm,
    )
    axes.plot(members["sigma"], members[measure], ls="", marker=marker, ms=2.5, color=colour, alpha=0.5)
