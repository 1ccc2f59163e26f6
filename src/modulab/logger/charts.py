"""The charts of a sweep, as tables of points: means over seeds against a setting or a level, with one line per arm."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

LINE = "config.architecture.name"
_COLUMNS = ["x", "line", "value", "runs"]


@dataclass(frozen=True)
class Chart:
    """A measure against a setting or, with `@*` in the measure's name, against the level in its place."""

    key: str
    title: str
    section: str
    measure: str
    x: str | None = None
    """The column of the setting; None if the measure's name holds the level."""
    line: str = LINE
    """The column of the setting that has one line per value."""


CHARTS = (
    Chart("chart/modularity_against_noise", "Structural modularity against noise in training", "Modularity",
          "modularity/structural", "config.noise.scale"),
    Chart("chart/functional_against_noise", "Functional modularity against noise in training", "Modularity",
          "modularity/functional", "config.noise.scale"),
    Chart("chart/error_against_noise", "Clean error against noise in training", "Modularity",
          "error/test", "config.noise.scale"),
    Chart("chart/modularity_against_strength", "Structural modularity against regulariser strength", "Modularity",
          "modularity/structural", "config.regulariser.strength", "config.regulariser.name"),
    Chart("chart/poisson_robustness", "Error under Poisson noise", "Robustness", "error_under/poisson@*"),
    Chart("chart/weight_noise_robustness", "Error under weight noise", "Robustness",
          "error_under/weight_noise@*"),
    Chart("chart/robustness_against_noise", "Error under Poisson noise 0.3 against noise in training",
          "Robustness", "error_under/poisson@0.3", "config.noise.scale"),
    Chart("chart/other_range_extrapolation", "Error while the other modules' inputs range further",
          "Extrapolation", "error_beyond/other_range@*"),
    Chart("chart/own_range_extrapolation", "Error while a module's own input ranges further",
          "Extrapolation", "error_beyond/own_range@*"),
    Chart("chart/combination_against_noise", "Error on withheld combinations against noise in training",
          "Extrapolation", "error_beyond/combination", "config.noise.scale"),
    Chart("chart/error_against_samples", "Clean error against sample size", "Sample size",
          "error/test", "config.data.num_samples"),
    Chart("chart/modularity_against_samples", "Structural modularity against sample size", "Sample size",
          "modularity/structural", "config.data.num_samples"),
)  # fmt: skip


def chart_table(chart: Chart, results: pd.DataFrame) -> pd.DataFrame:
    """Return a chart's points: x, line, the mean over completed members, and how many; empty if nothing varies.

    The mean is over all members of a line at x, whatever else varies in the sweep.
    """
    completed = results.loc[(results["status"] == "completed").to_numpy()]
    nothing = pd.DataFrame(columns=_COLUMNS)
    if chart.line not in completed or (chart.x is not None and chart.x not in completed):
        return nothing
    parts = [
        pd.DataFrame(
            {
                "x": completed[chart.x] if chart.x is not None else level,
                "line": completed[chart.line].astype(str),
                "value": completed[name],
            }
        )
        for name, level in _measures(chart, completed).items()
    ]
    points = pd.concat(parts).dropna() if parts else nothing
    if len(set(points["x"])) < 2:
        return nothing
    points["x"] = points["x"].astype(float)
    means = points.groupby(["line", "x"])["value"].agg(["mean", "size"]).reset_index()
    return means.rename(columns={"mean": "value", "size": "runs"}).reindex(columns=_COLUMNS)


def _measures(chart: Chart, results: pd.DataFrame) -> dict[str, float]:
    """Return the columns of a chart's measure, each with its level."""
    stem, any_level, _ = chart.measure.partition("@*")
    if not any_level:
        return {name: 0.0 for name in results if name == chart.measure}
    columns = [str(name) for name in results if str(name).startswith(f"{stem}@")]
    return {name: float(name.removeprefix(f"{stem}@")) for name in columns}
