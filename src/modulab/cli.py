"""The command line. Torch is imported only once there is something to train."""

from __future__ import annotations

import argparse
import atexit
import errno
import gc
import io
import os
import re
import shlex
import sys
from collections.abc import Collection, Sequence
from contextlib import redirect_stdout, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modulab.arguments import ArgumentParser, given_path, whole_number
from modulab.errors import FULL, ConfigError
from modulab.signals import ended_by_signal
from modulab.text import to_stderr

if TYPE_CHECKING:
    from modulab.sweep.jobs import TrainTask

COMMANDS = {
    "train": "train and measure a network, a population or, with -m, a sweep",
    "table": "print means and intervals over seeds, grouped by the settings that vary",
    "claims": "run the experiments that test the claims, decide each claim by its rule, and write a report",
    "report": "write figures of results, and an HTML page that contains them",
    "analyse": "cut, transplant or clamp modules of finished networks, and add the values to their rows",
    "rerun": "train the network of one row again, alone, and compare all numbers",
    "log": "export a folder of results to W&B, TensorBoard or CSV files, each member only once",
    "dashboard": "save a sweep's dashboard in W&B, or print its definition",
    "export": "write the weights of trained networks to npz or safetensors files, one per network",
    "list": "list the options of a config group with their meanings, including your own; without GROUP, "
    "list the groups",
    "clean": "show the sizes of compiled steps and of checkpoints of finished folders; with --yes, remove "
    "them",
    "init": "create a small project with its own task, measure and experiment, ready to run",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code: 0, 1 if members lack a result, 2 for a user's error, 130 on Ctrl-C."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    # As under a shell's >&-, where there is nobody to read.
    sys.stdout = sys.stdout or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    sys.stderr = sys.stderr or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    _leave_imports_alone()
    try:
        with ended_by_signal():
            return _answer(given)
    except KeyboardInterrupt:
        to_stderr("Interrupted.")
        return 130


def _leave_imports_alone() -> None:
    """Keep the garbage collector from going through what is imported: 300,000 objects that stay, 0.2 s each time.

    While it imports, a command would do so for a quarter of a second, and for most of a second as it ends.
    """
    gc.set_threshold(500_000)
    atexit.register(gc.freeze)


def _answer(given: Sequence[str]) -> int:
    try:
        if given[:1] == ["help"]:
            given = [*given[1:], "--help"]
        for word in given:
            if any("\ud800" <= letter <= "\udfff" for letter in word):
                raise ConfigError(
                    f"{word}: it is not text in the encoding of this terminal. Set LANG to one with UTF-8, such as "
                    "C.UTF-8, or rename the folder."
                )
        if given[:1] == ["train"]:
            # Only here: the other commands read folders, whose code must not be imported.
            from modulab.config.project_file import add_own_folders, find_project

            add_own_folders(find_project())
            return _train(given[1:])
        if given[:1] == ["analyse"]:
            from modulab.analysis.command import analyse
            from modulab.config.described import option_meaning

            return analyse(given[1:], option_meaning)
        return _other(given)
    except ConfigError as error:
        from modulab.text import printable

        lines = [printable(line) for line in str(error).splitlines()]
        to_stderr("error: " + "\n".join(lines))
        return 2
    except OSError as error:
        if isinstance(error, BrokenPipeError) or (error.errno == errno.EIO and error.filename is None):
            # Who read our output has gone, as in `modulab table PATH | head`, or the terminal was closed. Flushing at
            # exit must not fail again.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        to_stderr(f"error: {_system_error(error, given[0])}")
        return 2


_MOST_COMMANDS = 5
"""Number of commands printed below a table; the page has all of them."""

_OTHER_FOLDER = {
    "train": "Choose another folder: hydra.run.dir=FOLDER.",
    "report": "Choose another folder: --output FOLDER.",
    "claims": "Choose another folder: --folder FOLDER.",
    "export": "Choose another folder: --to FOLDER.",
    "init": "Choose another folder: modulab init FOLDER.",
}


def _system_error(error: OSError, command: str) -> str:
    place = f"{error.filename}: " if error.filename else ""
    lost = error.filename and os.path.islink(error.filename) and not os.path.exists(error.filename)
    if lost or error.errno == errno.ELOOP:
        return f"{place}it is a link that leads nowhere. {_OTHER_FOLDER.get(command, 'Mend it.')}"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST):
        advice = _OTHER_FOLDER.get(command, "Work on a copy of the folder, or write elsewhere.")
        return f"{place}cannot write there ({error.strerror}). {advice}"
    if error.errno in FULL:
        return (
            f"{place}{error.strerror}. Free some space, then repeat the command: finished results are kept."
        )
    return f"{place}{error.strerror or error}."


