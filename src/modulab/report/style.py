"""The look of figures: colours, markers, axes, and the words for measures and settings on an axis."""

from __future__ import annotations

import functools
import math
import re
import textwrap
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator
from numpy.typing import ArrayLike

from modulab.measure_names import better, with_arrow
from modulab.text import printable

if TYPE_CHECKING:
    from modulab.metrics.measure import Column
else:
    # Annotations are checked in tests, and importing modulab.metrics imports torch.
    Column = object

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's palette, which colour-blind readers can tell apart; without its yellow, too pale for lines."""

MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DASHES = ("-", (0, (4, 1.5)), (0, (1, 1.2)))
MOST_ARMS = len(COLOURS) * len(DASHES)
"""Number of arms that can be distinguished in one figure, by colour, marker and dashes."""

Scale = Literal["linear", "log", "symlog"]

_RC: dict[Any, Any] = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "lines.linewidth": 1.6,
    "text.parse_math": False,  # names that users choose may hold dollar signs
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "figure.constrained_layout.h_pad": 0.06,
    "figure.constrained_layout.w_pad": 0.06,
}


def drawing(**more: Any) -> AbstractContextManager[None]:
    """Return the context of matplotlib settings in which every figure is made and saved."""
    settings: dict[Any, Any] = {**_RC, **more}
    return mpl.rc_context(settings)


@dataclass(frozen=True)
class ArmStyle:
    """The look of one arm in every figure of a page."""

    colour: str
    marker: str
    dashes: Any = "-"


