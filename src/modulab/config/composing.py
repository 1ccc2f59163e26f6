"""From a Hydra config to the members of a run: the one place that reads configs, and everything above it.

A run trains the member that its settings describe, at `population.seeds` seeds, at every point of
`population.grid`. A key of the grid is a leaf (`noise.scale`) or a whole group (`architecture`), whose values
are the names of config files. Hydra composes each distinct combination of groups once, so a choice means
what it means on the command line; leaves are then set directly, which is a thousand times faster, and
interpolations that depend on them are resolved again for every point.

The jobs of a sweep are planned in the same way: Hydra composes each distinct combination of choices once, and
the leaves in which jobs differ are set directly.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Collection, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import yaml

from modulab.config.grids import check_conflicts, expand, read_grids, without
from modulab.config.hydra_private import callers_hydra_aside, compatibility
from modulab.config.loggers import Loggers, read_loggers
from modulab.config.overrides import (
    COMPOSING_ERRORS,
    Compose,
    explain,
    leaf_keys,
    names_unknown_key,
    override_key,
    plain_leaf,
)
from modulab.config.template import MEMBER_KEYS, Template, interpolates, look_in, resolved, unresolved
from modulab.errors import ConfigError
from modulab.memory import check_plan
from modulab.schema import Settings, read_settings, suggest

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from modulab.config.settings import Condition, Population, Run, Sweep, Trainer
else:
    # Annotations are checked in tests. DictConfig derives from deprecated generics, of which that check warns,
    # and importing modulab.config.settings imports torch.
    DictConfig = object
    Population = Sweep = Trainer = Settings
    Run = object

OTHER_GROUPS = ("analysis",)
"""Folders of configs that are not groups of a run: `modulab analyse` reads them."""
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_RUN_KEYS = ("logger", "population", "sweep", "trainer")


ComposeJob = Callable[[Sequence[str], int], DictConfig]
"""Composes a config from the overrides and the number of a sweep's job, to which `${hydra:...}` then refers."""


@dataclass(frozen=True)
class Plan:
    """The checked members that a run or sweep trains, all different, and how to train them."""

    runs: list[Run]
    jobs: Sequence[Sequence[str]]
    """The run_ids of each job; a run is a single job."""
    trainer: Trainer
    sweep: Sweep
    logger: Loggers = field(default_factory=Loggers)

    @property
    def run_ids(self) -> list[str]:
        """Return the run_id of each run, in their order."""
        return [run.run_id for run in self.runs]


def config_folder() -> Path:
    """Return the folder of configs: inside the installed package or, in a checkout, next to src."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "configs"
    return installed if installed.is_dir() else package.parents[1] / "configs"


def plain_yaml(file: Path) -> Any:
    """Return what a config file holds, unresolved, by YAML's parser in C, which takes a tenth of the time of others."""
    return yaml.load(file.read_bytes(), Loader=_LOADER)


@contextmanager
def hydra_composer(search_path: Sequence[str | Path] = (), config_name: str = "train") -> Generator[Compose]:
    """Give a function that composes configs as the command line does; `search_path` holds further folders."""
    import hydra

    folders = ",".join(f"'file://{Path(folder).resolve()}'" for folder in search_path)
    extra = [f"hydra.searchpath=[{folders}]"] if folders else []
    with (
        callers_hydra_aside(),
        hydra.initialize_config_dir(str(config_folder()), job_name="train", **compatibility()),
    ):
        yield lambda overrides: hydra.compose(config_name, overrides=[*extra, *overrides])


def compose_checked(compose: Compose, overrides: Sequence[str]) -> DictConfig:
    """Return a composed config. Raises: ConfigError, with advice, where Hydra cannot compose it."""
    try:
        return compose(overrides)
    except COMPOSING_ERRORS as error:
        refusal = ConfigError(explain(error, overrides, compose))
        refusal.is_of_unknown_key = names_unknown_key(error)
        raise refusal from error


def plan_run(config: DictConfig, overrides: Sequence[str], compose: Compose) -> Plan:
    """Return the plan of a composed config, which `overrides` made; `compose` composes others like it.

    Raises: ConfigError for unknown keys, wrong values, and a grid that cannot be expanded.
    """

    def compose_job(given: Sequence[str], number: int) -> DictConfig:
        del number
        return config if given == overrides else compose(given)

    return plan_sweep([overrides], compose_job)


def plan_sweep(jobs: Sequence[Sequence[str]], compose_job: ComposeJob) -> Plan:
    """Return the plan of the jobs of a sweep, each given by its overrides.

    Raises: ConfigError as `plan_run` does, and where jobs ask to be trained in different ways.
    """
    shared = frozenset(jobs[0]).intersection(*jobs[1:])
    planner = _Planner(compose_job, shared)
    runs: dict[str, Run] = {}
    of_jobs: list[tuple[str, ...]] = []
    for number, overrides in enumerate(jobs):
        own = {run.run_id: run for run in planner.runs(overrides, number)}
        of_jobs.append(tuple(own))
        for name, run in own.items():
            runs.setdefault(name, run)
    return Plan(list(runs.values()), of_jobs, planner.trainer, planner.sweep, planner.logger)


@dataclass(frozen=True)
class _Composed:
    """A config that Hydra composed from a job's overrides, and its settings of the job as a whole."""

    config: DictConfig
    population: Population
    keys: frozenset[str]
    of_one_job: bool
    """Whether the config refers to the job that it was composed for, so no other may use it."""
    seed_interpolates: bool

    @functools.cached_property
    def seed(self) -> Any:
        """Return the seed."""
        return resolved(self.config, "seed")