def _other(given: Sequence[str]) -> int:
    from modulab.analysis.command import IMPORT_HELP
    from modulab.results.table_command import add_options
    from modulab.schema import suggest

    parser = ArgumentParser(
        prog="modulab",
        description="Train populations of small neural networks, and find out when and why they become "
        "modular.",
    )
    parser.add_argument("--version", action="store_true", help="print the version of modulab")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    for name in ("train", "analyse"):
        commands.add_parser(name, help=COMMANDS[name], add_help=False)
    table = commands.add_parser("table", help=COMMANDS["table"], description=COMMANDS["table"])
    add_options(table)
    report = commands.add_parser("report", help=COMMANDS["report"], description=COMMANDS["report"])
    report.add_argument(
        "paths",
        type=given_path,
        nargs="+",
        metavar="PATH",
        help="folder that modulab train wrote, or a file; several are compared",
    )
    report.add_argument("--import", dest="modules", metavar="MODULES", help=IMPORT_HELP)
    report.add_argument(
        "--output",
        type=given_path,
        metavar="FOLDER",
        help="where to write; default: PATH/report, or report for several",
    )
    rerun = commands.add_parser("rerun", help=COMMANDS["rerun"], description=COMMANDS["rerun"])
    rerun.add_argument("path", type=given_path, metavar="PATH", help="folder that modulab train wrote")
    rerun.add_argument(
        "--member",
        required=True,
        metavar="K",
        help="the row's number, from 0, or the first letters of its run_id",
    )
    rerun.add_argument("--import", dest="modules", metavar="MODULES", help=IMPORT_HELP)
    claims = commands.add_parser("claims", help=COMMANDS["claims"], description=COMMANDS["claims"])
    claims.add_argument(
        "--preset",
        values=_presets,
        default="quick",
        metavar="PRESET",
        help="smoke: takes a minute, to test the installation; quick: minutes on two cores (default); full: "
        "for a cluster",
    )
    claims.add_argument(
        "--only",
        values=_claim_names,
        metavar="CLAIMS",
        help="claims to test, separated by commas, such as C5,C6",
    )
    claims.add_argument(
        "--folder", type=given_path, metavar="FOLDER", help="where to write; default: outputs/claims/PRESET"
    )
    claims.add_argument(
        "--processes",
        type=whole_number,
        metavar="N",
        help="number of experiments to run at once; default: one per core",
    )
    claims.add_argument(
        "--dry-run", action="store_true", help="print how many networks would be trained, but train nothing"
    )
    claims.add_argument(
        "--map",
        action="store_true",
        help="draw where each claim holds, over settings drawn from a Sobol sequence",
    )
    log = commands.add_parser("log", help=COMMANDS["log"], description=COMMANDS["log"])
    log.add_argument("path", type=given_path, metavar="PATH", help="folder that modulab train wrote")
    log.add_argument(
        "overrides",
        nargs="+",
        metavar="OVERRIDE",
        help="logger=wandb, 'logger=[csv,wandb]', logger.wandb.KEY=VALUE",
    )
    log.add_argument("--again", action="store_true", help="also log members that have already been logged")
    dashboard = commands.add_parser(
        "dashboard", help=COMMANDS["dashboard"], description=COMMANDS["dashboard"]
    )
    dashboard.add_argument(
        "path", type=given_path, metavar="PATH", help="folder of a sweep that was logged to W&B"
    )
    dashboard.add_argument(
        "--json", action="store_true", help="print the definition; needs no internet connection"
    )
    dashboard.add_argument("--project", help="W&B project; default: where the sweep was logged")
    dashboard.add_argument("--entity", help="W&B user or team; default: that of the account")
    _add_project_commands(commands)
    if not given:
        parser.print_help()
        return 2
    named = next((place for place, word in enumerate(given) if word in COMMANDS), None)
    if given[0] not in COMMANDS:
        if given[0] == "--version":
            return _version()
        if given[0] not in ("-h", "--help"):
            raise ConfigError(_no_command(given, named, suggest(given[0], COMMANDS)))
        parser.print_help()
        return 0
    # Each by itself: an argument may then stand between options, and after them.
    options = commands.choices[given[0]].parse_intermixed_args(given[1:])
    perform = {
        "claims": _claims,
        "clean": _clean,
        "dashboard": _dashboard,
        "export": _export,
        "init": _init,
        "list": _list,
        "log": _log,
        "report": _write_report,
        "rerun": _rerun,
        "table": _table,
    }
    return perform[given[0]](options)


