"""Sizes of the claims' experiments: as a test that everything runs, as configured, or at full size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from modulab.errors import ConfigError
from modulab.schema import suggest


@dataclass(frozen=True)
class Preset:
    """What a preset changes in the experiments of configs/experiment/claims/."""

    meaning: str
    overrides: tuple[str, ...] = ()
    """Overrides of every experiment that is not in `replaced`."""
    replaced: Mapping[str, str] = field(default_factory=dict[str, str])
    """Experiments that are replaced by another one with its own size."""
    resized: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    """Experiments that have their own overrides instead of those for all."""
    decides: bool = True
    """Whether the networks are trained long enough for verdicts."""
    looks: tuple[int, ...] = (1,)
    """Numbers of seeds at which verdicts are sought, as multiples of the first, which is that of the experiment."""
    first_seed: int = 0


HARDLY_TRAINED = (
    "training.steps=20",
    "training.curve_every=20",
    "probes.num_samples=64",
    "probes.adaptation_steps=20",
    "trainer.engine=eager",
)
"""Overrides with which everything is run, but nothing decided."""

LOOKS = (1, 2, 4)
REPLICATION = 1000
"""The first seed of runs that decide: thresholds were chosen with results of seeds from 0 on in view."""

PRESETS: dict[str, Preset] = {
    "smoke": Preset(
        "a few steps at two seeds: tests that everything runs, decides nothing",
        ("population.seeds=2", *HARDLY_TRAINED),
        {"duration": "duration_smoke"},
        decides=False,
    ),
    "quick": Preset(
        "minutes on two cores, ten seeds or more for whatever a verdict rests on",
        looks=LOOKS,
        first_seed=REPLICATION,
    ),
    "full": Preset(
        "50 seeds or more, longer training, more modules and layers: for a cluster, a GPU or a night",
        ("population.seeds=50", "training.steps=4000"),
        {
            name: f"{name}_full"
            for name in ("samples", "robustness", "forgetting", "duration", "depth", "depth_long")
        },
        {"solutions": ("population.seeds=10000",)},
        looks=LOOKS,
        first_seed=REPLICATION,
    ),
}


def choose_preset(name: str, processes: int | None) -> Preset:
    """Return a preset. Raises: ConfigError if there is none of this name, and for a wrong number of processes."""
    if name not in PRESETS:
        raise ConfigError(f"--preset {name}: there is no such preset. {suggest(name, PRESETS)}")
    if processes is not None and processes < 1:
        raise ConfigError(f"--processes {processes}: give a number of 1 or more.")
    return PRESETS[name]


def not_decided(preset: str) -> str:
    """Return the text in place of a verdict where a preset decides nothing."""
    return f"not decided ({preset})"


def banner(name: str, preset: Preset) -> str:
    """Return the warning for a preset that decides nothing; empty for others."""
    if preset.decides:
        return ""
    return (
        f"The preset {name} only tests that everything runs. Its networks are hardly trained, so nothing is "
        "decided, and the numbers mean nothing. For verdicts, use --preset quick or full."
    )


def experiment_overrides(experiment: str, preset: str) -> list[str]:
    """Return the overrides of `modulab train` that run an experiment at a preset's size."""
    chosen = PRESETS[preset]
    first = [f"seed={chosen.first_seed}"] if chosen.first_seed else []
    if experiment in chosen.replaced:
        return [f"experiment=claims/{chosen.replaced[experiment]}", *first]
    return [f"experiment=claims/{experiment}", *chosen.resized.get(experiment, chosen.overrides), *first]
