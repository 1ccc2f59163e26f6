"""Capacities and values of games against closed forms, bounds of duality, and brute force."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from modulab.metrics.capacity import channel_capacity, robust_value
from modulab.tasks.domains import DomainsTask
from tests.metrics.populations import make_task

Z_CHANNEL = [[1.0, 0.0], [0.5, 0.5]]
SYMMETRIC = [[0.9, 0.1], [0.1, 0.9]]
ENTROPY = -(0.1 * math.log(0.1) + 0.9 * math.log(0.9))


def random_domains(
    seed: int, error: float = 0.0, modules: int = 3, symbols: int = 6
) -> tuple[Tensor, Tensor]:
    """Return domains and their experts."""
    task = make_task("domains", channel_seed=seed, expert_error=error, modules=modules, symbols=symbols)
    assert isinstance(task, DomainsTask)
    return task.domains().double(), task.experts().double()


def divergences(domains: Tensor, mixture: Tensor) -> Tensor:
    return (torch.xlogy(domains, domains) - torch.xlogy(domains, mixture)).sum(dim=-1)


@pytest.mark.parametrize(
    ("rows", "capacity", "weights"),
    [
        (SYMMETRIC, math.log(2) - ENTROPY, [0.5, 0.5]),
        (Z_CHANNEL, math.log(5 / 4), [0.6, 0.4]),
        (torch.eye(5).tolist(), math.log(5), [0.2] * 5),
        ([[0.2, 0.3, 0.5]] * 2, 0.0, [0.5, 0.5]),
    ],
)
def test_capacity_is_the_closed_form(rows: list[list[float]], capacity: float, weights: list[float]) -> None:
    channel = torch.tensor(rows, dtype=torch.float64)
    found, best = channel_capacity(channel[None])
    assert found.tolist() == pytest.approx([capacity], abs=2e-9)
    assert best[0].tolist() == pytest.approx(weights, abs=1e-4)
    for sees_symbols in (False, True):
        assert robust_value(channel, channel, sees_symbols) == pytest.approx(capacity, abs=1e-7)


def test_capacity_is_the_largest_information_over_a_grid_of_weights() -> None:
    shares = torch.linspace(0, 1, 201, dtype=torch.float64)
    first, second = torch.meshgrid(shares, shares, indexing="ij")
    weights = torch.stack([first, second, 1 - first - second], dim=2).flatten(0, 1)
    weights = weights[weights[:, 2] > -1e-12].clamp(min=0)
    for seed in range(4):
        domains, _ = random_domains(seed)
        information = (weights * divergences(domains, (weights @ domains)[:, None])).sum(dim=1)
        [capacity], _ = channel_capacity(domains[None])
        assert -1e-9 <= float(capacity - information.max()) < 1e-4


@pytest.mark.parametrize("error", [0.5, 2.0])
def test_value_of_a_constant_gate_is_the_least_over_a_grid_of_shares(error: float) -> None:
    shares = torch.linspace(0, 1, 301, dtype=torch.float64)
    first, second = torch.meshgrid(shares, shares, indexing="ij")
    weights = torch.stack([first, second, 1 - first - second], dim=2).flatten(0, 1)
    weights = weights[weights[:, 2] > -1e-12].clamp(min=0)
    for seed in range(3):
        domains, experts = random_domains(seed, error)
        worst = divergences(domains, (weights @ experts)[:, None]).amax(dim=1)
        value = robust_value(domains, experts, sees_symbols=False)
        assert -1e-8 <= float(worst.min()) - value < 5e-3


@pytest.mark.parametrize("error", [0.5, 2.0])
def test_value_of_a_gate_that_sees_symbols_lies_between_capacity_and_every_gate(error: float) -> None:
    for seed in range(5):
        domains, experts = random_domains(seed, error)
        value = robust_value(domains, experts, sees_symbols=True)
        [capacity], _ = channel_capacity(domains[None])
        assert float(capacity) - 1e-6 <= value <= robust_value(domains, experts, sees_symbols=False) + 1e-6
        generator = torch.Generator().manual_seed(seed)
        logits = 3 * torch.randn(20_000, 3, 6, generator=generator, dtype=torch.float64)
        mixture = (logits.softmax(dim=1) * experts).sum(dim=1)
        mixture = mixture / mixture.sum(dim=1, keepdim=True)
        assert float(divergences(domains, mixture[:, None]).amax(dim=1).min()) >= value - 1e-6


def test_value_of_a_gate_that_sees_symbols_is_that_of_its_dual() -> None:
    # For weights w, the least of sum_k w_k KL(P_k || q) over q between c e_low and c e_high has at each symbol the
    # mixed domain, cut to the interval; the largest of these bounds over w and the least over c is the value.
    domains, experts = random_domains(1, 2.0, modules=2, symbols=4)
    low, high = experts.amin(dim=0), experts.amax(dim=0)

    weights = torch.linspace(0, 1, 101, dtype=torch.float64)[:, None, None]
    scales = torch.linspace(0.3, 3.0, 80, dtype=torch.float64)[None, :, None]
    mixed = weights * domains[0] + (1 - weights) * domains[1]
    below, above = scales * low, scales * high
    bottom, top = (torch.full((101, 80, 1), end, dtype=torch.float64) for end in (0.0, 100.0))
    for _ in range(60):
        factor = (bottom + top) / 2
        too_much = (factor * mixed).clamp(below, above).sum(dim=2, keepdim=True) > 1
        bottom, top = torch.where(too_much, bottom, factor), torch.where(too_much, factor, top)
    mixture = (top * mixed).clamp(below, above)
    both = divergences(domains, mixture[:, :, None])
    bounds = weights[:, :, 0] * both[:, :, 0] + (1 - weights[:, :, 0]) * both[:, :, 1]
    is_possible = (below.sum(dim=2) <= 1) & (above.sum(dim=2) >= 1)
    dual = torch.where(is_possible, bounds, torch.inf).amin(dim=1).max()
    assert float(dual) == pytest.approx(robust_value(domains, experts, sees_symbols=True), abs=2e-3)
