"""The parser of commands: an option that takes a value is given once, a path is not empty, and what it does not know
is answered with how to say it instead."""

from __future__ import annotations

import argparse
import difflib
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from modulab.errors import ConfigError

Values = Callable[[], Iterable[str]]
"""Returns the values that an option knows; called only for an answer to what it does not."""

_GIVEN = "_given"
"""Where the names of arguments that were given are kept during parsing."""


def given_path(text: str) -> Path:
    """Return an argument as a path. Raises: ArgumentTypeError for an empty one, which would be the current folder."""
    if not text:
        raise argparse.ArgumentTypeError("it is empty. Name a folder or file; . is the current folder.")
    return Path(text)


def whole_number(text: str) -> int:
    """Return an argument as a whole number of 1 or more. Raises: ArgumentTypeError for another."""
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number of 1 or more.")
    return number


class ArgumentParser(argparse.ArgumentParser):
    """Refuses an option that is given twice, of which Python's own parser silently takes the last.

    Whatever else is wrong with a command line is a ConfigError too, which says what, and what to write instead.
    """

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, exit_on_error=False, **settings)
        self.register("action", None, _StoreOnce)
        self._values: dict[str, Values] = {}

    def add_argument(self, *names: str, values: Values | None = None, **settings: Any) -> argparse.Action:
        """Add an argument; `values` returns those that it knows, by which a word in a wrong place is recognised."""
        action = super().add_argument(*names, **settings)
        if values is not None:
            self._values[action.dest] = values
        return action

    def error(self, message: str) -> NoReturn:
        """Raise ConfigError for what is wrong with a command line."""
        raise ConfigError(f"{self.prog}: {message}. {self._see_help()}")

    def parse_args(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, args: Iterable[str] | None = None, namespace: Any = None
    ) -> Any:
        """Return the options: see `parse_intermixed_args`."""
        return self.parse_intermixed_args(args, namespace)

    def parse_intermixed_args(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, args: Iterable[str] | None = None, namespace: Any = None
    ) -> Any:
        """Return the options. Raises: ConfigError for arguments that are unknown, missing or wrong."""
        # Looked for here, where the words that are left over show what they may have been meant for.
        required = [action for action in self._actions if action.required]
        for action in required:
            action.required = False
        try:
            options, others = self.parse_known_intermixed_args(args, namespace)
        except argparse.ArgumentError as error:
            self.error(self._explain(error))
        finally:
            for action in required:
                action.required = True
        vars(options).pop(_GIVEN, None)
        missing = [
            action
            for action in required
            if action.nargs != "*" and getattr(options, action.dest, None) in (None, [])
        ]
        if unknown := next((word for word in others if _is_option(word)), None):
            place = others.index(unknown)
            raise ConfigError(self._unknown_option(unknown, others[place + 1 :]))
        if missing:
            words = [each for action in self._named() for each in _texts(getattr(options, action.dest, None))]
            raise ConfigError(self._missing(missing[0], others, words))
        if others:
            raise ConfigError(self._unknown_word(others[0]))
        return options

    def _see_help(self) -> str:
        return f"{self.prog} --help lists its arguments."

    def _options(self) -> dict[str, argparse.Action]:
        return {
            name: action
            for action in self._actions
            for name in action.option_strings
            if name.startswith("--") and name != "--help"
        }

    def _named(self) -> list[argparse.Action]:
        """Return the arguments that are known by their places."""
        return [action for action in self._actions if not action.option_strings]

    def _explain(self, error: argparse.ArgumentError) -> str:
        """Return what is wrong with the value of an argument."""
        name, message = error.argument_name, str(error.message).rstrip(".")
        if message.startswith("expected "):
            meaning = next((each.help for each in self._actions if name in each.option_strings), None)
            return f"{name}: a value is missing" + (f". It means: {meaning}" if meaning else "")
        if message.startswith("ignored explicit argument"):
            return f"{name} takes no value"
        if match := re.match(r"invalid (\w+) value: (.*)", message):
            kinds = {"int": "is not a whole number", "float": "is not a number"}
            return f"{name}: {match[2]} {kinds.get(match[1], 'cannot be read')}"
        if message.startswith("not allowed with argument"):
            return f"{name} and {message.rpartition(' ')[2]} do not go together. Give one of them"
        return f"{name}: {message}" if name else message

    def _unknown_option(self, word: str, following: Sequence[str]) -> str:
        name, equals, value = word.partition("=")
        start = f"{self.prog}: there is no option {name}."
        options = self._options()
        close = difflib.get_close_matches(name.lower(), options, n=1, cutoff=0.6)
        if close:
            return f"{start} Did you mean {_written(close[0], options[close[0]])}?"
        key = name.lstrip("-")
        if hint := self._told_by_value(key):
            return f"{start} {hint}"
        if "." in key:
            after = following[0] if following and not _is_option(following[0]) else "VALUE"
            return f"{start} {_is_setting(f'{key}={value if equals else after}')}"
        return f"{start} {self._all_options()}"

    def _unknown_word(self, word: str) -> str:
        """Return the answer to a word that no argument of the command takes."""
        named = self._named()
        if hint := self._told_by_value(word) or self._told_by_key(word):
            return f"{self.prog}: {word} is one argument too many. {hint}"
        if "=" in word:
            return f"{self.prog}: {word} is one argument too many. {_is_setting(word)} {self._all_options()}"
        takes = f"It takes one {named[0].metavar}, in quotes if it holds spaces. " if named else ""
        return f"{self.prog}: {word} is one argument too many. {takes}{self._all_options()}"

    def _missing(self, action: argparse.Action, others: Sequence[str], taken: Sequence[str]) -> str:
        """Return the answer to a command without `action`, with words left over and others taken by their places."""
        name = action.option_strings[0] if action.option_strings else str(action.metavar or action.dest)
        hints = [self._told_by_value(word) or self._told_by_key(word) for word in (*others, *taken)]
        if others and action.option_strings:
            hints.append(f"Did you mean {name} {others[0]}?")
        hint = next((f" {each}" for each in hints if each), "")
        return f"{self.prog}: {name} is missing{f': {action.help}' if action.help else ''}.{hint}"

    def _told_by_value(self, word: str) -> str:
        """Return a sentence that names the argument of which a word is a value, or nearly; empty for none."""
        options = {action.dest: f"{name} " for name, action in self._options().items()}
        nearly: list[tuple[float, str]] = []
        for dest, values in self._values.items():
            start = options.get(dest, f"{self.prog} ")
            for value in values():
                alike = difflib.SequenceMatcher(None, word.lower(), value.lower()).ratio()
                nearly.append((alike, f"Did you mean {start}{value}?"))
        alike, sentence = max(nearly, default=(0.0, ""))
        return sentence if alike >= 0.6 else ""

    def _told_by_key(self, word: str) -> str:
        """Return a sentence that names the option that KEY=VALUE, or a name without its dashes, was meant for."""
        key, _, value = word.partition("=")
        options = self._options()
        found = difflib.get_close_matches(f"--{key.lower()}", options, n=1, cutoff=0.8)
        if not found:
            return ""
        written = f"{found[0]} {value}" if value and options[found[0]].nargs != 0 else None
        return f"Did you mean {written or _written(found[0], options[found[0]])}?"

    def _all_options(self) -> str:
        options = self._options()
        if not options:
            return "It has no options."
        return f"Its options: {', '.join(_written(name, action) for name, action in options.items())}."


def _texts(value: Any) -> list[str]:
    """Return the texts of an argument's value, or of its values."""
    values: list[Any] = [*value] if isinstance(value, list) else [value]
    return [each for each in values if isinstance(each, str)]


def _is_option(word: str) -> bool:
    return word.startswith("-") and word != "-" and not _is_number(word)


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _is_setting(word: str) -> str:
    return f"Settings are given to modulab train, as in modulab train {word}."


def _written(name: str, action: argparse.Action) -> str:
    """Return an option as it is written, with a word for its value."""
    return name if action.nargs == 0 else f"{name} {action.metavar or action.dest.upper()}"


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
        given: set[str] = vars(namespace).setdefault(_GIVEN, set())
        if option_string is not None and self.dest in given:
            several = ", with commas between several" if "comma" in (self.help or "") else ""
            raise ConfigError(f"{option_string} is given twice. Give it once{several}.")
        given.add(self.dest)
        setattr(namespace, self.dest, values)
