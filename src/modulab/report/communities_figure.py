"""Pictures of modules that were found: sorted adjacency with a random graph beside it, restarts, and module graphs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from modulab.report.chart import Chart, drawn_panel
from modulab.report.communities import PicturedModules, SortedGraph, modules_data
from modulab.report.figure import ReportFigure
from modulab.report.panels import panel_grid
from modulab.report.style import COLOURS, MARKERS, ArmStyle, drawing, set_measure_axis

HOW_TO_READ = (
    "Nodes of a network's graph by the module that was found, nearest to the inputs first in each; lines divide "
    "modules. Beside it a random graph made of the same network, with the modules that the same search finds there. "
    "Then in how many restarts two nodes were in one module, and the modules as a graph: areas are numbers of nodes, "
    "widths and numbers shares of all weight."
)
_PANEL, _HEADING = 2.35, 0.62
_WEIGHTS, _SHARES = "Blues", "Greys"
_MOST_NAMED = 8
"""Number of modules drawn and named in a module graph; the smallest ones are left out."""


def modules_figure(found: dict[str, PicturedModules], *, name: str, title: str) -> ReportFigure:
    """Draw what was found in networks, by name: a row of four pictures for each."""
    with drawing():
        figure = Figure(figsize=(4 * _PANEL + 0.9, len(found) * (_PANEL + _HEADING)), layout="constrained")
        rows = figure.subplots(len(found), 4, squeeze=False)
        for axes, (network, each) in zip(rows, found.items(), strict=True):
            largest = float(np.quantile(each.own.adjacency[each.own.adjacency > 0], 0.98))
            _draw_graph(axes[0], each.own, largest)
            heading = axes[0].set_title(f"{network}\n{each.search}: {_count(each.own)}", loc="left")
            heading.set_in_layout(False)  # long ones run on above the pictures beside
            _draw_graph(axes[1], each.random, largest)
            axes[1].set_title(f"\nRandom graph: {_count(each.random)}", loc="left")
            _draw_matrix(axes[2], each.together, each.own.modules, _SHARES, 1.0)
            axes[2].set_title("\nIn one module over restarts", loc="left")
            _draw_modules(axes[3], each)
        weights = ScalarMappable(Normalize(0, 1), mpl.colormaps[_WEIGHTS])
        figure.colorbar(
            weights, ax=rows[:, 3], label="weight / network's largest", extend="max",
            location="right", fraction=0.08, shrink=min(1.0, 1.6 / len(found)), aspect=18,
        )  # fmt: skip
    return ReportFigure(name, title, HOW_TO_READ, figure, modules_data(found))


def _count(graph: SortedGraph) -> str:
    count = len(set(graph.modules.tolist()))
    return f"{count} module{'s' if count != 1 else ''}"


def _draw_graph(axes: Axes, graph: SortedGraph, largest: float) -> None:
    _draw_matrix(axes, graph.adjacency, graph.modules, _WEIGHTS, largest)


def _draw_matrix(
    axes: Axes, matrix: NDArray[np.float64], modules: NDArray[np.int64], colours: str, largest: float
) -> None:
    axes.imshow(matrix, cmap=colours, norm=Normalize(0, largest), interpolation="nearest")
    axes.spines[:].set_visible(True)
    axes.set_xticks([])
    axes.set_yticks([])
    for divider in np.nonzero(np.diff(modules))[0] + 0.5:
        axes.axhline(divider, color=COLOURS[1], lw=0.7)
        axes.axvline(divider, color=COLOURS[1], lw=0.7)


def _draw_modules(axes: Axes, found: PicturedModules) -> None:
    """Draw modules on a circle, joined by lines as wide as the weight between them."""
    sizes = np.bincount(found.own.modules)[:_MOST_NAMED]
    shares = found.between()
    angles = np.pi / 2 + 2 * np.pi * np.arange(len(sizes)) / len(sizes)
    places = np.stack([np.cos(angles), np.sin(angles)], axis=1) * (0 if len(sizes) == 1 else 1)
    for one in range(len(sizes)):
        for other in (other for other in range(one) if shares[one, other] > 0):
            ends = places[[one, other]]
            axes.plot(ends[:, 0], ends[:, 1], color="0.6", lw=0.3 + 18 * shares[one, other], zorder=1)
            middle = ends.mean(axis=0)
            text = axes.text(
                middle[0],
                middle[1],
                f"{shares[one, other]:.0%}",
                ha="center",
                va="center",
                fontsize=7,
                zorder=4,
            )
            text.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 0.5, "alpha": 0.8})
    areas = 2200 * sizes / sizes.sum()
    colours = [COLOURS[module % len(COLOURS)] for module in range(len(sizes))]
    axes.scatter(places[:, 0], places[:, 1], s=areas, c="white", zorder=2)
    axes.scatter(places[:, 0], places[:, 1], s=areas, c=colours, alpha=0.6, zorder=2)
    for module, (place, size) in enumerate(zip(places, sizes, strict=True)):
        words = f"{size} nodes\n{shares[module, module]:.0%}"
        axes.text(place[0], place[1], words, ha="center", va="center", fontsize=7, zorder=3)
    axes.set_xlim(-1.7, 1.7)
    axes.set_ylim(-1.7, 1.7)
    axes.set_aspect("equal")
    axes.set_axis_off()
    axes.set_title("Modules", loc="left")


def excess_figure(
    results: pd.DataFrame, searches: Mapping[str, str], against: str, *, name: str, title: str
) -> ReportFigure:
    """Draw the number of modules that searches found, and their agreement with those served, against a measure.

    `searches` gives the words for each, by the name of its values. Marks are networks, lines means over networks of
    about the same value: fifths of them.
    """
    kinds = {"modules": "Modules beyond chance", "agreement": "Found and served modules, AMI"}
    excess = results[against].to_numpy(dtype=float, na_value=np.nan)
    parts: list[pd.DataFrame] = []
    charted: list[list[pd.DataFrame]] = []
    with drawing():
        figure, panels = panel_grid(2, height=3.0)
        for axes, (kind, words) in zip(panels, kinds.items(), strict=True):
            charted.append([])
            for place, (search, arm) in enumerate(searches.items()):
                column = f"communities/{search}_{kind}"
                if kind == "modules" and f"communities/{search}_significant" in results:
                    column = f"communities/{search}_significant"
                values = results[column].to_numpy(dtype=float, na_value=np.nan)
                rows = np.nonzero(np.isfinite(excess) & np.isfinite(values))[0]
                columns = {"run_id": results["run_id"].to_numpy()[rows], against: excess[rows]}
                parts.append(
                    pd.DataFrame({**columns, "search": search, "measure": kind, "value": values[rows]})
                )
                shift = 0.05 * (place - (len(searches) - 1) / 2) if kind == "modules" else 0.0
                colour, marker = COLOURS[place], MARKERS[place]
                axes.plot(
                    excess[rows], values[rows] + shift, color=colour, marker=marker, ls="", ms=2.5, alpha=0.35
                )
                fifths = np.array_split(rows[np.argsort(excess[rows], kind="stable")], 5)
                kept = [own for own in fifths if len(own)]
                across, up = ([float(each[own].mean()) for own in kept] for each in (excess, values))
                axes.plot(across, up, color=colour, marker=marker, ms=5, label=arm)
                singles = parts[-1].assign(shown="member", x=excess[rows], y=values[rows] + shift)
                means = pd.DataFrame({"shown": "mean", "x": across, "y": up, "value": up})
                charted[-1].append(pd.concat([singles, means]).assign(arm=arm))
            set_measure_axis(axes, against, excess, "linear", "x")
            axes.set_xlim(float(np.nanmin(excess)) - 0.04, 1.04 * float(np.nanmax(excess)))
            axes.set_ylabel(words)
        panels[0].yaxis.set_major_locator(MaxNLocator(integer=True))
        panels[1].set_ylim(-0.1, 1.04)
        handles, names = panels[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower center", ncols=len(names))
        drawn = [
            drawn_panel(axes, pd.concat(each), "front") for axes, each in zip(panels, charted, strict=True)
        ]
    caption = (
        "Small marks are networks; large ones are means over fifths of them in the order of the axis. Agreement is "
        "adjusted mutual information: 0 by chance, and 0 where one module is found. Modules that are no better than "
        "those of random graphs (p above .05) count as one, if enough random graphs were searched to decide."
    )
    chart = Chart(
        [
            replace(each, values=words, means="Mean over a fifth of the networks")
            for each, words in zip(drawn, kinds.values(), strict=True)
        ],
        {arm: ArmStyle(COLOURS[place], MARKERS[place]) for place, arm in enumerate(searches.values())},
    )
    return ReportFigure(name, title, caption, figure, pd.concat(parts, ignore_index=True), chart)
