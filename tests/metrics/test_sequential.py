"""Learning in sequence: module 2, module 1, and module 2 again."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from modulab.config.settings import Member
from modulab.metrics.measure import find_measure
from modulab.metrics.probe import Probe, drawn_samples
from modulab.metrics.sequential import Sequential, learn_in_sequence
from modulab.metrics.taking import measure_population
from modulab.networks.base import NetworkPopulation
from modulab.report.style import label
from modulab.streams import Stream, fold_in, member_keys
from modulab.tasks.base import Samples, mixing_matrix
from modulab.tasks.regression import RegressionTask
from modulab.training.learner import PopulationLearner
from tests.members import make_member
from tests.metrics.test_forgetting import Unchangeable, as_kind, probe_of
from tests.perceptrons import torch_layers
from tests.training.fitting import CPU

PATH = "modulab.metrics.sequential.Sequential"
NAME = "forgetting/sequential/"
QUICK = {"probes__num_samples": 64, "probes__adaptation_steps": 15, "probes__adaptation_every": 5}
STAGES = ("2", "1", "2")


def members_of(count: int, task: str = "regression", **overrides: Any) -> list[Member]:
    chosen = {"probes__measures": {"sequential": PATH}, "architecture__width": 12} | QUICK | overrides
    return [make_member({"task": task}, seed=seed, **chosen) for seed in range(count)]


def take(probe: Probe) -> dict[str, Tensor]:
    found = find_measure(PATH, "probes.measures.sequential")(probe)
    return {name.removeprefix(NAME): values for name, values in found.items()}


@pytest.mark.parametrize("task", ["regression", "classification", "digits"])
def test_premodular_networks_lose_nothing_to_the_bit_and_dense_ones_lose(task: str) -> None:
    shared = {"architecture__depth": 2, "architecture__activation": "tanh", "probes__adaptation_steps": 40}
    shared |= {"probes__adaptation_learning_rate": 0.01, "probes__num_samples": 256}
    found = take(probe_of(members_of(3, task, architecture__cross_connections=0.0, **shared)))
    # Module 2's error is the same before and after module 1 learns, and module 1's before and after module 2 does.
    assert torch.equal(found["module_2@1"], found["module_2@2"])
    assert torch.equal(found["module_1@0"], found["module_1@1"])
    assert torch.equal(found["module_1@2"], found["module_1@3"])
    assert (found["module_2@1"] < found["module_2@0"]).all()
    assert found["lost"].tolist() == [0, 0, 0]
    dense = take(probe_of(members_of(3, task, **shared)))
    assert (dense["module_2@1"] != dense["module_2@2"]).all()
    assert (dense["module_1@0"] != dense["module_1@1"]).any()


@pytest.mark.parametrize(
    ("task", "code", "modules", "optimiser"),
    [
        ("regression", "mixed", 2, "adam"),
        ("regression", "coordinate", 3, "adam"),
        ("regression", "coordinate", 2, "sgd"),
        ("digits", "coordinate", 2, "adam"),
    ],
)
def test_stages_follow_torch_optim(task: str, code: str, modules: int, optimiser: str) -> None:
    member = members_of(
        1, task, task__code=code, task__modules=modules, architecture__activation="tanh",
        probes__adaptation_steps=45, probes__adaptation_batch_size=100, probes__adaptation_optimiser=optimiser,
        probes__adaptation_learning_rate={"adam": 0.003, "sgd": 0.3}[optimiser],
    )[0]  # fmt: skip
    probe = probe_of([member, member])
    found, expected = take(probe), plain_loop(member, probe)
    for stage, (one, two) in enumerate(expected.tolist()):
        assert found[f"module_1@{stage}"][0] == pytest.approx(one, rel=1e-3, abs=2e-5)
        assert found[f"module_2@{stage}"][0] == pytest.approx(two, rel=1e-3, abs=2e-5)
    before, learned, rose, _ = expected[:, 1].tolist()
    assert found["lost"][0].item() == pytest.approx((rose - learned) / (before - learned), rel=0.02, abs=1e-3)
    assert abs(rose - learned) > 5e-4


def plain_loop(member: Member, probe: Probe) -> Tensor:
    """Train torch.nn layers through the stages with an optimiser of torch: errors of modules 1 and 2, a row a stage."""
    task, settings = member.task, member.probes
    network = torch_layers(probe.seen_network)
    rotation, keys, batch = mixing_matrix(task), member_keys([member.seed]), settings.adaptation_batch_size

    def change(samples: Samples) -> Samples:
        first = task.changed(samples, 0)
        assert first is not None
        both = task.changed(first, 1)
        assert both is not None
        return both

    def outputs_of(inputs: Tensor) -> Tensor:
        return network(inputs @ rotation.T).unflatten(1, (task.modules, -1))

    def errors() -> Tensor:
        tested = change(drawn_samples(task, keys, settings.num_samples, "train"))
        outputs = outputs_of(tested.inputs[0]).detach()
        if task.loss == "squared":
            return (outputs[:, :, 0] - tested.targets[0]).square().mean(dim=0)[:2]
        return (outputs.argmax(dim=2) != tested.targets[0]).float().mean(dim=0)[:2]

    found = [errors()]
    for stage, module in enumerate((1, 0, 1)):
        kind = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}[settings.adaptation_optimiser]
        optimiser = kind(network.parameters(), lr=settings.adaptation_learning_rate)
        counters = torch.arange(settings.adaptation_steps * batch, dtype=torch.int32)[None]
        own = fold_in(fold_in(keys, Stream.SEQUENTIAL), stage)
        drawn = change(task.draw(own, counters, "train", "train"))
        for inputs, targets in zip(drawn.inputs[0].split(batch), drawn.targets[0].split(batch), strict=True):
            outputs = outputs_of(inputs)[:, module]
            if task.loss == "squared":
                loss = nn.functional.mse_loss(outputs[:, 0], targets[:, module])
            else:
                loss = nn.functional.cross_entropy(outputs, targets[:, module].long())
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        found.append(errors())
    return torch.stack(found)


@pytest.mark.parametrize("task", ["regression", "digits"])
def test_sequence_in_company_is_that_alone_bit_for_bit(task: str) -> None:
    torch.set_num_threads(1)
    members = members_of(7, task, architecture__activation="tanh")
    learner = PopulationLearner(members, "eager", CPU)
    parameters, masks, keys = learner.member_parameters(), learner.member_masks(), member_keys(range(7))
    parameters[3] = torch.nan

    def measured(places: list[int], block_bytes: int = 1 << 30) -> dict[str, Tensor]:
        networks = NetworkPopulation(learner.network, parameters[places])
        return measure_population(
            members[0].task, networks, keys[places], members[0].probes, masks[places], block_bytes
        )

    everyone = measured(list(range(7)))
    assert everyone["forgetting/sequential/lost"][3].isnan()
    for places, block_bytes in (([6], 1 << 30), ([5, 0, 6], 1 << 30), (list(range(7)), 1)):
        for name, values in measured(places, block_bytes).items():
            expected = everyone[name][places]
            assert torch.equal(values.view(torch.int64), expected.view(torch.int64)), name


class SameParabola(RegressionTask):
    """A task of parabolas that asks for their negative, which a network learns by its readout alone."""

    def changed(self, samples: Samples, module: int = 0) -> Samples:
        targets = samples.targets.clone()
        targets[:, :, module] *= -1
        return Samples(samples.inputs, targets)


def test_savings_are_the_steps_that_learning_again_need_not_take() -> None:
    members = members_of(
        4, architecture__width=32, task__functions=["parabola"], probes__adaptation_steps=200,
        probes__adaptation_learning_rate=0.01, probes__adaptation_every=4, probes__num_samples=256,
    )  # fmt: skip
    probe = probe_of(members, as_kind(members[0].task, SameParabola))
    found, stages = take(probe), learn_in_sequence(probe)
    assert stages is not None
    limits = 0.1 * stages[0].constant_errors
    for member in range(4):
        first, again = (
            next(
                step
                for step, error in zip(stage.steps, stage.errors[:, member, 1], strict=True)
                if error < limits[member]
            )
            for stage in (stages[0], stages[2])
        )
        assert found["learning_steps"][member] == first
        assert found["relearning_steps"][member] == again
        assert found["relearning/savings"][member].item() == pytest.approx(1 - again / first)
        assert 0 < again < first < 200


def test_savings_are_undefined_where_module_2_was_not_learned_the_first_time() -> None:
    found = take(probe_of(members_of(2)))
    assert found["learning_steps"].tolist() == [15, 15]
    assert found["relearning/savings"].isnan().all()
    assert found["lost"].isfinite().all()


def test_tasks_without_other_functions_or_other_modules_are_left_out() -> None:
    members = members_of(2)
    assert take(probe_of(members, as_kind(members[0].task, Unchangeable))) == {}
    probe = probe_of(members_of(2, task__modules=1))
    assert (
        Sequential.model_validate({}).lacking(probe.network.network, probe.task) == "the task has one module"
    )
    assert take(probe) == {}


def test_values_have_words() -> None:
    assert label(f"{NAME}lost") == "Share of module 2's learning lost"
    assert label(f"{NAME}module_2@3") == "Error of module 2 after stage 3"
