"""Mixtures of experts against plain torch, brute force and the perceptrons that they contain."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from benchmark_contenders.plain_kinds import PlainExperts
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor

import modulab
from modulab.config.settings import Member
from modulab.errors import ConfigError
from modulab.metrics.taking import measure_population
from modulab.networks.base import Network, NetworkPopulation
from modulab.networks.experts import GATE, Experts, gate_shares, ranks
from modulab.streams import member_keys, normals
from modulab.training.learner import initialise
from modulab.training.program import network_of, program_of
from tests.command_line import Command
from tests.members import CONFIGS, make_member
from tests.networks.kinds import check_measures, check_packing, check_taps
from tests.training.fitting import trained_parameters
from tests.training.plain_torch import check_follows_plain_torch

ROOT = Path(__file__).parents[2]
GATES: dict[str, dict[str, Any]] = {
    "dense": {},
    "top_k": {"architecture__gate": "top_k", "architecture__top_k": 2},
    "frozen": {"architecture__gate": "frozen"},
}
MEASURES = yaml.safe_load((CONFIGS / "probes" / "default.yaml").read_text())["measures"] | {
    "forgetting": "modulab.metrics.forgetting.measure_forgetting"
}


def make(gate: str = "dense", choices: dict[str, str] | None = None, **overrides: Any) -> Member:
    """Return a small member with three experts."""
    small: dict[str, Any] = {
        "architecture__experts": 3, "architecture__width": 5, "architecture__activation": "tanh",
        "training__steps": 5, "training__batch_size": 13, "training__curve_every": 5, "data__num_samples": 64,
        "probes__num_samples": 48, "probes__repeats": 2, "probes__adaptation_steps": 4, "probes__levels": [0.3],
        "probes__ablated_fractions": [0.4], "probes__ranges": [2.0],
    }  # fmt: skip
    return make_member({"architecture": "experts"} | (choices or {}), **(small | GATES[gate] | overrides))


def start(member: Member, members: int = 2) -> tuple[Experts, Tensor, Tensor]:
    """Return a network, parameters with biases other than 0, and inputs."""
    network = network_of(member)
    assert isinstance(network, Experts)
    keys = member_keys(range(members))
    drawn = normals(keys, 1, network.num_parameters)[:, 0]
    return network, 0.7 * drawn, normals(keys, network.in_features, 9).transpose(1, 2)


@pytest.mark.parametrize(
    ("gate", "noise"),
    [("dense", "poisson"), ("top_k", "gaussian"), ("top_k", "poisson"), ("frozen", "dropout")],
)
def test_company_leaves_members_as_they_are_alone(gate: str, noise: str) -> None:
    check_packing(
        [
            make(
                gate, {"noise": noise}, seed=seed, noise__scale=0.2 * seed, regulariser__strength=0.01 * seed,
                architecture__gate_scale=0.5 + seed, architecture__initial_scale=1 + 0.3 * seed,
                training__weight_decay=0.1 * seed,
            )
            for seed in range(3)
        ]
    )  # fmt: skip


@settings(
    max_examples=6, suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
)  # fmt: skip
@given(
    experts=st.integers(2, 9),
    width=st.sampled_from([1, 3, 8, 17]),
    kept=st.one_of(st.none(), st.integers(2, 9)),
    activation=st.sampled_from(["relu", "tanh", "sigmoid", "softplus", "linear"]),
    batch_size=st.sampled_from([1, 13, 37]),
    regulariser=st.sampled_from(["none", "activity_weight", "jacobian", "l1"]),
    gate_scale=st.sampled_from([0.0, 1.0, 30.0]),
    members=st.integers(2, 3),
)
def test_company_leaves_members_of_any_shape_as_they_are_alone(
    experts: int, width: int, kept: int | None, activation: str, batch_size: int, regulariser: str,
    gate_scale: float, members: int,
) -> None:  # fmt: skip
    kept = None if kept is None else min(kept, experts)
    check_packing(
        [
            make(
                "dense", {"noise": "poisson", "regulariser": regulariser}, seed=seed, noise__scale=0.1 + 0.1 * seed,
                architecture__experts=experts, architecture__width=width, architecture__activation=activation,
                architecture__gate="dense" if kept is None else "top_k", architecture__top_k=kept,
                architecture__gate_scale=gate_scale * (seed + 1), training__batch_size=batch_size,
                training__steps=2, training__curve_every=2,
            )
            for seed in range(members)
        ]
    )  # fmt: skip


@pytest.mark.parametrize(
    ("gate", "optimiser", "weight_decay", "clip"),
    [("dense", "adam", 0.0, None), ("top_k", "adam", 1e-3, 0.3), ("frozen", "adamw", 0.1, 0.3)],
)
def test_a_member_follows_plain_torch(
    gate: str, optimiser: str, weight_decay: float, clip: float | None
) -> None:
    member = make(
        gate, seed=4, training__steps=100, training__curve_every=100, training__optimiser=optimiser,
        training__weight_decay=weight_decay, training__gradient_clip=clip, architecture__gate_scale=2.0,
    )  # fmt: skip
    check_follows_plain_torch(member, PlainExperts(member))


@pytest.mark.parametrize("gate", GATES)
def test_a_pass_comes_to_each_expert_once_and_records_the_gate(gate: str) -> None:
    member = make(gate)
    check_taps(member)
    network, parameters, inputs = start(member)
    assert [(site.name, site.units) for site in network.sites] == [(f"expert.{k}", 5) for k in range(3)]
    recording = network.record(parameters, inputs)
    shares = recording.values[GATE]
    torch.testing.assert_close(shares.sum(dim=1), torch.ones(2, 9))
    assert ((shares > 0).sum(dim=1) == network.num_kept).all()
    expected = torch.tanh(recording.values["expert.1.pre_activation"])
    torch.testing.assert_close(recording.values["expert.1"], expected, rtol=0, atol=0)
    for member_, (row, points) in enumerate(zip(parameters, inputs, strict=True)):
        module = PlainExperts(member)
        own = {name: part[0] for name, part in network.split(row[None]).items()}
        outputs = torch.func.functional_call(module, own, points)
        torch.testing.assert_close(recording.outputs[member_], outputs)


def test_a_tap_at_the_gate_silences_an_expert() -> None:
    network, parameters, inputs = start(make())

    def without_last(place: str, values: Tensor) -> Tensor:
        return values * (torch.arange(3) < 2)[:, None] if place == GATE else values

    recording = network.record(parameters, inputs)
    shares = recording.values[GATE][:, 2]
    parts = network.split(parameters)
    answer = parts["write.weight"][:, :, 10:] @ recording.values["expert.2"] + parts["write.bias"][:, :, 2:]
    expected = recording.outputs - (shares[:, None] * answer).transpose(1, 2)
    torch.testing.assert_close(network.forward(parameters, inputs, without_last), expected)


def test_the_first_of_equal_logits_is_kept() -> None:
    logits = torch.tensor([[[1.0, 0.0, 5.0], [3.0, 0.0, 5.0], [1.0, 0.0, 5.0], [3.0, 0.0, 7.0]]])
    assert ranks(logits).tolist() == [[[2, 0, 1], [0, 1, 2], [3, 2, 3], [1, 3, 0]]]
    shares = gate_shares(logits, 2)
    assert shares[0, :, 0].tolist() == [0, 0.5, 0, 0.5]
    assert shares[0, :, 1].tolist() == [0.5, 0.5, 0, 0]
    torch.testing.assert_close(shares[0, [0, 3], 2], torch.tensor([-2.0, 0.0]).softmax(dim=0))
    assert gate_shares(torch.tensor([[[1e30], [-1e30], [0.0]]]), 3).flatten().tolist() == [1, 0, 0]


def test_ranks_are_those_of_a_stable_sort() -> None:
    logits = (2 * normals(member_keys([3, 4]), 7, 50)).round()
    order = torch.argsort(logits, dim=1, descending=True, stable=True)
    assert torch.equal(ranks(logits), torch.argsort(order, dim=1).int())


@pytest.mark.parametrize("gate", GATES)
def test_masks_leave_out_a_frozen_gate_alone(gate: str) -> None:
    members = [
        make(gate, seed=seed, architecture__experts=40, architecture__width=50, architecture__gate_scale=3.0,
             architecture__initial_scale=0.5)
        for seed in range(2)
    ]  # fmt: skip
    network = network_of(members[0])
    mask, parameters = initialise(members, network)
    masks, parts = network.split(mask), network.split(parameters)
    for name in parts:
        assert (masks[name] == (0 if gate == "frozen" and name.startswith("gate.") else 1)).all()
        if name.endswith("bias"):
            assert not parts[name].any()
    for name, deviation in {
        "read.weight": 0.5 / 2**0.5, "write.weight": 0.5 / 50**0.5, "gate.weight": 3 / 2**0.5,
    }.items():  # fmt: skip
        assert float(parts[name].std()) == pytest.approx(deviation, rel=0.1), name


def test_only_a_frozen_gate_stays_as_it_began() -> None:
    for gate in GATES:
        member = make(gate, training__optimiser="adamw", training__weight_decay=0.1)
        network = network_of(member)
        before = network.split(initialise([member], network)[1])
        after = network.split(trained_parameters([member]))
        changed = {name for name, part in after.items() if not torch.equal(part, before[name])}
        assert set(after) - changed == ({"gate.weight", "gate.bias"} if gate == "frozen" else set())


@pytest.mark.parametrize("gate", GATES)
def test_one_expert_is_a_perceptron_from_the_start_through_noisy_training_to_every_measure(gate: str) -> None:
    one = {"architecture__experts": 1} | ({"architecture__top_k": 1} if gate == "top_k" else {})
    noise = {"noise": "poisson"}
    common = {"noise__scale": 0.3, "regulariser__strength": 0.01, "architecture__width": 6}
    expert = make(gate, noise, **common, **one)
    dense = make_member(
        noise, **common, architecture__activation="tanh",
        **{key: getattr(expert.training, key.split("__")[1]) for key in (
            "training__steps", "training__batch_size", "training__curve_every")},
        data__num_samples=64,
    )  # fmt: skip
    probes = expert.probes
    network, perceptron = network_of(expert), network_of(dense)
    names = ("read.weight", "read.bias", "write.weight", "write.bias")
    for ours, theirs in (
        (initialise([expert], network)[1], initialise([dense], perceptron)[1]),
        (trained_parameters([expert]), trained_parameters([dense])),
    ):
        for name, part in zip(names, perceptron.split(theirs).values(), strict=True):
            torch.testing.assert_close(network.split(ours)[name].view_as(part), part, rtol=0, atol=1e-6)
    keys = member_keys([0])
    found, expected = (
        measure_population(member.task, NetworkPopulation(network_of(member), trained), keys, probes)
        for member, trained in ((expert, ours), (dense, theirs))
    )
    assert set(expected) - set(found) == {
        "modularity/structural", "modularity/structural_frame_null", "modularity/structural_excess",
        "modularity/structural_excess_scaled", "modularity/unit_specialisation",
    }  # fmt: skip
    for name in found:
        values = expected[name]
        # Noise on weights meets the gate's as well, in other draws: alone, a gate makes no difference.
        torch.testing.assert_close(found[name], values, rtol=1e-3, atol=1e-5, msg=name)


@pytest.mark.parametrize("gate", GATES)
def test_equal_experts_are_one_perceptron_whatever_the_gate(gate: str) -> None:
    network, parameters, inputs = start(make(gate))
    parts = {name: part.clone() for name, part in network.split(parameters).items()}
    one = {
        "read.weight": parts["read.weight"][:, :5], "read.bias": parts["read.bias"][:, :5],
        "write.weight": parts["write.weight"][:, :, :5], "write.bias": parts["write.bias"][:, :, :1],
    }  # fmt: skip
    parts |= {
        "read.weight": one["read.weight"].repeat(1, 3, 1), "read.bias": one["read.bias"].repeat(1, 3),
        "write.weight": one["write.weight"].repeat(1, 1, 3), "write.bias": one["write.bias"].repeat(1, 1, 3),
    }  # fmt: skip
    equal = torch.cat([part.flatten(1) for part in parts.values()], dim=1).requires_grad_()
    hidden = torch.tanh(inputs @ one["read.weight"].transpose(1, 2) + one["read.bias"][:, None])
    expected = hidden @ one["write.weight"].transpose(1, 2) + one["write.bias"].transpose(1, 2)
    outputs = network.forward(equal, inputs)
    torch.testing.assert_close(outputs, expected)
    [gradient] = torch.autograd.grad(outputs.square().sum(), equal)
    gradients = network.split(gradient)
    assert gradients["gate.weight"].abs().max() < 1e-4 * gradients["read.weight"].abs().max()
    assert gradients["gate.bias"].abs().max() < 1e-4 * gradients["read.bias"].abs().max()


def test_keeping_all_experts_is_a_dense_gate() -> None:
    dense, kept = make("dense"), make("top_k", architecture__top_k=3)
    assert torch.equal(trained_parameters([dense]), trained_parameters([kept]))
    assert not torch.equal(trained_parameters([dense]), trained_parameters([make("top_k")]))


def test_the_order_of_experts_does_not_matter() -> None:
    network, parameters, inputs = start(make("top_k"))
    parts = network.split(parameters)
    order = torch.tensor([2, 0, 1])
    units = (5 * order[:, None] + torch.arange(5)).flatten()
    permuted = [
        parts["read.weight"][:, units], parts["read.bias"][:, units], parts["write.weight"][:, :, units],
        parts["write.bias"][:, :, order], parts["gate.weight"][:, order], parts["gate.bias"][:, order],
    ]  # fmt: skip
    outputs = network.forward(torch.cat([part.flatten(1) for part in permuted], dim=1), inputs)
    torch.testing.assert_close(outputs, network.forward(parameters, inputs))


@pytest.mark.parametrize("gate", ["dense", "top_k"])
def test_jacobians_are_those_of_autograd(gate: str) -> None:
    network, parameters, inputs = start(make(gate))

    def disturb(place: str, values: Tensor) -> Tensor:
        return values + 0.1 if place == GATE or place in names else values

    names = [site.name for site in network.sites]
    for tap in (None, disturb):
        recording = network.record(parameters, inputs, tap)
        ours = list(network.output_jacobians(parameters, inputs, recording))
        if tap is None:
            general = Network.output_jacobians(network, parameters, inputs, recording)
            for (name, jacobian), (other, expected) in zip(ours, general, strict=True):
                assert name == other
                torch.testing.assert_close(jacobian, expected)
        shares = recording.values[GATE] + (0 if tap is None else 0.1)
        edges = {each.source: each.weights for each in network.edges(parameters)[3:]}
        for expert, (name, jacobian) in enumerate(reversed(ours)):
            assert name == names[expert]
            expected = edges[name][:, :, :, None] * shares[:, None, expert, None]
            torch.testing.assert_close(jacobian, expected)


def test_a_rotation_of_the_inputs_is_taken_into_the_weights() -> None:
    network, parameters, inputs = start(make(task__modules=3))
    rotation = torch.linalg.qr(normals(member_keys([9]), 3, 3)[0]).Q
    turned = network.turn_inputs(parameters, rotation)
    torch.testing.assert_close(
        network.forward(turned, inputs), network.forward(parameters, inputs @ rotation.T)
    )
    assert trained_parameters([make(task__code="mixed")]).isfinite().all()


@pytest.mark.parametrize("gate", GATES)
def test_every_measure_but_those_of_layers_applies(gate: str) -> None:
    member = make(gate, task__support="band", probes__measures=MEASURES)
    found, skipped = check_measures(member)
    assert set(skipped) == {"structural", "frame_null", "functional_centred", "unit_specialisation"}
    assert {"modularity/functional", "modularity/ablation", "activity/mean", "forgetting/others_rise"} <= set(
        found
    )
    assert not any(name.startswith("modularity/structural") for name in found)
    network = network_of(member)
    assert network.connections == (
        *(("input", f"expert.{k}") for k in range(3)), *((f"expert.{k}", "output") for k in range(3)),
    )  # fmt: skip


@pytest.mark.parametrize("regulariser", ["activity_weight", "jacobian"])
def test_noise_and_penalties_act_on_experts_and_not_on_the_gate(regulariser: str) -> None:
    groups = {"noise": "poisson", "regulariser": regulariser}
    members = [
        make("top_k", groups, noise__scale=scale, regulariser__strength=strength)
        for scale, strength in ((0.3, 0.1), (0.0, 0.1), (0.3, 0.0))
    ]
    assert program_of(members[0]).noisy_sites == ("expert.0", "expert.1", "expert.2")
    both, quiet, unpenalised = (trained_parameters([member]) for member in members)
    assert both.isfinite().all()
    assert not torch.equal(both, quiet)
    assert not torch.equal(both, unpenalised)


def test_two_linear_experts_and_their_gate_make_x_tanh_of_x() -> None:
    # softmax gives (g_0 - g_1) = tanh(c x) for logits c x and -c x, and so y = g_0 x - g_1 x = x tanh(c x).
    network = Experts(1, 2, 1, 1, "linear", num_kept=2, trains_gate=True)
    parts = {
        "read.weight": [1.0, -1.0], "read.bias": [0.0, 0.0], "write.weight": [1.0, 1.0], "write.bias": [0.0, 0.0],
        "gate.weight": [3.0, -3.0], "gate.bias": [0.0, 0.0],
    }  # fmt: skip
    assert list(parts) == [part.name for part in network.layout]
    parameters = torch.tensor([[value for part in parts.values() for value in part]])
    inputs = torch.linspace(-2, 2, 33).view(1, 33, 1)
    torch.testing.assert_close(network.forward(parameters, inputs), inputs * torch.tanh(3 * inputs))


@pytest.mark.parametrize(
    ("settings_of", "message"),
    [
        ({"gate": "top_k"}, r"gate=top_k needs architecture\.top_k.*from 2 to architecture\.experts=3"),
        ({"top_k": 2}, r"top_k=2 has no meaning with architecture\.gate=dense.*top_k=null"),
        ({"gate": "frozen", "top_k": 2}, r"top_k=2 has no meaning with architecture\.gate=frozen"),
        ({"gate": "top_k", "top_k": 4}, r"top_k=4 experts cannot be chosen among architecture\.experts=3"),
        ({"gate": "top_k", "top_k": 1}, r"top_k=1 leaves one expert.*Set architecture\.top_k to 2 or more"),
        ({"gate": "sparse"}, r"architecture\.gate='sparse'"),
    ],
)
def test_settings_of_the_gate_that_do_not_go_together_are_refused(
    settings_of: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        network_of(make(**{f"architecture__{key}": value for key, value in settings_of.items()}))


@pytest.mark.parametrize("task", ["classification", "digits"])
def test_every_task_is_read_as_a_vector(task: str) -> None:
    member = make("top_k", {"task": task})
    assert trained_parameters([member]).isfinite().all()


def test_a_command_trains_and_measures_mixtures_of_each_gate(tmp_path: Path, command: Command) -> None:
    code, out, errors = command(
        "train", "-m", "architecture=experts,experts_top_k,experts_frozen", "architecture.width=4",
        "training.steps=4", "training.curve_every=2", "training.batch_size=8", "data.num_samples=16",
        "probes.num_samples=32", "probes.repeats=1", "probes.levels=[0.3]", "noise=poisson", "noise.scale=0.2",
        "trainer.accelerator=cpu", "trainer.engine=eager", "trainer.threads=1", "trainer.progress=off",
        f"hydra.sweep.dir={tmp_path / 'sweep'}",
    )  # fmt: skip
    assert code == 0, out + errors
    results = modulab.load_results(tmp_path / "sweep")
    assert sorted(results["config.architecture.gate"]) == ["dense", "frozen", "top_k"]
    assert set(results["status"]) == {"completed"}
    assert results["error/test"].notna().all()
    assert all("structural: the network is not a sequence of layers" in text for text in results["skipped"])


COMPILED = """
import torch
from tests.networks.test_experts import make
from tests.training.fitting import trained_parameters
from modulab.training.engine import keep_freed_memory

keep_freed_memory()
torch.set_num_threads(1)
for gate in ("top_k",):
    members = [
        make(gate, {"noise": "poisson"}, seed=seed, noise__scale=0.1 * seed, training__steps=20,
             training__curve_every=20)
        for seed in range(3)
    ]
    compiled = trained_parameters(members, "compiled")
    print(gate, float((compiled - trained_parameters(members)).abs().max()),
          torch.equal(compiled[1], trained_parameters(members[1:2], "compiled")[0]))
"""


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_compiled_engine_agrees_with_eager() -> None:
    # In a process of its own: checks of annotations would be compiled as well.
    paths = os.pathsep.join([str(ROOT / "src"), str(ROOT), str(ROOT / "scripts")])
    ran = subprocess.run(
        [sys.executable, "-c", COMPILED], cwd=ROOT, env=os.environ | {"PYTHONPATH": paths},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    lines = [line.split() for line in ran.stdout.splitlines()]
    assert [gate for gate, _, _ in lines] == ["top_k"]
    for gate, apart, same in lines:
        assert float(apart) < 1e-4, gate
        assert same == "True", gate
