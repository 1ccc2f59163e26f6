"""Made-up results of the claims' experiments, in worlds where every claim is true and where nothing matters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from modulab.claims import thresholds
from modulab.claims.presets import experiment_overrides
from modulab.claims.registry import LONGEST_FIRST
from modulab.config.composing import hydra_composer, plan_run
from modulab.results.tables import result_table

LEVELS = (0.1, 0.2, 0.3, 0.5, 1.0)
ROBUSTNESS = (
    "gaussian",
    "poisson",
    "poisson_energy",
    "multiplicative",
    "poisson_counts",
    "weight_noise",
    "input_noise",
)
ERRORS = (
    "error/test",
    *(f"error_under/{name}@{level:g}" for name in ROBUSTNESS for level in LEVELS),
    *(f"error_under/ablation@{level:g}" for level in (0.05, 0.1, 0.2, 0.4)),
    *(
        f"error_beyond/{kind}@{factor:g}"
        for kind in ("other_range", "own_range")
        for factor in (1.5, 2, 4, 10)
    ),
    "error_beyond/combination",
    "error_beyond/combination_ratio",
)
OTHERS = (
    "modularity/structural",
    "modularity/structural_frame_null",
    "modularity/structural_excess",
    "modularity/structural_excess_scaled",
    "modularity/functional",
    "activity/mean",
    "forgetting/others_rise",
    "forgetting/others_rise_at_learned",
    "forgetting/adaptation_steps",
    "forgetting/cross_tangent",
    "forgetting/sequential/lost",
    "relearning/savings",
)


@cache
def planned(experiment: str, preset: str = "quick", *more: str) -> pd.DataFrame:
    """Return the rows of an experiment's members as if each had completed, without measures."""
    overrides = [*experiment_overrides(experiment, preset), *more]
    with hydra_composer() as compose:
        plan = plan_run(compose(overrides), overrides, compose)
    number = len(plan.runs)
    table = result_table(
        [run.config for run in plan.runs],
        plan.run_ids,
        ["completed"] * number,
        [None] * number,
        [0.0] * number,
        measures={},
    )
    return table.to_pandas()


def _setting(rows: pd.DataFrame, key: str) -> NDArray[np.float64]:
    return rows[f"config.{key}"].to_numpy(dtype=np.float64, na_value=np.nan)


def true_world(rows: pd.DataFrame) -> dict[str, NDArray[np.float64]]:
    """Return every member's expected structural modularity and errors where all claims hold, with large effects."""
    task = rows["config.task.name"].iloc[0]
    regression = task == "regression"
    sigma, strength = _setting(rows, "noise.scale"), _setting(rows, "regulariser.strength")
    kind = rows["config.regulariser.name"].to_numpy(dtype=str)
    noise = rows["config.noise.name"].to_numpy(dtype=str)
    twin = np.isin(kind, ["activity_weight", "jacobian"]) & (strength > 0)
    matched = np.where(
        twin,
        np.sqrt((2 if regression else 20) * strength),
        np.where(np.isin(noise, ["poisson", "multiplicative", "dropout"]), sigma, 0),
    )
    linear = (rows["config.architecture.activation"] == "linear").to_numpy(dtype=bool)
    depth = _setting(rows, "architecture.depth")
    nonlinearity = _setting(rows, "task.nonlinearity") if regression else np.ones(len(rows))
    gain = 0.6 * (1 - np.exp(-8 * matched)) * ~linear / depth**2
    standard = np.where(twin, 0, strength) / 1e-3
    premodular = (rows["config.architecture.name"] == "premodular").to_numpy(dtype=bool)
    separate = _setting(rows, "architecture.cross_connections") == 0

    constant = thresholds.CONSTANT_ERROR[task]
    modules, samples = _setting(rows, "task.modules"), _setting(rows, "data.num_samples")
    grown = 1 / (1 + (3 * 1.9**modules / np.where(np.isnan(samples), 4096, samples)) ** 2)
    error = constant * (0.002 + 0.1 * matched**2 + 0.01 * standard + np.where(sigma > 0, 0.02 * sigma**2, 0))
    under_noise = constant * np.where(
        premodular, np.where(matched > 0, 0.02, 0.05), np.where((matched > 0) | separate, 0.05, 0.2)
    )
    elsewhere = constant * np.where(premodular, 0.002, np.where(matched > 0, 0.1, 0.5))
    structural = np.where(premodular, 1.0, (0.3 + gain) * grown)
    return {
        "modularity/structural": structural,
        "modularity/structural_frame_null": np.full(len(rows), 0.2),
        "modularity/structural_excess": gain * nonlinearity * grown,
        # without noise all networks are modular with two modules, and none with more
        "modularity/structural_excess_scaled": np.where((sigma > 0) | (modules == 2), 0.9, 0.2),
        "error/test": error + constant * (1 - grown),
        "error_under": under_noise,
        "error_beyond": elsewhere,
        "forgetting/others_rise": constant * np.where(premodular, 0.0, np.where(matched > 0, 0.1, 0.5)),
        "forgetting/sequential/lost": np.where(premodular, 0.0, np.where(matched > 0, 0.1, 0.5)),
    }


