"""Messages of errors in Python: options of the command line are replaced by arguments of a call."""

from __future__ import annotations

import re
from collections.abc import Generator
from contextlib import contextmanager

from modulab.errors import ConfigError

_WORDS = (
    (r"Choose another with hydra\.run\.dir=FOLDER", "Choose another: folder=FOLDER"),
    (r"Add -m, or give the values to population\.grid\.", "Give its values to modulab.train_grid."),
    (r"modulab train --help lists them", "modulab.options(GROUP) lists them"),
    (r" See modulab \w+ --help\.", ""),
    (r"that modulab train (?:printed|wrote)", "of the results"),
    (r"(?:[Tt]he same|the sweep's) command", "the same call"),
    (r"hydra\.run\.dir=", "folder="),
    (r"-m, give hydra\.sweep\.dir=", "-m, give folder="),
    (r"--import (\w[\w.]*)", r"modules=['\1']"),
    (r"--baseline '?([\w./-]+=[^:' ]*[^:', ])'?", r"baseline='\1'"),
    (r"--config-dir ", "config_dirs="),
    (r"--metric NAME shows one, --transpose all in rows\.", "metrics=[NAME] shows one."),
    (r"--metric ", "metrics="),
    (r"--members? ", "members="),
    (r"--preset ", "preset="),
    (r"--only ", "only="),
    (r"--processes ", "processes="),
    (r"--with ", "with_="),
    (r", which --by does not name", ", which by= does not name"),
    (r"--by ", "by="),
    (r"--baseline ", "baseline="),
    (r"--ratio", "ratio"),
    (
        r"The folder of results is hydra\.run\.dir or, of a sweep, hydra\.sweep\.dir\.",
        "The folder is folder=FOLDER.",
    ),
)
"""Patterns of options in messages, and their replacements, in order."""


def in_python(message: str) -> str:
    """Return a message with the arguments of a call in place of the options of a command."""
    for pattern, words in _WORDS:
        message = re.sub(pattern, words, message)
    return message[:1].upper() + message[1:] if message.startswith("the same call") else message


@contextmanager
def python_errors() -> Generator[None]:
    """Let messages of user errors name the arguments of a call."""
    try:
        yield
    except ConfigError as error:
        words = in_python(str(error))
        if words == str(error):
            raise
        raise ConfigError(words) from error
