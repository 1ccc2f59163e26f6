"""What gates make of their experts, on gates whose use is known."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from modulab.errors import ConfigError
from modulab.metrics.gates import RobustMixture, alignment, measure_gate_use, mutual_information
from modulab.metrics.probe import Probe, make_probe
from modulab.networks.base import NetworkPopulation
from modulab.networks.gated_mixture import GatedMixture
from modulab.streams import member_keys
from modulab.training.program import network_of
from tests.members import make_member
from tests.networks.kinds import check_measures, check_packing

DISJOINT = [[0.5, 0.5, 0.0, 0.0], [0.0, 0.0, 0.25, 0.75]]


def probe_of(logits: Tensor, **task: Any) -> Probe:
    """Return a probe of gates that see symbols, by their logits, (member, expert, symbol)."""
    settings = {f"task__{name}": value for name, value in task.items()}
    member = make_member(
        {"task": "domains", "architecture": "gated_mixture"}, task__modules=logits.shape[1],
        task__symbols=logits.shape[2], probes__num_samples=2, **settings,
    )  # fmt: skip
    network = network_of(member)
    assert isinstance(network, GatedMixture)
    population = NetworkPopulation(network, logits.flatten(1))
    return make_probe(member.task, population, member_keys(range(len(logits))), member.probes)


def test_gates_that_collapse_and_gates_that_route_are_told_apart() -> None:
    even, collapsed, routed = torch.zeros(2, 4), torch.zeros(2, 4), torch.zeros(2, 4)
    collapsed[0] = routed[0, :2] = routed[1, 2:] = 100.0
    found = measure_gate_use(probe_of(torch.stack([even, collapsed, routed]), channel=DISJOINT))
    assert found["gate/effective_experts"].tolist() == pytest.approx([2, 1, 2])
    assert found["gate/input_dependence"].tolist() == pytest.approx([0, 0, math.log(2)])


def test_disjoint_experts_are_specialised_and_aligned_whatever_the_gate_and_mixed_ones_are_not() -> None:
    logits = torch.randn(3, 2, 4, generator=torch.Generator().manual_seed(0))
    measure = RobustMixture()
    found = measure.take(probe_of(logits, channel=DISJOINT))
    assert found["domains/specialisation"].tolist() == pytest.approx([1, 1, 1])
    assert found["domains/alignment"].tolist() == pytest.approx([1, 1, 1])
    assert found["domains/capacity"].tolist() == pytest.approx([math.log(2)] * 3)
    assert found["domains/capacity_experts"].tolist() == pytest.approx([2] * 3)
    equal = measure.take(probe_of(logits, channel=[[0.25] * 4] * 2))
    assert equal["domains/alignment"].tolist() == pytest.approx([0, 0, 0], abs=1e-6)
    assert equal["domains/specialisation"].isnan().all()


def test_divergences_are_those_of_the_mixture_that_is_written_out() -> None:
    logits = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(1))
    probe = probe_of(logits, channel_seed=4, expert_error=0.7)
    found = RobustMixture().take(probe)
    experts, domains = probe.task.experts(), probe.task.domains()  # type: ignore[attr-defined]
    for member in range(2):
        shares = [[math.exp(logits[member, k, x]) for x in range(5)] for k in range(3)]
        mixture = [
            sum(shares[k][x] * float(experts[k, x]) for k in range(3)) / sum(shares[k][x] for k in range(3))
            for x in range(5)
        ]
        worst = max(
            sum(float(p) * math.log(float(p) * sum(mixture) / q) for p, q in zip(row, mixture, strict=True))
            for row in domains
        )
        assert float(found["error/worst_domain"][member]) == pytest.approx(worst, abs=1e-5)


def test_experts_know_no_more_of_the_domain_than_symbols_do() -> None:
    # The data processing inequality: an expert is drawn given the symbol alone.
    logits = 4 * torch.randn(200, 4, 16, generator=torch.Generator().manual_seed(2))
    share = RobustMixture().take(probe_of(logits))["domains/specialisation"]
    assert ((share > 0) & (share < 1)).all()


def test_alignment_is_the_best_of_all_permutations() -> None:
    joint = torch.rand(5, 3, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    joint = joint / joint.sum(dim=(1, 2), keepdim=True)
    orders = [(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)]
    best = [max(sum(float(table[a, b]) for a, b in enumerate(order)) for order in orders) for table in joint]
    assert alignment(joint).tolist() == pytest.approx([(value - 1 / 3) * 1.5 for value in best])
    assert alignment(torch.full((1, 2, 2), math.nan, dtype=torch.float64)).isnan().all()


def test_information_of_independent_tables_is_0_and_of_a_diagonal_one_its_entropy() -> None:
    independent = torch.tensor([0.2, 0.8])[:, None] * torch.tensor([0.3, 0.7])
    diagonal = torch.diag(torch.tensor([0.25, 0.75]))
    found = mutual_information(torch.stack([independent, diagonal]).double())
    assert found.tolist() == pytest.approx([0, -(0.25 * math.log(0.25) + 0.75 * math.log(0.75))], abs=1e-6)


def test_experts_of_perceptrons_are_measured_and_networks_without_a_gate_say_so() -> None:
    measures = {
        "gate": "modulab.metrics.gates.measure_gate_use",
        "robust": {"_target_": "modulab.metrics.gates.RobustMixture"},
    }
    found, skipped = check_measures(
        make_member({"architecture": "experts"}, probes__measures=measures, probes__num_samples=32)
    )
    assert ((found["gate/effective_experts"] > 1) & (found["gate/effective_experts"] <= 4)).all()
    assert skipped == {"robust": "the network does not mix densities of domains"}
    _, skipped = check_measures(
        make_member(
            probes__measures=measures | {"errors": "modulab.metrics.errors.measure_errors"},
            probes__num_samples=32,
        )
    )
    assert skipped["gate"] == "the network has no gate"


@pytest.mark.parametrize("gate", ["constant", "symbol"])
@pytest.mark.parametrize("densities", ["given", "trained"])
def test_company_leaves_members_as_they_are_alone(gate: str, densities: str) -> None:
    members = [
        make_member(
            {"task": "domains", "architecture": "gated_mixture"}, seed=seed, task__channel_seed=seed,
            task__expert_error=0.5 * seed, task__modules=3, task__symbols=7, architecture__gate=gate,
            architecture__densities=densities, architecture__gate_scale=0.5 + seed, training__steps=5,
            training__batch_size=2, training__curve_every=5, data__num_samples=1, probes__num_samples=1,
            probes__measures={"robust": {"_target_": "modulab.metrics.gates.RobustMixture"}},
        )
        for seed in range(3)
    ]  # fmt: skip
    check_packing(members)
    check_measures(members[1])


def test_networks_and_channels_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"mixes densities, and task\.name=regression has none"):
        make_member({"architecture": "gated_mixture"})
    with pytest.raises(ConfigError, match=r"Give task\.modules=4 rows of task\.symbols=16 numbers"):
        make_member({"task": "domains"}, task__channel=[[0.5, 0.5]])
    with pytest.raises(ConfigError, match=r"has the row \[0\.5, 0\.6\], which is not a distribution"):
        make_member({"task": "domains"}, task__modules=1, task__symbols=2, task__channel=[[0.5, 0.6]])
