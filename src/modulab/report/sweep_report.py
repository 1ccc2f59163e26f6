"""The report on folders of runs and sweeps: the settings that vary, the results, and how to repeat them."""

from __future__ import annotations

import shlex
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import pandas as pd

from modulab.errors import ConfigError
from modulab.measure_names import arrow_key
from modulab.report.archive_figure import archive_section
from modulab.report.categories import strip_figure
from modulab.report.choosing import (
    Layout,
    choose_layout,
    choose_measures,
    choose_pictures,
    found_searches,
    measured_families,
    split_for_curves,
)
from modulab.report.figure import ReportFigure
from modulab.report.lines import curves_figure, levels_figure, lines_figure
from modulab.report.networks import MOST_LISTED, networks_section
from modulab.report.page import Page, PageTable, Section, write_page
from modulab.report.planes import front_figure, map_figure
from modulab.report.points import in_order, join_settings
from modulab.report.shared_settings import shared_settings
from modulab.report.sources import Source, load_sources, names_in, rows_of, sources_of
from modulab.report.style import ArmStyle, arm_styles, arm_text, label
from modulab.results.commands import recorded_commands
from modulab.results.files import check_links, write_whole
from modulab.results.manifest import POPULATIONS
from modulab.results.parquet import CURVES
from modulab.results.rounding import without_rounding
from modulab.results.store import FOLDER, load_curves
from modulab.results.summary import (
    cells,
    choose_settings,
    lost_measures,
    member_cells,
    metric_names,
    problems,
    summarise,
    to_csv,
    unfinished,
)
from modulab.results.tables import read_reasons

SUMMARY = "summary.csv"
_MOST_ROWS = 60
_MOST_BESIDE = 12
"""Settings side by side in the table of all measures."""
_MOST_VALUES = 12
"""The largest number of values of a setting that the first lines of a page list one by one."""
_MOST_IN_TITLE = 4
_LARGEST_SHOWN = 1e100
_FEWEST_FOR_EXCESS = 10
MOST_IN_FIGURES = 20_000
"""The number of networks in the report if there are more than a table can hold at once."""


def write_report(
    paths: Path | Sequence[Path], output: str | Path | None = None, modules: Collection[str] = ()
) -> Path:
    """Write the report on the results under a path, or the comparison of several, to a folder, and return its page.

    The folder is `output`, by default PATH/report, or `report` in the working folder for several. It also contains the
    figures as PNG, SVG and CSV, and all measures by setting as summary.csv. `modules` are the user's own that the
    results may name.

    Raises: ConfigError if there are no results, or if links would lead it to write elsewhere.
    """
    sources = sources_of(paths)
    results, count = load_sources(sources, MOST_IN_FIGURES)
    if output is not None:
        target = Path(output)
    elif len(sources) == 1:
        target = sources[0].folder / "report"
        check_links(sources[0].folder)
    else:
        target = Path("report")
        check_links(target)
    page = write_page(describe(results, paths, modules, count), target)
    write_whole(target / SUMMARY, to_csv(summarise(results, None, ["*"])).encode())
    return page


def describe(
    results: pd.DataFrame,
    paths: Path | Sequence[Path],
    modules: Collection[str] = (),
    count: int | None = None,
) -> Page:
    """Return the page on some results; curves and weights are read from the paths that they came from.

    Results of several paths are those that `load_sources` returns. If they are a sample, `count` is the number of
    networks from which it was drawn.
    """
    sources = sources_of(paths)
    results, beyond = without_extremes(results, metric_names(results))
    results = results.assign(
        **{
            name: without_rounding(results[name].to_numpy(dtype=float, na_value=np.nan))
            for name in metric_names(results)
        }
    )
    layout = choose_layout(results)
    sections = [
        _summary(results),
        _troubles(results),
        _beyond_section(beyond),
        _settings_section(layout),
        archive_section(sources[0].folder) if len(sources) == 1 else None,
        _front_section(layout),
        _levels_section(layout),
        _curves_section(layout, sources),
        _connectivity_section(layout, sources, modules),
        _modules_section(layout, sources, modules),
        _analyses_section(layout, sources),
        _measures_section(results) if len(results) > 1 else None,
        _networks(results, sources) if len(results) > 1 else None,
        shared_settings(results),
        _repeating(results, sources),
    ]
    return Page(
        title=_title(sources),
        lead=[*_sampled(results, count), _lead(results, layout)],
        facts=_facts(results),
        sections=[section for section in sections if section is not None],
    )


