"""The settings of one member: everything that determines its result, group by group as in configs/."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field, field_validator

from modulab.config.identity import RunIds, canonical, group_in_current_form
from modulab.config.sobol import Sobol
from modulab.errors import ConfigError, ForeignError, foreign_code
from modulab.measure_names import better, given_measure, stands_for
from modulab.networks.base import Architecture
from modulab.networks.self_trained import SelfTrained
from modulab.noise import Noise
from modulab.regularisers import PowerRegulariser, Regulariser
from modulab.schema import STRUCTURAL, Settings, read_settings, suggest
from modulab.tasks.base import Task

_MOST_SEEDS = 2**63
_LARGEST_LEVEL = 1e30
"""A limit far below the range of single precision, also for squared levels of activity."""


class Data(Settings):
    """How much a member sees, and which points."""

    num_samples: int | None = Field(
        ge=1, description="number of distinct training points; null draws new points at every step"
    )
    sampling: Literal["random", "grid"] = Field(
        description="random draws separate points for each seed; grid uses a regular grid over all "
        "coordinates, the same for all seeds"
    )


class Training(Settings):
    """The optimiser and its schedule."""

    steps: int = Field(ge=1, description="optimiser steps", json_schema_extra=STRUCTURAL)
    batch_size: int = Field(
        ge=1, description="points per step, drawn with replacement", json_schema_extra=STRUCTURAL
    )
    precision: Literal["float32", "float64"] = Field(
        description="precision of weights, gradients and optimiser state in training; float64 needs the "
        "eager engine. Points, initial weights, noise and measures are always float32",
        json_schema_extra=STRUCTURAL,
    )
    optimiser: Literal["adam", "adamw", "sgd"] = Field(
        description="adam and sgd add weight decay to the gradient, adamw applies it to the weights",
        json_schema_extra=STRUCTURAL,
    )
    learning_rate: float = Field(gt=0, description="peak learning rate")
    schedule: Literal["constant", "linear", "cosine", "plateau"] = Field(
        description="how the learning rate falls from its peak: linear and cosine reach 0 at the last step, "
        "plateau lowers it when the monitored curve has no new minimum"
    )
    warmup_steps: int = Field(
        ge=0, description="steps over which the learning rate first rises linearly to its peak"
    )
    weight_decay: float = Field(ge=0, description="coefficient of weight decay on weights and biases")
    gradient_clip: float | None = Field(
        gt=0, description="largest gradient norm of a member; null switches clipping off"
    )
    momentum: float = Field(ge=0, lt=1, description="momentum of sgd")
    beta1: float = Field(ge=0, lt=1, description="decay of adam's mean gradient")
    beta2: float = Field(ge=0, lt=1, description="decay of adam's mean squared gradient")
    epsilon: float = Field(gt=0, description="added to adam's denominator")
    curve_every: int = Field(
        ge=1,
        description="steps between points of the curves; training can be resumed from these points",
        json_schema_extra=STRUCTURAL,
    )
    monitor: str = Field(
        description="the curve used for early stopping and schedule=plateau: training/loss, or an error of "
        "probes.curves"
    )
    stopping_threshold: float | None = Field(
        ge=0,
        description="a network stops at the first point at which its monitored curve is at or below "
        "this value",
    )
    patience: int | None = Field(
        ge=1,
        description="a network stops when its monitored curve has had no new minimum for this many steps",
    )
    plateau_steps: int = Field(
        ge=1,
        description="schedule=plateau: steps without a new minimum after which the learning rate is lowered",
    )
    plateau_factor: float = Field(
        gt=0, lt=1, description="schedule=plateau: factor by which the learning rate is multiplied then"
    )

    @property
    def may_stop(self) -> bool:
        """Return whether a network may stop before its last step."""
        return self.stopping_threshold is not None or self.patience is not None

    @property
    def is_monitored(self) -> bool:
        """Return whether a curve stops a network or lowers its learning rate."""
        return self.may_stop or self.schedule == "plateau"


class Probes(Settings):
    """What is measured after training, and on how much."""

    num_samples: int = Field(ge=1, description="evaluation points per member", json_schema_extra=STRUCTURAL)
    repeats: int = Field(
        ge=1,
        description="weight noise and ablation: number of perturbed networks, among which the points are "
        "divided",
        json_schema_extra=STRUCTURAL,
    )
    levels: list[float] = Field(
        min_length=1,
        description="levels of the noise perturbations, in rising order",
        json_schema_extra=STRUCTURAL,
    )
    ablated_fractions: list[float] = Field(
        description="shares of hidden units to ablate, each in (0, 1)", json_schema_extra=STRUCTURAL
    )
    ranges: list[float] = Field(
        description="factors of the training range at which to test extrapolation",
        json_schema_extra=STRUCTURAL,
    )
    error_floor: float = Field(
        gt=0,
        description="the tolerance is the level at which the error reaches twice the larger of the clean "
        "error and this value",
        json_schema_extra=STRUCTURAL,
    )
    adaptation_steps: int = Field(
        ge=1,
        description="forgetting: steps after module 1's function has changed",
        json_schema_extra=STRUCTURAL,
    )
    adaptation_batch_size: int = Field(
        ge=1, description="forgetting: new points per step", json_schema_extra=STRUCTURAL
    )
    adaptation_learning_rate: float = Field(
        gt=0, description="forgetting: constant learning rate", json_schema_extra=STRUCTURAL
    )
    adaptation_optimiser: Literal["adam", "sgd"] = Field(
        description="forgetting: Adam, or plain gradient descent on minibatches", json_schema_extra=STRUCTURAL
    )
    adaptation_every: int = Field(
        ge=1, description="forgetting: steps between evaluations of the errors", json_schema_extra=STRUCTURAL
    )
    adaptation_error: float = Field(
        gt=0,
        lt=1,
        description="forgetting: module 1 is learned below this share of a constant answer's error",
        json_schema_extra=STRUCTURAL,
    )
    curves: list[str] = Field(
        description="measures recorded during training in addition to the loss; patterns such as "
        "modularity/* are allowed",
        json_schema_extra=STRUCTURAL,
    )
    sparse_curves: list[str] = Field(
        description="slow measures, recorded during training at fewer points",
        json_schema_extra=STRUCTURAL,
    )
    sparse_every: int = Field(
        ge=1,
        description="sparse_curves are recorded at every this many points of the curves, and at the last step",
        json_schema_extra=STRUCTURAL,
    )
    measures: dict[str, str | dict[str, Any] | None] = Field(
        description="dotted path of a measure, or its _target_ and parameters; null omits the measure",
        json_schema_extra=STRUCTURAL,
    )

    @field_validator("levels", "ablated_fractions", "ranges")
    @classmethod
    def _rising(cls, values: list[float]) -> list[float]:
        if any(value <= 0 for value in values) or sorted(set(values)) != values:
            raise ValueError(f"{values}: values must be above 0, in rising order without repetition.")
        if any(value > _LARGEST_LEVEL for value in values):
            raise ValueError(f"{values}: the largest value here is {_LARGEST_LEVEL:g}.")
        return values

    @field_validator("ablated_fractions")
    @classmethod
    def _below_one(cls, fractions: list[float]) -> list[float]:
        if any(fraction >= 1 for fraction in fractions):
            raise ValueError(f"{fractions}: shares must be below 1. Ablating every unit leaves no network.")
        return fractions


class Member(Settings):
    """One run: a network to train, with everything that determines its result."""

    seed: int = Field(
        ge=0, lt=_MOST_SEEDS, description="determines the data, initial weights, minibatches and noise"
    )
    task: Task
    architecture: Architecture
    noise: Noise
    regulariser: Regulariser
    data: Data
    training: Training
    probes: Probes


_GROUPS: dict[str, type[Settings]] = {
    "task": Task,
    "architecture": Architecture,
    "noise": Noise,
    "regulariser": Regulariser,
    "data": Data,
    "training": Training,
    "probes": Probes,
}


class Trainer(Settings):
    """How members are trained. Nothing here is part of a result, beyond rounding."""

    accelerator: Literal["auto", "cpu", "cuda"] = Field(
        description="device; auto uses CUDA if it is available"
    )
    engine: Literal["auto", "eager", "compiled", "native", "native_measures"] = Field(
        description="native generates C++ for each step, native_measures also for measures, compiled uses "
        "TorchInductor, eager neither; auto continues with the engine that began the folder, otherwise selects "
        "native or native_measures on CPUs if training is long enough to repay compiling"
    )
    threads: int | None = Field(
        ge=1,
        description="number of CPU threads; null means one for the eager engine, all cores for the others",
    )
    memory_gib: float | None = Field(
        gt=0, description="memory that a population may use, in GiB; null means half of the free memory"
    )
    largest_population: int | None = Field(
        ge=1,
        description="largest number of networks in a population; null chooses a number that is fast on the "
        "device",
    )
    checkpoint_seconds: float = Field(
        ge=0, description="minimum time between checkpoints of a population, in seconds"
    )
    progress: Literal["auto", "bar", "lines", "off"] = Field(
        description="how progress is shown; auto means a bar on a terminal, and lines elsewhere"
    )


class Population(Settings):
    """Members that one run trains together, besides the one that its other settings describe."""

    seeds: int = Field(
        ge=1, description="number of seeds (seed, seed + 1, ...) for every combination of the grid"
    )
    grid: list[dict[str, list[Any]]] = Field(
        description="values for each key or group, of which all combinations are trained; a list of grids "
        "trains their union"
    )
    sobol: Sobol = Field(
        description="settings drawn from a Sobol sequence over axes, each trained with "
        "every combination of the grid"
    )

    @field_validator("sobol", mode="before")
    @classmethod
    def _read(cls, sobol: Any) -> Any:
        return sobol if isinstance(sobol, Sobol) else read_settings(sobol, "population.sobol", Sobol)


class Sweep(Settings):
    """What a run or sweep does besides training. Nothing here is part of a result."""

    dry_run: bool = Field(
        description="print what would be trained and an estimate of the time, but train nothing"
    )
    objective: str | list[str] | None = Field(
        description="measures that each job returns to a search, averaged over its members; null returns all"
    )
    job_folders: bool = Field(description="also create a separate folder for each job of a packed sweep")

    @field_validator("objective", mode="before")
    @classmethod
    def _names(cls, objective: Any) -> Any:
        names: list[Any] = [*objective] if isinstance(objective, list) else [objective]
        if objective is not None and not all(isinstance(name, str) for name in names):
            raise ValueError(f"{objective!r}: give the name of a measure, or a list of names.")
        if objective is None:
            return None
        return given_measure(objective) if isinstance(objective, str) else [*map(given_measure, names)]


class Condition:
    """All settings of a member but its seed, checked: members that differ in nothing else share one.

    A plan of a million members has as many conditions as settings, and of each group one object for each of its values.
    """

    __slots__ = ("_config", "_member", "_run_ids")

    def __init__(self, member: Member, config: Mapping[str, Any], run_ids: RunIds) -> None:
        self._member = member
        self._config = config
        self._run_ids = run_ids

    @property
    def example(self) -> Member:
        """Return a member with these settings and some seed: always the same object."""
        return self._member

    def member(self, seed: int) -> Member:
        """Return the member with this seed."""
        return self._member if seed == self._member.seed else self._member.model_copy(update={"seed": seed})

    def config(self, seed: int) -> dict[str, Any]:
        """Return the plain config of the member with this seed, of which it shares all groups with the others."""
        return {**self._config, "seed": seed}

    def run(self, seed: int) -> Run:
        """Return the run of the member with this seed. Raises: ConfigError for an invalid seed."""
        return Run(self._run_ids.of(_checked_seed(seed)), seed, self)


@dataclass(frozen=True, slots=True)
class Run:
    """A checked member, and the run_id, which is the hash of its config."""

    run_id: str
    seed: int
    condition: Condition

    @property
    def member(self) -> Member:
        """Return the member."""
        return self.condition.member(self.seed)

    @property
    def config(self) -> dict[str, Any]:
        """Return the member's plain config as stored with results."""
        return self.condition.config(self.seed)


