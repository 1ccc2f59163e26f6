"""From a Hydra config to the members of a run: the one place that reads configs, and everything above it.

A run trains the member that its settings describe, at `population.seeds` seeds, at every point of
`population.grid`. A key of the grid is a leaf (`noise.scale`) or a whole group (`architecture`), whose values
are the names of config files. Hydra composes each distinct combination of groups once, so that a choice means
what it means on the command line; leaves are then set directly, which is a thousand times faster, and
interpolations that depend on them are resolved anew for every point.

The jobs of a sweep are planned in the same way: Hydra composes each distinct combination of choices once, and
the leaves in which jobs differ are set directly.
"""

from __future__ import annotations

import copy
import hashlib
import itertools
import json
import re
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from modulab.errors import ConfigError
from modulab.logger.settings import Loggers, read_loggers
from modulab.overrides import COMPOSING_ERRORS, GROUPS, Compose, explain, leaf_keys, override_key, plain_leaf
from modulab.schema import Settings, import_target, read_settings, suggest, suggest_key

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from modulab.settings import Population, Sweep, Trainer
else:
    # Annotations are checked in tests. DictConfig derives from deprecated generics, of which that check warns,
    # and importing modulab.settings imports torch.
    DictConfig = object
    Population = Sweep = Trainer = Settings

_MEMBER_KEYS = ("seed", *GROUPS)
_RUN_KEYS = ("logger", "population", "sweep", "trainer")


ComposeJob = Callable[[Sequence[str], int], DictConfig]
"""Turns the overrides of a sweep's job, and its number, into a config; `${hydra:...}` then speaks of that job."""


@dataclass(frozen=True)
class Plan:
    """What a run or sweep trains: a checked, plain config a member, all different, and how to train them."""

    members: list[dict[str, Any]]
    run_ids: list[str]
    jobs: list[list[str]]
    """The run_ids of each job, of which a run is the only one."""
    trainer: Trainer
    sweep: Sweep
    logger: Loggers = field(default_factory=Loggers)


@dataclass(frozen=True)
class Point:
    """One member as a departure from a run's own settings."""

    choices: tuple[tuple[str, str], ...]
    leaves: tuple[tuple[str, Any], ...]


def config_folder() -> Path:
    """Return the folder of configs: inside the installed package or, in a checkout, beside src."""
    package = Path(__file__).resolve().parent
    installed = package / "configs"
    return installed if installed.is_dir() else package.parents[1] / "configs"


