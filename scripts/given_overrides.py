"""What the user of a script gives: a folder, options, and overrides, which take the place of the script's own."""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from modulab.arguments import ArgumentParser
from modulab.errors import ConfigError


def read_given(parser: ArgumentParser, folder: str) -> tuple[argparse.Namespace, list[str]]:
    """Return the options of a script, with the folder that the user gives or `folder`, and the user's overrides.

    Raises: ConfigError for an option that the script does not have, and for a second folder.
    """
    parser.add_argument("words", nargs="*", metavar="[FOLDER] [KEY=VALUE ...]", help=f"default: {folder}")
    options = parser.parse_intermixed_args()
    folders = [word for word in options.words if "=" not in word]
    if len(folders) > 1:
        raise ConfigError(
            f"{parser.prog}: {folders[1]} is one argument too many. It takes one folder, here {folders[0]}, and "
            "settings as KEY=VALUE."
        )
    options.folder = Path(folders[0] if folders else folder)
    return options, [word for word in options.words if "=" in word]


def answer(main: Callable[[], int]) -> int:
    """Return a script's exit code; a user's error is one line, as at modulab's own command line."""
    try:
        return main()
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as interrupt:
        print(str(interrupt) or "Interrupted.", file=sys.stderr)
        return 130


def with_given(own: Sequence[str], given: Sequence[str]) -> list[str]:
    """Return the overrides of a script, less those whose keys the user gives, and then the user's."""
    keys = {_key(override) for override in given}
    return [override for override in own if _key(override) not in keys] + list(given)


def _key(override: str) -> str:
    return override.partition("=")[0].lstrip("+~")
