"""A network that stops early has the bits of one that was trained for so many steps, whatever trains beside it."""

from __future__ import annotations

import math
import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import modulab
from modulab.config.settings import Member, Training
from modulab.errors import ConfigError
from modulab.progress import ProgressReport
from modulab.sweep.trained import load_members
from modulab.training.execution import Execution
from modulab.training.fit import PopulationResult, fit_population
from modulab.training.recorder import Interrupted, OnPoint
from modulab.training.stopping import plateau_factor, stopping_step
from tests.members import make_member

SMALL = {
    "architecture__width": 8, "training__steps": 60, "training__curve_every": 10, "training__batch_size": 16,
    "training__schedule": "constant", "training__learning_rate": 0.01, "data__num_samples": 64,
    "probes__num_samples": 64, "probes__curves": ["error/test"],
    "probes__measures": {"errors": "modulab.metrics.errors.measure_errors"},
}  # fmt: skip
STOPS = {"training__monitor": "training/loss", "training__stopping_threshold": 0.3}


def small(**changes: Any) -> Member:
    return make_member(**{**SMALL, **changes})


def settings_of(**changes: Any) -> Training:
    return small(**changes).training


def fitted(
    members: Sequence[Member], checkpoint: Path, engine: Any = "eager", on_point: OnPoint | None = None
) -> tuple[PopulationResult, torch.Tensor]:
    """Return what a fit gives, and the parameters that its checkpoint ends with."""
    execution = Execution(engine, torch.device("cpu"), asked_threads=1)
    result = fit_population(members, execution, checkpoint, ProgressReport("off", 1, 1), on_point)
    content = torch.load(checkpoint, weights_only=True)
    return result, content["state_dict"]["parameters_by_row"][content["modulab"]["row_of_member"]]


def test_a_network_stops_at_the_threshold_or_when_patience_ends() -> None:
    steps, values = [10, 20, 30, 40, 50, 60], [0.9, 0.5, 0.6, 0.5, 0.4, 0.45]
    found = {
        (threshold, patience): stopping_step(
            steps, values, settings_of(training__stopping_threshold=threshold, training__patience=patience)
        )
        for threshold in (None, 0.45, 0.5, 0.1)
        for patience in (None, 20, 25, 40)
    }
    # A value equal to the least one is no progress: at 40, the least one is 20 steps old.
    by_patience = {None: None, 20: 40, 25: None, 40: None}
    assert found == {
        (threshold, patience): {0.5: 20, 0.45: 40 if patience == 20 else 50}.get(
            threshold or 0.0, by_patience[patience]
        )
        for threshold, patience in found
    }


def test_what_is_not_finite_is_no_progress_and_nothing_to_wait_for() -> None:
    patient = settings_of(training__patience=20)
    assert stopping_step([10, 20, 30, 40], [math.nan] * 4, patient) is None
    assert stopping_step([10, 20, 30, 40], [1.0, math.nan, math.nan, 0.1], patient) == 30


def test_the_learning_rate_falls_where_torchs_plateau_schedule_lowers_it() -> None:
    random = np.random.default_rng(0)
    for chunks in (1, 2, 5):
        training = settings_of(training__schedule="plateau", training__plateau_steps=10 * chunks)
        values = np.round(np.abs(np.cumsum(random.normal(size=60))), 1).tolist()
        optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
        oracle = torch.optim.lr_scheduler.ReduceLROnPlateau(
            optimiser, factor=training.plateau_factor, patience=chunks - 1, threshold=0.0, eps=0.0
        )
        steps = [10 * (place + 1) for place in range(len(values))]
        for count, value in enumerate(values, start=1):
            oracle.step(value)
            assert plateau_factor(steps[:count], values[:count], training) == optimiser.param_groups[0]["lr"]
        assert optimiser.param_groups[0]["lr"] < 1


@pytest.mark.parametrize("engine", ["eager", "native"])
def test_a_stopped_network_has_the_bits_of_so_many_steps_and_leaves_others_theirs(
    engine: str, tmp_path: Path
) -> None:
    seeds = range(5)
    stopping = [small(seed=seed, **STOPS) for seed in seeds]
    whole = [small(seed=seed) for seed in seeds]
    result, weights = fitted([*stopping, *whole], tmp_path / "packed.ckpt", engine)
    stops = result.stopped_at[:5]
    assert len({at for at in stops if at is not None}) >= 2, "members should stop at different steps"
    assert result.stopped_at[5:] == [None] * 5
    alone, without = fitted(whole, tmp_path / "whole.ckpt", engine)
    assert torch.equal(weights[5:], without)
    assert result.measures["error/test"][5:] == alone.measures["error/test"]
    for place, at in enumerate(stops):
        shorter = small(seed=place, training__steps=at or 60)
        short, exact = fitted([shorter], tmp_path / f"{place}.ckpt", engine)
        assert torch.equal(weights[place], exact[0])
        assert result.measures["error/test"][place] == short.measures["error/test"][0]
        single, same = fitted([stopping[place]], tmp_path / f"{place}_alone.ckpt", engine)
        assert single.stopped_at == [at]
        assert torch.equal(same[0], exact[0])


