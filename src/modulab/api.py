"""The Python interface: train networks, load results and trained networks, and draw figures."""

from __future__ import annotations

from collections.abc import Collection, Generator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pandas as pd

from modulab.errors import ConfigError, Interrupted
from modulab.python_words import in_python, python_errors
from modulab.returned import Figures, Results, Table, Verdicts, WrittenPage, summary_table, text_table

if TYPE_CHECKING:
    from modulab.sweep.trained import TrainedMembers
else:
    # Annotations are checked in tests, and importing this imports torch.
    TrainedMembers = object


def train(
    overrides: str | Sequence[str] | Mapping[str, Any] = (),
    folder: str | Path | None = None,
    *,
    config_dirs: Sequence[str | Path] = (),
    **settings: Any,
) -> Results:
    """Train and measure the same networks as `modulab train` with these settings, and return the results.

    Settings are overrides as on the command line, `["noise.scale=0.2"]`, or Python values, in a dictionary
    `{"noise.scale": 0.2}` or as keywords `noise={"scale": 0.2}`. You can combine both.

    Results are written to `folder`, by default a new folder below outputs/. With the same folder, a call resumes and
    trains only what is missing. `config_dirs` are folders with additional configs. Settings of the whole process, such
    as the number of torch's threads, are restored afterwards.

    Raises: ConfigError for invalid settings; Interrupted, a KeyboardInterrupt, on Ctrl-C or a notebook's interrupt,
    after which the same call with the same folder resumes.
    """
    from modulab.config.python_values import overrides_of

    with python_errors():
        return _trained(overrides_of(overrides, settings), folder, config_dirs)


def train_grid(
    grid: Mapping[str, Any] | Sequence[Mapping[str, Any]],
    overrides: str | Sequence[str] | Mapping[str, Any] = (),
    folder: str | Path | None = None,
    *,
    seeds: int = 1,
    config_dirs: Sequence[str | Path] = (),
    **settings: Any,
) -> Results:
    """Train every combination of a grid with `seeds` seeds, packed together, and return the results.

    `grid` maps keys to lists of values, `{"noise.scale": [0, 0.1], "architecture": ["dense", "premodular"]}`, or is a
    list of such grids. Networks with equal seeds share their data and initial weights, so `summary(..., baseline=...)`
    compares them in pairs. The other arguments are those of `train`.
    """
    from modulab.config.python_values import grid_override, overrides_of

    with python_errors():
        given = [*overrides_of(overrides, settings), grid_override(grid), f"population.seeds={seeds}"]
        return _trained(given, folder, config_dirs)


def _trained(
    overrides: Sequence[str], folder: str | Path | None, config_dirs: Sequence[str | Path]
) -> Results:
    from modulab.config.overrides import check_given_once, override_key
    from modulab.config.project_file import command_folders, own_folders_added
    from modulab.process import settings_kept

    for override in overrides:
        if override.startswith("-") or override_key(override).partition(".")[0] == "hydra":
            raise ConfigError(
                f"{override}: a call accepts no options and no keys of Hydra. Give the folder as folder=FOLDER, a grid "
                "to modulab.train_grid, and leave searches, SLURM and Ray to the command line."
            )
    check_given_once(overrides)
    dirs = [
        _folder("config_dirs", each)
        for each in ([config_dirs] if isinstance(config_dirs, str | Path) else config_dirs)
    ]
    missing = next((each for each in dirs if not each.is_dir()), None)
    if missing is not None:
        raise ConfigError(f"--config-dir {missing}: there is no such folder.")
    path = (
        _folder("folder", folder)
        if folder is not None
        else Path("outputs", f"{datetime.now():%Y-%m-%d/%H-%M-%S-%f}")
    )
    with settings_kept(), command_folders(dirs), own_folders_added():
        from modulab.results.store import load_curves, load_results
        from modulab.sweep.planned import train_planned

        named = [word for each in dirs for word in ("--config-dir", str(each))]
        with _resumable(f"{path}. Repeat the call with folder={str(path)!r} to resume."):
            train_planned(overrides, path, ["modulab", "train", *named, *overrides, f"hydra.run.dir={path}"])
        return Results(load_results(path), load_curves(path), path)


