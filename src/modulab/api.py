"""The Python interface: train networks, read them back, and show what came of it."""

from __future__ import annotations

from collections.abc import Collection, Generator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
    """Train and measure what `modulab train` would with these settings, and return the results.

    Settings are overrides as on the command line, `["noise.scale=0.2"]`, or Python values, in a dictionary
    `{"noise.scale": 0.2}` or as keywords `noise={"scale": 0.2}`, or both.

    `folder` is where results go, by default a new one below outputs/. The same folder again goes on where it stopped,
    and trains nothing that it has. `config_dirs` are folders of further configs. Settings that all code in the process
    shares, such as the number of torch's threads, are afterwards as they were before.

    Raises: ConfigError for mistakes that a user can fix; Interrupted, a KeyboardInterrupt, on Ctrl-C or a notebook's
    interrupt, after which the same call with the same folder goes on.
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
    """Train every point of a grid at `seeds` seeds, all at once, and return the results.

    `grid` has lists of values by key, `{"noise.scale": [0, 0.1], "architecture": ["dense", "premodular"]}`, or is a
    list of such grids. Networks of equal seed share their data and initial weights, so that `summary(...,
    baseline=...)` compares them in pairs. All else is as in `train`.
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
                f"{override}: a call takes no options and no keys of Hydra. Give the folder as folder=FOLDER, a grid "
                "to modulab.train_grid, and leave searches, SLURM and Ray to the command line."
            )
    check_given_once(overrides)
    dirs = [Path(each) for each in ([config_dirs] if isinstance(config_dirs, str | Path) else config_dirs)]
    missing = next((each for each in dirs if not each.is_dir()), None)
    if missing is not None:
        raise ConfigError(f"--config-dir {missing}: there is no such folder.")
    path = Path(folder) if folder is not None else Path("outputs", f"{datetime.now():%Y-%m-%d/%H-%M-%S-%f}")
    with settings_kept(), command_folders(dirs), own_folders_added():
        from modulab.results.store import load_curves, load_results
        from modulab.sweep.planned import train_planned

        named = [word for each in dirs for word in ("--config-dir", str(each))]
        with _resumable(f"{path}. The same call with folder={str(path)!r} goes on."):
            train_planned(overrides, path, ["modulab", "train", *named, *overrides, f"hydra.run.dir={path}"])
        return Results(load_results(path), load_curves(path), path)


@contextmanager
def _resumable(where: str) -> Generator[None]:
    """Let an interrupt say where finished results are kept, and how to resume."""
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted(f"what is finished is kept in {where}") from None


def load_results(path: str | Path | Results, columns: str | Sequence[str] | None = None) -> pd.DataFrame:
    """Return the results under a path as a table: a run's or sweep's folder, a folder of such folders, or a file.

    It has one row per network: `run_id`, `status`, settings as `config.KEY`, measures by name. What `modulab analyse`
    found is in further columns.

    `columns` are the names of those to read, in their order, or patterns such as `"error_under/*"`: of many networks,
    some columns take a small part of the time and memory of all.

    Raises: ConfigError where there are none, where a file is damaged or of another version, and for a column that is
    not there.
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

    Raises: ConfigError where there are none, where a file is damaged or of another version, and for a measure that has
    no curve.
    """
    from modulab.results import store

    with python_errors():
        return store.load_curves(_path(path), _names(run_ids), _names(metrics))


def _path(source: str | Path | Results) -> Path:
    return source.folder if isinstance(source, Results) else Path(source)


