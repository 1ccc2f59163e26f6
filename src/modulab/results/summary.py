"""Tables of results: mean and 95% interval over seeds, one row per combination of settings that vary."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from modulab.errors import ConfigError
from modulab.measure_names import better, chosen_measures, with_arrow
from modulab.results.intervals import mean_interval, pooled_interval
from modulab.results.tables import broken_curves, failed_measures
from modulab.schema import current_name, is_reserved, suggest_key, suggest_measure

DEFAULT_METRICS = (
    "error/test",
    "error_under/poisson@0.3",
    "modularity/structural",
    "modularity/structural_frame_null",
    "modularity/structural_excess",
    "modularity/functional",
    "activity/mean",
    "error_beyond/combination",
)
"""What a table shows by default, where results have it."""

_STRENGTHS = ("config.noise.scale", "config.regulariser.strength")
"""Leaves shown whenever they vary, even where the name beside them determines the value."""

_MEASURES = "config.probes.measures."


@dataclass(frozen=True)
class Summary:
    """Results by setting: one row per group in every frame, and one column per metric in those after `counts`."""

    settings: pd.DataFrame
    counts: pd.DataFrame
    mean: pd.DataFrame
    low: pd.DataFrame
    high: pd.DataFrame
    taken: pd.DataFrame
    """How many networks of a group, or pairs, have a value of each metric."""
    pooled: tuple[str, ...] = ()
    """Settings that vary within a group, beside the seed: its means are over them too, its intervals over seeds."""
    compared: str = ""
    """What the values are, where they are comparisons with a baseline instead of means of measures."""


def metric_names(results: Iterable[str]) -> list[str]:
    """Return the measures among the names of a table's columns, in their order."""
    return [str(name) for name in results if not is_reserved(str(name))]


def choose_metrics(results: pd.DataFrame, patterns: Sequence[str] | None) -> list[str]:
    """Return the measures that names or patterns (`error_under/*`) stand for; by default a short list.

    Raises: ConfigError for a name that is not a measure of these results.
    """
    names = metric_names(results)
    if patterns is None:
        return [name for name in DEFAULT_METRICS if name in names]
    chosen: list[str] = []
    for pattern in patterns:
        found = chosen_measures(pattern, names)
        if not found and "completed" not in set(results["status"]):
            continue  # `unfinished` says that there are no measures yet, and why
        if not found:
            reasons = sorted(set(results["skipped"].dropna())) if "skipped" in results else []
            skipped = f" Measures that were skipped: {reasons[0]}." if reasons else ""
            words = pattern.split()
            if len(words) > 1 and any(chosen_measures(word, names) for word in words):
                raise ConfigError(
                    f"--metric '{pattern}': put commas between names: --metric '{','.join(words)}'."
                )
            raise ConfigError(
                f"--metric {pattern}: these results have no such measure. {suggest_measure(pattern, names)}{skipped}"
            )
        chosen += [name for name in found if name not in chosen]
    return chosen


def choose_settings(results: pd.DataFrame, keys: Sequence[str] | None, option: str = "--by") -> list[str]:
    """Return the config columns to group by: those named by an option, or else whatever varies besides the seed.

    Raises: ConfigError for a key that is not a setting of these results.
    """
    columns = [str(name) for name in results.columns if str(name).startswith("config.")]
    if keys is None:
        return _varying(results, [name for name in columns if name != "config.seed"])
    chosen: list[str] = []
    for key in map(current_name, keys):
        column = next(
            (name for name in (f"config.{key}", f"config.{key}.name", key) if name in columns), None
        )
        if column is None:
            known = [name.removeprefix("config.") for name in columns]
            known += {name.split(".")[0] for name in known}
            raise ConfigError(
                f"{option} {key}: these results have no such setting. {suggest_key(key, known)}"
            )
        if column not in chosen:
            chosen.append(column)
    return chosen