def _add_project_commands(commands: Any) -> None:
    """Add the commands about a project as a whole."""
    listing = commands.add_parser("list", help=COMMANDS["list"], description=COMMANDS["list"])
    listing.add_argument(
        "group",
        values=_groups,
        nargs="?",
        metavar="GROUP",
        help="a config group, such as task or noise",
    )
    listing.add_argument(
        "--config-dir",
        action="append",
        default=[],
        type=given_path,
        metavar="FOLDER",
        help="a folder with additional configs; MODULAB_CONFIG_DIR and modulab.toml can also name such "
        "folders",
    )
    export = commands.add_parser("export", help=COMMANDS["export"], description=COMMANDS["export"])
    export.add_argument("path", type=given_path, metavar="PATH", help="folder that modulab train wrote")
    export.add_argument(
        "--to", type=given_path, metavar="FOLDER", help="where to write; default: PATH/weights"
    )
    export.add_argument(
        "--format",
        values=lambda: ("npz", "safetensors"),
        default="npz",
        metavar="FORMAT",
        help="npz or safetensors; default: npz",
    )
    export.add_argument(
        "--members",
        nargs="+",
        metavar="K",
        help="rows, ranges such as 0-9, or first letters of run_ids; default: all",
    )
    clean = commands.add_parser("clean", help=COMMANDS["clean"], description=COMMANDS["clean"])
    clean.add_argument(
        "path",
        nargs="?",
        type=given_path,
        metavar="PATH",
        help="folder in which to look for results; by default outputs, and the cache of compiled steps",
    )
    clean.add_argument(
        "--yes", action="store_true", help="remove what is shown; without it nothing is removed"
    )
    begin = commands.add_parser("init", help=COMMANDS["init"], description=COMMANDS["init"])
    begin.add_argument("folder", type=given_path, metavar="FOLDER", help="folder to create")


def _presets() -> list[str]:
    from modulab.claims.presets import PRESETS

    return list(PRESETS)


def _groups() -> list[str]:
    from modulab.config.composing import config_folder
    from modulab.config.described import group_names

    return group_names([config_folder()])


def _claim_names() -> list[str]:
    from modulab.claims.registry import CLAIMS

    return [claim.name for claim in CLAIMS]


def _no_command(given: Sequence[str], named: int | None, hint: str) -> str:
    """Return the message for a command line that does not begin with a command."""
    words = shlex.join(given)
    if named is not None:
        order = shlex.join([given[named], *given[:named], *given[named + 1 :]])
        return f"modulab {words}: the command comes first, as in modulab {order}."
    if "=" in given[0]:
        return f"modulab {words}: the command is missing, as in modulab train {words}."
    return f"modulab {given[0]}: there is no such command. {hint}"


def _init(options: argparse.Namespace) -> int:
    from modulab.project import begin_project
    from modulab.text import printable

    folder = printable(str(options.folder))
    written = begin_project(options.folder)
    print(f"Wrote {len(written)} files to the folder {folder}. See README.md there for the next steps.")
    return 0