def _title(sources: Sequence[Source]) -> str:
    if len(sources) == 1:
        return f"Report on {sources[0].folder.resolve().name}"
    if len(sources) > _MOST_IN_TITLE:
        return f"Comparison of {len(sources)} folders"
    *others, last = [source.name for source in sources]
    return f"Comparison of {', '.join(others)} and {last}"


def _networks(results: pd.DataFrame, sources: Sequence[Source]) -> Section:
    """Return the networks of a folder, or those of each of several, with the settings that vary among all."""
    measures = choose_measures(results)
    if len(sources) == 1:
        return networks_section(results, sources[0].folder, measures)
    settings = [name for name in choose_settings(results, None) if name != FOLDER]
    most = MOST_LISTED // len(sources)
    tables = [
        networks_section(
            rows_of(source, results),
            source.folder,
            measures,
            settings,
            title=f"Networks of {source.name}",
            most=most,
        )
        for source in sources
    ]
    return Section("Networks", sections=tables)


def _sampled(results: pd.DataFrame, count: int | None) -> list[str]:
    if count is None or count == len(results):
        return []
    return [
        f"This page and {SUMMARY} show a sample of {len(results):,} of {count:,} networks, drawn by their run_ids. "
        "modulab table --csv FILE writes the means over all networks."
    ]


def _lead(results: pd.DataFrame, layout: Layout) -> str:
    counts = Counter(results["status"].tolist())
    states = ", ".join(f"{count} {status}" for status, count in counts.items())
    varied = [
        f"{name.removeprefix('config.')} ({_values_in_words(in_order(layout.results, name))})"
        for name in layout.varied
    ]
    seeds = len(set(results["config.seed"].tolist()))
    words = f"{len(results)} network{'s' if len(results) > 1 else ''}: {states}."
    words += f" {seeds} seeds." if seeds > 1 else ""
    return words + (f" Settings that vary: {'; '.join(varied)}." if varied else "")


def _values_in_words(values: Sequence[object]) -> str:
    """Return all values of a setting; of many values, their number and, if they are numbers, their range."""
    texts = [arm_text(value) for value in values]
    if len(values) <= _MOST_VALUES:
        return ", ".join(texts)
    numbers = [value for value in values if isinstance(value, int | float | np.number)]
    if len(numbers) < len(values):
        return f"{len(values)} values"
    return f"{len(values)} values from {min(numbers):.3g} to {max(numbers):.3g}"


def _facts(results: pd.DataFrame) -> list[tuple[str, str]]:
    """Return the task, engine, device and versions of the results, with every value that occurs."""
    columns = {
        "Task": "config.task.name",
        "Engine": "engine",
        "Device": "device",
    }
    columns |= {
        {"git_commit": "Commit"}.get(name, name): f"version.{name}"
        for name in (
            str(column).removeprefix("version.") for column in results if str(column).startswith("version.")
        )
    }
    found = {
        name: [str(value) for value in results[column].dropna().unique()]
        for name, column in columns.items()
        if column in results
    }
    facts = [(name, ", ".join(values)) for name, values in found.items() if values]
    return facts + [("Not measured", text) for text in _not_measured(results)]


def _not_measured(results: pd.DataFrame) -> list[str]:
    """Return each reason for which networks lack measures, with the names of these measures before it."""
    texts = results["skipped"].dropna().unique() if "skipped" in results else []
    measures: defaultdict[str, dict[str, None]] = defaultdict(dict)
    for text in texts:
        for name, reason in read_reasons(text):
            measures[reason][name] = None
    return [f"{', '.join(filter(None, names))}: {reason}" for reason, names in measures.items()]


def _summary(results: pd.DataFrame) -> Section:
    if len(results) == 1:
        _, rows = member_cells(results)
        key = arrow_key(row[0] for row in rows)
        # A name with the arrow to its better values, what it is in words, and its value.
        described = [[name, _in_words(name.rstrip(" ↓↑")), value] for name, value in rows]
        table = PageTable(("measure", "in words", "value"), described, f"{key}." if key else "")
        return Section("Measures", tables=[table])
    headings, rows = cells(summarise(results))
    shown = rows[:_MOST_ROWS]
    caption = "Mean over seeds and its 95% interval; n is the number of completed networks. "
    key = arrow_key(headings)
    caption += f"{key}. " if key else ""
    caption += f"The first {len(shown)} of {len(rows)} rows. " if len(rows) > len(shown) else ""
    return Section("Summary", tables=[PageTable(headings, shown, f"{caption}All measures: {SUMMARY}.")])