def arm_styles(arms: Sequence[object], shades: str = "viridis") -> dict[str, ArmStyle]:
    """Return a style for each arm, by its text: shades in order if all arms are numbers, else colours far apart.

    Give all arms of a page at once, so each looks the same in all of its figures.
    """
    names = [arm_text(arm) for arm in dict.fromkeys(arms)]
    numbers = all(isinstance(arm, int | float | np.number) and not isinstance(arm, bool) for arm in arms)
    if numbers and len(names) > 2:
        picked = mpl.colormaps[shades](np.linspace(0, 0.85, len(names)))
        return {
            name: ArmStyle(to_hex(shade), MARKERS[place % len(MARKERS)])
            for place, (name, shade) in enumerate(zip(names, picked, strict=True))
        }
    return {
        name: ArmStyle(
            COLOURS[place % len(COLOURS)],
            # Moved on by one where colours begin again, so no two arms have colour and marker in common.
            MARKERS[(place + place // len(COLOURS)) % len(MARKERS)],
            DASHES[place // len(COLOURS) % len(DASHES)],
        )
        for place, name in enumerate(names)
    }


_DARK_GROUND = 0.016
"""Relative luminance of the background of pages on dark screens."""
_LEAST_CONTRAST = 3.5


def on_dark(colour: str) -> str:
    """Return a colour mixed with enough white that its marks have contrast on the dark background of a page.

    Contrast is that of the Web Content Accessibility Guidelines 2.2, which ask for 3 of marks.
    """
    rgb = np.array(to_rgb(colour))
    for share in np.linspace(0, 1, 21):
        mixed = rgb + share * (1 - rgb)
        linear = np.where(mixed <= 0.04045, mixed / 12.92, ((mixed + 0.055) / 1.055) ** 2.4)
        if linear @ (0.2126, 0.7152, 0.0722) + 0.05 >= _LEAST_CONTRAST * (_DARK_GROUND + 0.05):
            return to_hex(mixed)
    return "#ffffff"


def arm_text(arm: object) -> str:
    """Return the text of a value in a legend: numbers short, and a missing value as a dash."""
    if arm is None or arm is pd.NA or (isinstance(arm, float) and math.isnan(arm)):
        return "-"
    return f"{arm:g}" if isinstance(arm, float) else printable(str(arm))


_LABELS = {
    "training/loss": "Training loss",
    "training/steps": "Training steps taken",
    "step": "Training step",
    "level": "Level of the perturbation",
    "range": "Factor of the training range",
    "seed": "Seed",
    "network": "Network",
    "task.name": "Task",
    "task.modules": "Number of modules d",
    "task.support": "Training support",
    "task.mixing": "Inputs mixed by a rotation",
    "task.band_width": "Band width w",
    "task.degree": "Degree k of the targets",
    "task.nonlinearity": "Share b of nonlinear targets",
    "task.code": "Code of the inputs",
    "architecture.name": "Architecture",
    "architecture.width": "Hidden units per layer",
    "architecture.match": "Compared at equal",
    "architecture.depth": "Hidden layers",
    "architecture.activation": "Activation",
    "architecture.cross_connections": "Share of cross-module connections",
    "architecture.initial_scale": "Scale of initial weights",
    "noise.name": "Noise",
    "noise.scale": "Noise scale σ in training",
    "sigma": "Noise scale σ in training, or matched",
    "change": "What is changed",
    "regulariser.weight_power": "Power p of weights",
    "regulariser.activity_power": "Power q of activity",
    "regulariser.name": "Regulariser",
    "regulariser.strength": "Regulariser strength λ",
    "data.num_samples": "Training points N",
    "training.steps": "Training steps",
    "training.batch_size": "Batch size",
    "training.optimiser": "Optimiser",
    "training.learning_rate": "Learning rate",
    "training.weight_decay": "Weight decay",
}


_SYMBOLS = {
    "task.modules": "d",
    "task.band_width": "w",
    "task.degree": "k",
    "noise.scale": "σ",
    "regulariser.weight_power": "p",
    "regulariser.activity_power": "q",
    "regulariser.strength": "λ",
    "data.num_samples": "N",
}
"""The symbols of settings, as `_LABELS` introduces them."""


def setting_text(name: str, value: object) -> str:
    """Return the text of a value of one of several settings in a legend: a word as it is, a number with its setting."""
    key = name.removeprefix("config.")
    if key.endswith(".name") or isinstance(value, str):
        return arm_text(value)
    words = label(key)
    if key in _SYMBOLS or words == key:
        return f"{_SYMBOLS.get(key, key)} = {arm_text(value)}"
    return f"{words[:1].lower()}{words[1:]} {arm_text(value)}"


@functools.cache
def described_columns() -> tuple[Column, ...]:
    """Return the columns of the measures and analyses that come with modulab, which describe their values."""
    # Imported here because it takes seconds, and misspelt commands should be rejected at once.
    from modulab.analysis.choosing import shipped_columns
    from modulab.metrics.measure import find_measure, shipped_measures

    measured = (
        column for path, value in shipped_measures().items() for column in find_measure(value, path).columns
    )
    return (*measured, *shipped_columns())


def label(name: str) -> str:
    """Return the words for a measure or a setting, with or without `config.`; a name unknown here as it is."""
    name = name.removeprefix("config.")
    if name in _LABELS:
        return _LABELS[name]
    found = (column.label_of(name) for column in described_columns())
    return next((words for words in found if words is not None), name)


def measure_label(name: str) -> str:
    """Return the words for a measure, with an arrow to its better values."""
    return with_arrow(label(name), better(name))


def ends_at_one(name: str) -> bool:
    """Return whether 1 is the largest value of a measure."""
    return any(column.ends_at_one and column.describes(name) is not None for column in described_columns())


def choose_scale(values: ArrayLike, span: float = 20.0) -> Scale:
    """Return the axis that spreads values best: logarithmic if they span a factor of `span` or more.

    With zeros among them (as of a strength that is switched off) it is linear near zero, and logarithmic beyond.
    """
    finite = np.asarray(values, dtype=np.float64)
    finite = finite[np.isfinite(finite)]
    positive = finite[finite > 0]
    if positive.size == 0 or finite.min() < 0 or positive.max() < span * positive.min():
        return "linear"
    return "log" if finite.min() > 0 else "symlog"


def choose_measure_scale(values: ArrayLike) -> Scale:
    """Return the axis of a measure: logarithmic or linear."""
    return "log" if choose_scale(values) == "log" else "linear"


def choose_setting_scale(values: ArrayLike) -> Scale:
    """Return the axis for the values of a setting: logarithmic where they rise by about equal factors."""
    rising = np.unique(np.asarray(values, dtype=np.float64))
    positive = rising[rising > 0]
    if rising.size < 3 or positive.size < 2 or rising[0] < 0:
        return "linear"
    factors = [later / earlier for earlier, later in pairwise(positive)]
    gaps = np.diff(positive)
    if max(factors) > 2.6 * min(factors) or (gaps.size > 1 and np.allclose(gaps, gaps[0])):
        return "linear"
    if max(factors) < 1.5:
        return "linear"
    return "log" if rising[0] > 0 else "symlog"


def _plain(value: float, place: object) -> str:
    del place
    return f"{value:g}"


def set_setting_axis(axes: Axes, values: ArrayLike, scale: Scale, inches: float, axis: str = "x") -> None:
    """Scale the axis of a setting, with ticks at its values: at as many as fit on `inches` inches."""
    rising = np.unique(np.asarray(values, dtype=np.float64))
    positive = rising[rising > 0]
    which = axes.xaxis if axis == "x" else axes.yaxis
    if scale == "symlog" and positive.size == 0:
        scale = "linear"  # Of a measure that has values only where the setting is 0.
    if scale == "symlog":
        options: dict[str, Any] = {"linthresh": float(positive.min()), "linscale": 0.6}
        axes.set_xscale(scale, **options) if axis == "x" else axes.set_yscale(scale, **options)
    else:
        axes.set_xscale(scale) if axis == "x" else axes.set_yscale(scale)
    ends = which.get_transform().transform(rising)
    extent = max(float(np.ptp(ends)), 1e-12)
    kept: list[float] = []
    last = -np.inf
    for value, place in zip(rising, ends, strict=True):
        text = len(f"{value:g}") if axis == "x" else 2
        if (place - last) / extent * inches >= 0.075 * (text + 1.5):
            kept.append(float(value))
            last = place
    which.set_major_locator(FixedLocator(kept))
    which.set_major_formatter(FuncFormatter(_plain))
    which.set_minor_locator(NullLocator())


def set_log_axis(axes: Axes, axis: str, decades: float) -> None:
    """Scale an axis by factors, with plain numbers at its ticks: every power of ten if it spans more than two."""
    axes.set_yscale("log") if axis == "y" else axes.set_xscale("log")
    which = axes.yaxis if axis == "y" else axes.xaxis
    which.set_major_locator(LogLocator(subs=(1.0,) if decades > 2 else (1.0, 2.0, 5.0)))
    which.set_major_formatter(FuncFormatter(_plain))
    which.set_minor_formatter(NullFormatter())


def set_measure_axis(axes: Axes, name: str, values: ArrayLike, scale: Scale, axis: str = "y") -> None:
    """Scale and label the axis of a measure; that of one which ends at 1, as modularity, is linear from 0 to there."""
    which = axes.yaxis if axis == "y" else axes.xaxis
    set_limits = axes.set_ylim if axis == "y" else axes.set_xlim
    finite = np.asarray(values, dtype=np.float64)
    finite = finite[np.isfinite(finite)]
    bounded = ends_at_one(name)
    if scale == "log" and not bounded:
        set_log_axis(axes, axis, float(np.log10(finite.max() / finite.min())) if finite.size else 1.0)
    elif bounded and finite.size:
        # Marks at 0 and at 1 are whole.
        set_limits(min(0.0, float(finite.min())) - 0.04, 1.04)
    elif scale == "linear" and finite.size and finite.min() == finite.max():
        # Ticks next to one value, such as a count of 1, would be 0.98 and 1.02.
        half = 0.5 * abs(float(finite.min())) or 0.5
        set_limits(float(finite.min()) - half, float(finite.min()) + half)
    which.set_label_text(measure_label(name))


BEYOND = "Intervals that reach far beyond all marks end with the axis."


def keep_marks_in_view(axes: Axes, values: ArrayLike, axis: str = "y") -> bool:
    """Limit an axis so that it extends beyond the marks by at most their span; return whether it was cut.

    Intervals of few seeds may be so wide that the values in them could not be distinguished.
    """
    which = axes.yaxis if axis == "y" else axes.xaxis
    finite = np.asarray(values, dtype=np.float64)
    finite = finite[np.isfinite(finite)]
    if not finite.size:
        return False
    transform = which.get_transform()
    low, high = (float(end) for end in transform.transform([finite.min(), finite.max()]))
    span = high - low
    if span <= 1e-6 * max(abs(low), abs(high)):
        return False
    limits = axes.get_ylim() if axis == "y" else axes.get_xlim()
    drawn = transform.transform(np.asarray(limits, dtype=np.float64))
    kept = np.clip(drawn, low - span, high + span)
    if np.allclose(kept, drawn):
        return False
    ends = [float(end) for end in transform.inverted().transform(kept)]
    axes.set_ylim(ends[0], ends[1]) if axis == "y" else axes.set_xlim(ends[0], ends[1])
    return True


def wrapped(text: str, most: int) -> list[str]:
    """Return the lines of a label, of at most so many letters: an arrow at the end stays beside the word before it."""
    joined = re.sub(r" (\S)$", "\N{NO-BREAK SPACE}\\1", text)
    return [line.replace("\N{NO-BREAK SPACE}", " ") for line in textwrap.wrap(joined, most)]