@contextmanager
def _resumable(where: str) -> Generator[None]:
    """Let an interrupt say where finished results are kept, and how to resume."""
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted(f"finished results are in {where}") from None


def load_results(path: str | Path | Results, columns: str | Sequence[str] | None = None) -> pd.DataFrame:
    """Return the results under a path as a table: a run's or sweep's folder, a folder of such folders, or a file.

    The table has one row per network, with `run_id`, `status`, settings as `config.KEY`, measures by name, and values
    of `modulab analyse`.

    `columns` names the columns to read, in their order, or gives patterns such as `"error_under/*"`. Reading a few
    columns of many networks takes much less time and memory than reading all.

    Raises: ConfigError if there are no results, if a file is damaged or from another version, or if a column does not
        exist.
    """
    from modulab.results import store

    named = _names(columns)
    with python_errors():
        if named is None:
            return store.load_results(_path(path), analyses=True)
        return store.load_columns(_path(path), named, analyses=True)


def load_curves(
    path: str | Path | Results,
    run_ids: str | Sequence[str] | None = None,
    metrics: str | Sequence[str] | None = None,
) -> pd.DataFrame:
    """Return measures during training under a path as a table of run_id, step, measure and value.

    `run_ids` are the networks, and `metrics` the measures, or patterns of them, whose curves to read; by default all.

    Raises: ConfigError if there are no curves, if a file is damaged or from another version, or if a measure has no
        curve.
    """
    from modulab.results import store

    with python_errors():
        return store.load_curves(_path(path), _names(run_ids), _names(metrics))


def _path(source: str | Path | Results) -> Path:
    return source.folder if isinstance(source, Results) else _folder("path", source)


def _paths(given: Any) -> list[Path]:
    """Return the folder or folders that an argument names. Raises: ConfigError for other values, and for none."""
    if isinstance(given, str) or not isinstance(given, Sequence):
        return [_path(given)]
    paths = [_path(each) for each in cast("Sequence[Any]", given)]
    if not paths:
        raise ConfigError("path=[]: give a folder, or several in a list.")
    return paths


def _folder(name: str, given: Any) -> Path:
    """Return the folder that an argument names. Raises: ConfigError for an empty text, and for other values."""
    if not isinstance(given, str | PathLike) or not str(given):
        raise ConfigError(f"{name}={given!r}: give a folder, as text or as a pathlib.Path.")
    return Path(cast("str | PathLike[str]", given))


def load_members(
    path: str | Path | Results, members: str | int | Sequence[str | int] | None = None
) -> list[TrainedMembers]:
    """Return the trained networks in the folder of a run or sweep, as one `TrainedMembers` per population.

    `members` are row numbers, ranges (`"0-9"`) or first letters of run_ids; by default all. Each population has
    `run_ids`, `configs`, `parameters` and `weights`, in the same order. `points(1000)` returns test points, and
    `outputs(inputs)` the networks' outputs, as NumPy arrays whose first axis is the network. `population()` returns the
    networks with torch tensors, and `measures()` measures them again.

    Code that the folder names is imported only if it is part of modulab, or in one of your own modules that you name,
    as in `outputs(inputs, modules=["my_networks"])`.

    Raises: ConfigError if there are no trained networks, or members do not exist.
    """
    from modulab.process import import_training

    import_training()
    from modulab.sweep import trained

    folder = _path(path)
    with python_errors():
        given = [members] if isinstance(members, str | int) else members
        return trained.choose_members(folder, None if given is None else list(map(str, given)))


