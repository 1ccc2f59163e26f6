"""The choice of figures for results: the setting along the axis, those with colours, and that with rows of panels."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from modulab.report.points import completed_members, in_order, join_settings
from modulab.report.style import COLOURS, MOST_ARMS, arm_text
from modulab.results.store import FOLDER
from modulab.results.summary import DEFAULT_METRICS, choose_settings, determines, metric_names

ARM = "arm"
"""The column that joins several settings in one text."""

_MOST_ROWS = 4
_MOST_SHADES = 7
_FEWEST_FOR_MAP, _MOST_FOR_MAP = 3, 12


@dataclass(frozen=True)
class Layout:
    """The layout of results in figures; every column named here is one of `results`."""

    results: pd.DataFrame
    """The completed members, with the column `ARM` where settings are joined."""
    varied: list[str]
    x: str | None
    """A numeric setting for the horizontal axis."""
    arm: str | None
    row: str | None
    plane: tuple[str, str] | None
    """Two numeric settings that span a map."""

    @property
    def arms(self) -> list[object]:
        """Return the values that get a colour."""
        return in_order(self.results, self.arm)

    @property
    def readable(self) -> bool:
        """Return whether there are few enough arms and rows to distinguish."""
        rows = 1 if self.row is None else len(in_order(self.results, self.row))
        return len(self.arms) <= MOST_ARMS and rows <= _MOST_ROWS


def choose_layout(results: pd.DataFrame) -> Layout:
    """Return a layout by the settings other than the seed that vary among the completed members.

    Of results of several folders, the folder is one of them unless the others determine it. The numeric setting of most
    values lies along the axis. All others are joined to one arm each; where
    these are more than there are colours, the setting of fewest values gets a row of panels for each of them.
    """
    members = completed_members(results).copy()
    varied = _without_folder(members, choose_settings(members, None)) if len(members) else []
    counts: dict[str, int] = {name: len(set(members[name].astype(object).map(arm_text))) for name in varied}
    numeric = sorted((name for name in varied if _is_numeric(members, name)), key=lambda name: -counts[name])
    x = numeric[0] if numeric else None
    others = [name for name in varied if name != x]
    row: str | None = None
    if len(others) > 1 and len(set(join_settings(members, others))) > len(COLOURS):
        row = min(others, key=lambda name: counts[name])
        others = [name for name in others if name != row]
    arm = others[0] if len(others) == 1 else ARM if others else None
    if arm == ARM:
        members[ARM] = join_settings(members, others)
    spans = [name for name in numeric if _FEWEST_FOR_MAP <= counts[name] <= _MOST_FOR_MAP]
    plane = (spans[0], spans[1]) if len(spans) == 2 and len(varied) <= 3 else None
    return Layout(members, varied, x, arm, row, plane)


def _without_folder(members: pd.DataFrame, varied: list[str]) -> list[str]:
    """Return settings without the folder of several where the others tell it: figures then show what differs there."""
    others = [name for name in varied if name != FOLDER]
    if len(others) in (0, len(varied)):
        return varied
    of_others = members.groupby(others, dropna=False).ngroup().to_numpy()
    of_folders = pd.factorize(members[FOLDER])[0]
    return others if determines(of_others, of_folders) else varied


def _is_numeric(members: pd.DataFrame, name: str) -> bool:
    values = pd.Series(members[name])
    numbers = pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values)
    return numbers and not any(values.isna())


def choose_measures(results: pd.DataFrame) -> list[str]:
    """Return the measures to show: those of the table, where any member has a value."""
    return [name for name in DEFAULT_METRICS if name in results and any(results[name].notna())]


def measured_families(results: pd.DataFrame, kind: str, most: int | None = None) -> list[str]:
    """Return the measures of a kind, such as `robustness`, that were taken at two levels or more.

    Of more than `most`, those of Poisson noise, weight noise and ablation come first.
    """
    families = [name.partition("@")[0] for name in metric_names(results) if "@" in name]
    found = [
        family
        for family in dict.fromkeys(families)
        if family.startswith(f"{kind}/") and families.count(family) > 1
    ]
    if most is None or len(found) <= most:
        return found
    first = [f"error_under/{name}" for name in ("poisson", "weight_noise", "ablation")]
    return [*(name for name in first if name in found), *(name for name in found if name not in first)][:most]


def found_searches(results: pd.DataFrame, most: int = 3) -> list[str]:
    """Return the searches for modules that some member has a value of, at most `most`: the first ones taken."""
    pattern = re.compile(r"communities/(\w+)_modules")
    named = ((column, pattern.fullmatch(str(column))) for column in results)
    return [found[1] for column, found in named if found and any(results[column].notna())][:most]


def split_for_curves(layout: Layout) -> tuple[pd.DataFrame, str | None, str | None, str]:
    """Return members, arm and row for figures whose axis is not a setting, and a sentence on what is left out.

    The setting that lay along the axis gives the shades; of many values, only the least, middle and largest.
    """
    members, x, arm, row = layout.results, layout.x, layout.arm, layout.row
    if x is None:
        return members, arm, row, ""
    levels = in_order(members, x)
    word = ""
    if row is not None or (arm is not None and len(layout.arms) > _MOST_ROWS):
        members = members.loc[members[x] == levels[-1]]
        return members, arm, row, f"Only networks with {x.removeprefix('config.')} = {levels[-1]:g}."
    if len(levels) > _MOST_SHADES:
        kept = [levels[0], levels[len(levels) // 2], levels[-1]]
        members = members.loc[members[x].isin(kept)]
        word = f"Only the smallest, the middle and the largest value of {x.removeprefix('config.')}."
    return members, x, arm, word


def choose_pictures(layout: Layout, most: int = 4) -> dict[str, str]:
    """Return run_ids of networks to draw, by what distinguishes them: one seed, ends of the axis, first arms."""
    members = layout.results
    if not len(members):
        return {}
    chosen = members.loc[members["config.seed"] == members["config.seed"].min()]
    if layout.x is not None:
        chosen = chosen.loc[chosen[layout.x].isin([chosen[layout.x].min(), chosen[layout.x].max()])]
    columns: Sequence[str] = layout.varied or ["config.architecture.name"]
    names = join_settings(chosen.assign(**{name: chosen[name].map(_short) for name in columns}), columns)
    seeds = chosen["config.seed"].tolist()
    errors = chosen["error/test"].tolist() if "error/test" in chosen else [None] * len(chosen)
    found: dict[str, str] = {}
    for name, run_id, seed, error in zip(names, chosen["run_id"], seeds, errors, strict=True):
        words = "" if error is None or pd.isna(error) else f", trained to test error {error:.2g}"
        found.setdefault(f"{name} (seed {seed}{words})", str(run_id))
    return dict(list(found.items())[:most])


def _short(value: object) -> object:
    """Return a number with the digits that a heading needs; any other value as it is."""
    return float(f"{value:.4g}") if isinstance(value, float) else value