@dataclass(frozen=True)
class _ReadGroup:
    """A group of settings: checked, in plain values as stored with results, and in the form hashed for run_ids."""

    settings: Settings
    understood: dict[str, Any]
    canonical: str


class Reader:
    """Reads configs of members that have much in common: each value of a group, and each condition, once."""

    def __init__(self) -> None:
        self._groups: dict[tuple[str, str], _ReadGroup] = {}
        self._conditions: dict[tuple[int, ...], Condition] = {}

    def run(self, config: Mapping[str, Any]) -> Run:
        """Return the checked run of a plain, resolved config with the keys of `Member` and no others.

        The run's config contains the values as checked, so equal settings are written in the same way.

        Raises: ConfigError for unknown keys, wrong types, values out of range and impossible combinations.
        """
        for key in config:
            if key not in Member.model_fields:
                raise ConfigError(f"{key}: there is no such key. {suggest(str(key), Member.model_fields)}")
        for key in Member.model_fields:
            if key not in config:
                raise ConfigError(f"{key}: a value is missing.")
        return self._condition(config).run(config["seed"])

    def _condition(self, config: Mapping[str, Any]) -> Condition:
        groups = {name: self._group(name, config[name]) for name in _GROUPS}
        key = tuple(map(id, groups.values()))
        if key not in self._conditions:
            self._conditions[key] = _checked_condition(groups, _checked_seed(config["seed"]))
        return self._conditions[key]

    def _group(self, name: str, node: Any) -> _ReadGroup:
        # Plain values are equal where they are written alike, which does not take 1 for True or 1.0.
        key = name, repr(node)
        if key not in self._groups:
            node = group_in_current_form(name, node)
            settings = read_settings(node, name, _GROUPS[name])
            target = {"_target_": node["_target_"]} if "_target_" in node else {}
            understood = target | settings.model_dump(mode="json")
            self._groups[key] = _ReadGroup(settings, understood, canonical(name, understood))
        return self._groups[key]


