"""What names a member's result: a hash of its config, which later versions of modulab compute alike.

A sweep that an earlier version began goes on under a later one, as long as the run_ids that the later one computes
are those in the folder. So a config is hashed as the first version with such a result would have written it: code
that has moved since counts under its first dotted path, and a key that was added since does not count as long as it
has the value that was once the only one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, cast

from modulab.schema import MOVED_CODE

ADDED_KEYS: dict[tuple[str, str], Any] = {
    ("architecture", "_target_"): "modulab.networks.perceptron.PerceptronArchitecture",
    ("probes", "curves"): ["error/test", "modularity/structural"],
}
"""Keys that earlier versions did not write, and the value that they stood for. Part of every run_id: entries stay."""
KEYS_OF_SOME: dict[tuple[str, str], Any] = {
    ("architecture", "match"): "width",
}
"""Like `ADDED_KEYS`, of keys that some classes of a group have. Configs without them are left so: the class has this
value as its default."""
_FIRST_PATHS = {now: first for first, now in MOVED_CODE.items()}


def run_id(member: Mapping[str, Any]) -> str:
    """Return the name of a member's result: a hash of its config as `read_run` returns it."""
    first = _with_paths(member, _FIRST_PATHS)
    for (group, key), value in (ADDED_KEYS | KEYS_OF_SOME).items():
        if isinstance(first.get(group), dict) and first[group].get(key) == value:
            del first[group][key]
    canonical = json.dumps(first, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def in_current_form(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config with the keys that were added since it was written, and the paths that moved code has now."""
    current = _with_paths(config, MOVED_CODE)
    for (group, key), value in ADDED_KEYS.items():
        if isinstance(current.get(group), dict):
            current[group] = {key: value} | current[group]
    return current


def _with_paths(node: Mapping[str, Any], paths: Mapping[str, str]) -> dict[str, Any]:
    return {key: _with_path(value, paths) for key, value in node.items()}


def _with_path(value: Any, paths: Mapping[str, str]) -> Any:
    if isinstance(value, Mapping):
        return _with_paths(cast("Mapping[str, Any]", value), paths)
    return paths.get(value, value) if isinstance(value, str) else value