def _in_words(name: str) -> str:
    return "" if label(name) == name else label(name)


def _measures_section(results: pd.DataFrame) -> Section | None:
    """Return the table of all measures by setting, those at one of many levels left out; none for many settings."""
    chosen = [name for name in metric_names(results) if "@" not in name and any(results[name].notna())]
    summary = summarise(results, None, chosen) if chosen else None
    if summary is None or len(summary.counts) > _MOST_BESIDE:
        return None
    headings, rows = cells(summary)
    columns = list(summary.settings)
    groups = join_settings(summary.settings, columns).tolist() if columns else ["all networks"]
    # A name with the arrow to its better values, what it is in words, and its mean in each group.
    measures = [
        [heading, _in_words(name), *(row[place - len(chosen)] for row in rows)]
        for place, (name, heading) in enumerate(zip(chosen, headings[-len(chosen) :], strict=True))
    ]
    key = arrow_key(row[0] for row in measures)
    caption = "Mean over seeds and its 95% interval." + (f" {key}." if key else "")
    table = PageTable(
        ("measure", "in words", *groups), measures, caption, on_paper=f"All measures: {SUMMARY}."
    )  # fmt: skip
    return Section("All measures", tables=[table], folded=True)


def _troubles(results: pd.DataFrame) -> Section | None:
    lines = [f"{line}." for line in problems(results)]
    if lines:
        lines.insert(0, "Means and figures do not include these networks.")
    lines += [*(f"{line}." for line in lost_measures(results)), *unfinished(results)]
    return Section("Networks left out", lines) if lines else None


def _beyond_section(beyond: str) -> Section | None:
    return Section("Numbers left out", [beyond]) if beyond else None


def without_extremes(table: pd.DataFrame, columns: Sequence[str]) -> tuple[pd.DataFrame, str]:
    """Return a table with NaN for numbers that no axis can show, and a sentence that counts them; none if empty.

    Those are infinite, or so large that their squares, of which intervals are made, are.
    """
    values = {name: table[name].to_numpy(dtype=float, na_value=np.nan) for name in columns}
    extreme = {name: np.abs(each) > _LARGEST_SHOWN for name, each in values.items()}
    names = [name for name in columns if extreme[name].any()]
    count = sum(int(extreme[name].sum()) for name in names)
    if not count:
        return table, ""
    shown = ", ".join(names[:6]) + (" and others" if len(names) > 6 else "")
    sentence = f"{count} numbers are infinite or beyond {_LARGEST_SHOWN:.0e} and are left out ({shown})."
    return table.assign(**{name: np.where(extreme[name], np.nan, values[name]) for name in names}), sentence


def _page_styles(layout: Layout, column: str | None) -> dict[str, ArmStyle]:
    """Return one style per arm for the page."""
    if column is None:
        return arm_styles([""])
    # Shades of the setting of the axis differ from those of other settings.
    return arm_styles(in_order(layout.results, column), "plasma" if column == layout.x else "viridis")


def _settings_section(layout: Layout) -> Section | None:
    members = layout.results
    measures = choose_measures(members)
    if len(members) < 2 or not measures:
        return None
    if not layout.readable:
        words = f"{len(layout.arms)} combinations of settings are too many for one figure: see the summary."
        return Section("By setting", [words])
    figures: list[ReportFigure] = []
    if layout.x is not None:
        figures.append(
            lines_figure(
                members, layout.x, measures, name="measures", title=f"Measures by {_words(layout.x)}",
                arm=layout.arm, row=layout.row, styles=_page_styles(layout, layout.arm),
            )
        )  # fmt: skip
    else:
        category = layout.arm
        if category is None:
            category = "network"
            members = members.assign(network=join_settings(members, ["config.architecture.name"]))
        figures.append(
            strip_figure(
                members, category, measures, name="measures", title="Measures of every network",
                styles=arm_styles(in_order(members, category)), arm=None,
            )
        )  # fmt: skip
    if layout.plane is not None:
        panel = next((name for name in layout.varied if name not in layout.plane), None)
        mapped = measures if panel is None else measures[:3]  # more beside one another would be too small
        figures.append(
            map_figure(
                members, *layout.plane, mapped, name="map", panel=panel,
                title=f"Measures by {_words(layout.plane[0])} and {_words(layout.plane[1])}",
            )
        )  # fmt: skip
    return Section("By setting" if layout.varied else "Every network", figures=figures)