def export_weights(
    path: str | Path | Results,
    to: str | Path | None = None,
    *,
    format: str = "npz",
    members: str | int | Sequence[str | int] | None = None,
) -> list[Path]:
    """Write the weights of trained networks to `to`, one file per network named by its run_id; return the paths.

    `format` is npz or safetensors. `to` is by default the folder `weights` next to the results, and `members` is as in
    `load_members`. The file networks.json contains each network's config and number of training steps.

    Raises: ConfigError as `load_members` does, and if the format is unknown or its package is missing.
    """
    from modulab.export import write_weights

    folder = _path(path)
    groups = load_members(folder, members)
    with python_errors():
        return write_weights(groups, folder / "weights" if to is None else Path(to), format)


def summary(
    results: str | Path | Results | pd.DataFrame | Sequence[str | Path | Results],
    by: str | Sequence[str] | None = None,
    metrics: str | Sequence[str] | None = None,
    *,
    baseline: str | Path | Results | Mapping[str, Any] | None = None,
    ratio: bool = False,
) -> Table:
    """Return means over seeds with 95% intervals, one row per setting that varies, as `modulab table` shows them.

    `results` is a folder, several folders to compare, or a table from `load_results`, from which you may have removed
    rows. `by` names the settings to group by, and `metrics` the measures to show, or patterns. The attribute `frame` of
    the returned table has every measure. With a `baseline`, `"noise.scale=0"` or `{"noise.scale": 0}`, values are
    differences from the network with equal seed and this setting; with `ratio`, they are ratios. One of several folders
    can be the baseline.

    Raises: ConfigError for settings and measures that the results do not have, and if pairs are not unique.
    """
    from modulab.results.store import load_folders

    folders: list[Path] = []
    with python_errors():
        if isinstance(results, pd.DataFrame):
            table = results
        elif isinstance(results, str | Path | Results):
            table = load_results(results)
        else:
            folders = _paths(results)
            table = load_folders(folders)
        if ratio and baseline is None:
            raise ConfigError("ratio needs a baseline, as in baseline={'noise.scale': 0}.")
        return summary_table(
            table, by=_names(by), metrics=_names(metrics), baseline=_baseline(baseline, folders), ratio=ratio
        )


def _names(given: str | Sequence[str] | None) -> list[str] | None:
    return None if given is None else [given] if isinstance(given, str) else list(given)


def _baseline(
    given: str | Path | Results | Mapping[str, Any] | None, folders: Sequence[Path]
) -> dict[str, str] | None:
    from modulab.results.pairing import baseline_settings
    from modulab.results.summary import setting_text

    if given is None:
        return None
    if isinstance(given, str | Path | Results):
        return baseline_settings(given if isinstance(given, str) else str(_path(given)), folders)
    return {key: setting_text(value) for key, value in given.items()}


def figures(
    path: str | Path | Results | Sequence[str | Path | Results], *, modules: Collection[str] | None = None
) -> Figures:
    """Return the figures of `modulab report` by name, each with its data; a notebook shows them.

    `path` is a folder, or several to compare. `modules` are your own modules that may be imported if the results name
    them, by default those in modulab.toml.

    Raises: ConfigError if there are no results, and for a folder that is given twice.
    """
    from modulab.config.project_file import own_folders_added, own_modules
    from modulab.process import settings_kept

    paths = _paths(path)
    with python_errors(), settings_kept(), own_folders_added():
        from modulab.report.page import page_figures
        from modulab.report.sources import load_sources, sources_of
        from modulab.report.sweep_report import MOST_IN_FIGURES, describe

        results, count = load_sources(sources_of(paths), MOST_IN_FIGURES)
        found = page_figures(describe(results, paths, own_modules(modules, *paths), count))
        return Figures({each.name: each for each in found})


