"""The command `modulab claims --map`: train the settings, and draw a map of each claim."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from modulab.claims.maps.analysis import DrawnMap, draw_map
from modulab.claims.maps.definitions import PRESETS, ClaimMap, choose_maps
from modulab.claims.maps.page import PAGE, write_map_page
from modulab.claims.maps.places import Plan
from modulab.claims.maps.words import boundary_words, predicted_words
from modulab.claims.presets import not_decided
from modulab.claims.run import Experiment, asked_rows, claims_command, run_on_this_machine
from modulab.config.sobol import Axis, Sobol
from modulab.errors import ConfigError
from modulab.results.store import check_folder, load_curves
from modulab.schema import read_settings


def run_maps(
    preset: str, names: Sequence[str] | None, folder: Path, processes: int | None, progress: str
) -> tuple[list[DrawnMap], list[str]]:
    """Train what is missing of the settings of the claims named, or all that have a map, and draw maps in `folder`.

    Maps whose experiment failed are left out; the reasons are returned with the others.

    Raises: ConfigError if no map is left; KeyboardInterrupt on Ctrl-C, after which the same call continues where
    this one stopped.
    """
    maps = choose_maps(names)
    experiments = {
        each.experiment: Experiment(
            each.experiment, tuple(map_overrides(each, preset)), folder / "maps" / each.experiment
        )
        for each in maps
    }
    axes = {each.experiment: read_axes(map_overrides(each, preset)) for each in maps}
    check_folder(folder)
    run_ids, errors = run_on_this_machine(list(experiments.values()), processes, progress)
    reasons = [f"{name}: {error}" for name, error in errors.items()]
    drawn = [
        draw_map(
            each,
            axes[each.experiment],
            asked_rows(experiments[each.experiment], run_ids[each.experiment]),
            load_curves(experiments[each.experiment].folder),
        )
        for each in maps
        if each.experiment in run_ids
    ]
    if not PRESETS[preset].decides:
        # Without its surface a map has neither regions nor a boundary.
        drawn = [replace(each, surface=None, front=None, left_open=not_decided(preset)) for each in drawn]
    if not drawn:
        raise ConfigError("\n".join(reasons))
    command = claims_command(preset, names, folder, "--map")
    write_map_page(drawn, experiments, preset, command, folder)
    return drawn, reasons


def map_overrides(of: ClaimMap, preset: str) -> list[str]:
    """Return the overrides of `modulab train` that train a map's settings at a preset's size."""
    chosen = PRESETS[preset]
    own = chosen.resized.get(of.experiment, chosen.overrides)
    return [f"experiment=claims/maps/{of.experiment}", *own]


def read_axes(overrides: Sequence[str]) -> Mapping[str, Axis]:
    """Return the axes that an experiment draws its settings over. Raises: ConfigError if they make no map."""
    from modulab.config.composing import compose_checked, hydra_composer

    with hydra_composer() as compose:
        node: Any = OmegaConf.to_container(compose_checked(compose, overrides).population.sobol, resolve=True)
    axes = read_settings(node, "population.sobol", Sobol).axes
    Plan.of(axes)
    return axes


def summary(maps: Sequence[DrawnMap], folder: Path) -> tuple[list[str], list[list[str]], str]:
    """Return headings and rows of the table of boundaries, and where the page is."""
    headings = ["claim", "in words", "holds, on average over the map", "predicted"]
    rows = [
        [each.of.claim, each.of.title, boundary_words(each, None), predicted_words(each, None)]
        for each in maps
    ]
    return headings, rows, f"Map: {folder / PAGE}"
