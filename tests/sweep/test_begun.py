"""A folder is gone on with by the engine that has begun there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

import modulab
from modulab.config.composing import compose_checked, hydra_composer, plan_run
from modulab.results.manifest import checkpoint_path
from modulab.results.store import save_part
from modulab.results.tables import Status, result_table
from modulab.sweep.begun import engine_begun
from modulab.sweep.run import Work, begin, plan_work
from modulab.training import engine as engines_of_training
from tests.command_line import SMALL
from tests.training.fitting import compiled_stand_in

A, B, C = ("a" * 16, "b" * 16, "c" * 16)


def folder_with(folder: Path, engines: dict[str, str | None], status: Status = "completed") -> Path:
    """Write one row for each name, trained by an engine."""
    for run_id, engine in engines.items():
        save_part(
            folder, run_id,
            result_table([{"seed": 0}], [run_id], [status], [None], [1.0], {}, engines=[engine]),
        )  # fmt: skip
    return folder


@pytest.mark.parametrize(
    ("engines", "run_ids", "begun"),
    [
        ({}, [A], None),
        ({A: "compiled"}, [A, B], "compiled"),
        ({A: "native"}, [B], "native"),
        ({A: "eager"}, [A], "eager"),
        ({A: "eager"}, [A, B], None),
        ({A: "eager", B: "compiled"}, [A, B, C], "compiled"),
        ({A: "eager", B: "compiled", C: "native"}, [A], "native"),
        ({A: "lightning", B: None}, [A, B], None),
    ],
)
def test_the_fastest_engine_of_a_folder_goes_on_and_the_eager_one_only_with_what_was_there(
    engines: dict[str, str | None], run_ids: Sequence[str], begun: str | None, tmp_path: Path
) -> None:
    (tmp_path / "run").mkdir()
    assert engine_begun(folder_with(tmp_path / "run", engines), run_ids, []) == begun


@pytest.mark.parametrize(
    ("saved", "rows", "begun"),
    [
        ({"engines": ["native", "compiled"]}, None, "native"),
        ({"engine": "compiled"}, None, "compiled"),
        ({}, None, "compiled"),
        ({}, "eager", "eager"),
        ({"engines": [1, 2]}, None, "compiled"),
    ],
)
def test_half_trained_populations_count_like_rows(
    saved: dict[str, Any], rows: str | None, begun: str, tmp_path: Path
) -> None:
    path = checkpoint_path(tmp_path, [A, B])
    path.parent.mkdir()
    torch.save({"modulab": {"members": [{}, {}], **saved}}, path)
    folder_with(tmp_path, {A: None, B: None, C: rows}, "missing")
    assert engine_begun(tmp_path, [A, B, C], [[A, B]]) == begun


def test_a_damaged_checkpoint_names_no_engine(tmp_path: Path) -> None:
    path = checkpoint_path(tmp_path, [A])
    path.parent.mkdir()
    path.write_bytes(b"PK\x03\x04 cut short")
    assert engine_begun(tmp_path, [A], [[A]]) is None


def planned(folder: Path, *overrides: str) -> Work:
    keys = {each.partition("=")[0] for each in overrides} | {"trainer.engine"}
    settings = [each for each in SMALL if each.partition("=")[0] not in keys]
    with hydra_composer() as compose:
        given = [*settings, "trainer.progress=off", *overrides]
        plan = plan_run(compose_checked(compose, given), given, compose)
    return plan_work(plan.runs, plan.trainer, folder)


def test_planned_networks_are_trained_by_the_engine_that_they_were_planned_for(tmp_path: Path) -> None:
    assert planned(tmp_path).execution.engine == "eager"
    begin(planned(tmp_path, "trainer.engine=native", "population.seeds=2"), tmp_path)
    assert planned(tmp_path).execution.engine == "native"
    begin(planned(tmp_path, "trainer.engine=eager", "population.seeds=2"), tmp_path)
    assert planned(tmp_path, "population.seeds=2").execution.engine == "eager"
    # Those that are added are more than the eager engine was chosen for.
    assert planned(tmp_path, "population.seeds=3", "training.steps=400").execution.engine == "native"


def test_a_sweep_of_the_compiled_engine_ends_in_the_same_bits_under_auto(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines_of_training, "_cpu_step", compiled_stand_in)
    settings = [each for each in SMALL if not each.startswith("trainer.engine")]
    settings += ["trainer.progress=off", "noise=poisson", "noise.scale=0.2"]

    def table(name: str, engine: str, seeds: int) -> pd.DataFrame:
        overrides = [*settings, f"population.seeds={seeds}", f"trainer.engine={engine}"]
        found = modulab.train(overrides, folder=tmp_path / name).table
        return found.drop(columns="seconds").sort_values("run_id", ignore_index=True)

    whole = table("whole", "compiled", seeds=3)
    table("begun", "compiled", seeds=1)
    resumed = table("begun", "auto", seeds=3)
    assert set(resumed["engine"]) == {"compiled"}
    pd.testing.assert_frame_equal(resumed, whole, check_exact=True)
    assert not table("other", "eager", seeds=3)["error/test"].equals(whole["error/test"])
