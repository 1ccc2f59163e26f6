"""One block of attention: that it is the one of torch, moves tokens as it should, and trains as every network does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from benchmark_contenders.plain_kinds import PlainAttention
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import modulab
from modulab.config.settings import Member
from modulab.errors import ConfigError
from modulab.networks.attention import Attention, AttentionArchitecture, num_tokens
from modulab.networks.base import Recording
from modulab.partition import Partition
from modulab.streams import member_keys
from modulab.tasks.base import Task
from modulab.tasks.copying import CopyingTask
from modulab.training.learner import initialise
from modulab.training.program import network_of
from tests.command_line import Command
from tests.members import make_member
from tests.networks.kinds import check_compiled, check_measures, check_packing, check_taps
from tests.training.fitting import trained_parameters
from tests.training.plain_torch import check_follows_plain_torch

ACTIVATIONS: dict[str, nn.Module] = {
    "relu": nn.ReLU(), "tanh": nn.Tanh(), "sigmoid": nn.Sigmoid(), "softplus": nn.Softplus(),
    "silu": nn.SiLU(), "linear": nn.Identity(),
}  # fmt: skip
SMALL = {
    "architecture__width": 6, "architecture__heads": 2, "architecture__hidden": 5, "training__steps": 6,
    "training__batch_size": 8, "training__curve_every": 3, "data__num_samples": 32,
}  # fmt: skip
TASKS: dict[str, dict[str, Any]] = {
    "regression": {"task__modules": 3},
    "modular_arithmetic": {"task__modulus": 3, "task__support": "pairs"},
    "copying": {"task__length": 2, "task__symbols": 3},
}


def make(task: str = "modular_arithmetic", noise: str = "none", **overrides: Any) -> Member:
    groups = {"task": task, "architecture": "attention", "noise": noise}
    return make_member(groups, **(SMALL | TASKS.get(task, {}) | overrides))


def networks(task: str, members: int = 2, **overrides: Any) -> tuple[Attention, Tensor, Tensor]:
    """Return a network, parameters of which none is 0, and inputs with the batch first of all."""
    member = make(task, **overrides)
    network = network_of(member)
    assert isinstance(network, Attention)
    _, parameters = initialise([member] * members, network)
    generator = torch.Generator().manual_seed(1)
    parameters = parameters + 0.3 * torch.randn(parameters.shape, generator=generator)
    return network, parameters, torch.randn(members, 5, network.in_features, generator=generator)


def by_token(network: Attention, recorded: Tensor) -> Tensor:
    """Return what a site recorded as (member, batch, token, unit)."""
    return recorded.unflatten(2, (network.tokens, -1)).permute(0, 3, 2, 1)


@pytest.mark.parametrize("heads", [1, 2, 6])
def test_heads_gather_what_those_of_torch_do(heads: int) -> None:
    network, parameters, inputs = networks("copying", architecture__heads=heads)
    recording = network.record(parameters, inputs)
    gathered = by_token(network, recording.values["attention"])
    weights = (
        recording.values["attention.weights"].unflatten(1, (heads, -1)).unflatten(3, (network.tokens, -1))
    )
    for member in range(2):
        parts = {name: part[member] for name, part in network.split(parameters).items()}
        states = inputs[member].unflatten(1, (network.tokens, -1)) @ parts["embedding.weight"].T
        states = states + parts["position"].T
        torchs = nn.MultiheadAttention(network.width, heads, bias=False, batch_first=True)
        with torch.no_grad():
            names = ("query", "key", "value")
            torchs.in_proj_weight.copy_(torch.cat([parts[f"{name}.weight"] for name in names]))
            torchs.out_proj.weight.copy_(parts["projection.weight"])
        expected, its_weights = torchs(states, states, states, average_attn_weights=False)
        torch.testing.assert_close(gathered[member] @ parts["projection.weight"].T, expected)
        torch.testing.assert_close(weights[member].permute(3, 0, 1, 2), its_weights)


@pytest.mark.parametrize(
    ("task", "overrides"),
    [
        ("regression", {"architecture__readout": "all", "architecture__activation": "tanh"}),
        ("modular_arithmetic", {"architecture__readout": "mean", "training__gradient_clip": 0.5}),
        ("modular_arithmetic", {"architecture__readout": "last", "architecture__activation": "sigmoid",
                                "training__optimiser": "adamw", "training__weight_decay": 0.1}),
    ],
)  # fmt: skip
def test_a_member_follows_plain_torch(task: str, overrides: dict[str, Any]) -> None:
    member = make(task, training__steps=100, training__curve_every=50, **overrides)
    network = network_of(member)
    assert isinstance(network, Attention)
    check_follows_plain_torch(member, PlainAttention(network))


def test_tokens_that_change_places_with_their_positions_take_their_states_along() -> None:
    network, parameters, inputs = networks("copying", architecture__readout="mean")
    order = torch.randperm(network.tokens, generator=torch.Generator().manual_seed(2))
    assert not torch.equal(order, torch.arange(network.tokens))
    moved = parameters.clone()
    network.split(moved)["position"].copy_(network.split(parameters)["position"][:, :, order])
    moved_inputs = inputs.unflatten(2, (network.tokens, -1))[:, :, order].flatten(2)
    before, after = network.record(parameters, inputs), network.record(moved, moved_inputs)
    for site in ("attention", "hidden"):
        expected = by_token(network, before.values[site])[:, :, order]
        torch.testing.assert_close(by_token(network, after.values[site]), expected)
    torch.testing.assert_close(after.outputs, before.outputs)
    # Without its position a token is moved to another place, and says something else there.
    assert (network.forward(parameters, moved_inputs) - before.outputs).abs().max() > 0.01


def test_one_head_of_one_token_is_a_linear_map() -> None:
    network, parameters, inputs = networks(
        "regression", task__modules=1, architecture__heads=1, architecture__activation="linear"
    )
    assert network.tokens == 1
    parts = network.split(parameters)
    states = parts["embedding.weight"] @ inputs.transpose(1, 2) + parts["position"]
    recording = network.record(parameters, inputs)
    torch.testing.assert_close(recording.values["attention"], parts["value.weight"] @ states)
    assert (recording.values["attention.weights"] == 1).all()
    eye = torch.eye(network.width)
    attended = (eye + parts["projection.weight"] @ parts["value.weight"]) @ states
    written = (eye + parts["write.weight"] @ parts["hidden.weight"]) @ attended
    written = written + parts["write.weight"] @ parts["hidden.bias"][:, :, None]
    outputs = parts["readout.weight"] @ written + parts["readout.bias"][:, :, None]
    torch.testing.assert_close(recording.outputs, outputs.transpose(1, 2))


def test_weights_set_by_hand_look_back_by_one_token_and_copy() -> None:
    """Queries ask for the position before, values hold its symbol, and outputs of a token are read one further on."""
    task = make("copying").task
    assert isinstance(task, CopyingTask)
    tokens, symbols = task.modules * task.length, task.symbols
    width = 2 * symbols + tokens
    network = Attention(task.in_features, task.out_features, tokens, width, 1, 1, "relu", "all")
    parameters = torch.zeros(1, network.num_parameters)
    parts = network.split(parameters)
    seen, gathered = slice(0, symbols), slice(symbols, 2 * symbols)
    place = slice(2 * symbols, width)
    parts["embedding.weight"][0, seen] = torch.eye(symbols)
    parts["position"][0, place] = torch.eye(tokens)
    parts["key.weight"][0, place, place] = torch.eye(tokens)
    parts["query.weight"][0, place, place] = 200 * torch.eye(tokens).roll(-1, dims=0)
    parts["value.weight"][0, seen, seen] = torch.eye(symbols)
    parts["projection.weight"][0, gathered, seen] = torch.eye(symbols)
    answers = parts["readout.weight"].view(1, tokens, symbols, width, tokens)
    for token in range(tokens):
        answers[0, token, :, gathered, (token + 1) % tokens] = 10 * torch.eye(symbols)
    counters = torch.arange(50, dtype=torch.int32)[None]
    samples = task.draw(member_keys([0]), counters, "full", "test")
    recording = network.record(parameters, samples.inputs)
    weights = recording.values["attention.weights"].unflatten(2, (tokens, -1))
    torch.testing.assert_close(weights[0, :, :, 0], torch.eye(tokens).roll(1, dims=0))
    loss = task.loss
    assert not loss.errors(recording.outputs, samples.targets, task.partition).any()
    assert loss.total(recording.outputs, samples.targets, task.partition) < 1e-3


@pytest.mark.parametrize("task", TASKS)
def test_members_end_in_the_same_bits_alone_and_in_company(task: str) -> None:
    check_packing([
        make(task, "poisson", seed=seed, noise__scale=0.1 * seed, architecture__initial_scale=1 + 0.5 * seed,
             training__learning_rate=0.01 / (1 + seed))
        for seed in range(3)
    ])  # fmt: skip


@settings(max_examples=3)
@given(
    heads=st.integers(1, 3), features=st.integers(1, 6), hidden=st.integers(1, 9), batch=st.integers(1, 19),
    length=st.integers(1, 5), activation=st.sampled_from(sorted(ACTIVATIONS)),
    readout=st.sampled_from(["all", "mean", "last"]),
)  # fmt: skip
def test_packing_changes_nothing_whatever_the_settings(
    heads: int, features: int, hidden: int, batch: int, length: int, activation: str, readout: str
) -> None:
    check_packing([
        make("copying", "poisson", seed=seed, noise__scale=0.1 + 0.1 * seed, architecture__heads=heads,
             architecture__width=heads * features, architecture__hidden=hidden, training__batch_size=batch,
             task__length=length, architecture__activation=activation, architecture__readout=readout,
             architecture__initial_scale=1 + 0.2 * seed)
        for seed in range(3)
    ])  # fmt: skip


@pytest.mark.parametrize("task", [*TASKS, "digits"])
@pytest.mark.parametrize("readout", ["all", "mean", "last"])
def test_passes_come_to_sites_as_the_network_says(task: str, readout: str) -> None:
    check_taps(make(task, architecture__readout=readout))


def test_tokens_are_steps_or_rows_or_modules() -> None:
    counts = {"regression": 3, "classification": 2, "modular_arithmetic": 4, "copying": 4, "digits": 16}
    for name, tokens in counts.items():
        task = make(name).task
        assert num_tokens(task) == tokens
        assert network_of(make(name)).sites[0].positions == tokens


def test_a_module_of_features_is_one_token() -> None:
    network, parameters, inputs = networks("classification")
    moved = inputs.clone()
    moved[:, :, :2] += 1
    recorded: list[Recording] = [network.record(parameters, each) for each in (inputs, moved)]
    # The values of the first token change, and by them what both tokens gather.
    gathered = [by_token(network, each.values["attention"]) for each in recorded]
    assert ((gathered[0] - gathered[1]).abs().amax(dim=(0, 1, 3)) > 1e-3).all()
    network.split(parameters)["projection.weight"].zero_()
    hidden = [
        by_token(network, network.record(parameters, each).values["hidden"]) for each in (inputs, moved)
    ]
    assert torch.equal(hidden[0][:, :, 1], hidden[1][:, :, 1])
    assert not torch.equal(hidden[0][:, :, 0], hidden[1][:, :, 0])


@pytest.mark.parametrize("task", TASKS)
def test_measures_apply_where_no_connections_are_needed(task: str) -> None:
    probes = {"probes__num_samples": 64, "probes__repeats": 2, "probes__levels": [0.3],
              "probes__ablated_fractions": [0.2], "probes__adaptation_steps": 3}  # fmt: skip
    measures = make().probes.measures | {"forgetting": "modulab.metrics.forgetting.measure_forgetting"}
    member = make(task, probes__measures=measures, **probes)
    found, skipped = check_measures(member)
    lacking = {"structural", "frame_null", "unit_specialisation"}
    lacking |= set() if member.task.loss_function.takes_logits else {"functional_centred"}
    lacking |= set() if member.task.withholds else {"combination"}
    lacking |= set() if member.task.ranges else {"ranges"}
    assert set(skipped) == lacking
    assert {
        "error/test", "modularity/functional", "modularity/ablation", "activity/mean", "error_under/poisson@0.3",
        "error_under/poisson_counts@0.3", "error_under/weight_noise@0.3", "error_under/input_noise@0.3",
        "forgetting/others_rise", "forgetting/module_1",
    } <= set(found)  # fmt: skip


def test_modules_reach_one_another_by_attention_and_by_the_readout_alone() -> None:
    network, parameters, inputs = networks("regression", task__modules=2)
    assert (network.input_jacobian(parameters, inputs) != 0).all()
    parts = network.split(parameters)
    parts["projection.weight"].zero_()
    readout = parts["readout.weight"].view(2, 2, network.width, 2)
    for output in range(2):
        readout[:, output, :, 1 - output] = 0
    jacobian = network.input_jacobian(parameters, inputs)
    assert not jacobian[:, :, 0, 1].any()
    assert not jacobian[:, :, 1, 0].any()
    assert (jacobian[:, :, 0, 0] != 0).all()


def test_initial_weights_have_variance_over_fan_in_and_no_parameter_is_masked() -> None:
    member = make("digits", architecture__width=40, architecture__hidden=60, architecture__initial_scale=0.7)
    network = network_of(member)
    keys = member_keys(range(20))
    architectures = [member.architecture] * 20
    mask, parameters = network.initialise(architectures, member.task.partition, keys)
    assert (mask == 1).all()
    fan_ins = {"embedding.weight": 8, "position": 8, "query.weight": 40, "key.weight": 40, "value.weight": 40,
               "projection.weight": 40, "hidden.weight": 40, "write.weight": 60, "readout.weight": 40 * 16}  # fmt: skip
    parts = network.split(parameters)
    assert set(parts) - set(fan_ins) == {"hidden.bias", "readout.bias"}
    for name, part in parts.items():
        expected = 0.49 / fan_ins[name] if name in fan_ins else 0.0
        assert float(part.var()) == pytest.approx(expected, rel=0.05), name
    # Larger scales are the same draws, multiplied.
    larger = [each.model_copy(update={"initial_scale": 1.4}) for each in architectures]
    _, doubled = network.initialise(larger, Partition(1, (), (0,)), keys)
    torch.testing.assert_close(doubled, 2 * parameters)


def test_noise_changes_training_at_each_site() -> None:
    quiet = trained_parameters([make()])
    for sites in ("all", "first", "last"):
        noisy = trained_parameters([make(noise="poisson", noise__scale=0.3, noise__sites=sites)])
        assert noisy.isfinite().all()
        assert not torch.equal(noisy, quiet)


def test_penalties_on_weights_are_refused_and_those_on_derivatives_act() -> None:
    groups = {"task": "modular_arithmetic", "architecture": "attention", "noise": "none"}
    settings = SMALL | TASKS["modular_arithmetic"] | {"regulariser__strength": 0.1}
    trained = trained_parameters([make_member(groups | {"regulariser": "jacobian"}, **settings)])
    assert trained.isfinite().all()
    assert (trained - trained_parameters([make()])).abs().max() > 1e-4
    with pytest.raises(ConfigError, match=r"regulariser\.strength=0\.1 has no effect"):
        make_member(groups | {"regulariser": "activity_weight"}, **settings)
    network, parameters, _ = networks("copying")
    assert network.edges(parameters) == network.connections == ()
    assert not network.is_layered


class CubeTask(CopyingTask):
    """A task whose inputs have an axis too many."""

    @property
    def input_shape(self) -> tuple[int, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return (1, self.length, self.symbols)


class UnevenTask(CopyingTask):
    """A task of which one input belongs to all modules."""

    @property
    def partition(self) -> Partition:
        partition = super().partition
        return Partition(partition.modules, (-1, *partition.inputs[1:]), partition.outputs)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"architecture__heads": 4}, ["architecture.heads=4", "architecture.width=6", "such as 8"]),
        ({"architecture__heads": 7}, ["architecture.heads=7", "such as 7"]),
        ({"task__code": "mixed"}, ["task.code=mixed", "architecture=attention"]),
        (
            {"task___target_": f"{__name__}.CubeTask"},
            ["(1, 2, 3)", "(token, feature)", "another architecture"],
        ),
        ({"task___target_": f"{__name__}.UnevenTask"}, ["equal shares of 6", "another architecture"]),
    ],
)
def test_settings_that_do_not_go_together_are_refused(overrides: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ConfigError) as refused:
        make("copying", **overrides)
    assert all(word in str(refused.value) for word in words), refused.value


def test_settings_that_change_operations_are_structural() -> None:
    structural = {
        name
        for name, field in AttentionArchitecture.model_fields.items()
        if isinstance(field.json_schema_extra, dict) and field.json_schema_extra.get("structural")
    }
    assert structural == {"width", "heads", "hidden", "activation", "readout"}


def test_a_command_trains_measures_and_verifies(tmp_path: Path, command: Command) -> None:
    folder = str(tmp_path / "run")
    arguments = """
        task=copying task.length=2 task.symbols=3 architecture=attention architecture.width=6 architecture.hidden=5
        trainer.engine=eager trainer.accelerator=cpu trainer.progress=off trainer.threads=1 population.seeds=2
        training.steps=4 training.curve_every=2 training.batch_size=8 data.num_samples=32 noise=poisson
        noise.scale=0.2 probes=forgetting probes.num_samples=32 probes.repeats=2 probes.levels=[0.3]
        probes.adaptation_steps=2
    """
    code, out, errors = command("train", *arguments.split(), f"hydra.run.dir={folder}")
    assert code == 0, out + errors
    results = modulab.load_results(folder)
    assert results["status"].tolist() == ["completed"] * 2
    assert results["error/test"].between(0, 1).all()
    assert all("structural: " in text for text in results["skipped"])
    code, out, errors = command("rerun", folder, "--member", "0")
    assert code == 0, out + errors


@pytest.mark.slow
def test_the_compiled_engine_agrees_with_the_eager_one(monkeypatch: pytest.MonkeyPatch) -> None:
    members = [
        make(
            "modular_arithmetic",
            "poisson",
            seed=seed,
            noise__scale=0.1 + 0.1 * seed,
            training__steps=20,
            task__modules=1,
        )
        for seed in range(3)
    ]
    check_compiled(members, monkeypatch)


@pytest.mark.slow
def test_a_small_network_learns_to_copy() -> None:
    member = make(
        "copying", task__length=3, task__symbols=4, architecture__width=16, architecture__hidden=16,
        training__steps=400, training__batch_size=64, training__curve_every=100, training__learning_rate=0.01,
        data__num_samples=2048,
    )  # fmt: skip
    task: Task = member.task
    parameters = trained_parameters([member])
    counters = torch.arange(1000, 1500, dtype=torch.int32)[None]
    samples = task.draw(member_keys([99]), counters, "full", "test")
    outputs = network_of(member).forward(parameters, samples.inputs)
    assert task.loss_function.errors(outputs, samples.targets, task.partition).max() < 0.01
