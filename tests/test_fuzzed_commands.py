"""Odd commands: each trains or plans, or is refused with exit code 2 and one message. None ends in a traceback."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Generator, Mapping
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from modulab.cli import main
from modulab.config.composing import config_folder, hydra_composer
from tests.command_line import SMALL


def leaf_keys(config: Mapping[str, object], prefix: str = "") -> list[str]:
    """Return every key of a config, with the dots that an override has."""
    found: list[str] = []
    for key, value in config.items():
        found.append(prefix + key)
        if isinstance(value, Mapping):
            found += leaf_keys(value, f"{prefix}{key}.")
    return found


def known_keys() -> list[str]:
    with hydra_composer() as compose:
        config = OmegaConf.to_container(
            compose(["logger=[csv]", "regulariser=activity_weight"]), resolve=False
        )
    assert isinstance(config, dict)
    groups = [path.name for path in config_folder().iterdir() if path.is_dir()]
    own = [
        "hydra.job.name",
        "hydra.run.dir",
        "hydra/launcher",
        "hydra/sweeper",
        "hydra.sweep.subdir",
        "hydra.verbose",
    ]
    # Where things are written stays in a folder of the test's own.
    return [key for key in {*leaf_keys(config), *groups, *own} if "dir" not in key.rpartition(".")[2]]


NUMBERS = st.one_of(
    st.integers(-3, 9).map(str),
    st.sampled_from(
        [
            "1e21",
            "1" + "0" * 21,
            "-0.0",
            "1e-320",
            "nan",
            "inf",
            "-inf",
            "1e308",
            "0x1f",
            "1_000",
            "2147483648",
        ]
    ),
    st.floats(0, 2, width=16).map(repr),
)
ODD_WORDS = """
null true dense default none sine poisson ../train /etc . ~ ${seed} ${nothing} ${oc.env:NOTHING} ${ $ " ' ü % = , [] {}
[nan] ??? MISSING modulab.nothing os.getcwd [[[ }} a:b @ - --
"""
FUNCTIONS = "range choice interval sort shuffle glob tag int float str bool nothing"
WORDS = st.one_of(
    st.sampled_from(ODD_WORDS.split()),
    st.sampled_from(["", "a b", "'a b'", "{a: 1}", "\\t", "x" * 300]),
    st.text(st.characters(codec="utf-8", exclude_categories=["Cs"], exclude_characters="\0"), max_size=6),
)
SCALARS = st.one_of(NUMBERS, WORDS)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda items: f"[{','.join(items)}]"),
        st.lists(st.tuples(WORDS, inner), max_size=2).map(
            lambda items: "{" + ",".join(f"{key}:{value}" for key, value in items) + "}"
        ),
        st.lists(inner, min_size=2, max_size=3).map(",".join),
        st.tuples(
            st.sampled_from(FUNCTIONS.split()),
            st.lists(inner, max_size=3),
        ).map(lambda call: f"{call[0]}({','.join(call[1])})"),
    ),
    max_leaves=4,
)  # fmt: skip
KEYS = st.one_of(
    st.sampled_from(sorted(known_keys())),
    st.tuples(st.sampled_from(sorted(known_keys())), WORDS).map(".".join),
    WORDS,
)
PLAUSIBLE = st.tuples(st.sampled_from(sorted(known_keys())), st.one_of(NUMBERS, VALUES)).map("=".join)
OVERRIDES = st.one_of(
    PLAUSIBLE,
    PLAUSIBLE,
    st.tuples(st.sampled_from(["", "", "", "+", "++", "~"]), KEYS, VALUES).map(
        lambda parts: f"{parts[0]}{parts[1]}={parts[2]}"
    ),
    st.tuples(st.sampled_from(["", "~", "+"]), KEYS).map("".join),
)
OPTIONS = st.sampled_from(
    [[], [], [], [], ["-m"], ["-m"], ["--cfg", "job"], ["--config-name", "nope"], ["--config-dir", "nowhere"],
     ["--info", "all"], ["--resolve"], ["--package", "x"], ["--nope"], ["-c"]]
)  # fmt: skip
COMMANDS = st.tuples(OPTIONS, st.lists(OVERRIDES, min_size=1, max_size=3)).map(
    lambda parts: [*parts[0], *parts[1]]
)


@contextlib.contextmanager
def new_logging() -> Generator[None]:
    """Begin with loggers as a process does: earlier commands left handlers whose streams are closed by now."""
    named = logging.root.manager.loggerDict.values()
    loggers = [logging.root, *(each for each in named if isinstance(each, logging.Logger))]
    states = [(each, each.handlers[:], each.level, each.propagate, each.disabled) for each in loggers]
    for each in loggers:
        each.handlers[:] = []
    try:
        yield
    finally:
        for each, handlers, level, propagate, disabled in states:
            each.handlers[:] = handlers
            each.setLevel(level)
            each.propagate, each.disabled = propagate, disabled


def answer(arguments: list[str]) -> tuple[int, str, str]:
    """Return exit code, output and errors of a command, in an empty folder, which is removed."""
    out, err = io.StringIO(), io.StringIO()
    before, folder = Path.cwd(), tempfile.mkdtemp()
    path = list(sys.path)
    os.chdir(folder)
    try:
        with new_logging(), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                code = main(arguments)
            except SystemExit as error:  # of argparse, as for an option that is not there
                code = error.code if isinstance(error.code, int) else 1
    finally:
        os.chdir(before)
        sys.path[:] = path
        shutil.rmtree(folder)
    return code, out.getvalue(), err.getvalue()


def check(given_words: list[str]) -> None:
    command = ["train", *SMALL, *given_words]
    code, _, err = answer(command)
    assert "Traceback" not in err
    assert code in (0, 1, 2)
    assert len(re.findall(r"^error: ", err, re.MULTILINE)) == (code == 2), err


@settings(max_examples=25, suppress_health_check=list(HealthCheck))
@given(COMMANDS)
def test_odd_command_is_answered(words: list[str]) -> None:
    check(words)


@pytest.mark.slow
@settings(max_examples=250, suppress_health_check=list(HealthCheck))
@given(COMMANDS)
def test_odd_command_of_many_is_answered(words: list[str]) -> None:
    check(words)