def test_the_table_says_when_each_network_stopped_and_curves_end_there(tmp_path: Path) -> None:
    keys = {
        "architecture.width": 8,
        "data.num_samples": 64,
        "training.batch_size": 16,
        "probes.num_samples": 64,
    }
    results = modulab.train(
        [
            *(f"{key}={value}" for key, value in keys.items()), "training.steps=60", "training.curve_every=10",
            "training.schedule=constant", "training.learning_rate=0.01", "training.monitor=training/loss",
            "population.grid={training.stopping_threshold: [null, 0.3]}", "population.seeds=3",
            "trainer.engine=eager", "trainer.threads=1", "trainer.accelerator=cpu", "logger=csv",
        ],
        folder=tmp_path,
    )  # fmt: skip
    table = results.table.set_index("run_id")
    stopping = table[table["config.training.stopping_threshold"].notna()]
    assert table["training/steps"].notna().sum() == 3
    assert stopping["training/steps"].min() < 60
    for name, row in table.iterrows():
        own = results.curves[
            (results.curves["run_id"] == name) & (results.curves["measure"] == "training/loss")
        ]
        assert own["step"].max() == (60 if math.isnan(row["training/steps"]) else row["training/steps"])
        assert own["value"].notna().all()
        if row["training/steps"] < 60:
            assert own["value"].iloc[-1] <= 0.3 < own["value"].iloc[:-1].min()
        logged = pd.read_csv(tmp_path / "csv" / str(name) / "metrics.csv").dropna(subset=["training/loss"])
        assert logged["step"].tolist() == own["step"].tolist()
    assert sum(len(group.configs) for group in load_members(tmp_path)) == 6


@pytest.mark.parametrize("plateau", [{}, {"training__schedule": "plateau", "training__plateau_steps": 10}])
def test_a_break_changes_no_bit_of_networks_that_stop(plateau: Mapping[str, Any], tmp_path: Path) -> None:
    members = [small(seed=seed, **(STOPS | plateau)) for seed in range(4)]
    result, weights = fitted(members, tmp_path / "whole.ckpt")
    stops = sorted(60 if at is None else at for at in result.stopped_at)
    assert stops[0] < stops[-1]

    def interrupt(step: int, values: Mapping[str, list[float]]) -> None:
        if step == stops[0]:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted):
        fitted(members, tmp_path / "broken.ckpt", on_point=interrupt)
    again, same = fitted(members, tmp_path / "broken.ckpt")
    assert torch.equal(weights, same)
    assert again.stopped_at == result.stopped_at
    assert again.measures == result.measures
    assert repr(again.curves) == repr(result.curves)
    # And a checkpoint of the end is measured, without a step more.
    third, kept = fitted(members, tmp_path / "broken.ckpt")
    assert torch.equal(weights, kept)
    assert third.measures == result.measures


def test_a_plateau_lowers_the_learning_rate_of_its_own_network_alone(tmp_path: Path) -> None:
    plateau = {
        "training__schedule": "plateau",
        "training__plateau_steps": 10,
        "training__monitor": "training/loss",
    }
    lowered = small(training__learning_rate=1.0, **plateau)
    both, weights = fitted([small(), lowered], tmp_path / "both.ckpt")
    _, constant = fitted([small()], tmp_path / "constant.ckpt")
    _, alone = fitted([lowered], tmp_path / "alone.ckpt")
    _, never = fitted([small(training__learning_rate=1.0)], tmp_path / "never.ckpt")
    assert torch.equal(weights[0], constant[0])
    assert torch.equal(weights[1], alone[0])
    assert not torch.equal(weights[1], never[0])
    losses = [values[1] for values in both.curves["training/loss"]]
    assert plateau_factor(both.curve_steps[:-1], losses[:-1], lowered.training) < 1


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"training__patience": 20, "training__monitor": "error/train"}, "not a curve recorded"),
        (
            {
                "training__stopping_threshold": 0.1, "training__monitor": "modularity/structural",
                "probes__curves": ["modularity/structural"],
            },
            "not the best",
        ),
    ],
)  # fmt: skip
def test_a_curve_that_cannot_be_monitored_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        small(**changes)