def load_members(
    path: str | Path | Results, members: str | int | Sequence[str | int] | None = None
) -> list[TrainedMembers]:
    """Return the trained networks that a run's or sweep's folder holds: one `TrainedMembers` per population.

    `members` are numbers of rows, ranges (`"0-9"`) or first letters of run_ids; by default all. Each population has
    `run_ids`, `configs`, `parameters` and `weights`, in one order. `points(1000)` gives test points, and
    `outputs(inputs)` the networks' outputs, as NumPy arrays with the network as first axis; `population()` gives the
    networks themselves, on torch's tensors, and `measures()` measures them again.

    Code that the folder names is imported only if it is modulab's or lies in modules of your own, which are named as in
    `outputs(inputs, modules=["my_networks"])`.

    Raises: ConfigError where there are none, and for members that are not there.
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
    """Write the weights of trained networks to `to`, one file per network named by its run_id; return the files.

    `format` is npz or safetensors, `to` is the folder `weights` beside the results by default, and `members` are as
    in `load_members`. networks.json beside the files has each network's config, and for how many steps it was trained.

    Raises: ConfigError as `load_members` does, and for a format that is not known or whose package is missing.
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

    `results` are a folder, several folders to compare, or a table as `load_results` returns it, of which rows may have
    been left out. `by` names the settings to group by and `metrics` the measures, or patterns of them, to show; `frame`
    of what is returned has every measure. With a `baseline`, `"noise.scale=0"` or `{"noise.scale": 0}`, values are
    differences from the network of equal seed that has this setting, or with `ratio` ratios to it. Of several folders,
    one may be the baseline.

    Raises: ConfigError for settings and measures that the results do not have, and where pairs are not determined.
    """
    from modulab.results.store import load_folders

    folders: list[Path] = []
    with python_errors():
        if isinstance(results, pd.DataFrame):
            table = results
        elif isinstance(results, str | Path | Results):
            table = load_results(results)
        else:
            folders = [_path(each) for each in results]
            table = load_folders(folders)
        if ratio and baseline is None:
            raise ConfigError("ratio: say to what, as in baseline={'noise.scale': 0}.")
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


def figures(path: str | Path | Results, *, modules: Collection[str] | None = None) -> Figures:
    """Return the figures of `modulab report` by name, each with its data; a notebook shows them.

    `modules` are those of your own whose code the results may name, by default those of modulab.toml.

    Raises: ConfigError where there are no results.
    """
    from modulab.config.project_file import own_folders_added, own_modules
    from modulab.process import settings_kept

    folder = _path(path)
    with python_errors(), settings_kept(), own_folders_added():
        from modulab.report.page import page_figures
        from modulab.report.sweep_report import describe
        from modulab.results.store import load_results

        results = load_results(folder, analyses=True)
        found = page_figures(describe(results, folder, own_modules(modules, folder)))
        return Figures({each.name: each for each in found})


def write_report(
    path: str | Path | Results,
    folder: str | Path | None = None,
    *,
    modules: Collection[str] | None = None,
) -> WrittenPage:
    """Write the page of `modulab report`, with its figures as PNG, SVG and CSV, and return where it is.

    `folder` is where to write, by default `report` within the results; `modules` are as in `figures`.

    Raises: ConfigError where there are no results.
    """
    from modulab.config.project_file import own_folders_added, own_modules
    from modulab.process import settings_kept

    source = _path(path)
    with python_errors(), settings_kept(), own_folders_added():
        from modulab.report import sweep_report

        return WrittenPage(sweep_report.write_report(source, folder, own_modules(modules, source)))


def analyse(
    path: str | Path | Results,
    with_: str | Sequence[str],
    settings: Sequence[str] | Mapping[str, Any] = (),
    *,
    members: Sequence[str | int] | None = None,
    modules: Collection[str] | None = None,
    again: bool = False,
) -> pd.DataFrame:
    """Analyse the finished networks of a folder as `modulab analyse` would; return the results with what was found.

    `with_` names one or more analyses, `settings` set their fields (`cut.partitions=500`), `members` are numbers of
    rows, ranges (`0-9`) or first letters of run_ids, and `modules` are as in `figures`. Members that have been analysed
    are left out, unless `again`.

    Raises: ConfigError for whatever a user can set right; Interrupted as in `train`.
    """
    from modulab.config.project_file import own_folders_added, own_modules
    from modulab.config.python_values import overrides_of
    from modulab.process import settings_kept

    folder = _path(path)
    with python_errors(), settings_kept(), own_folders_added():
        from modulab.analysis.choosing import choose_analyses
        from modulab.analysis.run import plan_analyses, run_analyses

        chosen = choose_analyses([with_] if isinstance(with_, str) else with_, overrides_of(settings, {}))
        wanted = None if members is None else [str(each) for each in members]
        own = own_modules(modules, folder)
        with _resumable(f"{folder}. The same call goes on."):
            run_analyses(plan_analyses(folder, chosen, wanted, again), own)
    return load_results(folder)


def run_claims(
    preset: str = "quick",
    only: str | Sequence[str] | None = None,
    folder: str | Path | None = None,
    *,
    processes: int | None = None,
) -> Verdicts:
    """Run what is missing of the claims' experiments, decide each claim by its rule, and write the report on them.

    `preset` is smoke, quick or full; `only` names claims, `["C5", "C6"]`; `folder` is where to write, by default
    outputs/claims/PRESET; `processes` is how many experiments run at once, by default one per core.

    Raises: ConfigError for whatever a user can set right; Interrupted as in `train`.
    """
    from modulab.claims.presets import PRESETS, banner, choose_preset
    from modulab.process import settings_kept

    with python_errors():
        choose_preset(preset, processes)
        target = Path(folder) if folder is not None else Path("outputs", "claims", preset)
        with settings_kept(), _resumable(f"{target}. The same call goes on."):
            from modulab.claims import command

            judgements, reasons = command.run_claims(preset, _names(only), target, processes, "auto")
            headings, rows, where = command.summary(judgements, target)
        *lines, last = where.split("\n")
        warning = in_python(banner(preset, PRESETS[preset]))
        page = WrittenPage(Path(last.removeprefix("Report: ")))
        words = (*([warning] if warning else []), *lines, *(f"error: {reason}" for reason in reasons))
        table = pd.DataFrame(rows, columns=[name or "title" for name in headings])
        return Verdicts(table, page, words)


def options(group: str | None = None) -> Table:
    """Return what `modulab list` shows: the options of a config group with their meanings, or the groups.

    Raises: ConfigError for a group that is not there.
    """
    from modulab.config.project_file import folders_in_order
    from modulab.help import listed

    with python_errors():
        found = listed(group, folders_in_order())
        return text_table(("group", "options") if group is None else (group, "meaning"), found)
