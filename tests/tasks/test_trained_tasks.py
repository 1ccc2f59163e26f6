"""Training of tasks and codes in which modules have no inputs or outputs of their own, and of points on a grid."""

from __future__ import annotations

import math
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch

import modulab
from modulab.config.settings import read_run, structural_key
from modulab.networks.perceptron import Perceptron, architecture_mask
from modulab.report.sweep_report import write_report
from modulab.streams import member_keys
from modulab.training.data import PopulationData
from modulab.training.program import network_of
from tests.config.test_composing import plan
from tests.members import make_member, member_config
from tests.training.fitting import CPU, trained_parameters

QUICK = [
    "training.steps=2", "training.curve_every=1", "data.num_samples=32", "probes=forgetting",
    "probes.adaptation_steps=2", "probes.num_samples=16", "probes.repeats=1", "probes.levels=[0.3]",
    "trainer.accelerator=cpu", "trainer.engine=eager", "trainer.threads=1", "trainer.progress=off",
]  # fmt: skip
NO_INPUTS = {"structural", "frame_null", "functional", "unit_specialisation"}
NO_OUTPUTS = {*NO_INPUTS, "ablation", "ranges", "forgetting", "cross_tangent"}
NO_LOGITS = {"functional_centred"}
LACKING = {
    ("task=regression", "task.code=bump"): ("inputs", {*NO_INPUTS, "ranges", "combination"}),
    ("task=sum_of_products", "task.support=band"): (None, set()),
    ("task=shared_output", "task.support=cells"): ("outputs", NO_OUTPUTS),
    ("task=overlap",): (None, {"combination"}),
    ("task=overlap", "task.share=1.0", "task.support=corner"): ("inputs", NO_INPUTS),
    ("task=retina",): ("outputs", {*NO_OUTPUTS, "combination"}),
    ("task=bump_position",): ("inputs", {*NO_INPUTS, "ranges", "combination"}),
    ("task=bump_position", "task.direction=to_image", "task.support=corner"): ("outputs", NO_OUTPUTS),
}
"""What modules lack, and the measures that are skipped for it."""


@pytest.mark.parametrize("overrides", LACKING, ids=" ".join)
def test_task_trains_and_measures_that_it_has_no_modules_for_are_skipped_with_the_reason(
    overrides: tuple[str, ...], tmp_path: Path
) -> None:
    what, lacking = LACKING[overrides]
    [row] = modulab.train([*QUICK, *overrides], folder=tmp_path).table.to_dict("records")
    assert row["status"] == "completed"
    reasons = dict(reason.split(": ", 1) for reason in (row["skipped"] or "").split("; ") if reason)
    assert set(reasons) == lacking | NO_LOGITS
    if what is not None:
        assert reasons["structural"] == f"not every module of the task has {what} of its own"
    measured = {name: row[name] for name in row if "/" in name}
    assert all(math.isfinite(value) for value in measured.values()), measured
    assert ("modularity/structural" in measured) == ("structural" not in lacking)
    assert ("modularity/ablation" in measured) == ("ablation" not in lacking)
    assert ("forgetting/module_1" in measured) == ("forgetting" not in lacking)
    assert ("error_beyond/combination" in measured) == ("combination" not in lacking)


def test_pictures_of_networks_sorted_by_module_are_left_out_where_there_are_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    modulab.train([*QUICK, "task=shared_output"], folder=tmp_path)
    write_report(tmp_path)
    assert "is left out: not every module of the task has outputs of its own" in capsys.readouterr().err
    assert not list(tmp_path.rglob("connectivity*"))


def test_members_that_differ_in_nonlinearity_pack_and_end_with_the_weights_they_have_alone() -> None:
    torch.set_num_threads(1)
    members = [
        make_member(
            {"noise": "poisson"}, seed=3, noise__scale=0.2, task__nonlinearity=share, architecture__width=6,
            training__steps=6, training__curve_every=3, training__batch_size=5, data__num_samples=20,
        )
        for share in (0.0, 0.25, 1.0)
    ]  # fmt: skip
    assert len({structural_key(member) for member in members}) == 1
    packed = trained_parameters(members)
    for place, member in enumerate(members):
        assert torch.equal(packed[place], trained_parameters([member])[0])
    assert not torch.equal(packed[0], packed[1])


def test_codes_of_other_sizes_are_trained_apart() -> None:
    keys = {
        structural_key(make_member(task__code=code, task__bump_grid=grid))
        for code in ("coordinate", "bump")
        for grid in (4, 5)
    }
    assert len(keys) == 4


def test_premodular_network_of_bump_code_reads_all_inputs_in_every_module() -> None:
    member = make_member(task__code="bump", task__bump_grid=3)
    network = network_of(member)
    assert isinstance(network, Perceptron)
    mask = architecture_mask(network, member.task.partition, [0.0], member_keys([0]))
    (reads, writes), _ = network.unflatten(mask)
    assert (reads == 1).all()
    assert torch.equal(writes[0], torch.tensor([[1.0] * 24 + [0.0] * 24, [0.0] * 24 + [1.0] * 24]))


