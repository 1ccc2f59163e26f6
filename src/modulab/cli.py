"""The command line. Torch is imported only once there is something to train."""

from __future__ import annotations

import argparse
import ast
import errno
import gc
import os
import shlex
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modulab.errors import ConfigError

if TYPE_CHECKING:
    from modulab.sweep.jobs import TrainTask

_COMMANDS = {
    "train": "train and measure one run, a population, or with -m a sweep",
    "table": "print mean and interval over seeds, grouped by what varies",
    "claims": "run the experiments that test the claims, decide each by its rule, and write a report",
    "report": "write figures of results and an HTML page that holds them",
    "rerun": "train one row of a table again, alone, and compare",
    "log": "tell W&B, TensorBoard or CSV files of a folder of results, each member once",
    "dashboard": "save a sweep's dashboard in W&B, or print its definition",
}

_IMPORT_HELP = "your own modules that the results may name, with commas between; others are not imported"

_TRAIN_USAGE = """usage: modulab train [-m] [KEY=VALUE ...] [GROUP=OPTION ...]

Train a network, or many, measure them, print a table, and write results.parquet to a folder below outputs/.

  modulab train noise.scale=0.2                                one network
  modulab train population.seeds=16                            the same at seeds 0 to 15, trained at once
  modulab train 'population.grid={noise.scale: [0, 0.1, 0.2]}' every value of a grid, trained at once
  modulab train experiment=regression                          a prepared experiment
  modulab train -m architecture=dense,premodular 'seed=range(8)'  a sweep, packed and trained together

  hydra.run.dir=FOLDER   where to write; the same folder again goes on where it stopped
  hydra.sweep.dir=FOLDER the same for a sweep
  logger=wandb           also tell W&B, each network as a run; or csv, tensorboard, '[csv,wandb]'
  sweep.dry_run=true     print how much there is to train, and train nothing
  hydra/launcher=population_slurm   train a sweep on a SLURM cluster; its keys are those of hydra.launcher
  --config-dir FOLDER    a folder of further configs; modules in the current folder can be named as _target_
  --cfg job              print the composed config and train nothing
  --hydra-help           Hydra's own options
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code: 0, 1 if members lack a result, 2 for a user's error, 130 on Ctrl-C."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        return _answer(given)
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return 130


def _answer(given: Sequence[str]) -> int:
    try:
        if given[:1] == ["train"]:
            # Only here: the other commands read folders, which must not have code of theirs imported.
            if os.getcwd() not in sys.path:
                sys.path.append(os.getcwd())
            return _train(given[1:])
        return _other(given)
    except ConfigError as error:
        from modulab.text import printable

        lines = [printable(line) for line in str(error).splitlines()]
        print("error: " + "\n".join(lines), file=sys.stderr)
        return 2
    except BrokenPipeError:
        # The reader of our output has gone, as in `modulab table PATH | head`. Flushing at exit must not
        # fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        print(f"error: {_system_error(error, given[0])}", file=sys.stderr)
        return 2


_OTHER_FOLDER = {
    "train": "Choose another folder: hydra.run.dir=FOLDER.",
    "report": "Choose another folder: --output FOLDER.",
    "claims": "Choose another folder: --folder FOLDER.",
}


def _system_error(error: OSError, command: str) -> str:
    place = f"{error.filename}: " if error.filename else ""
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST):
        advice = _OTHER_FOLDER.get(command, "Work on a copy of the folder, or write elsewhere.")
        return f"{place}cannot write there ({error.strerror}). {advice}"
    return f"{place}{error.strerror or error}."


def _other(given: Sequence[str]) -> int:
    from modulab.schema import suggest

    parser = argparse.ArgumentParser(
        prog="modulab", description="Find out when, why and to what end neural networks become modular."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("train", help=_COMMANDS["train"], add_help=False)
    table = commands.add_parser("table", help=_COMMANDS["table"], description=_COMMANDS["table"])
    table.add_argument("path", type=Path, metavar="PATH", help="folder that modulab train wrote, or a file")
    table.add_argument("--csv", type=Path, metavar="FILE", help="also write every measure to a CSV file")
    table.add_argument(
        "--by", metavar="KEYS", help="settings to group by, with commas between; default: all that vary"
    )
    table.add_argument(
        "--metric", metavar="NAMES", help="measures to show, with commas between; robustness/* takes them all"
    )
    report = commands.add_parser("report", help=_COMMANDS["report"], description=_COMMANDS["report"])
    report.add_argument("path", type=Path, metavar="PATH", help="folder that modulab train wrote, or a file")
    report.add_argument("--import", dest="modules", metavar="MODULES", help=_IMPORT_HELP)
    report.add_argument("--output", type=Path, metavar="FOLDER", help="where to write; default: PATH/report")
    rerun = commands.add_parser("rerun", help=_COMMANDS["rerun"], description=_COMMANDS["rerun"])
    rerun.add_argument("path", type=Path, metavar="PATH", help="folder that modulab train wrote")
    rerun.add_argument(
        "--member",
        required=True,
        metavar="K",
        help="the row's number, from 0, or the first letters of its run_id",
    )
    rerun.add_argument("--import", dest="modules", metavar="MODULES", help=_IMPORT_HELP)
    claims = commands.add_parser("claims", help=_COMMANDS["claims"], description=_COMMANDS["claims"])
    claims.add_argument(
        "--preset",
        default="quick",
        metavar="PRESET",
        help="smoke: seconds, only to see that it runs; quick: minutes on two cores (default); full: for a cluster",
    )
    claims.add_argument("--only", metavar="CLAIMS", help="claims to test, with commas between, such as C5,C6")
    claims.add_argument(
        "--folder", type=Path, metavar="FOLDER", help="where to write; default outputs/claims/PRESET"
    )
    claims.add_argument(
        "--processes", type=int, metavar="N", help="experiments to run at once; default one a core"
    )
    claims.add_argument(
        "--dry-run", action="store_true", help="print how many networks would be trained, and train nothing"
    )
    claims.add_argument(
        "--map",
        action="store_true",
        help="draw where each claim holds, over settings drawn from a Sobol sequence",
    )
    log = commands.add_parser("log", help=_COMMANDS["log"], description=_COMMANDS["log"])
    log.add_argument("path", type=Path, metavar="PATH", help="folder that modulab train wrote")
    log.add_argument(
        "overrides",
        nargs="+",
        metavar="OVERRIDE",
        help="logger=wandb, 'logger=[csv,wandb]', logger.wandb.KEY=VALUE",
    )
    log.add_argument("--again", action="store_true", help="also members that were logged before")
    dashboard = commands.add_parser(
        "dashboard", help=_COMMANDS["dashboard"], description=_COMMANDS["dashboard"]
    )
    dashboard.add_argument("path", type=Path, metavar="PATH", help="folder of a sweep that was logged to W&B")
    dashboard.add_argument("--json", action="store_true", help="print the definition; needs no network")
    dashboard.add_argument("--project", help="W&B project; default: where the sweep was logged")
    dashboard.add_argument("--entity", help="W&B user or team; default: that of the account")
    if given and not given[0].startswith("-") and given[0] not in _COMMANDS:
        raise ConfigError(f"modulab {given[0]}: there is no such command. {suggest(given[0], _COMMANDS)}")
    if not given:
        parser.print_help()
        return 2
    options = parser.parse_args(given)
    perform = {
        "claims": _claims,
        "dashboard": _dashboard,
        "log": _log,
        "report": _write_report,
        "rerun": _rerun,
        "table": _table,
    }
    return perform[options.command](options)


def _own_modules(given: str | None) -> list[str]:
    """Return the user's own modules that results may name; they may lie in the current folder."""
    modules = [name.strip() for name in (given or "").split(",") if name.strip()]
    if modules and os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    return modules


