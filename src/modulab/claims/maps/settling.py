"""Whether modularity had stopped rising when training ended: a map of unfinished networks is a map of their speed.

Structural modularity is known during training, every `training.curve_every` steps. How much of it was gained in the
last quarter of training says how much more steps could still move the boundary. But a learning rate that falls to 0
ends every rise: where it is a cosine, its mean over the last quarter is a tenth of that over all of training. So the
gain is also given as it would be at the mean learning rate, in proportion.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from modulab.claims import thresholds
from modulab.claims.maps.effects import Effect
from modulab.report.chart import COLUMNS, Chart, drawn_panel
from modulab.report.figure import ReportFigure
from modulab.report.panels import legend_below, panel_grid
from modulab.report.style import arm_styles, arm_text, drawing, label

MEASURE = "modularity/structural"
STILL_RISING = thresholds.MODULARITY / 5
"""A rise in the last quarter of training from which on modularity has not settled: a fifth of what matters."""
_LAST = 0.25
_QUANTILES = 0.1, 0.5, 0.9


@dataclass(frozen=True)
class Settling:
    """Structural modularity during training: of each arm that a claim compares, over the networks of all settings."""

    curves: pd.DataFrame
    """One row per arm and step: the mean, the quantiles `q0.1`, `q0.5`, `q0.9`, and the number of networks."""
    rises: pd.DataFrame
    """One row per network: its arm, and its rise between the two steps."""
    first: int
    last: int
    learning_rate: float
    """The mean learning rate between the two steps, as a share of its mean over all of training."""

    @property
    def by_arm(self) -> dict[str, float]:
        """Return the mean rise of each arm."""
        values, arms = self.rises["rise"].to_numpy(dtype=np.float64), self.rises["arm"].to_numpy()
        return {arm: float(values[arms == arm].mean()) for arm in map(str, pd.unique(arms))}

    @property
    def verdict(self) -> str:
        """Return whether modularity has settled, or what else its rise came to."""
        most = max(self.by_arm.values())
        at_mean = most / self.learning_rate
        if most > STILL_RISING:
            return "it is still rising, so longer training may move the boundary"
        if at_mean > STILL_RISING:
            return (
                f"it slowed only as the learning rate fell, which was {self.learning_rate:.2f} of its mean over all of "
                f"training; at that mean the gain would be {at_mean:+.3f} in proportion, so that longer training may "
                "move the boundary"
            )
        return f"it has settled, also in proportion to the learning rate ({at_mean:+.3f} at its mean)"

    @property
    def words(self) -> str:
        """Return the sentence of a page: how much was gained last, and whether that is little."""
        of_arms = self.by_arm
        # A single arm needs no name.
        gains = ", ".join(f"{rise:+.3f}" + f" ({arm})" * (len(of_arms) > 1) for arm, rise in of_arms.items())
        more = float(np.mean(self.rises["rise"].to_numpy(dtype=np.float64) > STILL_RISING))
        return (
            f"Structural modularity changed by {gains} on average from step {self.first} to step {self.last}, the last "
            f"of training, and by more than {STILL_RISING:g} in {100 * more:.0f}% of networks: {self.verdict}."
        )


def settling(results: pd.DataFrame, curves: pd.DataFrame, effect: Effect) -> Settling | None:
    """Return how modularity rose in the networks of a map; None without a step before the last quarter of training."""
    wanted = results.loc[results["status"] == "completed", :]
    arm = pd.Series("all networks", index=wanted.index)
    if effect.arm is not None:
        values = wanted[f"config.{effect.arm}"]
        base = f"{label(effect.arm)}: {arm_text(effect.base)}"
        others = values.loc[values != effect.base].unique()
        of_other = arm_text(others[0]) if len(others) == 1 else f"other than {arm_text(effect.base)}"
        other = f"{label(effect.arm)}: {of_other}"
        arm = pd.Series(np.where(values == effect.base, base, other), index=wanted.index)
    arms = pd.DataFrame({"run_id": wanted["run_id"], "arm": arm})
    table = curves.loc[curves["measure"] == MEASURE, ["run_id", "step", "value"]]
    # Numbers as plain floats: some tables of results have nullable ones.
    table = table.assign(value=table["value"].to_numpy(dtype=np.float64, na_value=np.nan)).merge(
        arms, on="run_id"
    )
    table = table.loc[np.isfinite(table["value"]), :]
    steps: NDArray[np.int64] = np.sort(table["step"].unique()).astype(np.int64)
    if not len(steps) or steps[0] > (1 - _LAST) * steps[-1]:
        return None
    first, last = int(steps[steps <= (1 - _LAST) * steps[-1]][-1]), int(steps[-1])
    ends = table.pivot_table(index="run_id", columns="step", values="value")
    rises = arms.set_index("run_id").assign(rise=ends[last] - ends[first]).dropna().reset_index()
    if rises.empty:
        return None
    grouped = table.groupby(["arm", "step"])["value"]
    summary = pd.DataFrame(
        {"mean": grouped.mean()} | {f"q{each}": grouped.quantile(each) for each in _QUANTILES}
    )
    summary = summary.assign(networks=grouped.size()).reset_index()
    return Settling(
        summary,
        rises,
        first,
        last,
        _learning_rate(wanted.loc[wanted["run_id"].isin(rises["run_id"]), :], first, last),
    )


def _learning_rate(results: pd.DataFrame, first: int, last: int) -> float:
    """Return the mean learning rate between two steps over that of all of training, on average over networks."""
    # They take seconds to import.
    import torch

    from modulab.training.schedule import schedule_factor

    keys = [f"config.training.{key}" for key in ("schedule", "steps", "warmup_steps")]
    found: list[float] = []
    networks: list[int] = []
    for key, own in results.groupby(keys):
        schedule, number, warmup = cast("tuple[str, int, int]", key)
        steps = torch.arange(int(number), dtype=torch.float64)
        rates = schedule_factor(str(schedule), int(number), int(warmup), steps)
        found.append(float(rates[first:last].mean() / rates.mean()))
        networks.append(len(own))
    return float(np.average(found, weights=networks))


def settling_figure(found: Settling, name: str) -> ReportFigure:
    """Draw the mean of structural modularity by step, and the middle four fifths of networks, for each arm."""
    arms = list(found.by_arm)
    styles = arm_styles(arms)
    with drawing():
        figure, [axes] = panel_grid(1, height=2.1)
        for arm in arms:
            own = found.curves.loc[found.curves["arm"] == arm, :]
            style = styles[arm]
            axes.fill_between(own["step"], own["q0.1"], own["q0.9"], color=style.colour, alpha=0.15, lw=0)
            axes.plot(
                own["step"], own["mean"], color=style.colour, marker=style.marker, ls=style.dashes, ms=4
            )
        axes.axvspan(found.first, found.last, color="0.93", zorder=-1, lw=0)
        axes.set_xticks(sorted(set(found.curves["step"].tolist())))
        axes.set_xlabel(label("step"))
        axes.set_ylabel(label(MEASURE))
        axes.set_ylim(0, max(1.0, axes.get_ylim()[1]))
        legend_below(figure, arms, styles, None)
        charted = drawn_panel(axes, _charted(found, axes.get_ylim()), "band")
    caption = (
        "Lines: the mean over the networks of all settings; bands: from their 10% to their 90% quantile. Grey, or "
        "between dotted lines: the last quarter of training, or more where curves are coarser; its learning rate was "
        f"{found.learning_rate:.2f} of the mean over all of training."
    )
    charted = replace(charted, means="Mean, and the 10% and 90% quantiles of networks")
    chart = Chart([charted], styles)
    return ReportFigure(f"{name}_steps", "Modularity during training", caption, figure, found.curves, chart)


def _charted(found: Settling, ends: tuple[float, float]) -> pd.DataFrame:
    """Return the curves as rows of their interactive form, with lines at the steps that bound the last quarter."""
    curves = found.curves.rename(columns={"step": "x", "mean": "y", "q0.1": "y_low", "q0.9": "y_high"})
    curves = curves.assign(
        shown="mean",
        words=[
            f"{label('step')}: {step}\n{networks} networks"
            for step, networks in zip(found.curves["step"], found.curves["networks"], strict=True)
        ],
    )
    guides = [
        pd.DataFrame(
            {"arm": next(iter(found.by_arm)), "shown": "guide", "x": step, "y": ends, "part": number}
        )
        for number, step in enumerate((found.first, found.last))
    ]
    kept = [name for name in COLUMNS if name in curves]
    return pd.concat([curves[kept], *guides], ignore_index=True).assign(run_id=None)
