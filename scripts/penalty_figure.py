"""The figure of scripts/penalties: error over that of (2, 1) by powers, excess modularity, and what searches found."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import Normalize, TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray
from penalty_contest import (
    CRITERIA,
    EXCESS,
    REFERENCE,
    SEED,
    SHOWN,
    TICKS,
    Array,
    Contest,
    P,
    Q,
    ratio_interval,
    surface_of,
)

from modulab.report.figure import ReportFigure
from modulab.report.style import COLOURS, drawing

LARGEST = 2.0
"""Ratio from which on colours are the same."""
STRIP = 0.16
"""Half the width at which q = 0 is drawn."""


def penalty_figure(
    contests: Mapping[str, Contest], winners: Mapping[str, Mapping[str, Array]]
) -> ReportFigure:
    """Draw surfaces, sets of powers that may be the best, and the trials of searches relative to (2, 1)."""
    with drawing():
        figure = Figure(figsize=(10.6, 6.4), layout="constrained")
        panels = figure.subplots(2, 3)
        image = None
        for axes, (name, contest) in zip(panels.flat, contests.items(), strict=False):
            image = _draw_contest(axes, name, contest)
        figure.colorbar(
            image, ax=panels[0, :], label="Error / error of (2, 1)", pad=0.01, ticks=[-1, -0.5, 0, 0.5, 1],
            format=lambda value, _: f"{2**value:.2g}", extend="max",
        )  # fmt: skip
        _draw_excess(panels[1, 1], contests["poisson"])
        _draw_winners(panels[1, 2], winners)
        figure.legend(handles=_marks(), loc="outside upper left", ncols=4)
        searches, words = panels[1, 2].get_legend_handles_labels()
        searches.append(Line2D([], [], ls="", marker="s", ms=5, color="0.3"))
        words.append("powers of least error")
        figure.legend(searches, words, loc="outside lower right", ncols=len(words))
    caption = (
        "Error of penalties |w|^p |a|^q over that of (2, 1), at strengths chosen on other seeds. Surfaces are fitted "
        "to networks of all powers marked by points; places within the line are not shown to be worse than the best. "
        "Bottom right: at fresh seeds, the five best trials of each search over penalties and noise, and the powers "
        "of least error, with 95% intervals over seeds."
    )
    return ReportFigure("penalties", "Product penalties", caption, figure, _data(contests))


def _plane(values: NDArray[Any]) -> NDArray[Any]:
    """Return values at places shown as a plane: one row per p, one column per q, the first of which is 0."""
    return values.reshape(len(TICKS), len(TICKS) + 1)


def _draw_contest(axes: Axes, name: str, contest: Contest) -> mpl.cm.ScalarMappable:
    surface, best = contest.surface, contest.best
    reference = int(np.abs(SHOWN - REFERENCE).sum(axis=1).argmin())
    ratios = (surface.effect - surface.effect[reference]) / np.log(2)
    span = np.log2(LARGEST)
    image = _draw_plane(axes, _plane(ratios), TwoSlopeNorm(0, -span, span), "PuOr_r")
    _outline(axes, _plane(best.not_worse))
    _draw_powers(axes, contest)
    p, q = best.place
    axes.plot([best.low[1], best.high[1]], [p, p], color="black", lw=1.2)
    axes.plot([q, q], [best.low[0], best.high[0]], color="black", lw=1.2)
    axes.plot([q], [p], "D", ms=6, mfc="white", mec="black")
    if (matched := CRITERIA[name].matched) is not None:
        axes.plot([matched], [2], "*", ms=12, mfc=COLOURS[2], mec="white", mew=0.8)
    axes.plot([REFERENCE[1]], [REFERENCE[0]], "o", ms=11, mfc="none", mec=COLOURS[0], mew=1.6)
    axes.set_title(f"Error under {CRITERIA[name].words}" if matched is not None else "Error outside the band")
    return image


def _draw_plane(axes: Axes, plane: Array, norm: Normalize, colours: str) -> mpl.cm.ScalarMappable:
    """Draw values by powers, with q = 0 as a separate strip."""
    half = (TICKS[1] - TICKS[0]) / 2
    edges = np.append(TICKS - half, TICKS[-1] + half)
    axes.pcolormesh([-STRIP, STRIP], edges, plane[:, :1], norm=norm, cmap=colours)
    image = axes.pcolormesh(edges, edges, plane[:, 1:], norm=norm, cmap=colours)
    axes.set(
        xlim=(-STRIP, edges[-1]),
        ylim=(edges[0], edges[-1]),
        xlabel="Power of activity q",
        ylabel="Power of weights p",
    )
    axes.set_xticks([0, 1, 1.5, 2, 2.5, 3], ["0", "1", "1.5", "2", "2.5", "3"])
    axes.set_yticks([1, 1.5, 2, 2.5, 3], ["1", "1.5", "2", "2.5", "3"])
    axes.spines[:].set_visible(False)
    return image


def _outline(axes: Axes, inside: NDArray[Any]) -> None:
    half = (TICKS[1] - TICKS[0]) / 2
    edges = np.append(TICKS - half, TICKS[-1] + half)
    for columns, own in (([-STRIP, STRIP], inside[:, :1]), (edges, inside[:, 1:])):
        padded = np.pad(own, 1)
        for row, column in np.argwhere(padded[1:] != padded[:-1]):
            if 0 < column <= own.shape[1]:
                axes.plot([columns[column - 1], columns[column]], [edges[row]] * 2, color="black", lw=1.1)
        for row, column in np.argwhere(padded[:, 1:] != padded[:, :-1]):
            if 0 < row <= own.shape[0]:
                axes.plot([columns[column]] * 2, [edges[row - 1], edges[row]], color="black", lw=1.1)


def _draw_powers(axes: Axes, contest: Contest) -> None:
    axes.plot([q for _, q in contest.powers], [p for p, _ in contest.powers], ".", ms=3, color="0.35", mew=0)


def _draw_excess(axes: Axes, contest: Contest) -> None:
    table = contest.rows.pivot_table(index=SEED, columns=[P, Q], values=EXCESS, dropna=False)
    table = table[[powers for powers in table.columns if powers in contest.powers]]
    powers = [(float(p), float(q)) for p, q in table.columns]
    surface = surface_of(powers, table.to_numpy(dtype=float))
    plane = _plane(surface.effect)
    image = _draw_plane(axes, plane, Normalize(float(plane.min()), float(plane.max())), "cividis")
    _draw_powers(axes, contest)
    axes.plot([REFERENCE[1]], [REFERENCE[0]], "o", ms=11, mfc="none", mec="white", mew=1.6)
    axes.set_title("Excess modularity,\nstrengths chosen for Poisson noise")
    figure = axes.get_figure()
    assert isinstance(figure, Figure)
    figure.colorbar(image, ax=axes, pad=0.02, label="Excess of structural modularity", format="{x:.3g}")


def _draw_winners(axes: Axes, winners: Mapping[str, Mapping[str, Array]]) -> None:
    names: list[str] = []
    for number, (name, arms) in enumerate(winners.items()):
        for arm, differences in arms.items():
            middle, low, high = ratio_interval(differences)
            place = len(names)
            axes.plot([low, high], [place, place], color=COLOURS[number], lw=1.4)
            marker = "o" if arm.startswith("trial") else "s"
            label = f"search for least error, {CRITERIA[name].words}" if arm == "trial 1" else None
            axes.plot([middle], [place], marker, ms=5, color=COLOURS[number], label=label)
            names.append(arm)
    axes.axvline(1, color="0.5", lw=0.8, zorder=0)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlabel("Error / error of (2, 1), fresh seeds")


def _marks() -> list[Line2D]:
    return [
        Line2D([], [], ls="", marker="o", ms=9, mfc="none", mec=COLOURS[0], mew=1.6, label="(2, 1)"),
        Line2D(
            [], [], ls="", marker="*", ms=11, mfc=COLOURS[2], mec="white", label="expectation of the noise"
        ),
        Line2D(
            [],
            [],
            marker="D",
            ms=6,
            mfc="white",
            mec="black",
            color="black",
            lw=1.2,
            label="least, 95% intervals",
        ),
        Line2D([], [], color="black", lw=1.1, label="not shown to be worse than the least"),
    ]


def _data(contests: Mapping[str, Contest]) -> pd.DataFrame:
    parts: list[pd.DataFrame] = []
    for name, contest in contests.items():
        for powers in contest.powers:
            middle, low, high = contest.ratio(powers)
            parts.append(
                pd.DataFrame(
                    [
                        {
                            "criterion": name,
                            "p": powers[0],
                            "q": powers[1],
                            "ratio": middle,
                            "low": low,
                            "high": high,
                        }
                    ]
                )
            )
    return pd.concat(parts, ignore_index=True)