def read_run(config: Mapping[str, Any]) -> Run:
    """Return the checked run of one config: see `Reader.run`."""
    return Reader().run(config)


def read_runs(configs: Iterable[Mapping[str, Any]]) -> list[Run]:
    """Return the checked runs of configs that have much in common: see `Reader.run`."""
    reader = Reader()
    return [reader.run(config) for config in configs]


def _checked_condition(groups: Mapping[str, _ReadGroup], seed: int) -> Condition:
    member = Member.model_validate({"seed": seed, **{name: group.settings for name, group in groups.items()}})
    _check_combinations(member)
    _check_effects(member)
    config = {"seed": seed, **{name: group.understood for name, group in groups.items()}}
    return Condition(member, config, RunIds({name: group.canonical for name, group in groups.items()}))


def _checked_seed(seed: Any) -> int:
    if type(seed) is int and 0 <= seed < _MOST_SEEDS:
        return seed
    return read_settings({"seed": seed}, "", _Seed).seed


class _Seed(Settings):
    seed: int = Field(
        ge=0, lt=_MOST_SEEDS, description="determines the data, initial weights, minibatches and noise"
    )


def _check_self_trained(member: Member, architecture: SelfTrained) -> None:
    """Raise ConfigError for settings that have no effect where a module trains itself."""
    architecture.check()
    training = member.training
    for key, is_set in (
        (f"noise.scale={member.noise.scale}", member.noise.scale > 0),
        (f"regulariser.strength={member.regulariser.strength}", member.regulariser.strength > 0),
        ("task.code=mixed", member.task.mixing),
        (
            f"training.stopping_threshold={training.stopping_threshold}",
            training.stopping_threshold is not None,
        ),
        (f"training.patience={training.patience}", training.patience is not None),
        ("training.schedule=plateau", training.schedule == "plateau"),
        (f"training.precision={training.precision}", training.precision != "float32"),
    ):
        if is_set:
            raise ConfigError(
                f"{key} has no effect, because architecture={architecture.name} trains itself, by its own "
                "training_step. Remove it, and write noise, penalties and callbacks in the module itself."
            )


