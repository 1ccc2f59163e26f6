from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from modulab.config.settings import Member
from modulab.errors import ConfigError
from modulab.metrics.forgetting import adapt, measure_forgetting
from modulab.metrics.probe import Probe, drawn_samples, make_probe
from modulab.metrics.taking import measure_population
from modulab.networks.base import NetworkPopulation
from modulab.progress import ProgressReport
from modulab.streams import Stream, fold_in, member_keys
from modulab.tasks.base import Samples, Task, mixing_matrix
from modulab.tasks.regression import RegressionTask
from modulab.training.fit import fit_population
from modulab.training.learner import PopulationLearner
from tests.members import EAGERLY, make_member
from tests.perceptrons import perceptrons, torch_layers
from tests.training.fitting import CPU

MEASURES = {"forgetting": "modulab.metrics.forgetting.measure_forgetting"}
QUICK = {"probes__num_samples": 64, "probes__adaptation_steps": 15, "probes__adaptation_every": 5}
NAMES = {"others_rise", "others_rise_at_learned", "adaptation_steps", "module_1"}


def members_of(count: int, task: str = "regression", **overrides: Any) -> list[Member]:
    chosen = {"probes__measures": MEASURES, "architecture__width": 12} | QUICK | overrides
    return [make_member({"task": task}, seed=seed, **chosen) for seed in range(count)]


def probe_of(members: list[Member], task: Task | None = None, masked: bool = True) -> Probe:
    """Return a probe of untrained networks."""
    learner = PopulationLearner(members, "eager", CPU)
    keys = member_keys([member.seed for member in members])
    mask = learner.member_masks() if masked else None
    return make_probe(
        task or members[0].task,
        perceptrons(NetworkPopulation(learner.network, learner.member_parameters())),
        keys,
        members[0].probes,
        mask,
    )


@pytest.mark.parametrize(
    ("task", "code"),
    [
        ("regression", "coordinate"),
        ("regression", "mixed"),
        ("classification", "coordinate"),
        ("digits", "coordinate"),
    ],
)
def test_premodular_networks_forget_nothing_to_the_bit_and_dense_ones_forget(task: str, code: str) -> None:
    shared = {"task__code": code, "architecture__depth": 2, "architecture__activation": "tanh"}
    premodular = members_of(3, task, architecture__cross_connections=0.0, **shared)
    adaptation = adapt(probe_of(premodular))
    assert adaptation is not None
    assert torch.equal(adaptation.errors[:, :, 1], adaptation.errors[:1, :, 1].expand(4, 3))
    # The same weights, were the connections across modules free to grow.
    for members, masked in ((premodular, False), (members_of(3, task, **shared), True)):
        adaptation = adapt(probe_of(members, masked=masked))
        assert adaptation is not None
        assert (adaptation.errors[1:, :, 1] != adaptation.errors[0, :, 1]).any()


@pytest.mark.parametrize("task", ["regression", "classification", "digits"])
def test_module_1_learns_and_the_change_costs_trained_networks_what_the_others_had_learned(task: str) -> None:
    member = members_of(
        1, task, architecture__width=32, training__steps=300, training__curve_every=300, probes__num_samples=256,
        probes__adaptation_steps=150, probes__adaptation_learning_rate=1e-2, data__num_samples=1024,
    )[0]  # fmt: skip
    modular = member.model_copy(
        update={"architecture": member.architecture.model_copy(update={"cross_connections": 0.0})}
    )
    found = fit_population([member, modular], EAGERLY, None, ProgressReport("off", 2, 600)).measures
    assert {name for name in found if name.startswith("forgetting/")} == {f"forgetting/{n}" for n in NAMES}
    rise, none = found["forgetting/others_rise"]
    assert rise > 0.01
    assert none == found["forgetting/others_rise_at_learned"][1] == 0
    # From what knowing the old function gave, half of chance and worse, to better than that.
    assert max(found["forgetting/module_1"]) < {"regression": 0.1, "classification": 0.4, "digits": 0.5}[task]


CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "regression": ("regression", {"task__support": "band"}),
    "deep": (
        "regression",
        {"task__modules": 3, "task__code": "mixed", "architecture__depth": 2, "architecture__activation": "softplus"},
    ),
    "classification": ("classification", {"task__support": "labels", "architecture__activation": "sigmoid"}),
    "digits": ("digits", {"architecture__activation": "tanh", "probes__adaptation_batch_size": 37}),
}  # fmt: skip


@pytest.mark.parametrize("case", list(CASES))
def test_adaptation_in_company_is_that_alone_bit_for_bit(case: str) -> None:
    torch.set_num_threads(1)
    task, overrides = CASES[case]
    members = members_of(9, task, **overrides)
    learner = PopulationLearner(members, "eager", CPU)
    parameters, masks = learner.member_parameters(), learner.member_masks()
    parameters[3] = torch.nan
    keys = member_keys(range(9))

    def measure(places: list[int], block_bytes: int = 1 << 30) -> dict[str, Tensor]:
        return measure_population(
            members[0].task,
            NetworkPopulation(learner.network, parameters[places]),
            keys[places],
            members[0].probes,
            masks[places],
            block_bytes,
        )

    everyone = measure(list(range(9)))
    for places, block_bytes in (([8], 1 << 30), ([7, 0, 8], 1 << 30), (list(range(9)), 1)):
        for name, values in measure(places, block_bytes).items():
            expected = everyone[name][places]
            assert torch.equal(values.view(torch.int64), expected.view(torch.int64)), name


class Unchanged(RegressionTask):
    """A task whose change is none."""

    def changed(self, samples: Samples) -> Samples:
        return samples


class Unchangeable(RegressionTask):
    """A task without another function, as a user's own may be."""

    def changed(self, samples: Samples) -> None:
        return None


def as_kind(task: Task, kind: type[Task]) -> Task:
    return kind.model_validate(task.model_dump())


def test_a_function_that_stays_is_learned_at_once_and_nothing_is_forgotten() -> None:
    # relu units x and -x, read out as 2 (x)_+ + 2 (-x)_+ - 1 = 2|x| - 1, the function of both modules.
    members = members_of(2, architecture__width=4, task__functions=["absolute"])
    probe = probe_of(members, as_kind(members[0].task, Unchanged))
    first, second = (weight.zero_() for weight in probe.seen_network.weights)
    first[:, 0, 0] = first[:, 2, 1] = 1.0
    first[:, 1, 0] = first[:, 3, 1] = -1.0
    second[:, 0, :2] = second[:, 1, 2:] = 2.0
    probe.seen_network.biases[1].fill_(-1.0)
    found = measure_forgetting(probe)
    assert found["forgetting/adaptation_steps"].tolist() == [0, 0]
    assert found["forgetting/module_1"].max() < 1e-9
    assert found["forgetting/others_rise"].abs().max() < 1e-9
    assert found["forgetting/others_rise_at_learned"].tolist() == [0, 0]


def test_tasks_without_another_function_or_other_modules_leave_out_what_they_lack() -> None:
    members = members_of(2)
    assert measure_forgetting(probe_of(members, as_kind(members[0].task, Unchangeable))) == {}
    single = measure_forgetting(probe_of(members_of(2, task__modules=1)))
    assert set(single) == {"forgetting/adaptation_steps", "forgetting/module_1"}


@pytest.mark.parametrize(
    ("task", "code", "depth"),
    [
        ("regression", "coordinate", 1),
        ("regression", "mixed", 2),
        ("regression", "bump", 1),
        ("classification", "mixed", 1),
        ("digits", "coordinate", 1),
    ],
)
def test_adaptation_follows_torch_optim(task: str, code: str, depth: int) -> None:
    member = members_of(
        1, task, task__code=code, architecture__depth=depth, architecture__activation="tanh",
        probes__adaptation_steps=70, probes__adaptation_every=70, probes__adaptation_batch_size=100,
    )[0]  # fmt: skip
    probe = probe_of([member, member])
    adaptation = adapt(probe)
    assert adaptation is not None
    expected = plain_loop(member, probe)
    torch.testing.assert_close(adaptation.errors[-1, 0], expected, rtol=1e-3, atol=2e-5)
    assert (adaptation.errors[-1] - adaptation.errors[0]).abs().max() > 0.02


