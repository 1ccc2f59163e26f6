"""Names of measures: what earlier versions called them, and which way is better, which the first part of a name says.

Nothing here imports torch, so tables know it without the measures themselves.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Literal

from modulab.text import matches, say_once

Better = Literal["lower", "higher"]

RENAMED_MEASURES: tuple[tuple[str, str, str], ...] = (
    (
        "robustness",
        "error_under",
        r"(gaussian|poisson|poisson_energy|multiplicative|poisson_counts|weight_noise|input_noise|ablation)(@.*)?",
    ),
    ("extrapolation", "error_beyond", r"combination(_ratio)?|(own|other)_range(@.*)?"),
)
"""First parts of names as they were and as they are now, and the rests of names that the first one had. These are
errors, whose first names suggested that higher is better. Entries stay, so earlier results remain readable."""

_BETTER: dict[str, Better] = {
    "adaptation": "lower",
    "error": "lower",
    "error_under": "lower",
    "error_beyond": "lower",
    "forgetting": "lower",
    "relearning": "higher",
    "robustness": "higher",
    "training": "lower",
}
"""Which way is better, by the first part of a name. What describes a network, as its modularity does, is not here."""

_ARROWS: dict[Better, str] = {"lower": "↓", "higher": "↑"}
_WORDS: dict[Better, str] = {"lower": "(lower)", "higher": "(higher)"}


def current_measure(name: str) -> str:
    """Return what a measure is called now: a name of this version as it is."""
    return _renamed(name, {old: (new, rest) for old, new, rest in RENAMED_MEASURES})


def former_measure(name: str) -> str:
    """Return what a measure was called first."""
    return _renamed(name, {new: (old, rest) for old, new, rest in RENAMED_MEASURES})


def _renamed(name: str, names: dict[str, tuple[str, str]]) -> str:
    first, _, last = name.partition("/")
    other, rest = names.get(first, ("", ""))
    return f"{other}/{last}" if other and re.fullmatch(rest, last, re.DOTALL) else name


def given_measure(name: str) -> str:
    """Return what a measure that a user named is called now; print it where that is not how it was given."""
    current = current_measure(name)
    if current != name:
        say_once(f"{name} is called {current} now.")
    return current


def stands_for(pattern: str, name: str) -> bool:
    """Return whether a name or a pattern such as modularity/* stands for a measure, by its present or first name."""
    return matches(name, pattern) or matches(former_measure(name), pattern)


def chosen_measures(pattern: str, names: Sequence[str]) -> list[str]:
    """Return the measures that a user's name or pattern stands for; print their names where they have changed."""
    found = [name for name in names if stands_for(pattern, name)]
    renamed = [name for name in found if not matches(name, pattern)]
    if renamed:
        say_once(f"{former_measure(renamed[0])} is called {renamed[0]} now.")
    return found


def better(name: str) -> Better | None:
    """Return which way a measure is better, or None if neither way is."""
    return _BETTER.get(name.partition("/")[0])


def with_arrow(words: str, way: Better | None) -> str:
    """Return the words for a quantity, followed by an arrow to its better values."""
    return f"{words} {_ARROWS[way]}" if way is not None else words


def arrow_key(texts: Iterable[str]) -> str:
    """Return what the arrows in these texts mean, or nothing if there is none."""
    together = "".join(texts)
    found = [f"{sign} {way} is better" for way, sign in _ARROWS.items() if sign in together]
    return ", ".join(found)


def encodable(text: str, encoding: str | None) -> str:
    """Return text with words in place of arrows where an encoding has none."""
    try:
        "".join(_ARROWS.values()).encode(encoding or "utf-8")
    except (UnicodeEncodeError, LookupError):
        for way, sign in _ARROWS.items():
            text = text.replace(sign, _WORDS[way])
    return text