@pytest.mark.parametrize("code", ["coordinate", "mixed", "bump"])
def test_grid_of_training_points_covers_all_coordinates_and_is_the_same_for_all_seeds(code: str) -> None:
    members = [
        make_member(
            seed=seed, task__code=code, task__functions=["identity", "parabola"], data__sampling="grid",
            data__num_samples=16, task__bump_grid=3,
        )
        for seed in (0, 5)
    ]  # fmt: skip
    population = PopulationData(members, 0, CPU)
    assert population.offsets.tolist() == [0, 0]
    table = population.chunk(0).table
    values = [-1.0, -1 / 3, 1 / 3, 1.0]
    expected = torch.tensor([[x, y] for x in values for y in values])
    assert len(table) == 16
    torch.testing.assert_close(table[:, -2], expected[:, 0])
    torch.testing.assert_close(table[:, -1], 2 * expected[:, 1] ** 2 - 1, atol=1e-6, rtol=0)
    inputs = table[:, :-2]
    if code == "coordinate":
        torch.testing.assert_close(inputs, expected)
    else:
        torch.testing.assert_close(inputs.norm(dim=1), (expected if code == "mixed" else inputs).norm(dim=1))
        assert len(inputs.unique(dim=0)) == 16


def test_members_on_a_grid_draw_their_own_minibatches_and_keep_apart_from_random_points() -> None:
    torch.set_num_threads(1)
    members = [
        make_member(
            seed=seed, data__sampling=sampling, data__num_samples=samples, architecture__width=6, training__steps=4,
            training__curve_every=2, training__batch_size=5,
        )
        for seed, sampling, samples in ((0, "grid", 16), (1, "grid", 16), (0, "random", 16), (0, "grid", 9))
    ]  # fmt: skip
    population = PopulationData(members, 0, CPU)
    assert len(population.chunk(0).table) == 16 + 16 + 9
    assert population.offsets[0] == population.offsets[1]
    packed = trained_parameters(members)
    for place, member in enumerate(members):
        assert torch.equal(packed[place], trained_parameters([member])[0])
        assert not torch.equal(packed[place], packed[place - 1])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, ["data.num_samples=4000", "3969 (that is 63^2)", "4096 (that is 64^2)", "data.sampling=random"]),
        ({"task__modules": 40}, ["data.num_samples=4000", "40 coordinates"]),
        ({"data__num_samples": 1}, ["data.num_samples=1", "4 (that is 2^2)"]),
        ({"data__num_samples": None}, ["data.sampling=grid", "data.num_samples"]),
        ({"data__num_samples": 4096, "task__support": "band"}, ["task.support=band", "task.support=full"]),
    ],
)
def test_grids_that_cannot_be_are_refused_with_the_nearest_sizes(
    changes: dict[str, Any], words: list[str]
) -> None:
    with pytest.raises(modulab.ConfigError) as error:
        make_member(**({"data__sampling": "grid", "data__num_samples": 4000} | changes))
    for word in words:
        assert word in str(error.value)


def test_tasks_without_coordinates_refuse_grids() -> None:
    with pytest.raises(
        modulab.ConfigError, match=r"data\.sampling=grid needs inputs that are coordinates.*digits"
    ):
        make_member({"task": "digits"}, data__sampling="grid")


def test_sampling_at_random_is_what_configs_without_the_key_mean() -> None:
    config = member_config()
    del config["data"]["sampling"]
    assert read_run(config).run_id == read_run(member_config()).run_id
    assert read_run(config).run_id != read_run(member_config(data__sampling="grid")).run_id


def test_commands_of_the_page_on_tasks_are_accepted() -> None:
    page = (Path(__file__).parents[2] / "docs" / "tasks.md").read_text()
    commands = [line.split(maxsplit=2)[2] for line in page.splitlines() if line.startswith("modulab train ")]
    assert len(commands) >= 8
    for command in commands:
        assert plan(*shlex.split(command)).runs


def test_native_engine_trains_bump_code_as_the_eager_one(tmp_path: Path) -> None:
    settings = [
        "task.code=bump", "task.bump_grid=4", "training.steps=20", "training.curve_every=20", "data.num_samples=64",
        "probes.num_samples=64", "trainer.accelerator=cpu", "trainer.progress=off",
    ]  # fmt: skip
    errors: list[float] = []
    for engine in ("eager", "native"):
        [row] = modulab.train(
            [*settings, f"trainer.engine={engine}"], folder=tmp_path / engine
        ).table.to_dict("records")
        assert row["engine"] == engine
        errors.append(row["error/test"])
    assert errors[1] == pytest.approx(errors[0], rel=1e-4)
