"""The name of a member's result: a hash of its config, which later versions of modulab compute in the same way.

A sweep that an earlier version began continues under a later one, as long as the run_ids that the later one computes
are those in the folder. So a config is hashed as the first version with such a result would have written it: code
that has moved since counts under its first dotted path, and a key that was added since does not count as long as it
has the value that was once the only one. A key that has another name or other values since counts as it was.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, cast

from modulab.errors import ConfigError
from modulab.schema import MOVED_CODE, RENAMED_KEYS, import_target

ADDED_KEYS: dict[tuple[str, str], Any] = {
    ("architecture", "_target_"): "modulab.networks.perceptron.PerceptronArchitecture",
    ("probes", "curves"): ["error/test", "modularity/structural"],
    ("data", "sampling"): "random",
    ("task", "degree"): 1,
    ("task", "nonlinearity"): 1.0,
    ("task", "bump_grid"): 5,
    ("task", "bump_width"): 1.0,
    ("architecture", "match"): "width",
    ("probes", "adaptation_optimiser"): "adam",
    ("training", "precision"): "float32",
    ("training", "monitor"): "error/test",
    ("training", "stopping_threshold"): None,
    ("training", "patience"): None,
    ("training", "plateau_steps"): 400,
    ("training", "plateau_factor"): 0.5,
    ("probes", "sparse_curves"): [],
    ("probes", "sparse_every"): 5,
    ("regulariser", "swap_moments"): "units",
    ("regulariser", "swap_turns"): "units",
}
"""Keys that earlier versions did not write, and the values that they implied. Part of run_ids: never remove one."""
ADDED_MEASURES: dict[str, tuple[str | None, Any]] = {
    "frame_null": (None, {"_target_": "modulab.metrics.frame_null.FrameNull", "rotations": 64}),
    "functional_centred": (None, "modulab.metrics.modularity.measure_functional_centred"),
    "poisson_energy": (None, "modulab.metrics.robustness.measure_poisson_energy"),
    "cross_tangent": ("forgetting", {"_target_": "modulab.metrics.tangent.CrossTangent", "points": 32}),
}
"""Measures that shipped configs did not name at first: the measure beside which each is taken by default, or None for
every config, and how it is named there. Part of every run_id: entries stay. A config that lacks one does not take it,
and its results are verified without it; it has the same run_id, because the network is the same."""
_ADDED_TO = {
    ("task", "degree"): "modulab.tasks.regression.RegressionTask",
    ("task", "nonlinearity"): "modulab.tasks.regression.RegressionTask",
    ("task", "bump_grid"): "modulab.tasks.continuous.ContinuousTask",
    ("task", "bump_width"): "modulab.tasks.continuous.ContinuousTask",
    ("architecture", "match"): "modulab.networks.perceptron.PerceptronArchitecture",
    ("regulariser", "swap_moments"): "modulab.wiring.WiringCost",
    ("regulariser", "swap_turns"): "modulab.wiring.WiringCost",
}
"""The class that a key was added to, where not all classes of its group have it: others may have one of that name."""
_KNOWN_BY = {
    "task": {"function_seed", "degree", "nonlinearity", "bump_grid", "bump_width"},
    "architecture": {"cross_connections", "match"},
    "regulariser": {"swap_candidates", "swap_moments", "swap_turns"},
}
"""Keys by which a group is known for one of the only class that had none of the added keys before: a regression task, a
perceptron, a cost of wiring."""
_FIRST_PATHS = {now: first for first, now in MOVED_CODE.items()}


def run_id(member: Mapping[str, Any]) -> str:
    """Return the name of a member's result: a hash of its config as `read_run` returns it."""
    parts = [_part(key, canonical(key, node)) for key, node in sorted(member.items())]
    return _name(hashlib.sha256(f"{{{','.join(parts)}}}".encode()))


class RunIds:
    """The names of the results of members that differ in nothing but the seed, given the rest as `canonical` text."""

    __slots__ = ("_after", "_before")

    def __init__(self, groups: Mapping[str, str]) -> None:
        before = "".join(f"{_part(key, text)}," for key, text in sorted(groups.items()) if key < "seed")
        after = "".join(f",{_part(key, text)}" for key, text in sorted(groups.items()) if key > "seed")
        self._before = hashlib.sha256(f'{{{before}"seed":'.encode())
        self._after = f"{after}}}".encode()

    def of(self, seed: int) -> str:
        """Return the name of the result at a seed."""
        digest = self._before.copy()
        digest.update(b"%d" % seed)
        digest.update(self._after)
        return _name(digest)