def _check_combinations(member: Member) -> None:
    with foreign_code():
        member.task.check_training(member.data.num_samples, member.training.batch_size)
        if member.regulariser.strength > 0:
            member.regulariser.check_training(member.training.curve_every)
    if isinstance(member.architecture, SelfTrained):
        _check_self_trained(member, member.architecture)
        return
    # A task that fails while its sizes are read has a row with the error; other members are not affected.
    with suppress(ForeignError), foreign_code():
        network = member.architecture.network(member.task)
        for samples in (member.training.batch_size, member.probes.num_samples):
            network.check_batch(samples)
        if member.task.mixing and not network.turns_inputs:
            raise ConfigError(
                f"task.code=mixed needs a network whose first weights can absorb a rotation, and those of "
                f"architecture={member.architecture.name} cannot. Choose another task.code or another architecture."
            )
        lacking = member.regulariser.lacking(network)
        if member.regulariser.strength > 0 and lacking is not None:
            raise ConfigError(
                f"regulariser.strength={member.regulariser.strength} has no effect, because the network of "
                f"architecture={member.architecture.name} lacks {lacking}. Choose another regulariser or architecture, "
                "or set regulariser.strength=0."
            )
        if member.noise.is_on and member.noise.sites == "pre_activation" and not network.pre_activations:
            raise ConfigError(
                f"noise.sites=pre_activation has no effect, because the network of "
                f"architecture={member.architecture.name} has no pre-activations at which noise could act. Set "
                "noise.sites to all, first, last or input, or choose another architecture."
            )
        if member.noise.is_on and not member.noise.acts_on_inputs and not network.sites:
            can_name = "sites" in type(member.architecture).model_fields
            raise ConfigError(
                f"noise.scale={member.noise.scale} has no effect, because the network of "
                f"architecture={member.architecture.name} has no sites where units are active. "
                + ("Name submodules in architecture.sites" if can_name else "Choose another architecture")
                + ", or set noise.scale=0."
            )
    if member.data.sampling == "grid":
        if member.data.num_samples is None:
            raise ConfigError(
                "data.sampling=grid needs a number of points. Set data.num_samples, or data.sampling=random."
            )
        with foreign_code():
            member.task.points_per_coordinate(member.data.num_samples)
    _check_monitor(member)
    if member.training.warmup_steps > member.training.steps:
        raise ConfigError(
            f"training.warmup_steps={member.training.warmup_steps} exceeds training.steps={member.training.steps}. "
            "Lower it, or train longer."
        )


