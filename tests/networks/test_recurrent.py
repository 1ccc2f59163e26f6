"""Leaky recurrent networks: their dynamics, modules and noise, and the parity of sequences."""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from benchmark_contenders.plain_kinds import PlainRecurrent
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import modulab
from modulab.config.settings import Member
from modulab.errors import ConfigError
from modulab.metrics.taking import measure_population
from modulab.networks.base import NetworkPopulation, by_visit
from modulab.networks.perceptron import ACTIVATIONS, Perceptron
from modulab.networks.recurrent import Recurrent, RecurrentArchitecture
from modulab.noise import NoiseLaw, add_activity_noise, visit_keys
from modulab.partition import Partition, even_shares
from modulab.regularisers import Pass, PowerRegulariser
from modulab.streams import member_keys, normals
from modulab.tasks.regression import RegressionTask
from modulab.training.learner import initialise
from modulab.training.program import network_of
from tests.command_line import Command
from tests.members import make_member
from tests.networks.kinds import check_compiled, check_measures, check_packing, check_taps
from tests.training.fitting import trained_parameters
from tests.training.plain_torch import check_follows_plain_torch

SITE = "recurrent"
SMALL = """
    trainer.engine=eager trainer.accelerator=cpu trainer.progress=off trainer.threads=1 architecture.width=6 task.bits=3
    training.steps=4 training.curve_every=2 training.batch_size=8 data.num_samples=16 probes.num_samples=32
    probes.repeats=1 probes.levels=[0.3]
"""


def make(task: str = "parity", seed: int = 0, noise: str = "none", **overrides: Any) -> Member:
    """Return a member with few units and points."""
    small: dict[str, Any] = {
        "architecture__width": 5, "training__steps": 4, "training__batch_size": 8, "data__num_samples": 32,
        "probes__num_samples": 24, "probes__repeats": 2, "probes__adaptation_steps": 4,
    }  # fmt: skip
    sizes = {"task__bits": 4} if task == "parity" else {}
    groups = {"task": task, "architecture": "recurrent", "noise": noise}
    return make_member(groups, seed=seed, **(small | sizes | overrides))


def network(**changes: Any) -> Recurrent:
    """Return a network that reads two sequences of three steps with two features each."""
    fields: dict[str, Any] = {
        "in_features": 12, "out_features": 3, "units": 4, "activation": "tanh", "leak": 0.4, "steps": 3,
        "sequences": 2,
    }  # fmt: skip
    return Recurrent(**(fields | changes))


def drawn(shape: Recurrent, members: int = 2, batch: int = 6) -> tuple[Tensor, Tensor]:
    """Return parameters and inputs of a network."""
    keys = member_keys(range(members))
    return 0.5 * normals(keys, 1, shape.num_parameters)[:, 0], normals(keys, batch, shape.in_features)


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_without_a_leak_it_is_the_recurrent_network_of_torch(activation: str) -> None:
    shape = network(activation=activation, leak=1.0)
    parameters, inputs = drawn(shape)
    outputs = shape.forward(parameters, inputs)
    for member, parts in enumerate(_rows(shape, parameters)):
        elman = nn.RNN(4, 4, nonlinearity=activation, batch_first=True)
        with torch.no_grad():
            elman.weight_ih_l0.copy_(parts["read.weight"])
            elman.weight_hh_l0.copy_(parts["recurrent.weight"])
            elman.bias_ih_l0.copy_(parts["read.bias"])
            elman.bias_hh_l0.zero_()
            # Inputs are module-major: of each sequence, step after step.
            steps = inputs[member].view(-1, 2, 3, 2).transpose(1, 2).flatten(2)
            last = elman(steps)[0][:, -1]
            expected = nn.functional.linear(last, parts["write.weight"], parts["write.bias"])
        torch.testing.assert_close(outputs[member], expected)


def _rows(shape: Recurrent, parameters: Tensor) -> list[dict[str, Tensor]]:
    parts = shape.split(parameters)
    return [{name: part[member] for name, part in parts.items()} for member in range(len(parameters))]