def _list(options: argparse.Namespace) -> int:
    from modulab.config.project_file import command_folders, folders_in_order
    from modulab.help import list_options

    missing = next((folder for folder in options.config_dir if not folder.is_dir()), None)
    if missing is not None:
        raise ConfigError(f"--config-dir {missing}: there is no such folder.")
    with command_folders(options.config_dir):
        print(list_options(options.group, folders_in_order()))
    return 0


def _clean(options: argparse.Namespace) -> int:
    from modulab.cleaning import clean
    from modulab.results.showing import sentences

    print("\n".join(sentences(clean(options.path, remove=options.yes))))
    return 0


def _export(options: argparse.Namespace) -> int:
    from modulab.process import import_training
    from modulab.text import printable

    import_training()
    from modulab.export import write_weights
    from modulab.results.store import own_folder
    from modulab.sweep.trained import choose_members

    path = own_folder(options.path)
    groups = choose_members(path, options.members)
    written = write_weights(groups, options.to or path / "weights", options.format)
    place = printable(str(written[0].parent))
    print(
        f"Wrote the weights of {len(written)} network{'s' * (len(written) != 1)} to {place}; networks.json lists them."
    )
    return 0


def _claims(options: argparse.Namespace) -> int:
    from modulab.claims.presets import PRESETS, banner, choose_preset

    choose_preset(options.preset, options.processes)
    from modulab.results.showing import sentences, show
    from modulab.text import printable

    folder = options.folder or Path("outputs", "claims", options.preset)
    names = (
        None if options.only is None else [name for name in map(str.strip, options.only.split(",")) if name]
    )
    if names == []:
        raise ConfigError("--only: name a claim, as in --only C5.")
    presets = PRESETS
    if options.dry_run:
        from modulab.claims.dry_run import count_map_networks, count_networks

        headings, rows, note = (count_map_networks if options.map else count_networks)(options.preset, names)
        show(headings, rows)
        print("\n".join(sentences([note])))
        return 0
    try:
        if options.map:
            from modulab.claims.maps import command as maps

            presets = maps.PRESETS
            drawn, reasons = maps.run_maps(options.preset, names, folder, options.processes, "auto")
            headings, rows, place = maps.summary(drawn, folder)
        else:
            from modulab.claims.command import run_claims, summary, that_fit

            judgements, reasons = run_claims(options.preset, names, folder, options.processes, "auto")
            headings, rows, place = summary(judgements, folder)
            headings, rows = that_fit(headings, rows)
    except KeyboardInterrupt:
        to_stderr(f"Interrupted. Finished results are in {folder}. Repeat the command to resume.")
        return 130
    if warning := banner(options.preset, presets[options.preset]):
        print("\n".join(sentences([warning])))
    show(headings, rows)
    print("\n".join(sentences(place.splitlines())))
    for reason in reasons:
        print(f"error: {printable(reason)}", file=sys.stderr)
    return 1 if reasons else 0


def _rerun(options: argparse.Namespace) -> int:
    from omegaconf import OmegaConf

    from modulab.config.composing import config_folder
    from modulab.config.project_file import own_modules
    from modulab.results.showing import show
    from modulab.results.store import own_folder
    from modulab.sweep.rerun import report, rerun
    from modulab.text import printable

    trainer: Any = OmegaConf.to_container(OmegaConf.load(config_folder() / "trainer" / "default.yaml"))
    path = own_folder(options.path)
    comparison = rerun(path, options.member, trainer, own_modules(options.modules, path))
    headings, rows, sentences = report(comparison)
    if rows:
        show(headings, rows)
    print("\n".join(map(printable, sentences)))
    return 0 if comparison.agrees or comparison.differences else 1


def _write_report(options: argparse.Namespace) -> int:
    from modulab.config.project_file import own_modules
    from modulab.progress import working
    from modulab.results.store import load_columns

    modules = own_modules(options.modules, *options.paths)
    for path in options.paths:
        if not path.exists():
            load_columns(path, ["status"])  # which says so, before seconds of imports
    with working("starting"):
        from modulab.report.sweep_report import write_report
    from modulab.results.summary import unfinished
    from modulab.text import printable

    with working("drawing figures"):
        page = write_report(options.paths, options.output, modules)
    print(f"Report: {page}")
    for path in options.paths:
        for line in unfinished(load_columns(path, ["status", "error"])):
            print(printable(line if len(options.paths) == 1 else f"{path}: {line}"))
        _print_commands(path if path.is_dir() else path.parent, named=len(options.paths) > 1)
    return 0


