"""Points of the curves: which measures are taken at each of them, and how often."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from modulab.config.settings import Member, read_run
from modulab.errors import ConfigError
from modulab.metrics.measure import Column, curve_measures, measure
from modulab.metrics.probe import Probe
from modulab.progress import ProgressReport
from modulab.tasks.base import Region, Samples, Split
from modulab.training.fit import PopulationResult, fit_population
from modulab.training.recorder import Interrupted
from tests.members import EAGERLY, make_member, member_config
from tests.training.test_fit import CtrlC
from tests.wide_task import WideTask

QUICK = {
    "training__steps": 35, "training__curve_every": 5, "training__batch_size": 8, "architecture__width": 4,
    "probes__num_samples": 16, "probes__curves": ["error/test"],
}  # fmt: skip
TAKEN: list[int] = []
"""How many members a costly measure was taken of, each time."""


@measure(Column("costly/mean", "Mean output"), Column("costly/largest", "Largest output"))
def costly(probe: Probe) -> dict[str, Tensor]:
    TAKEN.append(len(probe.keys))
    outputs = probe.clean.outputs
    return {"costly/mean": outputs.mean(dim=(1, 2)), "costly/largest": outputs.amax(dim=(1, 2))}


def members(**changes: Any) -> list[Member]:
    measures = {
        "errors": "modulab.metrics.errors.measure_errors", "costly": f"{__name__}.costly",
    }  # fmt: skip
    settings = {**QUICK, "probes__measures": measures, **changes}
    return [make_member(seed=seed, **settings) for seed in range(3)]


def fitted(folder: Path, name: str, **changes: Any) -> PopulationResult:
    TAKEN.clear()
    return fit_population(members(**changes), EAGERLY, folder / name, ProgressReport("off", 3, 105))


def test_sparse_curves_have_points_of_their_own_and_each_is_measured_once(tmp_path: Path) -> None:
    often = fitted(tmp_path, "often", probes__curves=["error/test", "costly/mean"])
    assert TAKEN == [3] * (7 + 1)  # at each point, and at the end
    seldom = fitted(tmp_path, "seldom", probes__sparse_curves=["costly/mean"], probes__sparse_every=3)
    assert TAKEN == [3] * (3 + 1)
    assert seldom.curve_steps == often.curve_steps == [5, 10, 15, 20, 25, 30, 35]
    assert seldom.curves.keys() == often.curves.keys() == {"training/loss", "error/test", "costly/mean"}
    for place, step in enumerate(seldom.curve_steps):
        assert seldom.curves["error/test"][place] == often.curves["error/test"][place]
        found = seldom.curves["costly/mean"][place]
        if step in (15, 30, 35):  # every third point, and the last step
            assert found == often.curves["costly/mean"][place]
        else:
            assert len(found) == 3
            assert all(map(math.isnan, found))
    assert seldom.measures == often.measures


def test_measures_that_no_curve_asks_for_are_taken_at_the_end_alone(tmp_path: Path) -> None:
    fitted(tmp_path, "neither")
    assert TAKEN == [3]


@pytest.mark.parametrize("chunks", [2, 4])
def test_sparse_curves_of_a_resumed_fit_are_those_of_one_that_was_not_broken(
    chunks: int, tmp_path: Path
) -> None:
    sparse = {"probes__sparse_curves": ["costly/*"], "probes__sparse_every": 3}
    whole = fitted(tmp_path, "whole", **sparse)
    with pytest.raises(Interrupted):
        fit_population(members(**sparse), EAGERLY, tmp_path / "broken", CtrlC(after=chunks * 15))
    resumed = fitted(tmp_path, "broken", **sparse)
    assert repr(resumed.curves) == repr(whole.curves)
    assert {"costly/mean", "costly/largest"} < resumed.curves.keys()


def test_a_sparse_curve_that_no_measure_gives_is_refused_and_none_can_be_monitored() -> None:
    probes = make_member(probes__sparse_curves=["graph/weigth/modularity"]).probes
    with pytest.raises(
        ConfigError, match=r"probes\.sparse_curves: no measure gives 'graph/weigth/modularity'"
    ):
        curve_measures(probes)
    with pytest.raises(
        ConfigError, match=r"training\.monitor=error/module_1 is not a curve recorded at every point"
    ):
        make_member(
            probes__sparse_curves=["error/module_1"], probes__curves=["modularity/structural"],
            training__monitor="error/module_1", training__patience=10,
        )  # fmt: skip


class OnlyForTraining(WideTask):
    """A task that has no points but those of training."""

    def draw(
        self, keys: Tensor, counters: Tensor, region: Region, split: Split, scales: Tensor | None = None
    ) -> Samples:
        """Return points for training. Raises: AssertionError for others."""
        assert split == "train"
        return super().draw(keys, counters, region, split, scales)


def test_nothing_is_drawn_to_be_measured_where_nothing_is_measured() -> None:
    config = member_config(**{**QUICK, "probes__curves": [], "probes__measures": {}})
    config["task"]["_target_"] = f"{__name__}.OnlyForTraining"
    result = fit_population([read_run(config).member], EAGERLY, None, ProgressReport("off", 1, 35))
    assert result.failures == {}
    assert result.measures == {}
    assert [len(values) for values in result.curves.values()] == [7]
