"""`modulab table`: one or several folders of results, grouped, sorted, compared with a baseline, in several forms."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modulab.arguments import given_path
from modulab.errors import ConfigError, naming

if TYPE_CHECKING:
    from pandas import DataFrame

    from modulab.results.parquet import Keep
    from modulab.results.summary import Summary
else:
    # Annotations are checked in tests, and importing these takes a second, which help does not need.
    DataFrame = Summary = Keep = object


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument(
        "paths", type=given_path, nargs="+", metavar="PATH", help="folders that modulab train wrote, or files"
    )
    parser.add_argument(
        "--by",
        metavar="KEYS",
        help="settings to group by, separated by commas; '' for none; default: all that vary",
    )
    parser.add_argument(
        "--metric",
        metavar="NAMES",
        help="measures to show, separated by commas; error_under/* selects all of these",
    )
    parser.add_argument(
        "--sort", metavar="NAME", help="sort by a measure, with the best first, or by a setting or count"
    )
    order = parser.add_mutually_exclusive_group()
    order.add_argument("--ascending", action="store_true", help="with --sort: the smallest first")
    order.add_argument("--descending", action="store_true", help="with --sort: the largest first")
    parser.add_argument(
        "--baseline",
        metavar="KEY=VALUE",
        help="show differences from networks with equal seed and this setting (or several, separated by "
        "commas), or from one of several folders",
    )
    parser.add_argument("--ratio", action="store_true", help="with --baseline: ratios instead of differences")
    parser.add_argument(
        "--transpose", action="store_true", help="one row per measure, one column per setting"
    )
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    parser.add_argument("--json", action="store_true", help="print only JSON, with every measure")
    parser.add_argument(
        "--csv", metavar="FILE", help="also write every measure to a CSV file; - prints only CSV"
    )


def table(options: argparse.Namespace) -> bool:
    """Print the table that the options ask for; return whether more may be printed below it.

    Raises: ConfigError for options that do not go together, and as reading and grouping results do.
    """
    _check(options)
    from modulab.results.layout import markdown, transposed
    from modulab.results.showing import about, laid_out, notes, show_results, summary_lines
    from modulab.results.store import load_folders, load_results
    from modulab.results.summary import cells, to_csv
    from modulab.text import printable

    several = len(options.paths) > 1
    by, metrics = _names(options.by), _names(options.metric)
    results = (
        load_folders(options.paths)
        if several
        else load_results(options.paths[0], analyses=True, keep=_needed(options, by, metrics))
    )
    if several and by is not None and "folder" not in by:
        by = ["folder", *by]

    def summary(measures: Sequence[str] | None) -> Summary:
        return _summary(results, options, by, measures)

    every = ["*"] if metrics is None else metrics
    if options.json:
        print(as_json(summary(every), options.paths))
    elif options.csv == "-":
        print(to_csv(summary(every)), end="")
    elif not (options.sort or options.baseline or options.transpose or options.markdown):
        show_results(results, by, metrics)
    else:
        shown = summary(metrics)
        headings, rows = cells(shown)
        fixed = len(headings) - shown.mean.shape[1]
        if options.transpose:
            headings, rows = transposed(headings, rows)
            fixed = 1
        if options.markdown:
            print(
                markdown(
                    [printable(each) for each in headings],
                    [[printable(each) for each in row] for row in rows],
                )
            )
        elif options.transpose:
            print("\n".join(laid_out(headings, rows, fixed, names_columns=False)))
        else:
            print("\n".join(summary_lines(shown)))
        _say([*about(shown), *notes(results)], options)
    if options.json or options.csv == "-":
        _say(notes(results), options)
    elif options.csv is not None:
        _write(Path(options.csv), to_csv(summary(every)).encode())
    return not (several or _is_for_programs(options))


def _write(path: Path, content: bytes) -> None:
    """Write a file, replacing an earlier one as a whole; pipes and links stay what they are."""
    from modulab.results.files import write_whole

    if path.is_symlink() or (path.exists() and not path.is_file()):
        with naming(path):
            path.write_bytes(content)
    else:
        write_whole(path, content)


def _needed(
    options: argparse.Namespace, by: Sequence[str] | None, metrics: Sequence[str] | None
) -> Keep | None:
    patterns = metrics
    if metrics is None and (options.json or options.csv is not None):
        patterns = ["*"]
    named = [
        *(by or []),
        *(_baseline(options) if options.baseline else []),
        *([options.sort] if options.sort else []),
    ]
    return needed_columns(options.paths[0], named, patterns)


def needed_columns(
    path: Path, named: Sequence[str] = (), metrics: Sequence[str] | None = None
) -> Keep | None:
    """Return which columns a table needs of results that are too large to be read whole, or None for all.

    `named` are settings and measures that it needs beside those that vary and the `metrics`.
    """
    from modulab.measure_names import chosen_measures, given_measure
    from modulab.results.store import LARGE, count_results, varying_settings
    from modulab.results.summary import DEFAULT_METRICS
    from modulab.schema import current_name, is_reserved

    if count_results(path) <= LARGE:
        return None
    settings = {"config.seed", *varying_settings(path)}
    prefixes = tuple(f"config.{current_name(key)}" for key in named)
    measures = {given_measure(name) for name in named}
    patterns = DEFAULT_METRICS if metrics is None else metrics

    def keep(name: str) -> bool:
        if name.startswith("config."):
            return name in settings or name.startswith(prefixes)
        if is_reserved(name):
            return not name.startswith("version.")
        return name in measures or any(chosen_measures(pattern, [name]) for pattern in patterns)

    return keep


def _is_for_programs(options: argparse.Namespace) -> bool:
    return options.json or options.markdown or options.csv == "-"


def _say(lines: Sequence[str], options: argparse.Namespace) -> None:
    """Print what is to be said of a table: where others read the output, to standard error."""
    from modulab.results.showing import sentences
    from modulab.text import printable

    if _is_for_programs(options):
        print("".join(f"{printable(line)}\n" for line in lines), end="", file=sys.stderr)
    else:
        print("".join(f"{line}\n" for line in sentences(lines)), end="")


def _check(options: argparse.Namespace) -> None:
    """Raise ConfigError for options that do not go together, or that were meant for others."""
    for option, given in (("--metric", options.metric), ("--by", options.by)):
        lost = next((path for path in options.paths[1:] if given and not path.exists()), None)
        if lost is not None:
            raise ConfigError(
                f"{lost}: there is no such path. Several names are one argument, with commas between, as in "
                f"{option} {given},{lost}."
            )
    if options.metric is not None and not _names(options.metric):
        raise ConfigError("--metric: name a measure, as in --metric error/test.")
    if options.csv not in (None, "-") and (folder := Path(options.csv).parent) and not folder.is_dir():
        raise ConfigError(f"--csv {options.csv}: there is no folder {folder}. Make it, or write elsewhere.")
    if options.csv not in (None, "-") and Path(options.csv).is_dir():
        raise ConfigError(f"--csv {options.csv}: this is a folder. Name a file in it.")
    forms = {
        "--json": options.json,
        "--markdown": options.markdown,
        "--csv -": options.csv == "-",
    }
    asked = [name for name, given in forms.items() if given]
    if len(asked) > 1:
        raise ConfigError(f"{' '.join(asked)}: give one of them; each prints the whole output.")
    if options.transpose and (options.json or options.csv == "-"):
        raise ConfigError(
            f"--transpose {asked[0]}: what programs read has one row per setting. Leave out --transpose."
        )
    if (options.ascending or options.descending) and options.sort is None:
        way = "--ascending" if options.ascending else "--descending"
        raise ConfigError(f"{way} needs --sort, as in --sort error/test {way}.")
    if options.ratio and options.baseline is None:
        raise ConfigError("--ratio needs a baseline, as in --baseline noise.scale=0 --ratio.")


def _names(given: str | None) -> list[str] | None:
    return None if given is None else [name.strip() for name in given.split(",") if name.strip()]


def _summary(
    results: DataFrame,
    options: argparse.Namespace,
    by: Sequence[str] | None,
    metrics: Sequence[str] | None,
) -> Summary:
    """Return the summary that the options ask for; what it is sorted by is in it."""
    from modulab.measure_names import given_measure
    from modulab.results.pairing import compare
    from modulab.results.summary import choose_metrics, metric_names, summarise

    measures = choose_metrics(results, metrics)
    if (
        options.sort
        and (name := given_measure(options.sort)) in metric_names(results)
        and name not in measures
    ):
        measures.append(name)
    found = (
        compare(results, _baseline(options), by, measures, options.ratio)
        if options.baseline
        else summarise(results, by, measures)
    )
    return ordered(found, options.sort, options.ascending, options.descending) if options.sort else found


def _baseline(options: argparse.Namespace) -> dict[str, str]:
    """Return the values of settings that the baseline has, the folder being one of them."""
    from modulab.results.pairing import baseline_settings

    return baseline_settings(options.baseline, options.paths)


def ordered(summary: Summary, name: str, ascending: bool = False, descending: bool = False) -> Summary:
    """Return a summary sorted by a measure, a setting or a count; rows without a value come last.

    The best come first, and the largest where neither way of a measure is better; settings and counts rise.

    Raises: ConfigError for a name that the summary does not have.
    """
    import pandas as pd

    from modulab.measure_names import better, current_measure
    from modulab.schema import current_name, suggest

    counts = summary.counts.rename(columns={"completed": "n"})
    measure, setting = current_measure(name), current_name(name)
    if measure in summary.mean:
        values, rising = summary.mean[measure], better(measure) == "lower"
    else:
        columns = pd.concat([summary.settings, counts], axis=1)
        found = next((each for each in (setting, f"{setting}.name") if each in columns), None)
        if found is None:
            known = [*(str(each) for each in columns), *(str(each) for each in summary.mean)]
            raise ConfigError(f"--sort {name}: this table has no such column. {suggest(name, known)}")
        values, rising = columns[found], True
    numeric = pd.api.types.is_numeric_dtype(values)
    keys: list[Any] = [
        None if pd.isna(value) else value if numeric else str(value) for value in values.tolist()
    ]
    places = [place for place, key in enumerate(keys) if key is not None]
    places.sort(key=lambda place: keys[place], reverse=not (ascending or (rising and not descending)))
    places += [place for place, key in enumerate(keys) if key is None]
    frames = {
        each: getattr(summary, each).iloc[places].reset_index(drop=True)
        for each in ("settings", "counts", "mean", "low", "high", "taken")
    }
    return replace(summary, **frames)


def as_json(summary: Summary, paths: Sequence[Path]) -> str:
    """Return every row and column of a summary as JSON; null for what has no finite value."""
    from modulab.measure_names import better

    rows = [
        {
            "settings": {name: _plain(summary.settings[name].iloc[row]) for name in summary.settings},
            "networks": {name: _plain(summary.counts[name].iloc[row]) for name in summary.counts},
            "measures": {
                name: {
                    "mean": _plain(summary.mean[name].iloc[row]),
                    "low": _plain(summary.low[name].iloc[row]),
                    "high": _plain(summary.high[name].iloc[row]),
                    "n": _plain(summary.taken[name].iloc[row]),
                }
                for name in summary.mean
            },
        }
        for row in range(len(summary.counts))
    ]
    content = {
        "paths": [str(path) for path in paths],
        "compared": summary.compared or None,
        "pooled_over": list(summary.pooled),
        "better": {str(name): better(str(name)) for name in summary.mean},
        "rows": rows,
    }
    return json.dumps(content, indent=1)


def _plain(value: Any) -> Any:
    """Return a value of a frame as JSON knows it."""
    import pandas as pd

    if value is None or value is pd.NA:
        return None
    value = value.item() if hasattr(value, "item") else value
    return None if isinstance(value, float) and not math.isfinite(value) else value