def _claims(options: argparse.Namespace) -> int:
    from modulab.claims.presets import PRESETS
    from modulab.schema import suggest

    if options.preset not in PRESETS:
        raise ConfigError(
            f"--preset {options.preset}: there is no such preset. {suggest(options.preset, PRESETS)}"
        )
    if options.processes is not None and options.processes < 1:
        raise ConfigError(f"--processes {options.processes}: give a number of 1 or more.")

    from modulab.results.summary import show
    from modulab.text import printable

    folder = options.folder or Path("outputs", "claims", options.preset)
    names = None if options.only is None else [name.strip() for name in options.only.split(",")]
    if options.dry_run:
        from modulab.claims.dry_run import count_map_networks, count_networks

        headings, rows, note = (count_map_networks if options.map else count_networks)(options.preset, names)
        show(headings, rows)
        print(note)
        return 0
    try:
        if options.map:
            from modulab.claims.maps import command as maps

            drawn, reasons = maps.run_maps(options.preset, names, folder, options.processes, "auto")
            headings, rows, place = maps.summary(drawn, folder)
        else:
            from modulab.claims.command import run_claims, summary

            judgements, reasons = run_claims(options.preset, names, folder, options.processes, "auto")
            headings, rows, place = summary(judgements, folder)
    except KeyboardInterrupt:
        print(
            f"Interrupted. What is finished is kept in {folder}. The same command goes on.", file=sys.stderr
        )
        return 130
    show(headings, rows)
    print(place)
    for reason in reasons:
        print(f"error: {printable(reason)}", file=sys.stderr)
    return 1 if reasons else 0