@pytest.mark.parametrize("leak", [1.0, 0.3])
def test_linear_units_sum_a_geometric_series(leak: float) -> None:
    shape = network(activation="linear", leak=leak, steps=5, in_features=3, sequences=None)
    parameters, inputs = drawn(shape)
    parts = shape.split(parameters)
    # h_t = A h_(t-1) + alpha (U x + b) with A = (1 - alpha) I + alpha W.
    matrix = (1 - leak) * torch.eye(4) + leak * parts["recurrent.weight"]
    read = leak * (parts["read.weight"] @ inputs.transpose(1, 2) + parts["read.bias"][:, :, None])
    series = torch.stack([torch.linalg.matrix_power(matrix, power) for power in range(5)]).sum(dim=0)
    expected = parts["write.weight"] @ series @ read + parts["write.bias"][:, :, None]
    torch.testing.assert_close(shape.forward(parameters, inputs), expected.transpose(1, 2))


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_one_step_without_a_leak_is_a_perceptron_with_one_hidden_layer(activation: str) -> None:
    shape = network(activation=activation, leak=1.0, steps=1, in_features=3, sequences=None)
    parameters, inputs = drawn(shape)
    perceptron = Perceptron(3, (4,), 3, activation)
    parts = {name: part.flatten(1) for name, part in shape.split(parameters).items()}
    rows = torch.cat([part for name, part in parts.items() if name != "recurrent.weight"], dim=1)
    outputs = shape.forward(parameters, inputs)
    assert torch.equal(outputs, perceptron.forward(rows, inputs))
    # Units that do not read one another have nothing new to say at later steps.
    shape.split(parameters)["recurrent.weight"].zero_()
    more = network(activation=activation, leak=1.0, steps=4, in_features=3, sequences=None)
    torch.testing.assert_close(more.forward(parameters, inputs), outputs)


def parity_solution(modules: int, bits: int) -> tuple[Member, NetworkPopulation]:
    """Return a premodular network of two units a module that knows the parity of each sequence.

    Its units are relu(s + x) and relu(s + x - 1), of a bit x and the parity s of those before it. The new parity is the
    first less twice the second: 0 - 0, 1 - 0 or 2 - 2 for no, one or two ones in s and x.
    """
    member = make(
        task__modules=modules, task__bits=bits, architecture__width=2 * modules, architecture__cross_connections=0.0
    )  # fmt: skip
    shape = network_of(member)
    mask, parameters = initialise([member], shape)
    parameters = torch.zeros_like(parameters)
    parts = {name: part[0] for name, part in shape.split(parameters).items()}
    for module in range(modules):
        own = slice(2 * module, 2 * module + 2)
        parts["read.weight"][own, module] = 1
        parts["read.bias"][own] = torch.tensor([0.0, -1.0])
        parts["recurrent.weight"][own, own] = torch.tensor([1.0, -2.0])
        # Class 0 has the logit 1 - s, and class 1 the logit s.
        parts["write.weight"][own, own] = torch.tensor([[-1.0, 2.0], [1.0, -2.0]])
        parts["write.bias"][own] = torch.tensor([1.0, 0.0])
    assert not parameters[mask == 0].any()
    return member, NetworkPopulation(shape, parameters)


@pytest.mark.parametrize(("modules", "bits"), [(1, 1), (1, 9), (2, 1), (2, 5), (3, 3)])
def test_two_units_a_module_know_the_parity_of_every_sequence(modules: int, bits: int) -> None:
    member, solution = parity_solution(modules, bits)
    inputs = torch.tensor(list(itertools.product([0.0, 1.0], repeat=modules * bits)))[None]
    targets = inputs.unflatten(2, (modules, bits)).sum(dim=3) % 2
    loss, partition = member.task.loss_function, member.task.partition
    assert loss.errors(solution.forward(inputs), targets, partition).tolist() == [[0.0] * modules]


@pytest.mark.parametrize(("modules", "bits"), [(1, 64), (2, 64), (4, 23)])
def test_two_units_a_module_know_the_parity_of_long_sequences(modules: int, bits: int) -> None:
    member, solution = parity_solution(modules, bits)
    task, counters = member.task, torch.arange(500, dtype=torch.int32)[None]
    samples = task.draw(member_keys([3]), counters, "full", "test")
    outputs = solution.forward(samples.inputs)
    assert torch.equal(outputs[..., 1::2], samples.targets)
    assert torch.equal(outputs[..., 0::2], 1 - samples.targets)
    errors = task.loss_function.errors(outputs, samples.targets, task.partition)
    assert errors.tolist() == [[0.0] * modules]


