"""Hydra's internals, which may change with any release, each with a fallback.

What Hydra's documentation or its example plugins show is used where it is needed; nothing else is used but here.
"""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import hydra
from hydra.core.override_parser.overrides_parser import OverridesParser


def compatibility() -> dict[str, Any]:
    """Return the arguments that make Hydra behave as version 1.3 or newer; newer versions need none."""
    return {"version_base": "1.3"} if hydra.__version__.startswith("1.3.") else {}


def arguments_parser() -> argparse.ArgumentParser:
    """Return the parser of Hydra's command line; if Hydra has moved it, one with the options of Hydra 1.3."""
    try:
        from hydra._internal.utils import get_args_parser

        return get_args_parser()
    except (ImportError, AttributeError, TypeError):
        return _known_arguments()


@contextmanager
def mode_of_flags(words: Sequence[str], own_configs: bool) -> Generator[None]:
    """Make Hydra run or sweep by the flags of a command, if neither its words nor configs can set `hydra.mode`.

    Hydra composes the whole config only to see whether it is set, a quarter of the time that a short command takes. No
    config of modulab's sets it; the user's own may, and where Hydra asks for the mode elsewhere, it composes as ever.
    """
    try:
        from hydra._internal.hydra import Hydra

        theirs: Callable[..., Any] = Hydra.get_mode
    except (ImportError, AttributeError):
        yield
        return
    # `hydra.searchpath` and options such as --config-path and -cp name other configs.
    if own_configs or any(name in word for word in words for name in ("mode", "searchpath", "config", "-c")):
        yield
        return
    Hydra.get_mode = _not_set
    try:
        yield
    finally:
        Hydra.get_mode = theirs


def _not_set(*_: Any, **__: Any) -> None:
    """Return the mode of a command in which none is set."""


def _known_arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("overrides", nargs="*")
    for names in (
        ("--help", "-h"), ("--hydra-help",), ("--version",), ("--resolve",), ("--run", "-r"),
        ("--multirun", "-m"), ("--shell-completion", "-sc"),
    ):  # fmt: skip
        parser.add_argument(*names, action="store_true")
    for names in (
        ("--cfg", "-c"), ("--package", "-p"), ("--config-path", "-cp"), ("--config-name", "-cn"),
        ("--config-dir", "-cd"), ("--experimental-rerun",),
    ):  # fmt: skip
        parser.add_argument(*names)
    parser.add_argument("--info", "-i", nargs="?")
    return parser


@contextmanager
def callers_hydra_aside() -> Generator[None]:
    """Set aside the Hydra state that the caller may have initialised, and restore it afterwards.

    If Hydra keeps its state elsewhere, the caller's is not restored.
    """
    from hydra.core.global_hydra import GlobalHydra

    theirs, hydra = GlobalHydra.instance(), GlobalHydra.instance().hydra
    restorers = (_version_and_job(), _resolvers())
    theirs.hydra = None
    try:
        yield
    finally:
        GlobalHydra.set_instance(theirs)
        theirs.hydra = hydra
        for restore in restorers:
            restore()


def _version_and_job() -> Callable[[], None]:
    """Return a function that restores the present values of Hydra's version base and current job."""
    try:
        from hydra.core.utils import JobRuntime
        from hydra.version import VersionBase

        versions, version = VersionBase.instance(), VersionBase.instance().version_base
        runtime = JobRuntime.instance()
        job = runtime.conf.copy()
    except (ImportError, AttributeError, TypeError):
        return lambda: None

    def restore() -> None:
        versions.version_base = version
        runtime.conf = job

    return restore


def _resolvers() -> Callable[[], None]:
    """Return a function that restores the present resolvers of OmegaConf; Hydra registers its own."""
    try:
        from omegaconf.basecontainer import BaseContainer

        resolvers = BaseContainer._resolvers  # pyright: ignore[reportPrivateUsage]
        theirs = dict(resolvers)
    except (ImportError, AttributeError, TypeError):
        return lambda: None

    def restore() -> None:
        resolvers.clear()
        resolvers.update(theirs)

    return restore


def job_name() -> str:
    """Return the name of the current job, or an empty one if Hydra does not provide it."""
    try:
        from hydra.core.utils import JobRuntime

        return str(JobRuntime.instance().get("name"))
    except (ImportError, AttributeError, TypeError, KeyError):
        return ""


def parser_with(functions: Mapping[str, Callable[..., Any]]) -> OverridesParser:
    """Return a parser of overrides in which `functions` replace Hydra's own of the same names.

    Where Hydra keeps its functions elsewhere, they are Hydra's own.
    """
    try:
        from hydra.core.override_parser.overrides_parser import create_functions

        known: Any = create_functions()
        for name, function in functions.items():
            known.definitions[name] = inspect.signature(function)
            known.functions[name] = function
        return OverridesParser(known)
    except (ImportError, AttributeError, TypeError):
        return OverridesParser.create()


def group_options(group: str) -> list[str]:
    """Return all options of a config group, those of groups in it as group/option, while Hydra is initialised.

    Empty where Hydra keeps its configs elsewhere.
    """
    try:
        from hydra.core.global_hydra import GlobalHydra
        from hydra.core.object_type import ObjectType

        loader = GlobalHydra.instance().config_loader()
        found = list(loader.get_group_options(group, results_filter=ObjectType.CONFIG))
        for inner in loader.get_group_options(group, results_filter=ObjectType.GROUP):
            found += [f"{inner}/{option}" for option in group_options(f"{group}/{inner}")]
        return found
    except (ImportError, AttributeError, TypeError, AssertionError, ValueError):
        return []


def quoted_value(override: Any) -> Any:
    """Return the value of an override with its quotes; where Hydra keeps it elsewhere, without them."""
    return vars(override)["_value"] if "_value" in vars(override) else override.value()


def hydra_schema() -> Any:
    """Return the dataclass of Hydra's own keys with their types, or None if it is kept elsewhere."""
    try:
        from hydra.conf import HydraConf

        return HydraConf
    except (ImportError, AttributeError):
        return None