def _part(key: str, text: str) -> str:
    return f"{_json(key)}:{text}"


def _name(digest: Any) -> str:
    return digest.hexdigest()[:16]


def canonical(group: str, node: Any) -> str:
    """Return one group of a config as the first version would have written it: what `run_id` hashes."""
    if not isinstance(node, Mapping):
        return _json(node)
    settings = cast("Mapping[str, Any]", node)
    first = _with_paths(settings, _FIRST_PATHS)
    for (owner, key), value in ADDED_KEYS.items():
        # A value of null is not the same as no key, which a config of an earlier version has.
        if owner == group and key in first and first[key] == value and _counts_as_added(settings, group, key):
            del first[key]
    for (owner, old), (new, values) in RENAMED_KEYS.items():
        for before, now in values.items():
            if owner == group and first.get(new) == now:
                del first[new]
                first[old] = before
    if group == "probes" and isinstance(first.get("measures"), dict):
        first["measures"] = _without_added(first["measures"])
    return _json(first)


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _without_added(measures: Mapping[str, Any]) -> dict[str, Any]:
    """Return measures without those that were added later, if they are as in shipped configs."""
    kept = dict(measures)
    for name, (beside, shipped) in ADDED_MEASURES.items():
        named = beside is None or measures.get(beside) is not None
        if name in measures and measures[name] == (shipped if named else None):
            del kept[name]
    return kept


def group_in_current_form(group: str, node: Any) -> Any:
    """Return a group with the keys that were added since it was written, and current names of keys and paths of code.

    Raises: ConfigError for a key given by its first name with a value that it never had, or by both its names.
    """
    if not isinstance(node, Mapping):
        return node
    current = _with_paths(cast("Mapping[str, Any]", node), MOVED_CODE)
    for (owner, old), (new, values) in RENAMED_KEYS.items():
        if owner == group and old in current:
            current = _renamed(current, group, old, new, values)
    for (owner, key), value in ADDED_KEYS.items():
        if owner == group and key not in current and _was_added(current, group, key):
            current = {key: value} | current
    return current


def _renamed(
    node: dict[str, Any], group: str, old: str, new: str, values: Mapping[Any, Any]
) -> dict[str, Any]:
    given = node[old]
    if not isinstance(given, bool):
        raise ConfigError(
            f"{group}.{old}={given!r} should be true or false. It is called {group}.{new} now, with the values "
            f"{', '.join(values.values())} in their place."
        )
    # A composed config has the new key as well, at its default: the name of the first value.
    beside = node.get(new, values[given])
    if beside not in (values[given], values[False]):
        raise ConfigError(
            f"{group}.{old}={str(given).lower()} and {group}.{new}={beside} contradict each other. Leave out "
            f"{group}.{old}, which is the earlier name of {group}.{new}."
        )
    return {key: value for key, value in node.items() if key != old} | {new: values[given]}


def _counts_as_added(node: Mapping[str, Any], group: str, key: str) -> bool:
    """Return whether a whole group has the keys of the class that a key was added to. Nothing is imported.

    The name of a result that lies in a folder is computed before it is known whose code the folder names.
    """
    return (group, key) not in _ADDED_TO or node.keys() >= _KNOWN_BY[group]


def _was_added(node: Mapping[str, Any], group: str, key: str) -> bool:
    """Return whether the class of a group is one that a key was added to."""
    owner = _ADDED_TO.get((group, key))
    if owner is None:
        return True
    try:
        named = import_target(node.get("_target_"), f"{group}._target_")
    except ConfigError:  # An error is reported when the group is read.
        return False
    return isinstance(named, type) and issubclass(named, import_target(owner, owner))


def _with_paths(node: Mapping[str, Any], paths: Mapping[str, str]) -> dict[str, Any]:
    return {
        key: paths.get(value, value)
        if isinstance(value, str)
        else _with_paths(cast("Mapping[str, Any]", value), paths)
        if isinstance(value, Mapping)
        else value
        for key, value in node.items()
    }
