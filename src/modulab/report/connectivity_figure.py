"""Pictures of connectivity: weight matrices of networks before and after training."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray

from modulab.report.chart import COLUMNS, Chart, ChartAxis, Panel
from modulab.report.connectivity import SILENT, STATES, Connectivity, connectivity_data
from modulab.report.figure import ReportFigure
from modulab.report.matrices import MOST_CELLS, Matrix
from modulab.report.style import ArmStyle, drawing

HOW_TO_READ = (
    "Absolute weights, relative to the 99.5% quantile of their layer over all pictures. In each picture, hidden units "
    "are sorted by the module that they serve most strongly, the strongest first; x and y are inputs and outputs by "
    "module. S is structural modularity."
)
_COLOURS = "Blues"
_BAR_TITLE = "relative |weight|"
_DIVIDER = "#7f7f7f"
_SHARE = 0.995
"""Share of a layer's weights within the range of colours; the few beyond it would leave the others pale."""

_WIDTH, _LEFT, _BAR = 3.2, 0.5, 0.85
_ABOVE, _GAP, _LABELS = 0.55, 0.12, 0.5
"""Inches: of a picture, of the room left of it, of the colour bar with its labels; above, between, and for labels."""


def connectivity_figure(
    networks: dict[str, tuple[Connectivity, Connectivity]],
    *,
    name: str,
    title: str,
    caption: str = HOW_TO_READ,
    run_ids: Mapping[str, str] | None = None,
) -> ReportFigure:
    """Draw networks, by name, before and after training: a row of two pictures per network.

    A picture has one matrix per layer, below one another: hidden units along its width; the first layer's
    inputs, or the next layer's units, along its height. With `run_ids`, by the same names, a page can tell how to train
    each again.
    """
    data = connectivity_data(networks)
    norms = _norms(data)
    with drawing():
        blocks = [_ABOVE + sum(_heights(after)) + sum(_gaps(after)) for _, after in networks.values()]
        figure = Figure(figsize=(len(STATES) * (_LEFT + _WIDTH) + _BAR, sum(blocks)))
        top = sum(blocks)
        for (network, states), block in zip(networks.items(), blocks, strict=True):
            for column, (state, drawn) in enumerate(zip(STATES, states, strict=True)):
                left = column * (_LEFT + _WIDTH) + _LEFT
                panels = _stack(figure, left, top - _ABOVE, _heights(drawn), _gaps(drawn), _WIDTH)
                _draw(panels, drawn, norms)
                heading = network if column == 0 else ""  # long ones run on above the picture beside
                panels[0].set_title(f"{heading}\n{state}: S = {_two_digits(drawn.structural)}", loc="left")
            top -= block
        height = min(1.6, blocks[0] - _ABOVE - _LABELS)
        right = figure.get_figwidth() - _BAR + 0.15
        (beside,) = _stack(figure, right, sum(blocks) - _ABOVE, [height], [0], 0.12)
        bar = ScalarMappable(Normalize(0, 1), mpl.colormaps[_COLOURS])
        figure.colorbar(bar, cax=beside, label=_BAR_TITLE, extend="max")
    chart = _chart(networks, norms, run_ids or {}) if len(data) <= MOST_CELLS else None
    return ReportFigure(name, title, caption, figure, data, chart)


def _chart(
    networks: dict[str, tuple[Connectivity, Connectivity]],
    norms: dict[int, Normalize],
    run_ids: Mapping[str, str],
) -> Chart:
    """Return the same matrices as panels: of each network one row per layer, with one panel per state."""
    panels: list[Panel] = []
    for network, states in networks.items():
        for layer in range(1, len(states[0].weights) + 1):
            for state, drawn in zip(STATES, states, strict=True):
                heading = network if layer == 1 and state == STATES[0] else ""
                score = f" (S = {_two_digits(drawn.structural)})" if layer == 1 else ""
                words = f"{state.capitalize()}{score}, layer {layer}"
                panels.append(_panel(drawn, layer, norms, words, heading, run_ids.get(network, "")))
    return Chart(
        panels, {"": ArmStyle(_DIVIDER, "o")}, legend=False, columns=len(STATES), bars={_BAR_TITLE: _COLOURS}
    )


def _panel(
    drawn: Connectivity, layer: int, norms: dict[int, Normalize], title: str, heading: str, run_id: str
) -> Panel:
    """Return one layer's matrix with the axes of its drawing."""
    last = len(drawn.weights)
    along, up = _along(drawn)[layer - 1]
    weights = drawn.weights[layer - 1]
    matrix = Matrix(
        weights.T if along > up else weights,
        [_unit(drawn, up, place, last) for place in range(len(drawn.units[up]))],
        [_unit(drawn, along, place, last) for place in range(len(drawn.units[along]))],
        float(norms[layer].vmax or 1.0),
        _COLOURS,
        [divider + 0.5 for divider in _dividers(drawn.modules[up])],
        [divider + 0.5 for divider in _dividers(drawn.modules[along])],
    )
    across = _panel_axis(drawn, along, (0.0, float(len(matrix.columns))))
    down = _panel_axis(drawn, up, (float(len(matrix.rows)), 0.0))
    height = _heights(drawn)[layer - 1] / _WIDTH
    nothing = pd.DataFrame(columns=list(COLUMNS))
    return Panel(
        title, across, down, nothing, "matrix", height, "|Weight|", means="", heading=heading, matrix=matrix,
        run_id=run_id,
    )  # fmt: skip


