"""Pictures of connectivity: weight matrices of networks before and after training."""

from __future__ import annotations

from itertools import pairwise

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray

from modulab.report.connectivity import SILENT, STATES, Connectivity, connectivity_data
from modulab.report.figure import ReportFigure
from modulab.report.style import drawing

HOW_TO_READ = (
    "Absolute weights, each layer relative to its 99.5% quantile over all pictures. Hidden units are sorted by the "
    "module that they serve most strongly, the strongest first, each picture by its own weights; x and y are "
    "inputs and outputs by module. S is structural modularity."
)
_COLOURS = "Blues"
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
) -> ReportFigure:
    """Draw networks, by name, before and after training: a row of two pictures per network.

    A picture has one matrix per layer, below one another: hidden units along its width; the first layer's
    inputs, or the next layer's units, along its height.
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
        figure.colorbar(bar, cax=beside, label="|weight| / layer's largest", extend="max")
    return ReportFigure(name, title, caption, figure, data)


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
            layer_name = "Hidden units" if last == 2 else f"Units of layer {along}"
            axes.set_xlabel("Inputs" if along == 0 else f"{layer_name} by module", labelpad=2)
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
