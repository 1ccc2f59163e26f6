from __future__ import annotations

import pytest
import torch

from modulab.analysis.analysis import Trained
from modulab.analysis.curriculum import Curriculum, changed
from modulab.errors import ConfigError
from modulab.training.learner import initialise
from modulab.training.program import network_of
from tests.analysis.blocks import block, members, shipped
from tests.training.fitting import trained_parameters

SMALL = {"architecture__width": 8, "task__length": 4, "training__steps": 6, "training__curve_every": 6}


def blocks(**settings: int | float) -> Trained:
    some = members(2, "recurrent_blocks", "bit_memory", **(SMALL | settings))
    return block(some, initialise(some, network_of(some[0]))[1])


def test_one_stage_that_changes_nothing_is_training_from_there() -> None:
    trained = blocks()
    found = shipped("curriculum", stages=[{"task.recent": 2}], steps=6, every=6, level=1e-9).take(trained)
    parameters = trained_parameters(list(trained.members))
    probe = trained.probe
    outputs = probe.network.network.forward(parameters, probe.samples.inputs)
    task = probe.task
    expected = task.loss_function.errors(outputs, probe.samples.targets, task.partition).double().mean(dim=1)
    assert found["error_stage_1"].tolist() == expected.tolist()
    assert found["steps"].tolist() == [6, 6]
    assert found["passed"].tolist() == [0, 0]


def test_what_a_stage_unmasks_is_trained_and_what_has_not_grown_stays_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trained = blocks(architecture__grown=1)
    seen: list[torch.Tensor] = []
    errors = Curriculum._errors

    def look(self: Curriculum, probe: object, some: object, parameters: torch.Tensor) -> torch.Tensor:
        seen.append(parameters)
        return errors(self, probe, some, parameters)

    monkeypatch.setattr(Curriculum, "_errors", look)
    stages = [{"architecture.grown": 2}, {"architecture.grown": 4, "task.recent": 3}]
    found = shipped("curriculum", stages=stages, steps=4, every=4, level=2.0).take(trained)
    # Errors are below 1, so that all stages are passed without a step: weights are those of growth alone.
    assert found["passed"].tolist() == [2, 2]
    assert found["steps"].tolist() == [0, 0]
    for parameters, grown in zip(seen, (2, 4), strict=True):
        some = [changed(member, {"architecture.grown": grown}) for member in trained.members]
        assert torch.equal(parameters, initialise(some, network_of(some[0]))[1])
    seen.clear()
    shipped("curriculum", stages=stages[:1], steps=4, every=4, level=1e-9).take(trained)
    mask, fresh = initialise(
        [changed(member, stages[0]) for member in trained.members], network_of(trained.members[0])
    )
    assert (seen[-1][mask == 0] == 0).all()
    assert ((seen[-1] != fresh) & (mask > 0) & (trained.probe.mask == 0)).any(dim=1).all()


def test_a_network_that_fails_a_stage_does_not_begin_the_next() -> None:
    stages = [{"task.recent": 2}, {"task.recent": 3}]
    found = shipped("curriculum", stages=stages, steps=4, every=2, level=1e-9).take(blocks())
    assert found["error_stage_1"].isfinite().all()
    assert found["error_stage_2"].isnan().all()
    assert found["steps_stage_2"].isnan().all()


@pytest.mark.parametrize(
    ("stages", "reason"),
    [
        ([{"task.recent": 2}, {"architecture.depth": 2}], "stage 2: it has no setting architecture.depth."),
        ([{"task.recent": 9}], "task.recent=9 is more than"),
        ([{"task.length": 5}], "stage 1: the network would have another structure"),
        ([{"task.recent": 3}, {"architecture.grown": 5}], "stage 2: architecture.grown=5 is more"),
    ],
)
def test_networks_that_cannot_go_through_the_stages_are_skipped_with_the_reason(
    stages: list[dict[str, int]], reason: str
) -> None:
    [member] = members(1, "recurrent_blocks", "bit_memory", **SMALL)
    assert reason in (shipped("curriculum", stages=stages).lacking(network_of(member), member) or "")


def test_a_setting_that_a_member_does_not_have_cannot_be_changed() -> None:
    [member] = members(1)
    assert changed(member, {"noise.scale": 0.3}).noise.scale == 0.3
    with pytest.raises(ConfigError, match=r"no setting noise\.size"):
        changed(member, {"noise.size": 0.3})