def _log(options: argparse.Namespace) -> int:
    from modulab.logger.afterwards import log_folder
    from modulab.results.store import own_folder
    from modulab.text import printable

    path = own_folder(options.path)
    print("\n".join(map(printable, log_folder(path, options.overrides, options.again))))
    return 0


def _dashboard(options: argparse.Namespace) -> int:
    from modulab.logger.afterwards import show_dashboard
    from modulab.results.store import own_folder

    path = own_folder(options.path)
    print(show_dashboard(path, options.project, options.entity, as_json=options.json))
    return 0


def _table(options: argparse.Namespace) -> int:
    from modulab.results.table_command import table

    if table(options):
        [path] = options.paths
        _print_commands(path if path.is_dir() else path.parent, named=len(options.paths) > 1)
    return 0


def _print_commands(folder: Path, named: bool = False) -> None:
    """Print the commands that gave a folder its rows; `named` says which folder it is."""
    from modulab.results.commands import COMMANDS, recorded_commands
    from modulab.text import printable

    try:
        commands = recorded_commands(folder)
    except ConfigError as error:
        print(printable(str(error)), file=sys.stderr)
        return
    if commands:
        print(f"{folder}, trained by:" if named else "Trained by:")
    for command in commands[:_MOST_COMMANDS]:
        print(f"  {printable(command)}")
    if len(commands) > _MOST_COMMANDS:
        print(f"  and {len(commands) - _MOST_COMMANDS} more, which {COMMANDS} and the report list")


def _train(given: Sequence[str]) -> int:
    if any(word in ("-h", "--help") for word in given):
        return _train_help(given)
    if "--version" in given:
        return _version()
    # Hydra takes the first letters of an option too.
    if (
        "-sc" in given
        or any(len(word) > 2 and "--shell-completion".startswith(word) for word in given)
        or "-s" in given
    ):
        raise ConfigError(
            "--shell-completion: modulab has no shell completion, and Hydra's does not know commands such as train. "
            "modulab train --help GROUP lists options and keys."
        )
    if "--hydra-help" in given:
        return _hydra_help(given)
    return _train_with_hydra(given)


def _hydra_help(given: Sequence[str]) -> int:
    """Print Hydra's help without its part on completion."""
    text, code = io.StringIO(), 0
    with redirect_stdout(text), suppress(SystemExit):  # how Hydra exits
        code = _train_with_hydra(given)
    print(
        re.sub(r"--shell-completion.*?(?=^--)", "", text.getvalue(), flags=re.DOTALL | re.MULTILINE), end=""
    )
    return code


def _train_with_hydra(given: Sequence[str]) -> int:
    import hydra

    from modulab.config.composing import config_folder, hydra_composer
    from modulab.config.hydra_private import compatibility, mode_of_flags
    from modulab.config.overrides import COMPOSING_ERRORS, READING_ERRORS, explain, replace_grid
    from modulab.config.project_file import command_folders, folders_in_order
    from modulab.sweep.hydra_files import files_noted
    from modulab.sweep.jobs import MembersFailed, TrainTask

    options, overrides = _checked_words(given)
    folders = _config_folders(options)[0]

    # Hydra prints tracebacks and exits by itself unless HYDRA_FULL_ERROR lets errors through.
    earlier_arguments, full_error = sys.argv, os.environ.get("HYDRA_FULL_ERROR")
    asked_for_traceback = full_error == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"
    sys.argv = ["modulab train", *options, *replace_grid(overrides)]
    job = TrainTask()
    main = hydra.main(**compatibility(), config_path=str(config_folder()), config_name="train")
    try:
        with command_folders(folders), files_noted() as files:
            try:
                with mode_of_flags(given, bool(folders_in_order())):
                    main(job.__call__)()
            finally:
                if job.accepted:
                    job.release()
                else:
                    job.withdraw()
                    files.restore()
    except MembersFailed:
        pass  # The table below names them.
    except KeyboardInterrupt:
        to_stderr(_how_to_go_on(job, given))
        return 130
    except COMPOSING_ERRORS as error:
        if (
            asked_for_traceback
            or isinstance(error, ConfigError)
            or ((job.began or isinstance(error, OSError)) and not isinstance(error, READING_ERRORS))
        ):
            raise
        with hydra_composer(folders) as compose:
            raise ConfigError(explain(error, overrides, compose)) from error
    finally:
        sys.argv = earlier_arguments
        os.environ.pop("HYDRA_FULL_ERROR")
        if full_error is not None:
            os.environ["HYDRA_FULL_ERROR"] = full_error
    if job.error is not None:
        raise job.error
    if job.folder is None or job.dry_run:
        return 0
    # Of a search that was over before, in another folder, only its best trials are here.
    searched = job.findings is not None
    code = 0 if searched and not job.planned else _report(job.folder, job.planned, searched)
    return code if job.findings is None else max(code, _show_best(*job.findings))


