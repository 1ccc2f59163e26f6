"""The figure of a map: where the claim holds, where not, and what is undecided, each with its own hatching and name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.contour import QuadContourSet
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.patheffects import withTickedStroke
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion

from modulab.claims.maps.analysis import DrawnMap
from modulab.claims.maps.boundary import NOT_SUPPORTED, SUPPORTED, UNDECIDED, WORDS
from modulab.claims.maps.places import RESOLUTION, Panel, place_of
from modulab.claims.maps.words import axis_label, level_words, number
from modulab.config.sobol import Axis
from modulab.report.chart import Chart, Swatch, drawn_panel
from modulab.report.chart import Panel as ChartPanel
from modulab.report.figure import ReportFigure
from modulab.report.panels import MOST_COLUMNS, panel_grid
from modulab.report.style import ArmStyle, drawing

Array = NDArray[np.float64]

_FILLS = {SUPPORTED: ("#9ccbe8", ""), UNDECIDED: ("#ececec", "...."), NOT_SUPPORTED: ("#f2b684", "////")}
"""Colour and hatching of each region: blue, grey and orange, which colour-blind readers can tell apart."""
_HATCH_COLOUR = "#8a8a8a"
_PREDICTED = "#7a0c66"
_MEASURED, _EXPECTED = "measured boundary", "predicted boundary"
_MATTERS, _DOES_NOT = "a setting whose effect matters", "one whose effect does not"
_STYLES = {
    **{WORDS[region]: ArmStyle(colour, "s") for region, (colour, _) in _FILLS.items()},
    _MEASURED: ArmStyle("#000000", "s"),
    _EXPECTED: ArmStyle(_PREDICTED, "s", (0, (3, 1.5))),
    _MATTERS: ArmStyle("#000000", "o"),
    _DOES_NOT: ArmStyle("#ffffff", "o"),
}
"""How a page draws what a map shows."""
_SWATCHES: Mapping[str, Swatch] = {
    **dict.fromkeys(WORDS.values(), "area"),
    **dict.fromkeys((_MEASURED, _EXPECTED), "line"),
    **dict.fromkeys((_MATTERS, _DOES_NOT), "mark"),
}
_MARGIN = 0.02
"""Around a plane, so settings on its edge are whole."""


def map_figure(drawn: DrawnMap) -> ReportFigure:
    """Draw a map: one plane per panel with its regions, measured and predicted boundary, and settings as marks."""
    panels = drawn.plan.panels
    columns = {2: 2, 4: 2, 8: 4}.get(len(panels), min(len(panels), MOST_COLUMNS))
    charted: list[ChartPanel] = []
    with drawing(**{"hatch.linewidth": 0.5, "hatch.color": _HATCH_COLOUR}):
        figure, axes = panel_grid(len(panels), columns, height=2.9)
        for place, (each, panel) in enumerate(zip(axes, panels, strict=True)):
            guides = _draw_panel(each, drawn, panel)
            charted.append(_charted(each, drawn, panel, guides))
            if place + columns >= len(panels):
                each.set_xlabel(axis_label(drawn, drawn.plan.x))
            if place % columns == 0:
                each.set_ylabel(axis_label(drawn, drawn.plan.y))
        _legend(figure)
    caption = (
        "Regions: where the whole band of the fitted effect lies above the least effect that matters (supported), "
        "below it (not supported), or on both sides (undecided). The band holds for all places of the map at once, "
        "with 95% confidence, by bootstrap over settings."
    )
    chart = Chart(charted, _STYLES, swatches=_SWATCHES, columns=columns, on_white=True)
    return ReportFigure(
        drawn.of.name, f"Where {_lower(drawn.of.title)}", caption, figure, _data(drawn), chart
    )


def _draw_panel(axes: Axes, drawn: DrawnMap, panel: Panel) -> pd.DataFrame:
    """Draw a plane, and return its boundaries as rows of its interactive form."""
    ticks = drawn.plan.ticks
    found = _plane(drawn.regions, panel)
    fills = [_FILLS[region] for region in (NOT_SUPPORTED, UNDECIDED, SUPPORTED)]
    filled = axes.contourf(
        ticks, ticks, found, levels=[-1.5, -0.5, 0.5, 1.5], colors=[colour for colour, _ in fills],
        hatches=[hatch for _, hatch in fills],
    )  # fmt: skip
    filled.set_edgecolor(_HATCH_COLOUR)
    filled.set_linewidth(0.0)
    guides: list[pd.DataFrame] = []
    if drawn.surface is not None:
        effect = _plane(drawn.surface.effect - drawn.threshold, panel)
        if (effect > 0).any() and (effect < 0).any():
            line = axes.contour(ticks, ticks, effect, levels=[0.0], colors="black", linewidths=1.8)
            guides.append(_guide(line, _MEASURED))
    margins = _plane(drawn.margins, panel)
    if (margins > 0).any() and (margins < 0).any():
        line = axes.contour(ticks, ticks, margins, levels=[0.0], colors=_PREDICTED, linewidths=1.6)
        guides.append(_guide(line, _EXPECTED))
        # Contours have the higher values, those of support, on one side: the ticks are on the other.
        line.set(path_effects=[withTickedStroke(angle=-90, spacing=9, length=0.6)])
    _draw_settings(axes, drawn, panel)
    for region, words in WORDS.items():
        name_region(axes, ticks, found == region, words)
    _set_axis(axes, "x", drawn.plan.axes[drawn.plan.x])
    _set_axis(axes, "y", drawn.plan.axes[drawn.plan.y])
    axes.set_title("\n".join([*level_words(panel), *_all_predicted(margins)]))
    return pd.concat(guides) if guides else pd.DataFrame()


def _guide(line: QuadContourSet, arm: str) -> pd.DataFrame:
    """Return the pieces of a boundary as rows."""
    pieces = [
        pd.DataFrame({"arm": arm, "shown": "guide", "x": piece[:, 0], "y": piece[:, 1], "part": number})
        for number, piece in enumerate(line.allsegs[0])
    ]
    return pd.concat(pieces)


def _charted(axes: Axes, drawn: DrawnMap, panel: Panel, guides: pd.DataFrame) -> ChartPanel:
    """Return a plane as it is drawn on a page: places with the fitted effect, settings with their own."""
    plan = drawn.plan
    across, up = np.meshgrid(plan.ticks, plan.ticks)
    shown = pd.DataFrame({key: plan.shown[0][key][panel.places] for key in (plan.x, plan.y)})
    margins = drawn.margins[panel.places].tolist()
    places = pd.DataFrame(
        {
            "arm": [WORDS[region] for region in drawn.regions[panel.places].tolist()], "shown": "mean",
            "x": across.ravel(), "y": up.ravel(),
            "words": [
                f"{words}\npredicted: {_predicted(margin)}"
                for words, margin in zip(_words(drawn, shown, ()), margins, strict=True)
            ],
        }
    )  # fmt: skip
    if drawn.surface is not None:
        surface = drawn.surface
        for name, values in (("value", surface.effect), ("y_low", surface.low), ("y_high", surface.high)):
            places[name] = [drawn.of.effect.shown(value) for value in values[panel.places].tolist()]
    parts = [places, guides]
    own = _settings_of(drawn, panel)
    if len(own):
        settings = {
            "arm": np.where(own["effect"] > drawn.threshold, _MATTERS, _DOES_NOT), "shown": "member",
            "x": plan.places_on(plan.x, own), "y": plan.places_on(plan.y, own),
            "value": [drawn.of.effect.shown(value) for value in own["effect"].tolist()],
            "words": _words(drawn, own, plan.averaged),
        }  # fmt: skip
        parts.append(pd.DataFrame(settings))
    rows = pd.concat(parts, ignore_index=True).assign(run_id=None)
    charted = drawn_panel(axes, rows, "regions")
    return replace(
        charted,
        title=", ".join(charted.title.split("\n")),
        x=replace(charted.x, title=axis_label(drawn, plan.x)),
        y=replace(charted.y, title=axis_label(drawn, plan.y)),
        values="Effect", means="Fitted effect and its band", members="Effect of one setting",
        absent="No effect could be fitted",
    )  # fmt: skip


def _predicted(margin: float) -> str:
    if not np.isfinite(margin):
        return "nothing"
    return WORDS[SUPPORTED if margin > 0 else NOT_SUPPORTED]


def _words(drawn: DrawnMap, settings: pd.DataFrame, others: Sequence[str]) -> list[str]:
    """Return where settings lie, in words: their values of x and y, and of other keys that the figure averages over."""
    parts = [
        [f"{axis_label(drawn, key)}: {number(value)}" for value in settings[key].astype(float).tolist()]
        for key in (drawn.plan.x, drawn.plan.y, *others)
    ]
    return ["\n".join(lines) for lines in zip(*parts, strict=True)]


def _all_predicted(margins: Array) -> list[str]:
    """Return what is predicted where no line can show it."""
    if not np.isfinite(margins).all():
        return ["nothing predicted"]
    if (margins > 0).all():
        return ["predicted: supported everywhere"]
    return ["predicted: supported nowhere"] if (margins <= 0).all() else []


def _settings_of(drawn: DrawnMap, panel: Panel) -> pd.DataFrame:
    """Return the settings, with their effects, that lie in a panel."""
    keep = np.ones(len(drawn.effects), dtype=bool)
    for key, level in panel.levels.items():
        keep &= (drawn.effects[key] == level).to_numpy()
    return drawn.effects.loc[keep]


def _draw_settings(axes: Axes, drawn: DrawnMap, panel: Panel) -> None:
    own = _settings_of(drawn, panel)
    if own.empty:
        return
    x, y = drawn.plan.places_on(drawn.plan.x, own), drawn.plan.places_on(drawn.plan.y, own)
    above = own["effect"].to_numpy() > drawn.threshold
    for which, fill in ((above, "black"), (~above, "white")):
        axes.plot(x[which], y[which], ls="", marker="o", ms=2.6, mfc=fill, mec="black", mew=0.5, alpha=0.75)


_LETTER_WIDTH, _LETTER_HEIGHT = 0.022, 0.08
"""The size of a letter in the names of regions, as shares of a plane."""


def name_region(axes: Axes, ticks: Array, inside: NDArray[np.bool_], words: str) -> None:
    """Write a region's name where all of it has room, at the place that is farthest from all that is not of the region.

    A region that is too narrow for its name has none: words across a boundary would hide it, and the legend has all.
    """
    size = np.array([_LETTER_HEIGHT, _LETTER_WIDTH * len(words)]) * len(ticks)
    room = binary_erosion(inside, np.ones(2 * np.ceil(size / 2).astype(int) + 1))
    if not room.any():
        return
    rows, columns = np.nonzero(room)
    # The edge of the plane bounds a region too, and words are wider than high.
    others = np.argwhere(~np.pad(inside, 1)) - 1
    stretch = np.array([2.0, 1.0])
    apart = (np.stack([rows, columns], axis=1)[:, None] - others[None]) * stretch
    best = int(np.abs(apart).max(axis=2).min(axis=1).argmax())
    x, y = float(ticks[columns[best]]), float(ticks[rows[best]])
    frame = {"boxstyle": "round,pad=0.2", "fc": "white", "ec": "none", "alpha": 0.9}
    axes.text(x, y, words, ha="center", va="center", size=7.5, bbox=frame)


def _set_axis(axes: Axes, which: str, axis: Axis) -> None:
    """Put ticks at round values of an axis, of which the plane shows the places from 0 to 1."""
    values = _round_values(axis)
    places, texts = place_of(axis, np.array(values)), [f"{value:g}" for value in values]
    if which == "x":
        axes.set_xticks(places, texts)
        axes.set_xlim(-_MARGIN, 1 + _MARGIN)
    else:
        axes.set_yticks(places, texts)
        axes.set_ylim(-_MARGIN, 1 + _MARGIN)


def _round_values(axis: Axis) -> list[float]:
    if axis.values is not None:
        return [float(value) for value in axis.values]
    assert axis.low is not None
    assert axis.high is not None
    if axis.scale == "linear":
        found = [float(value) for value in MaxNLocator(5).tick_values(axis.low, axis.high)]
    else:
        decades = range(int(np.floor(np.log10(axis.low))), int(np.ceil(np.log10(axis.high))) + 1)
        steps = (1, 2, 5) if axis.high / axis.low < 30 else (1, 3) if axis.high / axis.low < 300 else (1,)
        found = [float(f"{step}e{decade}") for decade in decades for step in steps]
    return [value for value in found if axis.low * (1 - 1e-9) <= value <= axis.high * (1 + 1e-9)]


def _legend(figure: Figure) -> None:
    handles: list[Any] = [
        Patch(facecolor=colour, hatch=hatch, edgecolor=_HATCH_COLOUR, linewidth=0.5, label=WORDS[region])
        for region, (colour, hatch) in _FILLS.items()
    ]
    handles += [
        Line2D([], [], color="black", lw=1.8, label=_MEASURED),
        Line2D(
            [], [], color=_PREDICTED, lw=1.6, label=f"{_EXPECTED}, with ticks on the side that is not supported",
            path_effects=[withTickedStroke(angle=-90, spacing=7, length=0.6)],
        ),
        Line2D([], [], ls="", marker="o", ms=3.5, mfc="black", mec="black", label=_MATTERS),
        Line2D([], [], ls="", marker="o", ms=3.5, mfc="white", mec="black", mew=0.6, label=_DOES_NOT),
    ]  # fmt: skip
    width = figure.get_figwidth()
    columns = 3 if width > 8 else 2 if width > 6 else 1
    figure.set_figheight(figure.get_figheight() + 0.22 * -(-len(handles) // columns))
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, handlelength=2.4)


def _plane(values: NDArray[Any], panel: Panel) -> NDArray[Any]:
    return values[panel.places].reshape(RESOLUTION, RESOLUTION)


def _data(drawn: DrawnMap) -> pd.DataFrame:
    """Return all that the figure shows: every place of its planes, then every setting with its own effect."""
    shown = drawn.plan.shown[0]
    keys = [key for key in drawn.plan.axes if key not in drawn.plan.averaged]
    places = pd.DataFrame({key: shown[key] for key in keys}).assign(
        shown="place", region=[WORDS[region] for region in drawn.regions.tolist()], predicted=drawn.margins
    )
    of = drawn.of.effect
    if drawn.surface is not None:
        for name, values in (
            ("effect", drawn.surface.effect),
            ("low", drawn.surface.low),
            ("high", drawn.surface.high),
        ):
            places[name] = [of.shown(value) for value in values.tolist()]
    settings = drawn.effects[list(drawn.plan.axes)].assign(
        shown="setting", effect=[of.shown(value) for value in drawn.effects["effect"].tolist()]
    )
    return pd.concat([places, settings], ignore_index=True)


def _lower(words: str) -> str:
    return words[:1].lower() + words[1:]