@pytest.mark.parametrize(
    ("task", "overrides"),
    [
        ("parity", {}),
        ("regression", {"architecture__steps": 3, "architecture__leak": 0.3}),
        ("digits", {"architecture__activation": "tanh", "architecture__leak": 0.5}),
    ],
)
def test_members_end_in_the_same_bits_alone_and_in_company(task: str, overrides: dict[str, Any]) -> None:
    check_packing(
        [
            make(
                task, seed, "poisson", noise__scale=0.2 * (1 + seed), architecture__initial_scale=1 + 0.2 * seed,
                architecture__recurrent_scale=1.5 - 0.5 * seed, architecture__cross_connections=(1.0, 0.0, 0.3)[seed],
                **overrides,
            )
            for seed in range(3)
        ]
    )  # fmt: skip


@settings(max_examples=5)
@given(
    task=st.sampled_from(["parity", "regression"]),
    modules=st.integers(1, 3),
    steps=st.integers(1, 5),
    width=st.integers(3, 9),
    activation=st.sampled_from(list(ACTIVATIONS)),
    leak=st.sampled_from([0.1, 0.5, 1.0]),
    noise=st.sampled_from(["none", "gaussian", "poisson"]),
    batch=st.integers(1, 9),
)
def test_packing_changes_nothing_whatever_the_settings(
    task: str, modules: int, steps: int, width: int, activation: str, leak: float, noise: str, batch: int
) -> None:
    length = {"task__bits": steps} if task == "parity" else {"architecture__steps": steps}
    check_packing(
        [
            make(
                task, seed, noise, task__modules=modules, architecture__width=width, architecture__leak=leak,
                architecture__activation=activation, architecture__recurrent_scale=0.5 * seed,
                training__batch_size=batch, training__steps=2, **length,
            )
            for seed in range(2)
        ]
    )  # fmt: skip


@pytest.mark.parametrize(
    ("task", "activation", "leak", "optimiser"),
    [("parity", "relu", 1.0, "adam"), ("regression", "tanh", 0.3, "adamw"), ("digits", "tanh", 0.5, "adam")],
)
def test_a_member_follows_a_loop_of_torch_layers(
    task: str, activation: str, leak: float, optimiser: str
) -> None:
    member = make(
        task, 4, architecture__activation=activation, architecture__leak=leak, architecture__width=7,
        training__optimiser=optimiser, training__weight_decay=1e-3, training__steps=100,
        training__batch_size=16, training__curve_every=70,
    )  # fmt: skip
    check_follows_plain_torch(member, PlainRecurrent(member))


@pytest.mark.parametrize("task", ["parity", "regression", "digits"])
def test_a_pass_comes_to_the_units_once_at_each_step(task: str) -> None:
    member = make(task)
    check_taps(member)
    shape = network_of(member)
    assert shape.sites[0].visits == {"parity": 4, "regression": 4, "digits": 8}[task]
    assert shape.step_units == max(5 * shape.sites[0].visits, shape.in_features)


@pytest.mark.parametrize("task", ["parity", "digits"])
def test_inputs_read_are_the_features_of_all_modules_step_after_step(task: str) -> None:
    member = make(task, task__modules=3)
    shape, (length, size) = network_of(member), member.task.input_shape
    inputs = normals(member_keys([0, 1]), 6, shape.in_features)
    read = shape.inputs_read(inputs)
    assert read.shape == (2, 3 * size, length * 6)
    for module, step, feature in itertools.product(range(3), range(length), range(size)):
        column = inputs[:, :, (module * length + step) * size + feature]
        assert torch.equal(read[:, module * size + feature, step * 6 : (step + 1) * 6], column)


def test_inputs_without_an_order_are_read_at_every_step() -> None:
    shape = network_of(make("regression", architecture__steps=3))
    inputs = normals(member_keys([0]), 5, 2)
    read = shape.inputs_read(inputs)
    assert all(torch.equal(part, inputs.transpose(1, 2)) for part in read.chunk(3, dim=2))


def test_measures_that_need_no_layers_are_taken_and_the_others_skipped() -> None:
    probes = {"forgetting": "modulab.metrics.forgetting.measure_forgetting"}
    member = make(task__support="labels")
    measures = member.probes.measures | probes
    member = member.model_copy(update={"probes": member.probes.model_copy(update={"measures": measures})})
    found, skipped = check_measures(member)
    assert set(skipped) == {"structural", "frame_null", "unit_specialisation", "ranges"}
    assert {
        "error/test", "modularity/functional", "modularity/ablation", "activity/mean", "error_under/poisson@0.3",
        "error_under/poisson_counts@0.3", "forgetting/others_rise",
    } <= set(found)  # fmt: skip


