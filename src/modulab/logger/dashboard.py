"""The dashboard of a sweep: a saved view in W&B, whose panels refer to nothing but what the sweep's runs log."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from modulab.errors import ConfigError
from modulab.logger.charts import CHARTS, Chart, chart_table
from modulab.logger.keys import STEP, TABLE
from modulab.logger.wandb_private import dashboard_definition
from modulab.results.store import load_curves

_HEADLINES = (
    "error/test",
    "modularity/structural",
    "modularity/functional",
    "error_under/poisson@0.3",
    "error_beyond/combination",
)


@dataclass(frozen=True)
class Claim:
    """A claim to be tested, and the plot of single runs: a scatter plot, or bars of means for words."""

    title: str
    kind: Literal["scatter", "bars"]
    x: str
    y: str


CLAIMS = (
    Claim("C1: activity-dependent noise drives modularity", "scatter", "config.noise.scale", "modularity/structural"),
    Claim("C2, C4: which regularisers do", "bars", "config.regulariser.name", "modularity/structural"),
    Claim("C3: linear networks do not", "bars", "config.architecture.activation", "modularity/structural"),
    Claim("C5: more modules need more samples", "scatter", "config.data.num_samples", "error/test"),
    Claim("C6: modular networks are robust to noise", "scatter", "modularity/structural", "error_under/poisson@0.3"),
    Claim("C6: and extrapolate", "scatter", "modularity/structural", "error_beyond/combination"),
    Claim("C7: and forget less", "scatter", "modularity/structural", "forgetting/others_rise"),
    Claim("C8: in regression and in classification", "bars", "config.task.name", "modularity/structural"),
    Claim("At which error: compare modularity where it is equal", "scatter", "error/test", "modularity/structural"),
)  # fmt: skip


def make_dashboard(folder: Path, results: pd.DataFrame, project: str, entity: str, group: str) -> Any:
    """Return the workspace of a sweep, which `save()` sends to W&B.

    Raises: ConfigError if the optional package wandb-workspaces is not installed.
    """
    try:
        with warnings.catch_warnings():  # It is written for an older pydantic.
            warnings.simplefilter("ignore", DeprecationWarning)
            from wandb_workspaces import expr, workspaces
    except ImportError as error:
        raise ConfigError(
            "modulab dashboard needs the package wandb-workspaces. Run: pip install 'modulab[dashboard]'"
        ) from error
    sections = [*_chart_sections(results), ("Claims", _claims(results))]
    sections += [("Settings", _parallel_coordinates(results)), ("Training", _curves(folder))]
    sections += [("Sweep", _whole(folder))]
    return workspaces.Workspace(
        entity=entity,
        project=project,
        name=f"modulab: {group}",
        sections=[
            workspaces.Section(name=name, panels=panels, is_open=True) for name, panels in sections if panels
        ],
        settings=workspaces.WorkspaceSettings(x_axis=STEP),
        runset_settings=workspaces.RunsetSettings(filters=expr.And(expr.Metric("Group") == group)),
    )


def definition(dashboard: Any) -> dict[str, Any]:
    """Return a dashboard as plain values, the same at every call."""
    plain = dashboard_definition(dashboard)
    for section in plain["spec"]["section"]["panelBankConfig"]["sections"]:
        for number, panel in enumerate(section["panels"], start=1):
            panel["__id__"] = f"{section['name']} {number}"
    return plain


def _chart_sections(results: pd.DataFrame) -> list[tuple[str, list[Any]]]:
    sections: dict[str, list[Any]] = {}
    for chart in CHARTS:
        if not chart_table(chart, results).empty:
            sections.setdefault(chart.section, []).append(_lines(chart))
    return list(sections.items())


def _lines(chart: Chart) -> Any:
    import wandb_workspaces.reports.v2 as panels

    return panels.CustomChart(
        query={"summaryTable": {"tableKey": chart.key}},
        chart_name="wandb/lineseries/v0",
        chart_fields={"step": "x", "lineKey": "line", "lineVal": "value"},
        chart_strings={"title": chart.title, "xname": (chart.x or "level").removeprefix("config.")},
    )


def _claims(results: pd.DataFrame) -> list[Any]:
    import wandb_workspaces.reports.v2 as panels

    found: list[Any] = []
    for claim in CLAIMS:
        if not _varies(results, claim.x) or not _varies(results, claim.y):
            continue
        if claim.kind == "scatter":
            panel: Any = panels.ScatterPlot(title=claim.title, x=_key(claim.x), y=_key(claim.y))
        else:
            panel = panels.BarPlot(
                title=claim.title, metrics=[_key(claim.y)], groupby=_key(claim.x),
                groupby_aggfunc="mean", groupby_rangefunc="stderr",
            )  # fmt: skip
        found.append(panel)
    return found


def _parallel_coordinates(results: pd.DataFrame) -> list[Any]:
    import wandb_workspaces.reports.v2 as panels
    from wandb_workspaces.reports.v2.interface import ParallelCoordinatesPlotColumn

    settings = [
        str(name)
        for name in results
        if str(name).startswith("config.") and name != "config.seed" and _varies(results, str(name))
    ]
    measures = [name for name in _HEADLINES if _varies(results, name)]
    if not settings or not measures:
        return []
    columns = [
        ParallelCoordinatesPlotColumn(_key(name), display_name=name.removeprefix("config."))
        for name in (*settings, *measures)
    ]
    return [panels.ParallelCoordinatesPlot(title="Settings and measures", columns=columns)]


def _curves(folder: Path) -> list[Any]:
    import wandb_workspaces.reports.v2 as panels

    try:
        names: Sequence[str] = list(dict.fromkeys(load_curves(folder)["measure"].tolist()))
    except ConfigError:  # nothing has been trained
        return []
    return [
        panels.LinePlot(
            title=name, x=STEP, y=[name], groupby=panels.Config("architecture.name"),
            groupby_aggfunc="mean", groupby_rangefunc="stderr",
        )
        for name in names
    ]  # fmt: skip


def _whole(folder: Path) -> list[Any]:
    import wandb_workspaces.reports.v2 as panels

    figures = [f"report/{path.stem}" for path in sorted((folder / "report").glob("*.png"))]
    table = panels.WeavePanelSummaryTable(table_name=TABLE)
    return [table, *([panels.MediaBrowser(title="Report", media_keys=figures)] if figures else [])]


def _key(column: str) -> Any:
    import wandb_workspaces.reports.v2 as panels

    if column.startswith("config."):
        return panels.Config(column.removeprefix("config."))
    return panels.SummaryMetric(column)


def _varies(results: pd.DataFrame, column: str) -> bool:
    return column in results and len(set(results[column].dropna().astype(str))) > 1
