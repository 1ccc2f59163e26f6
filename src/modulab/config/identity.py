"""What names a member's result: a hash of its config, which later versions of modulab compute alike.

A sweep that an earlier version began goes on under a later one, as long as the run_ids that the later one computes
are those in the folder. So a config is hashed as the first version with such a result would have written it: code
that has moved since counts under its first dotted path.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, cast

from modulab.schema import MOVED_CODE

_FIRST_PATHS = {now: first for first, now in MOVED_CODE.items()}


def run_id(member: Mapping[str, Any]) -> str:
    """Return the name of a member's result: a hash of its config as `check_member` returns it."""
    canonical = json.dumps(
        _with_paths(member, _FIRST_PATHS), sort_keys=True, separators=(",", ":"), ensure_ascii=False
    )
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def with_current_paths(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config in which code that has moved is named by the path that it has now."""
    return _with_paths(config, MOVED_CODE)


def _with_paths(node: Mapping[str, Any], paths: Mapping[str, str]) -> dict[str, Any]:
    return {key: _with_path(value, paths) for key, value in node.items()}


def _with_path(value: Any, paths: Mapping[str, str]) -> Any:
    if isinstance(value, Mapping):
        return _with_paths(cast("Mapping[str, Any]", value), paths)
    return paths.get(value, value) if isinstance(value, str) else value