def _words(name: str) -> str:
    text = label(name)
    return text if text == name.removeprefix("config.") else text[:1].lower() + text[1:]


def _front_section(layout: Layout) -> Section | None:
    error, modularity = "error/test", "modularity/structural"
    if layout.row is not None or not layout.varied or not layout.readable:
        return None
    if not {error, modularity} <= set(choose_measures(layout.results)):
        return None
    figure = front_figure(
        layout.results, error, modularity, name="error_and_modularity",
        title="Structural modularity against test error", arm=layout.arm, order=layout.x,
        styles=_page_styles(layout, layout.arm),
    )  # fmt: skip
    words = "Compare modularity only between networks with about the same error."
    return Section("Modularity at matched error", [words], [figure])


def _levels_section(layout: Layout) -> Section | None:
    members, arm, row, word = split_for_curves(layout)
    titles = {
        "error_under": ("robustness", "Error under perturbation, by its level", "level"),
        "error_beyond": ("extrapolation", "Error beyond the training range, by the range", "range"),
    }
    figures: list[ReportFigure] = []
    for kind, (name, title, axis) in titles.items():
        most = None if row is None else 3
        families = measured_families(members, kind, most) if len(members) and layout.readable else []
        if families:
            figures.append(
                levels_figure(
                    members, families, name=name, title=title, arm=arm, row=row, x_label=axis,
                    styles=_page_styles(layout, arm),
                )
            )  # fmt: skip
    return Section("Robustness and extrapolation", [word] if word else [], figures) if figures else None


def _curves_section(layout: Layout, sources: Sequence[Source]) -> Section | None:
    members, arm, row, word = split_for_curves(layout)
    if not len(members) or not layout.readable:
        return None
    try:
        curves = _load_curves(members, sources)
    except ConfigError as error:
        return Section("During training", [f"No figure can be made. {error}"])
    curves, beyond = without_extremes(curves, ["value"])
    word = f"{word} {beyond}".strip()
    curves = curves.dropna(subset=["value"])
    if len(set(curves["step"])) < 2:
        return None
    figure = curves_figure(
        curves, members, name="curves", title="During training", arm=arm, row=row,
        styles=_page_styles(layout, arm),
    )  # fmt: skip
    return Section("During training", [word] if word else [], [figure])


def _load_curves(members: pd.DataFrame, sources: Sequence[Source]) -> pd.DataFrame:
    """Return the curves of some networks, without those of single files and of folders in which none was trained."""
    found: list[pd.DataFrame] = []
    for source, names in names_in(sources, members):
        if source.path.is_file():
            continue
        try:
            curves = load_curves(source.path, list(names))
        except ConfigError:
            if (source.path / CURVES).exists():
                raise
            continue
        found.append(curves.assign(run_id=[names[own] for own in curves["run_id"]]))
    return pd.concat(found) if found else pd.DataFrame(columns=["run_id", "step", "measure", "value"])


def _connectivity_section(
    layout: Layout, sources: Sequence[Source], modules: Collection[str]
) -> Section | None:
    from modulab.report.connectivity import trained_connectivity
    from modulab.report.connectivity_figure import connectivity_figure

    pictures = choose_pictures(layout)
    try:
        networks = _pictured(
            layout, sources, pictures, lambda folder, own: trained_connectivity(folder, own, modules)
        )
    except ConfigError as error:
        return Section("Connectivity", [f"No picture can be made. {error}"])
    if not networks:
        words = "This figure could not be drawn; the output of the command says why."
        drawable = pictures and any(_has_checkpoints(source.folder) for source in sources)
        return Section("Connectivity", [words]) if drawable else None
    figure = connectivity_figure(
        networks,
        name="connectivity",
        title="Connectivity before and after training",
        run_ids=pictures,
    )
    return Section("Connectivity", figures=[figure])


Picture = TypeVar("Picture")


