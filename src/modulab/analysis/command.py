"""The command `modulab analyse`, and what it prints. Torch is imported only once there is something to analyse."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path

from modulab.arguments import ArgumentParser, given_path
from modulab.config.project_file import own_modules
from modulab.errors import ConfigError

IMPORT_HELP = "your own modules that may be imported if the results name them, separated by commas"
_DESCRIPTION = (
    "Analyse finished networks in a folder of results, and add the values to their rows. Existing results "
    "are not changed. Members that have already been analysed are skipped, so the same command resumes, and "
    "analyses members added to a sweep."
)
_EXAMPLES = (
    ("--with cut", "cut all connections between modules"),
    ("--with cut,interaction", "two analyses"),
    ("--with cut cut.partitions=500", "with another setting"),
    (
        "--with long=transplant long.steps=2000",
        "under another name, so that its columns appear beside the first",
    ),
    ("--with my_analysis.yaml", "your own analysis: a file with _target_ and settings"),
    ("--with modulab.metrics.modularity.measure_structural", "a measure, computed afterwards"),
)
_LEAST_WIDTH = 40


def analyse(given: Sequence[str], meaning: Callable[[Path], str]) -> int:
    """Perform the command and return its exit code: 0, or 1 where an analysis failed with some members.

    `meaning` returns the description of an analysis from its config file.
    """
    parser = ArgumentParser(prog="modulab analyse", description=_DESCRIPTION)
    parser.add_argument("path", type=given_path, metavar="PATH", help="folder that modulab train wrote")
    parser.add_argument("overrides", nargs="*", metavar="NAME.FIELD=VALUE", help="settings of the analyses")
    parser.add_argument(
        "--with",
        dest="names",
        values=_analyses,
        required=True,
        metavar="NAMES",
        help="analyses, separated by commas",
    )
    parser.add_argument(
        "--members",
        metavar="ROWS",
        help="row numbers from 0, ranges (0-9), or first letters of run_ids, separated by commas",
    )
    parser.add_argument(
        "--again", action="store_true", help="also analyse members that have already been analysed"
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="analyse a few networks, print how long all networks will take, and store nothing",
    )
    parser.add_argument("--import", dest="modules", metavar="MODULES", help=IMPORT_HELP)
    if any(word in ("-h", "--help") for word in given) or not given:
        print(parser.format_help())
        print("\n".join(_more_help(meaning)))
        return 0 if given else 2
    options = parser.parse_intermixed_args(given)
    return _perform(options)


def _analyses() -> list[str]:
    from modulab.config.composing import config_folder

    return [file.stem for file in sorted((config_folder() / "analysis").glob("*.yaml"))]


def _more_help(meaning: Callable[[Path], str]) -> list[str]:
    """Return the lines that name the analyses and show commands, wrapped to the terminal's width."""
    from modulab.config.composing import config_folder

    width = max(_LEAST_WIDTH, shutil.get_terminal_size().columns - 1)
    lines = ["analyses:"]
    for file in sorted((config_folder() / "analysis").glob("*.yaml")):
        lines += textwrap.wrap(
            meaning(file), width, initial_indent=f"  {file.stem:<13}", subsequent_indent=15 * " "
        )
    lines.append("\nexamples:")
    for words, what in _EXAMPLES:
        lines += [
            f"  modulab analyse PATH {words}",
            *textwrap.wrap(what, width, initial_indent=6 * " ", subsequent_indent=6 * " "),
        ]
    return lines


def _perform(options: argparse.Namespace) -> int:
    from modulab.analysis.choosing import choose_analyses
    from modulab.analysis.run import describe_analyses, describe_left_out, plan_analyses, run_analyses
    from modulab.text import printable

    names = _words(options.names)
    modules = own_modules(options.modules, options.path)
    if not names:
        raise ConfigError("--with: name an analysis, such as cut. See modulab analyse --help.")
    # The user's own code may lie in the current folder: an analysis, or its labels.
    values = [override.partition("=")[2] for override in options.overrides]
    if any("." in word for word in (*names, *values)) and os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    chosen = choose_analyses(names, options.overrides)
    members = None if options.members is None else _words(options.members)
    if members == []:
        raise ConfigError("--members: name rows, as in --members 0-9, or leave it out for all.")
    plan = plan_analyses(options.path, chosen, members, options.again)
    if options.dry_run:
        print(printable_lines(describe_analyses(plan, modules)))
        return 0
    try:
        run_analyses(plan, modules)
    except KeyboardInterrupt:
        print(
            f"Interrupted. Values found so far are in {printable(str(options.path))}. Repeat the command to resume.",
            file=sys.stderr,
        )
        return 130
    code = _show(options.path, [each.name for each in chosen], plan.wanted)
    for line in describe_left_out(plan):
        print(printable_lines(line))
    return code


def _words(given: str | None) -> list[str]:
    return [word.strip() for word in (given or "").split(",") if word.strip()]


def printable_lines(text: str) -> str:
    """Return lines of text in which each is safe to show."""
    from modulab.text import printable

    return "\n".join(map(printable, text.splitlines()))


def _show(path: Path, names: Sequence[str], wanted: frozenset[str]) -> int:
    """Print the table of what was found in some members, and why others have nothing."""
    from modulab.results.analyses import ANALYSES, found_by
    from modulab.results.showing import show_results
    from modulab.results.store import load_results

    results = load_results(path, analyses=True)
    rows = [place for place, name in enumerate(results["run_id"].tolist()) if name in wanted]
    results = results.iloc[rows].reset_index(drop=True)
    found = {name: found_by(path, name, wanted) for name in names}
    columns = [column for each in found.values() for column in each.columns if column in results]
    short = [name for name in columns if "@" not in name and "module" not in name.partition("/")[2]]
    if columns:
        show_results(results, None, short or columns)
    for name, each in found.items():
        for reason, count in each.skipped.items():
            print(printable_lines(f"{name}: {count} skipped, as {reason}"))
        for error, count in each.errors.items():
            print(printable_lines(f"error: {name}: {count} failed: {error}"), file=sys.stderr)
    print(f"Saved in {path / ANALYSES}. To print all values: modulab table {path} --metric '{names[0]}/*'")
    return 1 if any(each.errors for each in found.values()) else 0
