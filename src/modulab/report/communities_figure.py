"""Pictures of modules that were found: sorted adjacency with a random graph beside it, restarts, and module graphs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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

from modulab.report.chart import COLUMNS, Chart, ChartAxis, Panel, drawn_panel
from modulab.report.communities import PicturedModules, SortedGraph, modules_data
from modulab.report.figure import ReportFigure
from modulab.report.matrices import MOST_CELLS, Matrix
from modulab.report.panels import panel_grid
from modulab.report.style import COLOURS, MARKERS, ArmStyle, arm_styles, drawing, set_measure_axis

HOW_TO_READ = (
    "Left: the nodes of a network's graph, sorted by the modules found and then by layer, inputs first; lines separate "
    "modules, and weights are relative to the 98% quantile of the network. Next: a random graph made from the same "
    "network, with the modules that the same search finds there. Next: the share of restarts in which two nodes were "
    "in the same module. Right: the modules as a graph; areas show numbers of nodes, and line widths and percentages "
    "show shares of all weight."
)
_PANEL, _HEADING = 2.35, 0.62
_WEIGHTS, _SHARES = "Blues", "Greys"
_WEIGHTS_TITLE, _SHARES_TITLE = "relative weight", "Share of restarts in one module"
_MOST_NAMED = 8
"""Number of modules drawn and named in a module graph; the smallest ones are left out."""


def modules_figure(
    found: dict[str, PicturedModules], *, name: str, title: str, run_ids: Mapping[str, str] | None = None
) -> ReportFigure:
    """Draw what was found in networks, by name: a row of four pictures for each.

    With `run_ids`, by the same names, a page can tell how to train each network again.
    """
    with drawing():
        figure = Figure(figsize=(4 * _PANEL + 0.9, len(found) * (_PANEL + _HEADING)), layout="constrained")
        rows = figure.subplots(len(found), 4, squeeze=False)
        for axes, (network, each) in zip(rows, found.items(), strict=True):
            largest = _largest(each)
            _draw_graph(axes[0], each.own, largest)
            axes[0].set_title(f"\n{each.search}: {_count(each.own)}", loc="left")
            # Not in the title: the middle of a long one, beyond its picture, would push the next one away.
            heading = axes[0].annotate(network, (0, 1), (0, 19), textcoords="offset points", va="bottom")
            heading.set_in_layout(False)  # long ones run on above the pictures beside
            _draw_graph(axes[1], each.random, largest)
            axes[1].set_title(f"\nRandom graph: {_count(each.random)}", loc="left")
            _draw_matrix(axes[2], each.together, each.own.modules, _SHARES, 1.0)
            axes[2].set_title("\nIn one module over restarts", loc="left")
            _draw_modules(axes[3], each)
        weights = ScalarMappable(Normalize(0, 1), mpl.colormaps[_WEIGHTS])
        figure.colorbar(
            weights, ax=rows[:, 3], label=_WEIGHTS_TITLE, extend="max",
            location="right", fraction=0.08, shrink=min(1.0, 1.6 / len(found)), aspect=18,
        )  # fmt: skip
    cells = sum(2 * each.own.adjacency.size + each.random.adjacency.size for each in found.values())
    chart = _chart(found, run_ids or {}) if cells <= MOST_CELLS else None
    return ReportFigure(name, title, HOW_TO_READ, figure, modules_data(found), chart)


def _largest(found: PicturedModules) -> float:
    """Return the weight that has the darkest colour; the few beyond it would leave the others pale."""
    return float(np.quantile(found.own.adjacency[found.own.adjacency > 0], 0.98))


def _chart(found: dict[str, PicturedModules], run_ids: Mapping[str, str]) -> Chart:
    """Return the same pictures as panels, four of each network."""
    panels: list[Panel] = []
    for network, each in found.items():
        of_weights = (_WEIGHTS, _largest(each), "Weight")
        own = _matrix_panel(_count(each.own), each.own, each.own.adjacency, each.names, of_weights)
        random = _matrix_panel(
            f"Random graph: {_count(each.random)}", each.random, each.random.adjacency, each.names, of_weights
        )
        together = _matrix_panel(
            "In one module over restarts", each.own, each.together, each.names, (_SHARES, 1.0, _SHARES_TITLE)
        )
        own = replace(own, heading=f"{network}. {each.search}")
        run_id = run_ids.get(network, "")
        panels += [replace(panel, run_id=run_id) for panel in (own, random, together, _graph_panel(each))]
    modules = arm_styles([f"module {number + 1}" for number in range(_MOST_NAMED)])
    styles = {"": ArmStyle(COLOURS[1], MARKERS[-1]), **modules}
    bars = {_WEIGHTS_TITLE: _WEIGHTS, _SHARES_TITLE.lower(): _SHARES}
    return Chart(panels, styles, legend=False, columns=4, bars=bars)


def _matrix_panel(
    title: str,
    graph: SortedGraph,
    values: NDArray[np.float64],
    names: Sequence[str],
    look: tuple[str, float, str],
) -> Panel:
    """Return numbers for each two nodes of a graph as a panel; `look` is their colours, largest and title."""
    colours, largest, words = look
    nodes = [
        f"{names[node]}, module {module + 1}"
        for node, module in zip(graph.nodes.tolist(), graph.modules.tolist(), strict=True)
    ]
    dividers = (np.nonzero(np.diff(graph.modules))[0] + 1.0).tolist()
    places = np.arange(len(nodes)) + 0.5
    numbers = sorted(set(graph.modules.tolist()))
    ticks = {float(places[graph.modules == number].mean()): str(number + 1) for number in numbers}
    extent = float(len(nodes))
    return Panel(
        title,
        ChartAxis("Nodes by module", "linear", (0.0, extent), ticks),
        ChartAxis("", "linear", (extent, 0.0), ticks),
        pd.DataFrame(columns=list(COLUMNS)),
        "matrix",
        1.0,
        words,
        means="",
        matrix=Matrix(values, nodes, nodes, largest, colours, dividers, dividers),
    )


def _graph_panel(found: PicturedModules) -> Panel:
    """Return modules as nodes on a circle, and what lies between them as links."""
    sizes, places, shares = _on_circle(found)
    rows: list[dict[str, object]] = [
        {
            "arm": f"module {module + 1}", "x": place[0], "y": place[1], "value": shares[module, module],
            "size": size, "words": f"{size} nodes",
        }
        for module, (place, size) in enumerate(zip(places.tolist(), sizes.tolist(), strict=True))
    ]  # fmt: skip
    for one, other in zip(*np.nonzero(np.tril(shares[: len(sizes), : len(sizes)], -1)), strict=True):
        middle, half = (places[one] + places[other]) / 2, (places[one] - places[other]) / 2
        rows.append(
            {
                "arm": "", "x": middle[0], "y": middle[1], "x_half": half[0], "y_half": half[1],
                "value": shares[one, other], "words": f"between modules {other + 1} and {one + 1}",
            }
        )  # fmt: skip
    table = pd.DataFrame(rows, columns=[name for name in COLUMNS if name != "part"])
    circle = ChartAxis("", "linear", (-1.7, 1.7))
    return Panel(
        "Modules", circle, circle, table.assign(shown="mean"), "graph", 1.0, "Share of all weight", means=""
    )


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


def _on_circle(
    found: PicturedModules,
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Return the sizes of the modules that are drawn, their places on a circle, and the shares of all weight."""
    sizes = np.bincount(found.own.modules)[:_MOST_NAMED]
    angles = np.pi / 2 + 2 * np.pi * np.arange(len(sizes)) / len(sizes)
    places = np.stack([np.cos(angles), np.sin(angles)], axis=1) * (0 if len(sizes) == 1 else 1)
    return sizes, places, found.between()


def _draw_modules(axes: Axes, found: PicturedModules) -> None:
    """Draw modules on a circle, joined by lines as wide as the weight between them."""
    sizes, places, shares = _on_circle(found)
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
    areas = 2500 * sizes / sizes.sum()
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