def write_report(
    path: str | Path | Results | Sequence[str | Path | Results],
    folder: str | Path | None = None,
    *,
    modules: Collection[str] | None = None,
) -> WrittenPage:
    """Write the page of `modulab report`, with its figures as PNG, SVG and CSV, and return its location.

    `path` and `modules` are as in `figures`. `folder` is the folder to write to, by default `report` in the folder of
    results, or, if several are compared, in the working folder.

    Raises: ConfigError if there are no results, and for a folder that is given twice.
    """
    from modulab.config.project_file import own_folders_added, own_modules
    from modulab.process import settings_kept

    paths = _paths(path)
    with python_errors(), settings_kept(), own_folders_added():
        from modulab.report import sweep_report

        return WrittenPage(sweep_report.write_report(paths, folder, own_modules(modules, *paths)))


def analyse(
    path: str | Path | Results,
    with_: str | Sequence[str],
    settings: Sequence[str] | Mapping[str, Any] = (),
    *,
    members: Sequence[str | int] | None = None,
    modules: Collection[str] | None = None,
    again: bool = False,
) -> pd.DataFrame:
    """Analyse the finished networks of a folder as `modulab analyse` does; return the results with the new values.

    `with_` names one or more analyses, and `settings` sets their fields (`cut.partitions=500`). `members` are row
    numbers, ranges (`0-9`) or first letters of run_ids, and `modules` is as in `figures`. Members that have been
    analysed are skipped, unless `again` is true.

    Raises: ConfigError for invalid arguments; Interrupted as in `train`.
    """
    from modulab.config.project_file import own_folders_added, own_modules
    from modulab.config.python_values import overrides_of
    from modulab.process import settings_kept

    folder = _path(path)
    with python_errors(), settings_kept(), own_folders_added():
        from modulab.analysis.choosing import choose_analyses
        from modulab.analysis.run import plan_analyses, run_analyses

        names: list[Any] = [with_] if isinstance(with_, str) else [*(with_ or ())]
        if not names or not all(isinstance(each, str) for each in names):
            raise ConfigError(f"with_={with_!r}: name an analysis, such as 'cut', or several in a list.")
        chosen = choose_analyses(names, overrides_of(settings, {}))
        wanted = None if members is None else [str(each) for each in members]
        own = own_modules(modules, folder)
        with _resumable(f"{folder}. Repeat the call to resume."):
            run_analyses(plan_analyses(folder, chosen, wanted, again), own)
    return load_results(folder)


def run_claims(
    preset: str = "quick",
    only: str | Sequence[str] | None = None,
    folder: str | Path | None = None,
    *,
    processes: int | None = None,
) -> Verdicts:
    """Run the missing experiments of the claims, decide each claim by its rule, and write the report.

    `preset` is smoke, quick or full. `only` names claims, `["C5", "C6"]`. `folder` is the folder to write to, by
    default outputs/claims/PRESET. `processes` is the number of experiments that run at once, by default one per core.

    Raises: ConfigError for invalid arguments; Interrupted as in `train`.
    """
    from modulab.claims.presets import PRESETS, banner, choose_preset
    from modulab.process import settings_kept

    with python_errors():
        choose_preset(preset, processes)
        target = _folder("folder", folder) if folder is not None else Path("outputs", "claims", preset)
        with settings_kept(), _resumable(f"{target}. Repeat the call to resume."):
            from modulab.claims import command

            judgements, reasons = command.run_claims(preset, _names(only), target, processes, "auto")
            headings, rows, where = command.summary(judgements, target)
        *lines, last = where.split("\n")
        warning = in_python(banner(preset, PRESETS[preset]))
        page = WrittenPage(Path(last.removeprefix("Report: ")))
        words = (*([warning] if warning else []), *lines, *(f"error: {reason}" for reason in reasons))
        table = pd.DataFrame(rows, columns=list(headings))
        return Verdicts(table, page, words)


def options(group: str | None = None) -> Table:
    """Return the options of a config group with their meanings, or the groups, as `modulab list` prints them.

    Raises: ConfigError for an unknown group.
    """
    from modulab.config.project_file import folders_in_order
    from modulab.help import listed

    with python_errors():
        found = listed(group, folders_in_order())
        return text_table(("group", "options") if group is None else (group, "meaning"), found)