def _panel_axis(drawn: Connectivity, layer: int, ends: tuple[float, float]) -> ChartAxis:
    """Return the axis of a layer's units, at which the middle of each module is named."""
    last = len(drawn.weights)
    middles, texts = _ticks(drawn.modules[layer], _letter(layer, last))
    ticks = {middle + 0.5: text for middle, text in zip(middles, texts, strict=True)}
    return ChartAxis(_units_of(layer, last), "linear", ends, ticks)


def _units_of(place: int, last: int) -> str:
    """Return the title of an axis of inputs, of hidden units or of outputs, sorted by module."""
    if place in (0, last):
        return "Outputs" if place else "Inputs"
    return "Hidden units by module" if last == 2 else f"Units of layer {place} by module"


def _unit(drawn: Connectivity, layer: int, place: int, last: int) -> str:
    """Return what is at a place of the drawing: an input, a hidden unit or an output, and its module."""
    module = int(drawn.modules[layer][place])
    number = int(drawn.units[layer][place])
    if layer in (0, last):
        letter = _letter(layer, last)
        own = f"{letter} shared" if module == SILENT else f"{letter}{module + 1}"
        return f"{'Output' if layer else 'Input'} {number}, {own}"
    kind = "Hidden unit" if last == 2 else f"Layer {layer}, unit"
    return f"{kind} {number}, {'silent' if module == SILENT else f'serves module {module + 1}'}"


def _two_digits(value: float) -> str:
    return f"{round(value, 2) + 0.0:.2f}"  # adding 0 turns -0 into 0


def _norms(data: pd.DataFrame) -> dict[int, Normalize]:
    """Return each layer's scale of colours, from 0 to about its largest weight in any network and state."""
    norms: dict[int, Normalize] = {}
    for layer in sorted(set(data["layer"])):
        largest = float(data.loc[data["layer"] == layer, "absolute_weight"].quantile(_SHARE))
        norms[int(layer)] = Normalize(0, largest or 1.0)
    return norms


def _along(drawn: Connectivity) -> list[tuple[int, int]]:
    """Return which units lie along the width and the height of each matrix: 0 is inputs, 1 the first hidden layer."""
    if len(drawn.weights) == 1:
        return [(0, 1)]
    return [(1, 0), *((layer, layer + 1) for layer in range(1, len(drawn.weights)))]


def _heights(drawn: Connectivity) -> list[float]:
    """Return the height of each matrix in inches: 0.22 a row, within bounds."""
    return [min(2.0, max(0.45, 0.22 * len(drawn.units[up]))) for _, up in _along(drawn)]


def _gaps(drawn: Connectivity) -> list[float]:
    """Return the room below each matrix: for labels, unless the next one has the same units along its width."""
    widths = [along for along, _ in _along(drawn)]
    return [*(_GAP if here == below else _LABELS for here, below in pairwise(widths)), _LABELS]


def _stack(
    figure: Figure, left: float, top: float, heights: list[float], gaps: list[float], width: float
) -> list[Axes]:
    """Return axes below one another, placed in inches from the lower left corner."""
    wide, high = figure.get_size_inches()
    panels: list[Axes] = []
    for height, gap in zip(heights, gaps, strict=True):
        panels.append(figure.add_axes((left / wide, (top - height) / high, width / wide, height / high)))
        top -= height + gap
    return panels


def _draw(panels: list[Axes], drawn: Connectivity, norms: dict[int, Normalize]) -> None:
    last = len(drawn.weights)
    layers = zip(panels, drawn.weights, _along(drawn), _gaps(drawn), strict=True)
    for layer, (axes, matrix, (along, up), gap) in enumerate(layers, start=1):
        image = matrix.T if along > up else matrix
        axes.imshow(image, cmap=_COLOURS, norm=norms[layer], aspect="auto", interpolation="nearest")
        axes.spines[:].set_visible(True)
        axes.tick_params(length=0, pad=2)
        axes.set_yticks(*_ticks(drawn.modules[up], _letter(up, last)))
        for divider in _dividers(drawn.modules[up]):
            axes.axhline(divider, color="0.5", lw=0.7)
        for divider in _dividers(drawn.modules[along]):
            axes.axvline(divider, color="0.5", lw=0.7)
        if 0 < up < last:
            axes.set_ylabel(f"Layer {up}", labelpad=2)
        if gap == _LABELS:
            axes.set_xticks(*_ticks(drawn.modules[along], _letter(along, last)))
            axes.set_xlabel(_units_of(along, last), labelpad=2)
        else:
            axes.set_xticks([])


def _letter(place: int, last: int) -> str:
    return "x" if place == 0 else "y" if place == last else ""


def _ticks(modules: NDArray[np.int64], letter: str) -> tuple[list[float], list[str]]:
    """Return the middle of each run of units of one module, and its name."""
    edges = [-0.5, *_dividers(modules), len(modules) - 0.5]
    middles = [(low + high) / 2 for low, high in pairwise(edges)]
    served = [int(modules[int(np.ceil(low))]) for low in edges[:-1]]
    none = f"{letter} shared" if letter else "silent"
    return middles, [none if module == SILENT else f"{letter}{module + 1}" for module in served]


def _dividers(modules: NDArray[np.int64]) -> list[float]:
    return [float(place) + 0.5 for place in np.nonzero(np.diff(modules))[0]]
