"""What is wrong with a value that OmegaConf rejects, in words."""

from __future__ import annotations

import re

_WORDS = (
    (
        r"KeyError raised while resolving interpolation: \"Environment variable '(.+)' not found\"",
        "the environment variable {0} is not set. Set it, or give a default, as in ${{oc.env:{0},VALUE}}",
    ),
    (
        r"Unsupported interpolation type (\S+)",
        "${{{0}:...}} names no resolver. Environment variables are ${{oc.env:NAME}}, keys are ${{KEY}}",
    ),
    (r"Interpolation key '(.+)' not found", "${{{0}}} names a key that does not exist"),
    (r"'.+' is not Optional", "this key cannot be null. Give a value, or leave it out"),
    (r"Cannot convert '(?:list|dict)' to string", "a text is needed here"),
    (r"Cannot assign \w+ to Dict", "a dictionary is needed here, as in {{NAME: VALUE}}"),
    (
        r"Cannot assign \w+ to List|is not a ListConfig|Cannot merge DictConfig with ListConfig",
        "a list is needed here, as in [VALUE]",
    ),
    (
        r"Invalid type assigned: .+ is not a subclass",
        "this is a group of keys. Set one of them, as in KEY.NAME=VALUE",
    ),
    (r"Invalid value '.*', expected one of \[(.+)\]", "it should be one of {0}"),
    (r"Value '.*' .*could not be converted to Integer", "a whole number is needed here"),
    (r"Value '.*' is not a valid bool", "it should be true or false"),
)


def words_for(error: Exception) -> str:
    """Return what an error of OmegaConf says about a value, as a clause without a full stop.

    Anything that is not known here is said as OmegaConf says it, in its first line.
    """
    text = str(error)
    for pattern, words in _WORDS:
        if match := re.search(pattern, text):
            return words.format(*match.groups())
    return next(iter(text.splitlines()), type(error).__name__).rstrip(".")