def run_id(member: Mapping[str, Any]) -> str:
    """Return the name of a member's result: a hash of its config as `check_member` returns it."""
    canonical = json.dumps(member, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def check_member(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a member's config as its settings understood it, so that equal settings are written alike.

    Raises: ConfigError for whatever `read_member` objects to.
    """
    from modulab.settings import read_member

    member = read_member(config)
    checked: dict[str, Any] = {"seed": member.seed}
    for name in GROUPS:
        group: Settings = getattr(member, name)
        target = {"_target_": config[name]["_target_"]} if "_target_" in config[name] else {}
        checked[name] = target | group.model_dump(mode="json")
    return checked


@contextmanager
def hydra_composer(search_path: Sequence[str | Path] = (), config_name: str = "train") -> Generator[Compose]:
    """Give a function that composes configs as the command line does; `search_path` holds further folders."""
    import hydra

    folders = ",".join(f"'file://{Path(folder).resolve()}'" for folder in search_path)
    extra = [f"hydra.searchpath=[{folders}]"] if folders else []
    with hydra.initialize_config_dir(str(config_folder()), job_name="train", version_base="1.3"):
        yield lambda overrides: hydra.compose(config_name, overrides=[*extra, *overrides])


def compose_checked(compose: Compose, overrides: Sequence[str]) -> DictConfig:
    """Return a composed config. Raises: ConfigError, in words to act on, for what Hydra objects to."""
    try:
        return compose(overrides)
    except COMPOSING_ERRORS as error:
        raise ConfigError(explain(error, overrides, compose)) from error


def plan_run(config: DictConfig, overrides: Sequence[str], compose: Compose) -> Plan:
    """Return what a composed config asks for; `overrides` made it, and `compose` composes others like it.

    Raises: ConfigError for unknown keys, wrong values, and a grid that cannot be expanded.
    """

    def compose_job(given: Sequence[str], number: int) -> DictConfig:
        del number
        return config if given == overrides else compose(given)

    return plan_sweep([overrides], compose_job)


def plan_sweep(jobs: Sequence[Sequence[str]], compose_job: ComposeJob) -> Plan:
    """Return what the jobs of a sweep ask for, each given by its overrides.

    Raises: ConfigError as `plan_run` does, and where jobs ask to be trained in different ways.
    """
    shared = frozenset(jobs[0]).intersection(*jobs[1:])
    planner = _Planner(compose_job)
    members: dict[str, dict[str, Any]] = {}
    names: list[list[str]] = []
    for number, overrides in enumerate(jobs):
        names.append([])
        for member in planner.members(overrides, shared, number):
            name = run_id(member)
            members.setdefault(name, member)
            if name not in names[-1]:
                names[-1].append(name)
    # Measures are imported after training: better to hear of a typo before.
    measures = {item for member in members.values() for item in member["probes"]["measures"].items()}
    for name, path in sorted((name, path) for name, path in measures if path is not None):
        import_target(path, f"probes.measures.{name}")
    return Plan(list(members.values()), list(members), names, planner.trainer, planner.sweep, planner.logger)


def expand(grids: Sequence[Mapping[str, Sequence[Any]]], seeds: int, first_seed: Any) -> list[Point]:
    """Return every point of a union of grids, at `seeds` consecutive seeds each."""
    points: list[Point] = []
    for grid in grids or [{}]:
        for values in itertools.product(*grid.values()):
            point = dict(zip(grid, values, strict=True))
            choices = tuple((key, value) for key, value in point.items() if key in GROUPS)
            leaves = tuple((key, value) for key, value in point.items() if key not in (*GROUPS, "seed"))
            seed = point.get("seed", first_seed)
            if not isinstance(seed, int) or isinstance(seed, bool):
                raise ConfigError(f"seed={seed!r} should be a whole number, 0 or more.")
            points += [Point(choices, (*leaves, ("seed", seed + offset))) for offset in range(seeds)]
    return points


@dataclass(frozen=True)
class _Composed:
    """A config that Hydra composed from a job's overrides, and what it says of the job as a whole."""

    config: DictConfig
    population: Population
    keys: frozenset[str]
    of_one_job: bool
    """Whether the config refers to the job that it was composed for, so that no other may use it."""


class _Planner:
    """Composes what has to be composed, once, and remembers it."""

    trainer: Trainer
    sweep: Sweep
    logger: Loggers

    def __init__(self, compose_job: ComposeJob) -> None:
        self._compose_job = compose_job
        self._composed: dict[tuple[str, ...], _Composed] = {}
        self._templates: dict[tuple[object, ...], _Template] = {}

    def members(
        self, overrides: Sequence[str], shared: Collection[str], number: int
    ) -> Iterator[dict[str, Any]]:
        """Yield the checked configs of one job; `shared` overrides are those of all jobs."""
        rest, leaves = _split(overrides, shared)
        composed = self._compose(rest, number)
        if not composed.keys.issuperset(leaves):
            # Hydra's own complaint about a key that is not there, in our words.
            rest, leaves = list(overrides), {}
            composed = self._compose(rest, number)
        population = composed.population
        if "seed" in leaves:
            first_seed = leaves.pop("seed")
        elif leaves and _interpolates(_unresolved(composed.config).get("seed")):
            first_seed = self._template(composed, rest, (), tuple(leaves), number).member(leaves)["seed"]
        else:
            first_seed = _resolved(composed.config, "seed")
        _check_conflicts(population.grid, overrides)
        for point in expand(population.grid, population.seeds, first_seed):
            values = leaves | dict(point.leaves)
            template = self._template(composed, rest, point.choices, tuple(values), number)
            yield check_member(template.member(values))

    def _compose(self, overrides: Sequence[str], number: int) -> _Composed:
        kept = self._composed.get(tuple(overrides))
        if kept is not None and not kept.of_one_job:
            return kept
        config = compose_checked(lambda given: self._compose_job(given, number), overrides)
        composed = self._read(config)
        self._composed[tuple(overrides)] = composed
        return composed

    def _read(self, config: DictConfig) -> _Composed:
        """Return a composed config, its run-wide groups checked: the same trainer as in all others."""
        from modulab.settings import Population, Sweep, Trainer

        known = (*_MEMBER_KEYS, *_RUN_KEYS)
        for key in config:
            if key not in known:
                raise ConfigError(f"{key}: there is no such key. {suggest(str(key), known)}")
        trainer = read_settings(_resolved(config, "trainer"), "trainer", Trainer)
        sweep = read_settings(_resolved(config, "sweep"), "sweep", Sweep)
        logger = read_loggers(_resolved(config, "logger"))
        if not self._composed:
            self.trainer, self.sweep, self.logger = trainer, sweep, logger
        shared = (
            ("trainer", trainer, self.trainer),
            ("sweep", sweep, self.sweep),
            ("logger", logger, self.logger),
        )
        for group, value, first in shared:
            if value != first:
                raise ConfigError(
                    f"{group} differs between the jobs of this sweep, and packed jobs share it. "
                    "Give one value, or train jobs one by one with hydra/launcher=basic."
                )
        # The grid's own interpolations refer to a member's other settings: they are resolved in each member.
        plain = _unresolved(config)
        settings = plain.get("population")
        if isinstance(settings, dict) and "grid" in settings:
            settings["grid"] = _grids(cast("dict[str, Any]", settings)["grid"])
        population = read_settings(settings, "population", Population)
        keys = leaf_keys({key: plain[key] for key in _MEMBER_KEYS if key in plain})
        of_one_job = any("${hydra:" in str(_get(plain, key)) for key in keys)
        return _Composed(config, population, frozenset(keys), of_one_job)

    def _template(
        self,
        composed: _Composed,
        overrides: Sequence[str],
        choices: tuple[tuple[str, str], ...],
        keys: tuple[str, ...],
        number: int,
    ) -> _Template:
        kind = (tuple(overrides), choices, keys, number if composed.of_one_job else None)
        if kind not in self._templates:
            if choices:
                chosen = [f"{group}={name}" for group, name in choices]
                composed = self._compose([*_without(overrides, choices), *chosen], number)
            self._templates[kind] = _Template(composed.config, keys)
        return self._templates[kind]


def _split(overrides: Sequence[str], shared: Collection[str]) -> tuple[list[str], dict[str, Any]]:
    """Return the overrides that Hydra must compose, and the values of leaves that can be set afterwards."""
    values = {override: plain_leaf(override) for override in overrides if override not in shared}
    composed = [override for override in overrides if values.get(override) is None]
    touched = {override_key(override) for override in composed}
    leaves: dict[str, Any] = {}
    for override in overrides:
        leaf = values.get(override)
        if leaf is not None:
            parts = leaf[0].split(".")
            above = {".".join(parts[:length]) for length in range(2, len(parts) + 1)}
            if touched & above:
                return list(overrides), {}
            leaves[leaf[0]] = leaf[1]
    return composed, leaves


class _Template:
    """A composed config whose leaves can be set quickly: only what interpolates is resolved again."""

    def __init__(self, config: DictConfig, keys: Sequence[str]) -> None:
        plain = _unresolved(config)
        for key in _MEMBER_KEYS:
            if key not in plain:
                raise ConfigError(f"{key}: a value is missing.")
        self._plain = {key: plain[key] for key in _MEMBER_KEYS}
        present = leaf_keys(self._plain)
        for key in keys:
            if not _reaches(self._plain, key):
                raise ConfigError(f"population.grid: there is no key {key}. {suggest_key(key, present)}")
        missing = [key for key in present if _get(self._plain, key) == "???" and key not in keys]
        if missing:
            raise ConfigError(f"{missing[0]}: a value is missing. Set it with {missing[0]}=VALUE.")
        self._interpolating = [key for key in present if _interpolates(_get(self._plain, key))]
        self._config = copy.deepcopy(config)

    def member(self, leaves: Mapping[str, Any]) -> dict[str, Any]:
        """Return the config with these leaves, unchecked; it shares what it can with its neighbours."""
        member = dict(self._plain)
        for key, value in leaves.items():
            _set(member, key, value)
        unresolved = [key for key in self._interpolating if key not in leaves]
        unresolved += [key for key, value in leaves.items() if _interpolates(value)]
        remaining: list[str] = []
        for key in unresolved:
            found, value = _look_up(member, _get(member, key))
            if found:
                _set(member, key, value)
            else:
                remaining.append(key)
        if remaining:
            for key, value in leaves.items():
                OmegaConf.update(self._config, key, value, merge=False, force_add=True)
            for key in remaining:
                _set(member, key, _resolved(self._config, key))
        return member


def _look_up(member: Mapping[str, Any], text: Any) -> tuple[bool, Any]:
    """Return whether an interpolation names a plain leaf, and its value; OmegaConf's parser is slow at this."""
    match = re.fullmatch(r"\$\{([\w.]+)\}", text) if isinstance(text, str) else None
    try:
        value = _get(member, match[1]) if match else None
    except (KeyError, TypeError):
        return False, None
    return match is not None and not isinstance(value, dict) and not _interpolates(value), value


def _grids(grid: Any) -> list[dict[str, list[Any]]]:
    """Return a grid, or a list of grids, as a list. Raises: ConfigError that says what is wrong with it."""
    grids: list[Any] = (
        cast("list[Any]", grid) if isinstance(grid, list) else [] if grid in (None, "none") else [grid]
    )
    for each in grids:
        if not isinstance(each, dict):
            raise ConfigError(
                f"population.grid: {each!r} is not a grid. Write {{noise.scale: [0, 0.1], architecture: "
                "[dense, premodular]}, or a list of such grids."
            )
        for key, values in cast("dict[str, Any]", each).items():
            if not isinstance(values, list) or not values:
                raise ConfigError(
                    f"population.grid: {key} should have a list of values, such as [0, 0.1], not {values!r}."
                )
            if key in GROUPS:
                for value in cast("list[Any]", values):
                    if not isinstance(value, str) or value == "???":
                        raise ConfigError(
                            f"population.grid: {key}={value!r} is not the name of a file in configs/{key}/. "
                            f"To vary one of its settings, write {key}.KEY."
                        )
    return grids


def _check_conflicts(grids: Sequence[Mapping[str, Any]], overrides: Sequence[str]) -> None:
    for override in overrides:
        key = override_key(override)
        if grids and all(key in grid for grid in grids):
            raise ConfigError(
                f"{override} has no effect, because population.grid sets {key} for every member. "
                f"Leave one of them out; population.grid=none clears an experiment's grid."
            )


def _without(overrides: Sequence[str], choices: Iterable[tuple[str, str]]) -> list[str]:
    chosen = {group for group, _ in choices}
    return [override for override in overrides if override_key(override) not in chosen]


def _unresolved(config: DictConfig) -> dict[str, Any]:
    """Return a config as plain Python values, interpolations left as strings."""
    return cast("dict[str, Any]", OmegaConf.to_container(config, resolve=False))


def _resolved(config: DictConfig, key: str) -> Any:
    """Return a node of a config as plain Python values."""
    if key not in config and "." not in key:
        raise ConfigError(f"{key}: a value is missing.")
    try:
        value = OmegaConf.select(config, key)
        return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
    except OmegaConfBaseException as error:
        raise ConfigError(f"{key}: {str(error).splitlines()[0].rstrip('.')}.") from error


def _interpolates(value: Any) -> bool:
    if isinstance(value, str):
        return "${" in value
    return isinstance(value, list) and any(_interpolates(each) for each in cast("list[Any]", value))


def _get(node: Any, key: str) -> Any:
    for part in key.split("."):
        node = node[part]
    return node


def _set(node: dict[str, Any], key: str, value: Any) -> None:
    """Set a leaf; dicts on the way to it are copied first, because members share them."""
    *groups, last = key.split(".")
    for group in groups:
        inner = node.get(group)
        node[group] = dict(cast("dict[str, Any]", inner)) if isinstance(inner, dict) else {}
        node = node[group]
    node[last] = value


def _reaches(plain: Mapping[str, Any], key: str) -> bool:
    """Return whether a leaf stands in a config, or is a field of its group's class."""
    group, _, rest = key.partition(".")
    try:
        return not isinstance(_get(plain, key), dict)
    except (KeyError, TypeError):
        if group not in GROUPS or not isinstance(plain[group], dict) or "_target_" not in plain[group]:
            return False
        return rest in import_target(plain[group]["_target_"], f"{group}._target_").model_fields