class _Planner:
    """Composes each distinct combination of choices once, and caches it."""

    trainer: Trainer
    sweep: Sweep
    logger: Loggers

    def __init__(self, compose_job: ComposeJob, shared: frozenset[str]) -> None:
        """`shared` overrides are those of all jobs."""
        from modulab.config.settings import Reader

        self._compose_job = compose_job
        self._shared = shared
        self._composed: dict[tuple[str, ...], _Composed] = {}
        self._templates: dict[tuple[object, ...], Template] = {}
        self._reader = Reader()
        self._alike: dict[tuple[str, ...], list[tuple[Condition, int]]] = {}
        """The conditions that a job with these overrides and a seed trains, each with its offset from the seed."""

    def runs(self, overrides: Sequence[str], number: int) -> Iterator[Run]:
        """Yield the checked runs of one job.

        Of jobs that differ in the seed alone, as most of a large sweep do, the first is planned in full, and the others
        are that one at other seeds.
        """
        others = tuple(each for each in overrides if not each.startswith("seed="))
        seed = _plain_seed(overrides) if others in self._alike else None
        if seed is None:
            yield from self._runs(overrides, others, number)
            return
        for condition, offset in self._alike[others]:
            yield condition.run(seed + offset)

    def _runs(self, overrides: Sequence[str], others: tuple[str, ...], number: int) -> Iterator[Run]:
        rest, leaves = _split(overrides, self._shared)
        composed = self._compose(rest, number)
        if not composed.keys.issuperset(leaves):
            # Hydra's error for an unknown key, rewritten.
            rest, leaves = list(overrides), {}
            composed = self._compose(rest, number)
        population = composed.population
        seed_is_plain = "seed" in leaves
        if seed_is_plain:
            first_seed = leaves.pop("seed")
        elif leaves and composed.seed_interpolates:
            first_seed = self._template(composed, rest, (), tuple(leaves), number).member(leaves)["seed"]
        else:
            first_seed = composed.seed
        check_conflicts(population.grid, population.sobol.axes, overrides)
        points = sum(math.prod(map(len, grid.values())) for grid in population.grid or [{}])
        check_plan(
            points * population.seeds * population.sobol.settings,
            "population.grid with population.seeds"
            + (" and population.sobol" if population.sobol.axes else ""),
        )
        own_seeds = "seed" in population.sobol.axes or any("seed" in grid for grid in population.grid)
        conditions: list[tuple[Condition, int]] | None = [] if seed_is_plain and not own_seeds else None
        for point in expand(population.grid, population.seeds, first_seed, population.sobol.draw()):
            values = leaves | dict(point.leaves)
            template = self._template(composed, rest, point.choices, (*values, "seed"), number)
            if template.interpolates or any(map(interpolates, values.values())):
                conditions = None  # which may depend on the seed
                for seed in point.seeds:
                    yield self._reader.run(template.member(values | {"seed": seed}))
                continue
            condition = self._reader.run(template.member(values | {"seed": point.seeds[0]})).condition
            if conditions is not None:
                conditions += [(condition, seed - first_seed) for seed in point.seeds]
            for seed in point.seeds:
                yield condition.run(seed)
        if conditions is not None:
            self._alike[others] = conditions

    def _compose(self, overrides: Sequence[str], number: int) -> _Composed:
        kept = self._composed.get(tuple(overrides))
        if kept is not None and not kept.of_one_job:
            return kept
        config = compose_checked(lambda given: self._compose_job(given, number), overrides)
        composed = self._read(config)
        self._composed[tuple(overrides)] = composed
        return composed

    def _read(self, config: DictConfig) -> _Composed:
        """Return a composed config, after checking that its run-wide groups equal those of the others."""
        from modulab.config.settings import Population, Sweep, Trainer

        known = (*MEMBER_KEYS, *_RUN_KEYS)
        for key in config:
            if key not in known:
                raise ConfigError(f"{key}: there is no such key. {suggest(str(key), known)}")
        trainer = read_settings(resolved(config, "trainer"), "trainer", Trainer)
        sweep = read_settings(resolved(config, "sweep"), "sweep", Sweep)
        logger = read_loggers(resolved(config, "logger"))
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
        plain = unresolved(config)
        settings = plain.get("population")
        if isinstance(settings, dict) and "grid" in settings:
            settings["grid"] = read_grids(cast("dict[str, Any]", settings)["grid"])
        population = read_settings(settings, "population", Population)
        keys = leaf_keys({key: plain[key] for key in MEMBER_KEYS if key in plain})
        of_one_job = any("${hydra:" in str(look_in(plain, key)) for key in keys)
        seed_interpolates = interpolates(plain.get("seed"))
        return _Composed(config, population, frozenset(keys), of_one_job, seed_interpolates)

    def _template(
        self,
        composed: _Composed,
        overrides: Sequence[str],
        choices: tuple[tuple[str, str], ...],
        keys: tuple[str, ...],
        number: int,
    ) -> Template:
        kind = (tuple(overrides), choices, keys, number if composed.of_one_job else None)
        if kind not in self._templates:
            if choices:
                chosen = [f"{group}={name}" for group, name in choices]
                composed = self._compose([*without(overrides, choices), *chosen], number)
            self._templates[kind] = Template(composed.config, keys)
        return self._templates[kind]


def _plain_seed(overrides: Sequence[str]) -> int | None:
    """Return the seed that one of the overrides gives as a plain number, else None."""
    leaves = [plain_leaf(override) for override in overrides if override.startswith("seed=")]
    values = [leaf[1] for leaf in leaves if leaf is not None]
    return values[0] if len(leaves) == 1 and values and type(values[0]) is int else None


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