def _varying(results: pd.DataFrame, columns: Sequence[str]) -> list[str]:
    """Return columns of more than one value, less those that another column of their group determines."""
    # Whether a measure was taken makes no difference to a network: results of an earlier version lack some.
    columns = [
        name for name in columns if not (name.startswith(_MEASURES) and bool(results[name].isna().any()))
    ]
    codes = {name: _codes(results, name) for name in columns}
    varying = [name for name in columns if codes[name].max(initial=0) > 0]
    kept: list[str] = []
    for name in sorted(varying, key=lambda name: (not name.endswith(".name"), name.endswith("._target_"))):
        rivals = [other for other in kept if _group(other) == _group(name)]
        if name in _STRENGTHS or not any(determines(codes[other], codes[name]) for other in rivals):
            kept.append(name)
    return [name for name in varying if name in kept]


def _group(column: str) -> str:
    return column.split(".")[1]


def _codes(results: pd.DataFrame, name: str) -> NDArray[np.int64]:
    codes, _ = pd.factorize(results[name].to_numpy(), use_na_sentinel=False)
    return np.asarray(codes, dtype=np.int64)


def determines(one: NDArray[np.int64], other: NDArray[np.int64]) -> bool:
    """Return whether each value of one column goes with a single value of the other."""
    pairs = np.unique(np.stack([one, other]), axis=1)
    return pairs.shape[1] == np.unique(one).size


def summarise(
    results: pd.DataFrame, by: Sequence[str] | None = None, metrics: Sequence[str] | None = None
) -> Summary:
    """Return mean and interval of each metric over the completed members of each group of settings.

    Where settings vary within a group, intervals are still over seeds: see `pooled_interval`.
    """
    columns = choose_settings(results, by)
    chosen = choose_metrics(results, metrics)
    groups = _groups(results, columns)
    pooled = pooled_settings(results, columns) if by is not None else []
    inner = _joined_codes(results, pooled)
    seeds = _codes(results, "config.seed")
    status = results["status"].to_numpy(dtype=str)
    values = results[chosen].to_numpy(dtype=np.float64, na_value=np.nan)
    means, lows, highs = (np.full((len(groups), len(chosen)), np.nan) for _ in range(3))
    taken = np.zeros((len(groups), len(chosen)), dtype=np.int64)
    for row, group in enumerate(groups):
        members = group[status[group] == "completed"]
        completed = values[members]
        present = ~np.isnan(completed)
        taken[row] = counts = present.sum(axis=0)
        with np.errstate(
            over="ignore", invalid="ignore"
        ):  # of numbers near the largest, the mean is infinite
            totals = np.where(present, completed, 0.0).sum(axis=0)
            np.divide(totals, counts, out=means[row], where=counts > 0)
            lows[row], highs[row] = (
                pooled_interval(completed, _numbered(inner[members]), _numbered(seeds[members]))
                if len(set(inner[members].tolist())) > 1
                else mean_interval(completed)
            )
    tally = {
        name: [int((status[members] == name).sum()) for members in groups]
        for name in ("completed", "diverged", "failed", "missing")
    }
    settings = results.iloc[[int(members[0]) for members in groups]][columns].reset_index(drop=True)
    settings.columns = [name.removeprefix("config.") for name in columns]
    frames = (pd.DataFrame(array, columns=chosen) for array in (means, lows, highs, taken))
    names = tuple(name.removeprefix("config.") for name in pooled)
    return Summary(settings, pd.DataFrame(tally), *frames, pooled=names)


def _groups(results: pd.DataFrame, columns: Sequence[str]) -> list[NDArray[np.intp]]:
    """Return the rows of each combination of settings, in the order in which a table has them."""
    if not columns:
        return [np.arange(len(results))]
    codes = np.stack([_codes(results, name) for name in columns], axis=1)
    _, first, inverse = np.unique(codes, axis=0, return_index=True, return_inverse=True)
    order = np.argsort(np.asarray(inverse).reshape(-1), kind="stable")
    sizes = np.bincount(np.asarray(inverse).reshape(-1))
    groups = np.split(order, np.cumsum(sizes)[:-1])
    return [groups[place] for place in _reading_order(results, columns, first)]