def _rerun(options: argparse.Namespace) -> int:
    from omegaconf import OmegaConf

    from modulab.config.composing import config_folder
    from modulab.results.summary import show
    from modulab.sweep.rerun import report, rerun
    from modulab.text import printable

    trainer: Any = OmegaConf.to_container(OmegaConf.load(config_folder() / "trainer" / "default.yaml"))
    comparison = rerun(options.path, options.member, trainer, _own_modules(options.modules))
    headings, rows, sentences = report(comparison)
    if rows:
        show(headings, rows)
    print("\n".join(map(printable, sentences)))
    return 0 if comparison.agrees or comparison.differences else 1


def _write_report(options: argparse.Namespace) -> int:
    from modulab.report.sweep_report import write_report

    print(f"Report: {write_report(options.path, options.output, _own_modules(options.modules))}")
    return 0


def _log(options: argparse.Namespace) -> int:
    from modulab.logger.afterwards import log_folder
    from modulab.text import printable

    print("\n".join(map(printable, log_folder(options.path, options.overrides, options.again))))
    return 0


def _dashboard(options: argparse.Namespace) -> int:
    from modulab.logger.afterwards import show_dashboard

    print(show_dashboard(options.path, options.project, options.entity, as_json=options.json))
    return 0


def _table(options: argparse.Namespace) -> int:
    from modulab.results.store import load_results
    from modulab.results.summary import show_results, summarise, to_csv

    results = load_results(options.path)
    by = None if options.by is None else [key.strip() for key in options.by.split(",")]
    metrics = None if options.metric is None else [name.strip() for name in options.metric.split(",")]
    show_results(results, by, metrics)
    if options.csv is not None:
        options.csv.write_text(to_csv(summarise(results, by, ["*"] if metrics is None else metrics)))
    return 0


def _train(given: Sequence[str]) -> int:
    if any(word in ("-h", "--help") for word in given):
        print(train_help())
        return 0
    # Imports make a million objects that stay. Going through them for garbage takes a fifth of the time of importing.
    gc.set_threshold(100_000)
    import hydra

    from modulab.config.composing import config_folder, hydra_composer
    from modulab.config.hydra_private import compatibility
    from modulab.config.overrides import COMPOSING_ERRORS, READING_ERRORS, explain, replace_grid, split_words
    from modulab.sweep.jobs import MembersFailed, TrainTask

    options, overrides = split_words(given)
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--config-dir", "-cd", action="append", default=[])
    folders: list[str] = parser.parse_known_args(options)[0].config_dir

    # Hydra prints tracebacks and exits by itself unless it is told to let errors through.
    earlier_arguments, full_error = sys.argv, os.environ.get("HYDRA_FULL_ERROR")
    asked_for_traceback = full_error == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"
    sys.argv = ["modulab train", *options, *replace_grid(overrides)]
    job = TrainTask()
    main = hydra.main(**compatibility(), config_path=str(config_folder()), config_name="train")
    try:
        main(job.__call__)()
    except MembersFailed:
        pass  # The table below tells.
    except KeyboardInterrupt:
        print(_how_to_go_on(job, given), file=sys.stderr)
        return 130
    except COMPOSING_ERRORS as error:
        if (
            asked_for_traceback
            or isinstance(error, ConfigError)
            or ((job.began or isinstance(error, OSError)) and not isinstance(error, READING_ERRORS))
        ):
            raise
        with hydra_composer([folder for folder in folders if Path(folder).is_dir()]) as compose:
            raise ConfigError(explain(error, overrides, compose)) from error
    finally:
        job.release()
        sys.argv = earlier_arguments
        os.environ.pop("HYDRA_FULL_ERROR")
        if full_error is not None:
            os.environ["HYDRA_FULL_ERROR"] = full_error
    if job.error is not None:
        raise job.error
    if job.folder is None or job.dry_run:
        return 0
    # Of a search that was over before, in another folder, only its best trials are here.
    code = 0 if job.findings is not None and not job.planned else _report(job.folder, job.planned)
    return code if job.findings is None else max(code, _show_best(*job.findings))


