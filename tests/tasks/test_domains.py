"""Gates that are trained for the worst domain end at the exact value of their game."""

from __future__ import annotations

import math
from pathlib import Path

import jaxtyping
import pytest
import torch

import modulab
from modulab.metrics.gates import RobustMixture
from modulab.metrics.probe import make_probe
from modulab.networks.base import NetworkPopulation
from modulab.streams import member_keys
from modulab.tasks.domains import DomainsTask, WorstDivergence
from modulab.training.program import network_of
from tests.members import make_member
from tests.metrics.populations import make_task
from tests.training.fitting import trained_parameters

KNOWN = [
    (math.log(2) + 0.1 * math.log(0.1) + 0.9 * math.log(0.9), [[0.9, 0.1], [0.1, 0.9]]),
    (math.log(5 / 4), [[1.0, 0.0], [0.5, 0.5]]),
    (math.log(2), [[1.0, 0.0], [0.0, 1.0]]),
    (0.0, [[0.5, 0.5], [0.5, 0.5]]),
]
"""Channels by their capacity."""
QUICK = [
    "experiment=gates", "training.steps=600", "training.learning_rate=0.1", "training.curve_every=600",
    "trainer.engine=eager", "trainer.accelerator=cpu", "trainer.progress=off", "trainer.threads=1",
]  # fmt: skip


@pytest.mark.parametrize("gate", ["constant", "symbol"])
def test_gates_end_at_the_closed_form_on_channels_of_known_capacity(
    gate: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Shape checks at every step would take longer than the steps.
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    members = [
        make_member(
            {"task": "domains", "architecture": "gated_mixture"}, task__modules=2, task__symbols=2,
            task__channel=channel, architecture__gate=gate, data__num_samples=1, training__batch_size=1,
            training__steps=250, training__curve_every=250, training__learning_rate=0.1,
        )
        for _, channel in KNOWN
    ]  # fmt: skip
    trained = trained_parameters(members)
    for member, parameters, (capacity, _) in zip(members, trained, KNOWN, strict=True):
        network = NetworkPopulation(network_of(member), parameters[None])
        probe = make_probe(member.task, network, member_keys([0]), member.probes)
        found = RobustMixture().take(probe)
        assert float(found["error/worst_domain"]) == pytest.approx(capacity, abs=1e-3)
        assert float(found["domains/value"]) == pytest.approx(capacity, abs=1e-6)


@pytest.mark.slow
def test_gates_over_random_channels_end_within_a_thousandth_of_their_value(tmp_path: Path) -> None:
    grid = "population.grid={task.channel_seed: [0,1,2,3,4,5,6,7], task.expert_error: [0.0,0.5]}"
    results = modulab.train([*QUICK, grid, "architecture.gate=constant"], folder=tmp_path)
    table = results.table
    assert table["error/worst_domain_excess"].abs().max() < 1e-3
    exact = table[table["config.task.expert_error"] == 0]
    assert exact["gate/effective_experts"].tolist() == pytest.approx(
        exact["domains/capacity_experts"].tolist(), abs=0.05
    )
    assert (table["domains/capacity"] > 0.1).all()


def test_loss_is_the_divergence_of_each_domain_and_trains_the_worst() -> None:
    task = make_task("domains", modules=2, symbols=3, channel=[[0.5, 0.5, 0.0], [0.1, 0.2, 0.7]])
    outputs = torch.tensor([[[0.3, -0.4, 90.0]]], dtype=torch.float64, requires_grad=True)
    targets = torch.tensor([[[0.5, 0.5, 0.0, 0.1, 0.2, 0.7]]], dtype=torch.float64)
    mixture = outputs.detach()[0, 0].softmax(dim=0)
    rows = targets.unflatten(2, (2, 3))[0, 0]
    expected = [
        float(sum(p * (p.log() - q.log()) for p, q in zip(row, mixture, strict=True) if p > 0))
        for row in rows
    ]
    loss = WorstDivergence()
    assert loss.by_module(outputs.detach(), targets, task.partition)[0].tolist() == pytest.approx(expected)
    total = loss.total(outputs, targets, task.partition)
    assert float(total.detach()) == pytest.approx(max(expected))
    [gradient] = torch.autograd.grad(total.sum(), outputs)
    assert gradient[0, 0].tolist() == pytest.approx((mixture - rows[0]).tolist(), abs=1e-12)


def test_experts_are_their_domains_without_error_and_miss_them_by_its_size() -> None:
    exact = make_task("domains", symbols=4096)
    wrong = make_task("domains", symbols=4096, expert_error=0.3)
    assert isinstance(exact, DomainsTask)
    assert isinstance(wrong, DomainsTask)
    assert torch.equal(exact.experts(), exact.domains())
    assert torch.equal(wrong.domains(), exact.domains())
    ratio = (wrong.experts() / wrong.domains()).log()
    torch.testing.assert_close(ratio.std(dim=1), torch.full((4,), 0.3), rtol=0.05, atol=0)
    torch.testing.assert_close(wrong.experts().sum(dim=1), torch.ones(4))