def pooled_settings(results: pd.DataFrame, columns: Sequence[str]) -> list[str]:
    """Return the settings that vary within a group of equal values of these columns."""
    groups = _groups(results, columns)
    codes = {name: _codes(results, name) for name in choose_settings(results, None) if name not in columns}
    return [name for name, each in codes.items() if any(np.ptp(each[members]) > 0 for members in groups)]


def _joined_codes(results: pd.DataFrame, columns: Sequence[str]) -> NDArray[np.int64]:
    """Return a number for each combination of values that rows have."""
    codes = np.stack([np.zeros(len(results), np.int64), *(_codes(results, name) for name in columns)], axis=1)
    return np.unique(codes, axis=0, return_inverse=True)[1].reshape(-1)


def _numbered(codes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return codes numbered from 0 without gaps."""
    return np.unique(codes, return_inverse=True)[1].reshape(-1)


def _reading_order(results: pd.DataFrame, columns: Sequence[str], first: NDArray[np.intp]) -> list[int]:
    """Return groups sorted by numbers that vary, names staying in the order in which they first came."""
    frame = results.iloc[first][list(columns)].reset_index(drop=True)
    keys: list[NDArray[np.float64]] = []
    for name in columns:
        if pd.api.types.is_numeric_dtype(results[name]):
            keys.append(frame[name].to_numpy(dtype=np.float64, na_value=np.inf))
        else:
            seen: list[object] = list(dict.fromkeys(results[name].tolist()))
            keys.append(np.array([_place(seen, value) for value in frame[name]], dtype=np.float64))
    return np.lexsort(keys[::-1]).tolist()


def _place(seen: list[object], value: object) -> int:
    return next((place for place, each in enumerate(seen) if each is value or each == value), len(seen))


def to_csv(summary: Summary) -> str:
    """Return every row and column of a summary as CSV; see `to_frame`."""
    return to_frame(summary).to_csv(index=False)


def to_frame(summary: Summary) -> pd.DataFrame:
    """Return every row and column of a summary: beside a metric's mean its interval, and how many values it is of."""
    columns: dict[str, Any] = {}
    for name in map(str, summary.mean):
        columns |= {
            name: summary.mean[name],
            f"{name}.low": summary.low[name],
            f"{name}.high": summary.high[name],
            f"{name}.n": summary.taken[name],
        }
    parts = [summary.settings, summary.counts, pd.DataFrame(columns, index=summary.mean.index)]
    if summary.pooled:
        parts.insert(1, pd.DataFrame({"pooled_over": [" ".join(summary.pooled)] * len(summary.counts)}))
    if summary.compared:
        parts.insert(1, pd.DataFrame({"compared": [summary.compared] * len(summary.counts)}))
    return pd.concat(parts, axis=1)


def cells(summary: Summary, narrow: bool = False) -> tuple[list[str], list[list[str]]]:
    """Return a summary's headings and rows as text; members without a result only where there are any.

    In `narrow` cells, intervals that are symmetric about the mean are given by half their width.
    """
    value = _narrow_value if narrow else _value
    counts = [
        name for name in summary.counts if name == "completed" or bool((summary.counts[name] > 0).any())
    ]
    headings = [*summary.settings, *("n" if name == "completed" else str(name) for name in counts)]
    headings += [with_arrow(str(name), better(str(name))) for name in summary.mean]
    rows: list[list[str]] = []
    for row in range(len(summary.counts)):
        texts = [setting_text(summary.settings.iloc[row][name]) for name in summary.settings]
        texts += [str(summary.counts[name].iloc[row]) for name in counts]
        texts += [
            value(summary.mean[name].iloc[row], summary.low[name].iloc[row], summary.high[name].iloc[row])
            + _of_fewer(int(summary.taken[name].iloc[row]), int(summary.counts["completed"].iloc[row]))
            for name in summary.mean
        ]
        rows.append(texts)
    return [str(heading) for heading in headings], rows


def member_cells(
    results: pd.DataFrame, metrics: Sequence[str] | None = None
) -> tuple[list[str], list[list[str]]]:
    """Return one member's measures as text, one row per measure; by default without those at one of many levels."""
    row = results.iloc[0]
    names = choose_metrics(results, metrics)
    if metrics is None:
        names = [name for name in metric_names(results) if "@" not in name or name in DEFAULT_METRICS]
    rows = [
        [with_arrow(name, better(name)), _number(float(row[name]))]
        for name in names
        if not pd.isna(row[name])
    ]
    if row["status"] != "completed":
        rows.insert(0, ["status", str(row["status"])])
        rows.insert(1, ["error", "" if pd.isna(row["error"]) else str(row["error"])])
    return ["measure", "value"], rows


def _number(value: float) -> str:
    return "-" if np.isnan(value) else f"{value:.3g}"


def _value(mean: float, low: float, high: float) -> str:
    interval = "" if np.isnan(low) else f" [{_number(low)}, {_number(high)}]"
    return f"{_number(mean)}{interval}"


def _narrow_value(mean: float, low: float, high: float) -> str:
    half = (high - low) / 2
    if np.isnan(half) or abs(high - mean - half) > 1e-6 * half:
        return _value(mean, low, high)
    return f"{_number(mean)} ±{half:.2g}"


def _of_fewer(taken: int, completed: int) -> str:
    """Return how many networks have a value, where not all or none of them have."""
    return f" (n={taken})" if 0 < taken < completed else ""


def setting_text(value: object) -> str:
    """Return how a table shows a setting's value."""
    if value is None or value is pd.NA or (isinstance(value, float) and np.isnan(value)):
        return "-"
    return f"{value:g}" if isinstance(value, float) else str(value)


def problems(results: pd.DataFrame) -> list[str]:
    """Return one line for each different reason for which members failed or diverged."""
    pairs = zip(results["status"].tolist(), results["error"].tolist(), strict=True)
    troubles = Counter((status, error) for status, error in pairs if status != "completed")
    return [
        f"{count} {status}: {error}" if isinstance(error, str) else f"{count} {status}"
        for (status, error), count in troubles.items()
    ]


def lost_measures(results: pd.DataFrame) -> list[str]:
    """Return one line for each measure and error for which networks lack the measure, or points of its curves."""
    if "skipped" not in results:
        return []
    texts = [str(text) for text in results["skipped"].dropna()]
    lost = Counter(each for text in texts for each in failed_measures(text))
    broken = Counter(each for text in texts for each in broken_curves(text))
    return [
        *(f"{count} without a measure: probes.measures.{each}" for each, count in lost.items()),
        *(f"{count} with an incomplete curve: probes.measures.{each}" for each, count in broken.items()),
    ]


def unfinished(results: pd.DataFrame) -> list[str]:
    """Return, where no network has completed, a line that states this, with the first error and how to resume."""
    statuses: list[str] = results["status"].tolist()
    if "completed" in statuses:
        return []
    errors = [error for error in results["error"].tolist() if isinstance(error, str)]
    words = (
        "The network has not completed"
        if len(statuses) == 1
        else f"None of these {len(statuses)} networks has completed"
    )
    words += (
        f", so there are no measures. The first error: {errors[0].rstrip('.')}."
        if errors
        else ", so there are no measures."
    )
    if set(statuses) == {"diverged"}:
        return [
            f"{words} Diverged networks are not trained again: change a setting, such as training.learning_rate."
        ]
    how = "Fix what failed, and run" if "failed" in statuses else "Run"
    return [f"{words} {how} the same command again: it trains those that are not completed."]