def masks_of(
    cross_connections: list[float], members: int, **changes: Any
) -> tuple[Recurrent, Tensor, Tensor]:
    shape = network(**changes)
    architectures = [
        RecurrentArchitecture(
            name="", width=shape.units, activation="tanh", leak=1.0, steps=1, cross_connections=share,
            initial_scale=0.7, recurrent_scale=1.2,
        )
        for share in cross_connections
    ]  # fmt: skip
    partition = Partition.of_equal_shares(2, shape.in_features // 2, shape.out_features // 2)
    mask, parameters = shape.initialise(architectures, partition, member_keys([9] * members))
    return shape, mask, parameters


def test_premodular_masks_keep_exactly_the_connections_within_modules() -> None:
    shape, mask, parameters = masks_of([0.0, 1.0], 2, units=5, out_features=4)
    parts = shape.split(mask)
    owners = {
        "input": torch.tensor([0, 0, 1, 1]), SITE: torch.tensor(even_shares(5, 2)), "output": torch.tensor([0, 0, 1, 1])
    }  # fmt: skip
    for edges in shape.edges(mask):
        within = owners[edges.target][:, None] == owners[edges.source]
        assert torch.equal(edges.weights[0].bool(), within)
        assert edges.weights[1].all()
    assert parts["read.bias"].all()
    assert parts["write.bias"].all()
    assert not parameters[mask == 0].any()


def test_partial_masks_keep_their_share_and_nest() -> None:
    shares = [0.0, 0.1, 0.3, 1.0]
    shape, mask, _ = masks_of(shares, 4, units=60, out_features=20, in_features=120)
    for edges in shape.edges(mask - mask[:1]):
        kept = edges.weights.sum(dim=(1, 2)) / edges.weights[-1].sum()
        assert kept.tolist() == pytest.approx(shares, abs=0.08)
    assert all((mask[low] <= mask[low + 1]).all() for low in range(3))


def test_initial_weights_have_their_scales_over_masked_fan_in_and_biases_are_zero() -> None:
    shape, _, parameters = masks_of([0.0, 1.0], 2, units=300, out_features=200)
    parts = shape.split(parameters)
    for member, fan_in in ((0, 150), (1, 300)):
        for name, scale in (("recurrent.weight", 1.2), ("write.weight", 0.7)):
            weights = parts[name][member]
            expected = scale**2 / fan_in
            assert float(weights[weights != 0].var()) == pytest.approx(expected, rel=0.03), name
    assert float(parts["read.weight"][1].var()) == pytest.approx(0.49 / 4, rel=0.1)
    assert not parts["read.bias"].any()
    assert not parts["write.bias"].any()


def test_members_differ_in_scales_by_factors_of_the_same_draws() -> None:
    members = [
        make(architecture__recurrent_scale=scale, architecture__initial_scale=1 / (1 + scale))
        for scale in (1, 0)
    ]
    shape = network_of(members[0])
    parts = shape.split(initialise(members, shape)[1])
    assert not parts["recurrent.weight"][1].any()
    torch.testing.assert_close(parts["read.weight"][1], 2 * parts["read.weight"][0])


def trained_in_blocks() -> tuple[list[Member], Recurrent, Tensor, Tensor]:
    members = [
        make(seed=seed, task__modules=3, architecture__width=9, architecture__cross_connections=share,
             training__steps=20, training__learning_rate=0.03)
        for seed, share in enumerate([0.0, 0.0, 1.0])
    ]  # fmt: skip
    shape = network_of(members[0])
    assert isinstance(shape, Recurrent)
    return members, shape, initialise(members, shape)[0], trained_parameters(members)


def test_a_network_in_blocks_is_modular_to_the_bit_and_forgets_nothing() -> None:
    members, shape, mask, parameters = trained_in_blocks()
    measures = {
        "functional": "modulab.metrics.modularity.measure_functional",
        "forgetting": "modulab.metrics.forgetting.measure_forgetting",
    }
    probes = members[0].probes.model_copy(update={"measures": measures, "adaptation_learning_rate": 0.03})
    keys = member_keys([member.seed for member in members])
    found = measure_population(members[0].task, NetworkPopulation(shape, parameters), keys, probes, mask)
    assert found["modularity/functional"][:2].tolist() == [1.0, 1.0]
    assert found["modularity/functional"][2] < 0.9
    assert found["forgetting/others_rise"][:2].tolist() == [0.0, 0.0]
    assert found["forgetting/module_1"].isfinite().all()


def test_a_network_in_blocks_keeps_other_modules_out() -> None:
    members, shape, mask, parameters = trained_in_blocks()
    assert not parameters[mask == 0].any()
    inputs = (
        members[0]
        .task.draw(member_keys(range(3)), torch.arange(40, dtype=torch.int32).repeat(3, 1), "full", "test")
        .inputs
    )
    inverted = inputs.clone()
    inverted[:, :, :4] = 1 - inputs[:, :, :4]
    before, after = shape.forward(parameters, inputs), shape.forward(parameters, inverted)
    assert torch.equal(before[:2, :, 2:], after[:2, :, 2:])
    assert (before[:2, :, :2] != after[:2, :, :2]).any()
    assert (before[2, :, 2:] != after[2, :, 2:]).any()


@pytest.mark.parametrize("leak", [1.0, 0.3])
def test_noise_of_each_step_is_passed_on_to_the_next(leak: float) -> None:
    shape = network(activation="linear", leak=leak)
    parameters, inputs = drawn(shape, members=1, batch=20000)
    parts = shape.split(parameters)
    sigma = torch.tensor([0.5])
    law = NoiseLaw(sigma, torch.ones(1), torch.zeros(1), torch.zeros(1))
    keys = member_keys([5])

    def add(place: str, values: Tensor, visit: int) -> Tensor:
        return add_activity_noise(values, law, visit_keys(keys, visit))

    noise = shape.forward(parameters, inputs, by_visit(add)) - shape.forward(parameters, inputs)
    # cov(y) = sigma^2 V (sum_k A^k A^kT) V^T: noise of step t comes out through T - t more steps.
    matrix = (1 - leak) * torch.eye(4) + leak * parts["recurrent.weight"][0]
    paths = [parts["write.weight"][0] @ torch.linalg.matrix_power(matrix, power) for power in range(3)]
    expected = 0.25 * sum(path @ path.T for path in paths)
    torch.testing.assert_close(torch.cov(noise[0].T), expected, rtol=0.05, atol=0.01)
    # The derivatives that the Jacobian regulariser sums are those paths, last step last.
    [(site, jacobian)] = shape.output_jacobians(
        parameters, inputs[:, :2], shape.record(parameters, inputs[:, :2])
    )
    assert site == SITE
    by_step = torch.stack([path for path in reversed(paths) for _ in range(2)], dim=2)
    torch.testing.assert_close(jacobian[0], by_step)


def test_penalty_reads_every_connection_with_the_mean_activity_at_the_steps_that_it_reads() -> None:
    shape = network()
    parameters, inputs = drawn(shape)
    recording = shape.record(parameters, inputs)
    run = Pass(shape, parameters, torch.ones_like(parameters), inputs, recording)
    ones = torch.ones(2)
    power = {"strength": ones, "weight_power": 2 * ones, "activity_power": ones, "first_layer": ones}
    steps = recording.values[SITE].abs().unflatten(2, (shape.steps, -1)).mean(dim=3)
    before_last, last = steps[:, :, :-1].mean(dim=2), steps[:, :, -1]
    features = inputs.unflatten(2, (2, 3, 2)).abs().mean(dim=(1, 3)).flatten(1)
    parts = shape.split(parameters)
    expected = (
        (parts["read.weight"].square() * features[:, None]).sum(dim=(1, 2))
        + (parts["recurrent.weight"].square() * before_last[:, None]).sum(dim=(1, 2))
        + (parts["write.weight"].square() * last[:, None]).sum(dim=(1, 2))
    )
    torch.testing.assert_close(PowerRegulariser.penalty(run, power, "whole"), expected)


@pytest.mark.parametrize("regulariser", ["activity_weight", "jacobian"])
def test_penalties_shrink_the_weights_that_pass_noise_on(regulariser: str) -> None:
    groups = {"task": "parity", "architecture": "recurrent", "noise": "poisson", "regulariser": regulariser}
    few = {"task__bits": 3, "training__steps": 12, "training__batch_size": 8, "architecture__width": 5}
    members = [make_member(groups, regulariser__strength=strength, **few) for strength in (0.0, 1.0)]
    plain, penalised = (trained_parameters([member]) for member in members)
    assert penalised.isfinite().all()
    shape = network_of(members[0])
    norms = [
        float(sum(edges.weights.square().sum() for edges in shape.edges(parameters)[1:]))
        for parameters in (plain, penalised)
    ]
    assert norms[1] < norms[0]


def test_parity_of_short_sequences_is_learned() -> None:
    member = make(
        seed=1, task__bits=2, architecture__width=16, training__steps=150, training__batch_size=32,
        training__learning_rate=0.02, data__num_samples=256,
    )  # fmt: skip
    shape, task = network_of(member), member.task
    inputs = torch.tensor(list(itertools.product([0.0, 1.0], repeat=4)))[None]
    targets = inputs.unflatten(2, (2, 2)).sum(dim=3) % 2
    outputs = shape.forward(trained_parameters([member]), inputs)
    assert task.loss_function.errors(outputs, targets, task.partition).tolist() == [[0.0, 0.0]]


def test_a_rotation_of_inputs_without_an_order_is_taken_up_and_of_sequences_refused() -> None:
    member = make("regression", task__code="mixed")
    shape = network_of(member)
    _, parameters = initialise([member], shape)
    rotation = torch.linalg.qr(normals(member_keys([1]), 2, 2)[0]).Q
    inputs = normals(member_keys([2]), 5, 2)
    torch.testing.assert_close(
        shape.forward(shape.turn_inputs(parameters, rotation), inputs),
        shape.forward(parameters, inputs @ rotation.T),
    )
    with pytest.raises(ConfigError, match=r"task\.code=mixed needs a network"):
        make(task__code="mixed")


class Volumes(RegressionTask):
    """Inputs with a third dimension."""

    @property
    def input_shape(self) -> tuple[int, ...]:
        return (1, 1, 1)


class UnequalSequences(RegressionTask):
    """Sequences whose inputs belong to no module."""

    @property
    def input_shape(self) -> tuple[int, ...]:
        return (1, 1)

    @property
    def partition(self) -> Partition:
        return Partition(2, (-1, -1), (0, 1))


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (
            {"architecture__width": 1, "architecture__cross_connections": 0.0},
            ["architecture.width=1", "task.modules=2", "to 2 or more"],
        ),
        ({"architecture__leak": 0.0}, ["architecture.leak=0.0", "alpha"]),
        ({"architecture__leak": 1.5}, ["architecture.leak=1.5"]),
        ({"architecture__steps": 0}, ["architecture.steps=0"]),
        ({"architecture__cross_connections": 1.1}, ["architecture.cross_connections=1.1"]),
        ({"task___target_": f"{__name__}.Volumes"}, ["(1, 1, 1)", "another architecture"]),
        ({"task___target_": f"{__name__}.UnequalSequences"}, ["(1, 1)", "(features,)"]),
    ],
)
def test_impossible_settings_are_refused_by_name(overrides: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        make("regression", **overrides)
    for word in words:
        assert word in str(error.value)


def test_commands_train_and_measure_recurrent_networks(tmp_path: Path, command: Command) -> None:
    folder = str(tmp_path / "run")
    code, out, errors = command(
        "train", *SMALL.split(), "task=parity", "architecture=recurrent_premodular", "noise=poisson",
        "noise.scale=0.2", f"hydra.run.dir={folder}",
    )  # fmt: skip
    assert code == 0, out + errors
    results = modulab.load_results(folder)
    assert results["modularity/functional"].tolist() == [1.0]
    assert results["error/test"].notna().all()
    assert set(modulab.load_members(folder)[0].weights) == {
        "read.weight", "read.bias", "recurrent.weight", "write.weight", "write.bias"
    }  # fmt: skip


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_compiled_engine_agrees_with_eager(monkeypatch: pytest.MonkeyPatch) -> None:
    members = [
        make(
            seed=seed, noise="gaussian", noise__scale=0.1 * (1 + seed), architecture__activation="tanh",
            architecture__leak=0.5, architecture__cross_connections=(1.0, 0.0)[seed], task__bits=2,
            training__steps=20,
        )
        for seed in range(2)
    ]  # fmt: skip
    check_compiled(members, monkeypatch)
