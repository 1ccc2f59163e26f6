"""The parser of commands: an option that takes a value is given once, and a path is not empty."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from modulab.errors import ConfigError


def given_path(text: str) -> Path:
    """Return an argument as a path. Raises: ArgumentTypeError for an empty one, which would be the current folder."""
    if not text:
        raise argparse.ArgumentTypeError("it is empty. Name a folder or file; the current folder is .")
    return Path(text)


class ArgumentParser(argparse.ArgumentParser):
    """Refuses an option that is given twice, of which Python's own parser silently takes the last."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.register("action", None, _StoreOnce)


class _StoreOnce(argparse.Action):
    """Keeps the value of an option or argument."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        """Keep a value. Raises: ConfigError for a second one of an option."""
        del parser
        given: set[str] = vars(namespace).setdefault("_given", set())
        if option_string is not None and self.dest in given:
            several = ", with commas between several" if "comma" in (self.help or "") else ""
            raise ConfigError(f"{option_string} is given twice. Give it once{several}.")
        given.add(self.dest)
        setattr(namespace, self.dest, values)