def plain_loop(member: Member, probe: Probe) -> Tensor:
    """Adapt torch.nn layers with torch.optim.Adam, and return each module's error."""
    task, settings = member.task, member.probes
    network = torch_layers(probe.seen_network)
    rotation = mixing_matrix(task)
    optimiser = torch.optim.Adam(network.parameters(), lr=settings.adaptation_learning_rate)
    keys = member_keys([member.seed])
    counters = torch.arange(70 * 100, dtype=torch.int32)[None]
    drawn = task.changed(task.draw(fold_in(keys, Stream.ADAPTATION), counters, "train", "train"))
    tested = task.changed(drawn_samples(task, keys, settings.num_samples, "train"))
    assert drawn is not None
    assert tested is not None
    for inputs, targets in zip(drawn.inputs[0].split(100), drawn.targets[0].split(100), strict=True):
        outputs = network(task.encode(inputs[None])[0] @ rotation.T)[:, : task.outputs_per_module]
        if task.loss == "squared":
            loss = nn.functional.mse_loss(outputs, targets[:, :1])
        else:
            loss = nn.functional.cross_entropy(outputs, targets[:, 0].long())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    outputs = network(task.encode(tested.inputs)[0] @ rotation.T).detach()
    if task.loss == "squared":
        return (outputs - tested.targets[0]).square().mean(dim=0)
    named = outputs.unflatten(1, (task.modules, -1)).argmax(dim=2)
    return (named != tested.targets[0]).float().mean(dim=0)


def test_module_1_is_judged_by_the_answer_that_does_not_look() -> None:
    # The parabola 2 x^2 - 1 on a uniform x has variance 16/45; a ring's inside is 0.16 pi of the square, a little
    # more than half; digits are about equally frequent.
    for task, expected, tolerance in (
        ("regression", 16 / 45, 0.02), ("classification", 1 - 0.16 * math.pi, 0.02), ("digits", 0.9, 0.03),
    ):  # fmt: skip
        adaptation = adapt(
            probe_of(members_of(2, task, probes__num_samples=4000, probes__adaptation_steps=1))
        )
        assert adaptation is not None
        assert (adaptation.constant_errors - expected).abs().max() < tolerance


def test_looks_are_taken_every_so_often_and_after_the_last_step_and_change_nothing() -> None:
    often, seldom = (
        adapt(probe_of(members_of(2, probes__adaptation_steps=25, probes__adaptation_every=every)))
        for every in (10, 100)
    )
    assert often is not None
    assert seldom is not None
    assert (often.steps, seldom.steps) == ([0, 10, 20, 25], [0, 25])
    assert torch.equal(often.errors[[0, -1]], seldom.errors)


def test_networks_are_left_as_they_were() -> None:
    probe = probe_of(members_of(2))
    before = probe.seen_network.parameters.clone()
    measure_forgetting(probe)
    assert torch.equal(before, probe.seen_network.parameters)


def test_diverged_networks_have_no_time_of_adaptation() -> None:
    probe = probe_of(members_of(2))
    probe.seen_network.weights[0][1] = torch.nan
    found = measure_forgetting(probe)
    assert all(values[0].isfinite() and values[1].isnan() for values in found.values())


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("adaptation_steps", 0),
        ("adaptation_batch_size", 0),
        ("adaptation_learning_rate", 0.0),
        ("adaptation_every", 0),
        ("adaptation_error", 0.0),
        ("adaptation_error", 1.0),
    ],
)
def test_impossible_settings_are_refused_by_name(key: str, value: float) -> None:
    with pytest.raises(ConfigError, match=rf"probes\.{key}={value}.*forgetting"):
        make_member(**{f"probes__{key}": value})