def _checked_words(given: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return options and overrides of a command. Raises: ConfigError for a key given twice, or none."""
    from modulab.config.overrides import check_given_once, split_words

    options, overrides = split_words(given)
    check_given_once(overrides)
    return options, overrides


def _config_folders(words: Sequence[str]) -> tuple[list[Path], list[str]]:
    """Return the folders of configs that words of a command name, where they are there, and the other words."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--config-dir", "-cd", action="append", default=[], type=Path)
    found, others = parser.parse_known_args(words)
    return [folder for folder in found.config_dir if folder.is_dir()], others


def _train_help(given: Sequence[str]) -> int:
    from modulab.config.project_file import command_folders, folders_in_order
    from modulab.help import train_help

    named, others = _config_folders(given)
    with command_folders(named):
        folders = folders_in_order()
    print(train_help([word.partition("=")[0] for word in others if not word.startswith("-")], folders))
    return 0


def _version() -> int:
    from modulab.results.versions import versions

    made_of = {name: text for name, text in versions().items() if text is not None}
    commit = f", commit {made_of['git_commit']}" if "git_commit" in made_of else ""
    print(f"modulab {made_of['modulab']}{commit}")
    return 0


def _show_best(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> int:
    from modulab.results.showing import show

    if not rows:
        print("No trial of this search has a result.", file=sys.stderr)
        return 1
    print("Best trials:")
    show(headings, rows)
    return 0


def _report(folder: Path, planned: Collection[str], searched: bool) -> int:
    from modulab.results.showing import show_results
    from modulab.results.store import RESULTS, load_results
    from modulab.results.summary import lost_measures
    from modulab.results.table_command import needed_columns

    results = load_results(folder, keep=needed_columns(folder))
    show_results(results, None, None)
    print(f"Results: {folder / RESULTS if (folder / RESULTS).exists() else folder}")
    others = len(set(results["run_id"]).difference(planned))
    if others and not searched:  # a stored search has trials of earlier commands
        have = "has" if others == 1 else "have"
        print(
            f"{others} of these {len(results)} networks {have} other settings; {folder} contained them before."
        )
    if lost := set(planned).difference(results["run_id"]):
        print(
            f"{len(lost)} of {len(planned)} planned members have no row in {folder}: files were removed from it during "
            "the run. The same command again trains them.",
            file=sys.stderr,
        )
        return 1
    return 1 if bool(results["status"].isin(["failed", "missing"]).any()) or lost_measures(results) else 0


def _how_to_go_on(job: TrainTask, given: Sequence[str]) -> str:
    if job.folder is None or not job.accepted:
        return "Interrupted before training began; nothing was written."
    key = "hydra.sweep.dir" if job.multirun else "hydra.run.dir"
    words = [word for word in given if not word.startswith(f"{key}=")]
    command = shlex.join(["modulab", "train", *words, f"{key}={job.folder}"])
    return f"Interrupted. Finished results are in {job.folder}. To resume:\n  {command}"


if __name__ == "__main__":
    sys.exit(main())