def null_world(rows: pd.DataFrame) -> dict[str, NDArray[np.float64]]:
    """Return what members are expected to give where no setting matters."""
    constant = thresholds.CONSTANT_ERROR[rows["config.task.name"].iloc[0]]
    return {
        "modularity/structural": np.full(len(rows), 0.5),
        "modularity/structural_excess": np.full(len(rows), 0.2),
        "modularity/structural_excess_scaled": np.full(len(rows), 0.5),
        "error/test": np.full(len(rows), 0.005 * constant),
        "error_under": np.full(len(rows), 0.1 * constant),
        "error_beyond": np.full(len(rows), 0.1 * constant),
        "forgetting/others_rise": np.full(len(rows), 0.1 * constant),
        "forgetting/sequential/lost": np.full(len(rows), 0.2),
    }


World = Callable[[pd.DataFrame], Mapping[str, NDArray[np.float64]]]


MEASURES = (*ERRORS, *OTHERS)


@cache
def _expected(experiment: str, world: World, seeds: int | None) -> tuple[pd.DataFrame, NDArray[np.float64]]:
    """Return an experiment's rows, and what a world expects of each of `MEASURES` in each of them."""
    rows = planned(experiment, "quick", *([] if seeds is None else [f"population.seeds={seeds}"]))
    found = world(rows)
    levels = [
        found.get(name, found.get(name.split("/")[0], found["modularity/structural"])) for name in MEASURES
    ]
    return rows, np.stack(levels)


def simulate(
    experiment: str, world: World, random: np.random.Generator, spread: float = 0.05, seeds: int | None = None
) -> pd.DataFrame:
    """Return results of an experiment in a world, with what seeds have in common and what each network adds."""
    rows, levels = _expected(experiment, world, seeds)
    own = rows["config.seed"].to_numpy(dtype=int)
    shared = random.normal(size=own.max() + 1)[own]
    values = spread * (shared + random.normal(size=levels.shape))
    errors = values[: len(ERRORS)]
    np.multiply(levels[: len(ERRORS)], np.exp(4 * errors), out=errors)
    values[len(ERRORS) :] += levels[len(ERRORS) :]
    return pd.concat([rows, pd.DataFrame(values.T, columns=list(MEASURES))], axis=1)


def shuffle_arms(results: pd.DataFrame, random: np.random.Generator) -> pd.DataFrame:
    """Return results in which each seed's measures are dealt out anew to the arms."""
    order = np.arange(len(results))
    for places in results.groupby("config.seed").indices.values():
        order[places] = random.permutation(places)
    dealt = results[list(MEASURES)].iloc[order].reset_index(drop=True)
    return pd.concat([results.drop(columns=list(MEASURES)), dealt], axis=1)


def all_experiments() -> tuple[str, ...]:
    """Return the names of all experiments."""
    return LONGEST_FIRST
