"""How large the claims' experiments are run: as a check that all works, as they stand, or at full size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Preset:
    """What a preset changes in the experiments of configs/experiment/claims/."""

    meaning: str
    overrides: tuple[str, ...] = ()
    """Given to every experiment that is not in `replaced`."""
    replaced: Mapping[str, str] = field(default_factory=dict[str, str])
    """Experiments for which another one, of its own size, stands in."""
    resized: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    """Experiments that have overrides of their own instead of those for all."""


HARDLY_TRAINED = (
    "training.steps=20",
    "training.curve_every=20",
    "probes.num_samples=64",
    "probes.adaptation_steps=20",
    "trainer.engine=eager",
)
"""Overrides by which everything is run, and nothing decided."""

PRESETS: dict[str, Preset] = {
    "smoke": Preset(
        "a few steps at two seeds: shows that everything runs, decides nothing",
        ("population.seeds=2", *HARDLY_TRAINED),
        {"duration": "duration_smoke"},
    ),
    "quick": Preset("minutes on two cores, ten seeds for whatever a verdict rests on"),
    "full": Preset(
        "50 seeds, longer training, more modules and layers: for a cluster, a GPU or a night",
        ("population.seeds=50", "training.steps=4000"),
        {
            name: f"{name}_full"
            for name in ("samples", "robustness", "forgetting", "duration", "depth", "depth_long")
        },
        {"solutions": ("population.seeds=10000",)},
    ),
}


def experiment_overrides(experiment: str, preset: str) -> list[str]:
    """Return the overrides of `modulab train` that run an experiment at a preset's size."""
    chosen = PRESETS[preset]
    if experiment in chosen.replaced:
        return [f"experiment=claims/{chosen.replaced[experiment]}"]
    return [f"experiment=claims/{experiment}", *chosen.resized.get(experiment, chosen.overrides)]