def _show_best(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> int:
    from modulab.results.summary import show

    if not rows:
        print("No trial of this search has a result.", file=sys.stderr)
        return 1
    print("Best trials:")
    show(headings, rows)
    return 0


def _report(folder: Path, planned: Collection[str]) -> int:
    from modulab.results.store import RESULTS, load_results
    from modulab.results.summary import show_results

    results = load_results(folder)
    show_results(results, None, None)
    print(f"Results: {folder / RESULTS if (folder / RESULTS).exists() else folder}")
    if lost := set(planned).difference(results["run_id"]):
        print(
            f"{len(lost)} of {len(planned)} planned members have no row in {folder}: files were removed from it during "
            "the run. The same command again trains them.",
            file=sys.stderr,
        )
        return 1
    return 1 if bool(results["status"].isin(["failed", "missing"]).any()) else 0


def _how_to_go_on(job: TrainTask, given: Sequence[str]) -> str:
    if job.folder is None:
        return "Interrupted before training began; nothing was written."
    key = "hydra.sweep.dir" if job.multirun else "hydra.run.dir"
    words = [word for word in given if not word.startswith(f"{key}=")]
    command = shlex.join(["modulab", "train", *words, f"{key}={job.folder}"])
    return f"Interrupted. What is finished is kept in {job.folder}. To go on:\n  {command}"


def train_help() -> str:
    """Return the help of `modulab train`: usage, groups with their options, every key with its meaning."""
    from modulab.config.composing import config_folder

    folder = config_folder()
    lines = [_TRAIN_USAGE, "Groups, as GROUP=OPTION:"]
    for group in sorted(path for path in folder.iterdir() if path.is_dir()):
        lines.append(f"  {group.name}")
        for file in sorted(group.rglob("*.yaml")):
            option = file.relative_to(group).with_suffix("").as_posix()
            lines.append(f"    {option:<18} {config_meaning(file)}")
    lines.append("")
    lines.append("Keys, as GROUP.KEY=VALUE:")
    for heading, fields in _documented_settings():
        lines.append(f"  {heading}")
        lines += [f"    {key:<24} {meaning}" for key, meaning in fields]
    return "\n".join(lines)


def config_meaning(file: Path) -> str:
    """Return the comment that opens a config file, after Hydra's own header."""
    lines = (line for line in file.read_text().splitlines() if not line.startswith("# @"))
    return next((line[1:].strip() for line in lines if line.startswith("#")), "")


def _documented_settings() -> list[tuple[str, list[tuple[str, str]]]]:
    """Return what each settings class is and its keys mean, read from source: importing it imports torch."""
    package = Path(__file__).parent
    found: list[tuple[str, list[tuple[str, str]]]] = []
    for path in (
        package / "config" / "settings.py",
        package / "config" / "sobol.py",
        *sorted((package / "networks").glob("*.py")),
        package / "noise.py",
        package / "regularisers.py",
        package / "config" / "loggers.py",
        *sorted((package / "tasks").glob("*.py")),
    ):
        for name, text, fields in _settings_classes(path):
            if not name.startswith("_"):
                own = [field for field in fields if name != "Member" or field[0] == "seed"]
                found.append((f"{name}: {text}", own))
    return found


def _settings_classes(path: Path) -> list[tuple[str, str, list[tuple[str, str]]]]:
    classes: list[tuple[str, str, list[tuple[str, str]]]] = []
    for node in ast.parse(path.read_text()).body:
        if not isinstance(node, ast.ClassDef):
            continue
        fields = [
            (item.target.id, meaning)
            for item in node.body
            if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)
            for meaning in [_description(item)]
            if meaning
        ]
        if fields:
            classes.append((node.name, (ast.get_docstring(node) or "").partition("\n")[0], fields))
    return classes


def _description(field: ast.AnnAssign) -> str:
    if not isinstance(field.value, ast.Call):
        return ""
    options = ""
    if isinstance(field.annotation, ast.Subscript) and ast.unparse(field.annotation.value) == "Literal":
        options = f" ({ast.unparse(field.annotation.slice).strip('()')})".replace("'", "")
    for word in field.value.keywords:
        if word.arg == "description" and isinstance(word.value, ast.Constant):
            return f"{word.value.value}{options}"
    return ""


if __name__ == "__main__":
    sys.exit(main())