def _check_monitor(member: Member) -> None:
    """Raise ConfigError if training depends on a curve that is not recorded, or whose least value is not best."""
    training = member.training
    if not training.is_monitored:
        return
    name = training.monitor
    recorded = name == "training/loss" or any(stands_for(pattern, name) for pattern in member.probes.curves)
    if not recorded:
        raise ConfigError(
            f"training.monitor={name} is not a curve recorded at every point. Name it in probes.curves, which has "
            f"{', '.join(member.probes.curves) or 'none'}, or set training.monitor=training/loss."
        )
    if better(name) != "lower":
        raise ConfigError(
            f"training.monitor={name}: the least value of this curve is not the best. Choose an error, such as "
            "error/test, or training/loss."
        )


def _check_effects(member: Member) -> None:
    noise, regulariser = member.noise, member.regulariser
    if noise.scale > 0 and not noise.has_variance:
        raise ConfigError(
            f"noise.scale={noise.scale} has no effect, because noise={noise.name} has no variance. "
            "Choose a law, such as noise=poisson, or set noise.scale=0."
        )
    powerless = isinstance(regulariser, PowerRegulariser) and (
        regulariser.weight_power == regulariser.activity_power == 0
    )
    if powerless and regulariser.strength > 0:
        raise ConfigError(
            f"regulariser.strength={regulariser.strength} has no effect, because both powers are 0. "
            "Choose another, such as regulariser=activity_weight, or set regulariser.strength=0."
        )


def structural_key(member: Member) -> tuple[tuple[str, object], ...]:
    """Return every setting that all members of a population must share, as (dotted key, value)."""
    found: list[tuple[str, object]] = [
        ("task", type(member.task)),
        ("architecture", type(member.architecture)),
        ("architecture", member.architecture.structure),
    ]
    for name in _GROUPS:
        found += _structural_texts(name, getattr(member, name))
    return tuple(found)


@functools.lru_cache(maxsize=1024)
def _structural_texts(name: str, group: Settings) -> list[tuple[str, object]]:
    return [(f"{name}.{field}", repr(value)) for field, value in structural_values(group)]


def structural_values(group: Settings) -> list[tuple[str, object]]:
    """Return the fields of a group, with their values, that all members of a population must share."""
    found: list[tuple[str, object]] = []
    for field, information in type(group).model_fields.items():
        extra = information.json_schema_extra
        if isinstance(extra, dict) and extra.get("structural"):
            found.append((field, getattr(group, field)))
    return found
