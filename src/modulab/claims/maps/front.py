"""Effect against price: the front of a fitted effect over a fitted error.

Of all places of a panel whose fitted error is at most a given one, the front is the largest fitted effect. Its band is
the map's own at that place. That band holds at all places at once, so it holds at the one that was chosen, too.
A place is on the front if no other has a larger fitted effect at a fitted error that is as low: it is not dominated.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from modulab.claims.evidence import SMALLEST_ERROR
from modulab.claims.maps.effects import Effect
from modulab.claims.maps.places import Plan
from modulab.claims.maps.surface import Surface, fit_surface
from modulab.report.chart import COLUMNS, Chart, drawn_panel
from modulab.report.figure import ReportFigure
from modulab.report.panels import legend_below, panel_grid
from modulab.report.style import arm_styles, arm_text, drawing, label, measure_label

Array = NDArray[np.float64]

_OWN = ("panel", "price", "effect", "low", "high")
"""Columns of a front that are not settings."""


@dataclass(frozen=True)
class Front:
    """The front of each panel, and the settings that it was fitted to."""

    places: pd.DataFrame
    """One row per place that no other dominates: panel, price, effect, low, high, and the values of x and y there."""
    settings: pd.DataFrame
    """One row per setting: panel, price and effect."""

    def at(self, panel: int, budget: float) -> tuple[float, float, float] | None:
        """Return the largest effect at a price of at most a budget, with its band; None if nothing is as cheap."""
        own = self.places.loc[(self.places["panel"] == panel) & (self.places["price"] <= budget), :]
        if own.empty:
            return None
        best = own.loc[own["effect"].idxmax(), :]
        return float(best["effect"]), float(best["low"]), float(best["high"])


def find_front(effect: Effect, plan: Plan, results: pd.DataFrame, surface: Surface) -> Front:
    """Return the front of a fitted effect over the price, which is fitted on a logarithmic scale."""
    keys = list(plan.axes)
    prices = effect.prices(results, keys)
    values = np.log(np.maximum(prices["price"].to_numpy(dtype=np.float64), SMALLEST_ERROR))
    shown = [plan.columns(each) for each in plan.shown]
    price = np.exp(fit_surface(plan.columns(prices), values, shown, replicates=0).effect)
    rows: list[pd.DataFrame] = []
    for number, panel in enumerate(plan.panels):
        here = not_dominated(price[panel.places], surface.effect[panel.places])
        places = np.arange(panel.places.start, panel.places.stop)[here]
        rows.append(
            pd.DataFrame(
                {
                    "panel": number, "price": price[places], "effect": _shown(effect, surface.effect[places]),
                    "low": _shown(effect, surface.low[places]), "high": _shown(effect, surface.high[places]),
                    plan.x: plan.shown[0][plan.x][places], plan.y: plan.shown[0][plan.y][places],
                }
            )
        )  # fmt: skip
    both = effect.of_settings(results, keys).merge(prices, on=keys)
    of_panel = np.full(len(both), -1)
    for number, panel in enumerate(plan.panels):
        inside = [(both[key] == level).to_numpy() for key, level in panel.levels.items()]
        of_panel[np.logical_and.reduce(inside) if inside else slice(None)] = number
    both = both.assign(panel=of_panel, effect=_shown(effect, both["effect"].to_numpy(dtype=np.float64)))
    return Front(pd.concat(rows, ignore_index=True), both)


def _shown(effect: Effect, values: Array) -> Array:
    return np.array([effect.shown(value) for value in values.tolist()], dtype=np.float64)


def not_dominated(prices: Array, effects: Array) -> NDArray[np.int_]:
    """Return the places, cheapest first, whose effect is larger than that of all that cost as little."""
    order = np.lexsort((-effects, prices))
    best = np.maximum.accumulate(effects[order])
    rises = np.concatenate([[True], best[1:] > best[:-1]])
    return order[rises]


def front_words(
    effect: Effect, front: Front, names: Sequence[str], budgets: Mapping[str, float]
) -> list[str]:
    """Return one sentence per panel: the largest effect that is had at each budget."""
    assert effect.price is not None
    price = label(effect.price)
    sentences: list[str] = []
    for number, name in enumerate(names):
        parts: list[str] = []
        for words, budget in budgets.items():
            found = front.at(number, budget)
            gain = (
                "no place has so low an error" if found is None else "{:.2f} [{:.2f}, {:.2f}]".format(*found)
            )
            parts.append(f"{gain} at {budget:.3g} ({words})")
        start = f"{name}: " if name else ""
        sentences.append(
            f"{start}largest effect by {price[:1].lower() + price[1:]} allowed: {'; '.join(parts)}."
        )
    return sentences


def front_figure(effect: Effect, front: Front, names: Sequence[str], name: str) -> ReportFigure:
    """Draw the front of each panel with its band, and every setting as a mark."""
    assert effect.price is not None
    styles, price = arm_styles(names), label(effect.price)
    parts: list[pd.DataFrame] = []
    with drawing():
        figure, [axes] = panel_grid(1, height=3.0)
        for number, arm in enumerate(names):
            style = styles[arm]
            own = front.places.loc[front.places["panel"] == number, :]
            axes.fill_between(
                own["price"], own["low"], own["high"], color=style.colour, alpha=0.15, lw=0, step="post"
            )
            axes.step(own["price"], own["effect"], color=style.colour, ls=style.dashes, where="post")
            marks = front.settings.loc[front.settings["panel"] == number, :]
            axes.plot(
                marks["price"],
                marks["effect"],
                ls="",
                marker=style.marker,
                color=style.colour,
                ms=2.6,
                alpha=0.6,
            )
            parts += [_charted(own, "mean", arm, price), _charted(marks, "member", arm, price)]
        axes.axhline(effect.least, color="black", lw=0.8, ls=":")
        axes.set_xlabel(measure_label(effect.price))
        axes.set_ylabel(_gain(effect))
        legend_below(figure, list(names), styles, None)
        least = pd.DataFrame(
            {"arm": names[0], "shown": "guide", "x": axes.get_xlim(), "y": effect.least, "part": 0}
        )
        charted = drawn_panel(
            axes, pd.concat([*parts, least], ignore_index=True).assign(run_id=None), "steps"
        )
    caption = (
        f"Effect: {effect.words}. Lines: the largest fitted effect at a fitted error that is at most as large; bands: "
        "those of the map, which hold at all places at once with 95% confidence. Marks: all settings. Dotted: the "
        "least effect that matters."
    )
    data = pd.concat(
        [front.places.assign(shown="front"), front.settings.assign(shown="setting")], ignore_index=True
    )
    data["panel"] = [names[number] for number in data["panel"]]
    charted = replace(
        charted, means="Largest fitted effect at such an error, and its band", members="One setting"
    )
    chart = Chart([charted], styles)
    return ReportFigure(f"{name}_front", "Effect by its price", caption, figure, data, chart)


def _gain(effect: Effect) -> str:
    """Return the title of the axis of an effect."""
    if effect.arm is None or effect.scale != "difference":
        return "Effect"
    words = label(effect.measure)
    return f"Gain in {words[:1].lower()}{words[1:]}"


def _charted(found: pd.DataFrame, shown: str, arm: str, price: str) -> pd.DataFrame:
    """Return places of a front, or settings, as rows of its interactive form; words say where on the map they lie."""
    keys = {"price": price} | {str(key): label(str(key)) for key in found if key not in _OWN}
    words = [
        "\n".join(f"{words}: {_rounded(row[key])}" for key, words in keys.items())
        for row in found.to_dict("records")
    ]
    renamed = found.rename(columns={"price": "x", "effect": "y", "low": "y_low", "high": "y_high"})
    return renamed[[name for name in COLUMNS if name in renamed]].assign(arm=arm, shown=shown, words=words)


def _rounded(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else arm_text(value)