def _pictured(
    layout: Layout,
    sources: Sequence[Source],
    pictures: Mapping[str, str],
    read: Callable[[Path, list[str]], Mapping[str, Picture]],
) -> dict[str, Picture]:
    """Return what `read` returns of networks in their folders, by the names that pictures have, in their order."""
    chosen = layout.results.loc[layout.results["run_id"].isin(list(pictures.values()))]
    found: dict[str, Picture] = {}
    for source, names in names_in(sources, chosen):
        found |= {names[own]: picture for own, picture in read(source.folder, list(names)).items()}
    return {name: found[run_id] for name, run_id in pictures.items() if run_id in found}


def _modules_section(layout: Layout, sources: Sequence[Source], modules: Collection[str]) -> Section | None:
    """Return the modules that searches found, if they were run: values by setting, and pictures of some networks."""
    members = layout.results
    searches = found_searches(members)
    if not searches or not layout.readable:
        return None
    from modulab.report.communities import pictured_modules
    from modulab.report.communities_figure import excess_figure, modules_figure

    figures: list[ReportFigure] = []
    excess = "modularity/structural_excess"
    if (
        len(members) >= _FEWEST_FOR_EXCESS
        and excess in members
        and len(set(members[excess].dropna().tolist())) > 1
    ):
        named = {search: search.replace("_", " ") for search in found_searches(members, most=5)}
        figures.append(
            excess_figure(members, named, excess, name="modules_and_excess", title="Modules found, by excess")
        )
    if layout.x is not None:
        measures = [
            f"communities/{search}_{kind}" for kind in ("modules", "stability") for search in searches
        ]
        figures.append(
            lines_figure(
                members, layout.x, measures, name="modules_found", title=f"Modules found, by {_words(layout.x)}",
                arm=layout.arm, row=layout.row, styles=_page_styles(layout, layout.arm),
            )
        )  # fmt: skip
    pictures = choose_pictures(layout, most=3)
    try:
        drawn = _pictured(
            layout, sources, pictures, lambda folder, own: pictured_modules(folder, own, modules)
        )
    except ConfigError as error:
        return Section("Modules found", [f"No picture can be made. {error}"], figures)
    if drawn:
        figures.append(
            modules_figure(drawn, name="modules", title="Modules found in networks", run_ids=pictures)
        )
    return Section("Modules found", figures=figures) if figures else None


def _analyses_section(layout: Layout, sources: Sequence[Source]) -> Section | None:
    """Return figures of the results of `modulab analyse`, by the settings that distinguish networks."""
    from modulab.report.analyses_figure import analysis_figures
    from modulab.results.analyses import analysis_names

    names = list(dict.fromkeys(name for source in sources for name in analysis_names(source.path)))
    if not names or not len(layout.results):
        return None
    members = layout.results
    columns: Sequence[str] = layout.varied or ["config.architecture.name"]
    members = members.assign(network=join_settings(members, columns))
    figures = analysis_figures(members, "network", names)
    return Section("Analyses of finished networks", figures=figures) if figures else None


def _has_checkpoints(folder: Path) -> bool:
    return any(folder.rglob(f"{POPULATIONS}/*.ckpt"))


def _repeating(results: pd.DataFrame, sources: Sequence[Source]) -> Section:
    parts = [_commands_of(source) for source in sources]
    done = (
        (source.folder, row)
        for source in sources
        for row, status in enumerate(rows_of(source, results)["status"])
        if status == "completed"
    )
    one: list[Section] = []
    if first := next(done, None):
        folder, row = first
        single = (
            "To verify a network, train it again, alone, and compare all measures. Rows are counted from 0:"
        )
        again = shlex.join(["modulab", "rerun", str(folder), "--member", str(row)])
        one.append(Section("One network", [single], commands=[again]))
    if len(sources) == 1:
        return replace(parts[0], title="How to repeat it", sections=one)
    return Section("How to repeat it", sections=[*parts, *one])


def _commands_of(source: Source) -> Section:
    """Return the commands that gave a folder its rows, as a section with the name of the folder."""
    commands, words = [], ""
    try:
        commands = recorded_commands(source.folder)
    except ConfigError as error:
        words = str(error)
    if commands:
        words = "The command that trained these networks. In an empty folder, it trains them again."
        if len(commands) > 1:
            words = "The commands that trained these networks. In empty folders, they train them again."
    elif not words:
        words = "The folder contains no command: it was written from Python, or copied without the command."
    return Section(source.name, [words], commands=commands)
