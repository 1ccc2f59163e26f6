"""Words for where a claim with several settings is supported: the axes that separate the verdicts."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from modulab.claims.claim import Setting
from modulab.claims.rules import Verdict

_Found = Sequence[tuple[Setting, Verdict]]

_WORDS: dict[Verdict, str] = {
    "supported": "supported",
    "not supported": "not supported",
    "inconclusive": "undecided",
}
_MOST_AXES = 2
"""Named one within the other; what is left mixed is counted."""


def describe_settings(settings: Sequence[Setting], verdicts: Sequence[Verdict]) -> str:
    """Return where a claim is supported: "modules 4 and 8: supported; modules 2: not supported".

    Nothing where all verdicts are the same. The axis comes first whose values leave the least entropy of verdicts, and
    within its values the next one.
    """
    if len(set(verdicts)) == 1:
        return ""
    return _describe(list(zip(settings, verdicts, strict=True)), _MOST_AXES)


def _describe(found: _Found, axes_left: int) -> str:
    counts = Counter(verdict for _, verdict in found)
    if len(counts) == 1:
        return _WORDS[found[0][1]]
    axes = [axis for axis in found[0][0].at if len({setting.at[axis] for setting, _ in found}) > 1]
    if not axes or not axes_left:
        words = [f"{word} in {counts[verdict]}" for verdict, word in _WORDS.items() if counts[verdict]]
        return f"{_listed(words)} of {len(found)} settings"
    axis = min(axes, key=lambda each: _entropy_within(found, each))
    by_words: dict[str, list[str]] = {}
    for value in dict.fromkeys(setting.at[axis] for setting, _ in found):
        own = [pair for pair in found if pair[0].at[axis] == value]
        by_words.setdefault(_describe(own, axes_left - 1), []).append(value)
    parts = [(f"{axis} {_listed(values)}", words) for words, values in by_words.items()]
    return "; ".join(f"{place} ({words})" if ":" in words else f"{place}: {words}" for place, words in parts)


def _entropy_within(found: _Found, axis: str) -> float:
    """Return the mean entropy of verdicts at a value of an axis, in nats, over settings."""
    total = 0.0
    for value in {setting.at[axis] for setting, _ in found}:
        counts = Counter(verdict for setting, verdict in found if setting.at[axis] == value)
        size = sum(counts.values())
        total -= sum(count * math.log(count / size) for count in counts.values())
    return total / len(found)


def _listed(values: Sequence[str]) -> str:
    """Return values as a list in words: 2, 4 and 8."""
    return " and ".join([", ".join(values[:-1]), values[-1]] if len(values) > 1 else values)
