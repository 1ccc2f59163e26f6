"""Comparisons with a baseline, paired by seed: networks of equal seed share data, initial weights and draws.

What they share cancels in a difference, whose interval is therefore narrower than those of the two means.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from modulab.errors import ConfigError
from modulab.results.rounding import rounding
from modulab.results.summary import (
    Summary,
    choose_metrics,
    choose_settings,
    determines,
    pooled_settings,
    setting_text,
    summarise,
)
from modulab.schema import suggest

_UNPAIRED = "unpaired"
"""The status of a network whose seed the baseline does not have."""


def compare(
    results: pd.DataFrame,
    baseline: Mapping[str, str],
    by: Sequence[str] | None = None,
    metrics: Sequence[str] | None = None,
    ratios: bool = False,
) -> Summary:
    """Return each group's differences from a baseline, or ratios to it, with intervals over pairs of equal seed.

    `baseline` has values by setting; all other settings of a group's baseline are the group's own, unless they follow
    from those named. `completed` of the counts is the number of pairs. Ratios are geometric means, of measures above 0.

    Raises: ConfigError if results have no such baseline, or several of one seed.
    """
    named = dict(zip(choose_settings(results, list(baseline), "--baseline"), baseline.values(), strict=True))
    if "config.seed" in named:
        raise ConfigError("--baseline seed: pairs are networks of equal seed. Name another setting.")
    columns = choose_settings(results, by)
    columns += [name for name in named if name not in columns]
    is_baseline = np.ones(len(results), dtype=bool)
    for column, text in named.items():
        is_baseline &= _equal(results, column, text)
    if not is_baseline.any():
        raise ConfigError(
            f"--baseline {_words(named)}: no network of these results has all of these settings."
        )
    if is_baseline.all():
        raise ConfigError(
            f"--baseline {_words(named)}: all of these networks have these settings. Name another value."
        )
    measures = choose_metrics(results, metrics)
    own = np.flatnonzero(~is_baseline)
    partners = _partners(results, columns, named, own, np.flatnonzero(is_baseline))
    values = results[measures].to_numpy(dtype=np.float64, na_value=np.nan)
    if ratios:
        values = np.log(np.where(values > 0, values, np.nan))
    completed = (results["status"] == "completed").to_numpy()
    paired = (partners >= 0) & completed[own] & completed[partners]
    differences = np.where(paired[:, None], values[own] - values[partners], np.nan)
    differences[np.abs(differences) <= rounding(values)] = 0.0
    pairs = results.iloc[own].reset_index(drop=True)
    pairs = pairs.assign(
        status=np.where(paired, "completed", _UNPAIRED),
        **{name: differences[:, place] for place, name in enumerate(measures)},
    )
    found = summarise(pairs, columns, measures)
    if ratios:
        found = replace(found, mean=np.exp(found.mean), low=np.exp(found.low), high=np.exp(found.high))
    return replace(found, compared=f"{'Ratios to' if ratios else 'Differences from'} {_words(named)}")


def baseline_settings(given: str, folders: Sequence[Path] = ()) -> dict[str, str]:
    """Return the values by setting of a baseline, which is given as KEY=VALUE, several with commas between.

    One of several `folders` that are compared can be the baseline.

    Raises: ConfigError for anything else, and for a setting that is given twice.
    """
    for path in folders if len(folders) > 1 else ():
        if given == str(path) or Path(given).resolve() == path.resolve():
            return {"folder": str(path)}
    parts = [part.partition("=") for part in given.split(",")]
    keys = [key.strip() for key, _, _ in parts]
    if not all(key and equals for key, (_, equals, _) in zip(keys, parts, strict=True)):
        raise ConfigError(
            f"--baseline {given}: give a setting and its value, as in --baseline noise.scale=0, or one of "
            + (" and ".join(map(str, folders)) if len(folders) > 1 else "several folders")
            + "."
        )
    twice = next((key for key in keys if keys.count(key) > 1), None)
    if twice is not None:
        raise ConfigError(f"--baseline {given}: {twice} is given twice. A baseline has one value of it.")
    return {key: value.strip() for key, (_, _, value) in zip(keys, parts, strict=True)}


def _equal(results: pd.DataFrame, column: str, text: str) -> NDArray[np.bool_]:
    """Return which rows have a setting, given as text. Raises: ConfigError for a value that none has."""
    values = list(results[column])
    found = np.array([_is(value, text) for value in values], dtype=bool)
    if not found.any():
        known = dict.fromkeys(setting_text(value) for value in values)
        raise ConfigError(
            f"--baseline {_words({column: text})}: no network has this value. {suggest(text, known)}"
        )
    return found


def _is(value: object, text: str) -> bool:
    if text in (str(value), setting_text(value)) or text == str(value).lower():
        return True
    try:
        return not isinstance(value, str | bool) and float(text) == float(str(value))
    except ValueError:
        return False


def _partners(
    results: pd.DataFrame,
    columns: Sequence[str],
    named: Mapping[str, str],
    own: NDArray[np.intp],
    others: NDArray[np.intp],
) -> NDArray[np.intp]:
    """Return for each of some rows the row of its baseline, -1 where there is none of its seed.

    A baseline has the row's values of all other settings, less those that the named ones determine. Where none has,
    settings of a named one's group are left out too: a noise scale of 0 may occur with another name of the noise.
    """
    pooled = pooled_settings(results, columns)
    free = [name for name in (*columns, *pooled) if name not in named]
    codes = {
        name: pd.factorize(results[name], use_na_sentinel=False)[0] for name in ("config.seed", *free, *named)
    }
    together = np.unique(np.stack([codes[name] for name in named], axis=1), axis=0, return_inverse=True)[1]
    free = [name for name in free if not determines(together.reshape(-1), codes[name])]
    groups = {name.split(".")[1] for name in named}
    looser = [name for name in free if name.split(".")[1] not in groups]
    partners = np.full(len(own), -1, dtype=np.intp)
    for names in dict.fromkeys((tuple(free), tuple(looser))):
        keys = np.stack([codes[name] for name in ("config.seed", *names)], axis=1).tolist()
        found: dict[tuple[int, ...], list[int]] = {}
        for row in others.tolist():
            found.setdefault(tuple(keys[row]), []).append(row)
        for place in np.flatnonzero(partners < 0).tolist():
            candidates = found.get(tuple(keys[own[place]]), [])
            if len(candidates) > 1:
                _refuse(results, named, [name for name in free if name not in names], candidates)
            if candidates:
                partners[place] = candidates[0]
    return partners


def _refuse(
    results: pd.DataFrame, named: Mapping[str, str], free: Sequence[str], rows: Sequence[int]
) -> None:
    several = results.iloc[list(rows)]
    differing = [name for name in free if several[name].astype(str).nunique() > 1]
    example = {name: setting_text(several[name].iloc[0]) for name in differing}
    hint = f" Name one of them, as in --baseline '{_words({**named, **example})}'." if example else ""
    raise ConfigError(
        f"--baseline {_words(named)}: {len(rows)} networks of one seed have these settings, so pairs are not "
        f"unique.{hint}"
    )


def _words(named: Mapping[str, str]) -> str:
    return ",".join(f"{name.removeprefix('config.')}={text}" for name, text in named.items())
